# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""What `bin/impute` fills in: which pixels are missing, and how they are drawn."""

from __future__ import annotations

import dataclasses
import re

from matnet_tf.config.fields import (
    check_at_least,
    check_between,
    check_types,
    field,
    make_tuple,
    require,
)

__all__ = ["ImputeConfig", "Rectangle"]

_SOURCES = ("masks", "missing_colour", "rectangles")


@dataclasses.dataclass(frozen=True)
class Rectangle:
    """A rectangle of a picture, in pixels.

    Attributes:
      top: rows above it.
      left: columns to the left of it.
      height: its rows, at least 1.
      width: its columns, at least 1.
    """

    top: int
    left: int
    height: int
    width: int

    @classmethod
    def parse(cls, text: str) -> Rectangle:
        """Reads `TOP:LEFT:HEIGHTxWIDTH`, such as `4:8:20x20`.

        Raises:
          ValueError: if the text is of another form, or the rectangle has no pixels.
        """
        match = re.fullmatch(r"(\d+):(\d+):(\d+)x(\d+)", text.strip(), re.ASCII)
        found = cls(*map(int, match.groups())) if match else None
        if found is None or not found.height or not found.width:
            raise ValueError(
                f"a rectangle must read TOP:LEFT:HEIGHTxWIDTH in pixels, such as 4:8:20x20, with "
                f"sides of at least 1; got {text!r}"
            )
        return found

    def __str__(self) -> str:
        return f"{self.top}:{self.left}:{self.height}x{self.width}"


@dataclasses.dataclass(frozen=True)
class ImputeConfig:
    """Which pixels are missing, by exactly one of three ways to say it, and how they are filled.

    Raises:
      ValueError: if it is said in no way or in several, or a field is out of range.
    """

    masks: str = field(
        "",
        "a mask for all images, or a folder with a mask for each, of the same name but for the "
        "ending; PNG or JPEG files of the image's size, white (128 and above) where a pixel is "
        "known and black where it is missing; transparency is ignored",
    )
    missing_colour: tuple[int, ...] = field(
        (), "R,G,B or one grey value, 0 to 255: pixels of this colour are missing"
    )
    tolerance: int = field(
        0,
        "how far from missing_colour a pixel's channels may lie, each, 0 to 255; JPEG changes "
        "colours, most of all at edges: such files need some 20 to 70, or better a mask",
    )
    rectangles: tuple[str, ...] = field(
        (), "TOP:LEFT:HEIGHTxWIDTH,... in pixels: these are missing in every image"
    )
    num_samples: int = field(8, "completions of each image")
    temperature: float = field(
        1.0, "multiplies the scales of all priors: below 1 completions are more alike"
    )
    draw: bool = field(
        False, "draw the missing pixels from p(x | z) too, instead of giving its mean"
    )
    seed: int = field(0, "of the completions; those of an image do not depend on the other images")
    weights: str = field(
        "auto",
        "raw: as trained; averaged: their moving average; auto: averaged where there is one",
        ("auto", "raw", "averaged"),
    )

    def __post_init__(self):
        make_tuple(self, "missing_colour", "rectangles")
        check_types(self)
        given = [name for name in _SOURCES if getattr(self, name)]
        require(
            len(given) == 1,
            f"ImputeConfig needs exactly one of {', '.join(_SOURCES)}, which say what is missing; "
            f"got {' and '.join(given) or 'none'}",
        )
        check_at_least(self, 1, "num_samples")
        check_at_least(self, 0, "temperature", "seed")
        self._check_colour()
        for text in self.rectangles:
            Rectangle.parse(text)

    def _check_colour(self):
        colour = self.missing_colour
        require(
            len(colour) in (0, 1, 3) and all(type(v) is int and 0 <= v <= 255 for v in colour),
            f"ImputeConfig.missing_colour must be R,G,B or one grey value, whole numbers from 0 "
            f"to 255; got {','.join(map(str, colour))}",
        )
        check_between(self, 0, 255, "tolerance")
        require(
            bool(colour) or not self.tolerance,
            f"ImputeConfig.tolerance goes with missing_colour; got {self.tolerance} without it",
        )
