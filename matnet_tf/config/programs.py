# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Settings of the programs that use a trained model: evaluate, score, cluster, impute and more."""

from __future__ import annotations

import dataclasses
import re

from matnet_tf.config.validation import check_fields, field, make_tuple, require

__all__ = [
    "ClusterConfig",
    "CompressConfig",
    "EvaluateConfig",
    "ExploreConfig",
    "ImputeConfig",
    "Rectangle",
    "ScoreConfig",
]


# Default, help text and choices of fields that several programs have.
_SPLIT = ("test", "split of the data set", ("test", "validation", "train"))
_IMAGES = (0, "size of a random subset of the split, without replacement; 0 is all")
_WEIGHTS = (
    "auto",
    "raw: as trained; averaged: their moving average; auto: averaged if the run kept one",
    ("auto", "raw", "averaged"),
)


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """Settings of `matnet evaluate`.

    Raises:
      ValueError: If a field is out of range.
    """

    split: str = field(*_SPLIT)
    num_samples: int = field(
        100, "number of samples K in the importance-weighted bound; the paper's is 2500", at_least=1
    )
    images: int = field(*_IMAGES, at_least=0)
    seed: int = field(0, "seed of the subset and of the samples", at_least=0)
    weights: str = field(*_WEIGHTS)
    batch_size: int = field(100, "images per bottom-up pass", at_least=1)
    chunk: int = field(
        0,
        "image-samples per top-down pass, which limits the memory; 0 depends on the model's size",
        at_least=0,
    )
    tf32: bool = field(
        False, "on a GPU, multiply in TF32, with 10 bits of mantissa, in place of float32: faster"
    )

    def __post_init__(self):
        check_fields(self)


@dataclasses.dataclass(frozen=True)
class ScoreConfig(EvaluateConfig):
    """Settings of `matnet score`, with a bound for every number of inferred levels, 0 to all."""

    num_samples: int = field(
        100, "number of samples K in each importance-weighted bound", at_least=1
    )


@dataclasses.dataclass(frozen=True)
class ClusterConfig:
    """Settings of `matnet cluster`.

    Raises:
      ValueError: If a field is out of range.
    """

    split: str = field(*_SPLIT)
    images: int = field(*_IMAGES, at_least=0)
    num_samples: int = field(
        16,
        "draws of z_0 per image over which the probabilities of the components are averaged",
        at_least=1,
    )
    components: int = field(
        0,
        "number of clusters of k-means for a model without a mixture prior; 0 is the number of "
        "classes, or 10 if there are none. A mixture prior brings its own number",
        at_least=0,
    )
    groups: int = field(
        6, "largest number of components in classes.png, with three images of each", at_least=1
    )
    seed: int = field(
        0, "seed of the subset, the draws, the k-means baselines and the pictures", at_least=0
    )
    weights: str = field(*_WEIGHTS)

    def __post_init__(self):
        check_fields(self)


@dataclasses.dataclass(frozen=True)
class CompressConfig:
    """Settings of `matnet compress`.

    Raises:
      ValueError: If a field is out of range.
    """

    split: str = field(*_SPLIT)
    num_images: int = field(0, "number of images, from the first; 0 is all", at_least=0)
    weights: str = field(*_WEIGHTS)
    batch_size: int = field(
        0,
        "images that the networks see at once; 0 is 8, or 32 with the local model, which goes "
        "through the positions of all of them together",
        at_least=0,
        at_most=65536,
    )
    block: int = field(
        5000, "most images in a block; damage costs one, and each has first images", at_least=1
    )
    bins: float = field(
        1.0, "steps of a latent in the standard deviation of its posterior", at_least=0.1
    )
    threads: int = field(
        1,
        "threads of TensorFlow, here and when the file is read; more help large networks only",
        at_least=1,
        at_most=1024,
    )
    verify: bool = field(True, "decode every block before the file is written")

    def __post_init__(self):
        check_fields(self)


@dataclasses.dataclass(frozen=True)
class ExploreConfig:
    """Settings of `matnet explore`.

    Raises:
      ValueError: If a field is out of range.
    """

    port: int = field(7860, "port on 127.0.0.1; 0 is a free one", at_least=0, at_most=65535)
    images: int = field(
        100, "number of test images to choose from and to compare with", at_least=1, at_most=10000
    )
    num_samples: int = field(
        10, "number of samples K in the importance-weighted bounds", at_least=1
    )
    weights: str = field(*_WEIGHTS)

    def __post_init__(self):
        check_fields(self)


@dataclasses.dataclass(frozen=True)
class Rectangle:
    """A rectangle of an image, in pixels.

    Attributes:
      top: Number of rows above it.
      left: Number of columns to the left of it.
      height: Number of its rows, at least 1.
      width: Number of its columns, at least 1.
    """

    top: int
    left: int
    height: int
    width: int

    @classmethod
    def parse(cls, text: str) -> Rectangle:
        """Reads `TOP:LEFT:HEIGHTxWIDTH`, such as `4:8:20x20`.

        Raises:
          ValueError: If the text has another form, or a side is 0.
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
    """Settings of `matnet impute`: which pixels are missing, and how they are completed.

    Exactly one of `masks`, `missing_colour`, `transparent` and `rectangles` says which pixels are
    missing.

    Raises:
      ValueError: If none or several of the four are given, or a field is out of range.
    """

    masks: str = field(
        "",
        "a mask for all images, or a folder with a mask for each image, of the same name but for "
        "the extension: picture files of the image's size, white (128 and above) where a pixel "
        "is known and black where it is missing; transparency is ignored",
    )
    missing_colour: tuple[int, ...] = field(
        (), "R,G,B or one grey value, 0 to 255: pixels of this colour are missing"
    )
    tolerance: int = field(
        0,
        "largest difference from missing_colour in each channel of a missing pixel, 0 to 255; JPEG "
        "changes colours, above all at edges: such files need 20 to 70, or rather a mask",
        at_least=0,
        at_most=255,
    )
    transparent: bool = field(False, "pixels that are more transparent than opaque are missing")
    rectangles: tuple[str, ...] = field(
        (), "TOP:LEFT:HEIGHTxWIDTH,... in pixels: missing in every image"
    )
    num_samples: int = field(8, "number of completions of each image", at_least=1)
    temperature: float = field(
        1.0, "factor of the scales of all priors; below 1, completions vary less", at_least=0
    )
    draw: bool = field(False, "draw the missing pixels from p(x | z), instead of taking its mean")
    seed: int = field(
        0, "seed of the completions; an image's do not depend on the other images", at_least=0
    )
    weights: str = field(*_WEIGHTS)

    def __post_init__(self):
        make_tuple(self, "missing_colour", "rectangles")
        check_fields(self)
        sources = ("masks", "missing_colour", "transparent", "rectangles")
        given = [name for name in sources if getattr(self, name)]
        require(
            len(given) == 1,
            f"ImputeConfig needs exactly one of {', '.join(sources)}, which say what is missing; "
            f"got {' and '.join(given) or 'none'}",
        )
        colour = self.missing_colour
        require(
            len(colour) in (0, 1, 3) and all(type(v) is int and 0 <= v <= 255 for v in colour),
            f"ImputeConfig.missing_colour must be R,G,B or one grey value, whole numbers from 0 "
            f"to 255; got {','.join(map(str, colour))}",
        )
        require(
            bool(colour) or not self.tolerance,
            f"ImputeConfig.tolerance goes with missing_colour; got {self.tolerance} without it",
        )
        for text in self.rectangles:
            Rectangle.parse(text)
