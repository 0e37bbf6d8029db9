# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""A contact sheet of filled-in pictures: what is known of each, completions, and their mean."""

from __future__ import annotations

import sys
import warnings

import numpy as np
from PIL import Image

from matnet_tf import pictures

__all__ = ["ContactSheet", "thumbnail"]

_MOST_ROWS, _MOST_COMPLETIONS = 24, 6
_SIDE = 128  # Pixels of the longer side of a thumbnail at most, and at least half of that.
_CHECK, _GREYS = 8, (96, 160)  # The squares that stand for missing pixels.
_LABEL = 24  # Letters of a file's name.


class ContactSheet:
    """Collects thumbnails, a row per picture, and draws them side by side.

    Only the first 24 pictures have a row, of at most 6 completions; which is said on stderr.

    Args:
      total: how many pictures there will be at most.
    """

    def __init__(self, total: int):
        self._total, self._rows = total, []

    def add(
        self,
        name: str,
        picture: np.ndarray,
        mask: np.ndarray,
        completions: np.ndarray,
        mean: np.ndarray,
    ) -> None:
        """Adds the row of a picture; those of all pictures have as many completions and channels.

        Args:
          name: of the row.
          picture: uint8 `[H, W, C]`.
          mask: bool `[H, W]`, False in pixels that are shown as a grey checkerboard.
          completions: uint8 `[K, H, W, C]`.
          mean: uint8 `[H, W, C]`.
        """
        if len(self._rows) == _MOST_ROWS:
            return
        shown = [thumbnail(one) for one in (picture, *completions[:_MOST_COMPLETIONS], mean)]
        missing = thumbnail(~mask[..., None] * np.uint8(255), exact=True)[..., 0] > 0
        shown[0][missing] = _checkerboard(missing.shape)[missing, None]
        self._rows.append((_label(name), np.stack(shown), len(completions)))

    def draw(self) -> np.ndarray:
        """The sheet, uint8 `[h, w, 3]`; there must be a row."""
        if self._total > len(self._rows) == _MOST_ROWS:
            print(f"impute: the contact sheet shows the first {_MOST_ROWS} images", file=sys.stderr)
        box = np.max([images.shape[1:3] for _, images, _ in self._rows], axis=0)
        rows = [(label, _centred(images, box) / 255.0) for label, images, _ in self._rows]
        shown, of = len(rows[0][1]) - 2, self._rows[0][2]
        title = "completions" if shown == of else f"completions 1 to {shown} of {of}"
        groups = [("known", 1), (title, shown), ("mean", 1)]
        with warnings.catch_warnings():
            # Of letters in a file's name that the font lacks; it has a box for them.
            warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
            return pictures.figure_to_array(pictures.labelled_rows(rows, groups=groups))


def thumbnail(picture: np.ndarray, exact: bool = False) -> np.ndarray:
    """A picture whose longer side has 65 to 128 pixels.

    Small pictures are enlarged by a whole factor, each pixel to a square.

    Args:
      picture: uint8 `[H, W, C]`.
      exact: shrink by leaving pixels out, instead of smoothing, so that no new values arise.

    Returns:
      The thumbnail, uint8 `[h, w, C]`.
    """
    height, width, channels = picture.shape
    longer = max(height, width)
    if longer <= _SIDE:
        factor = _SIDE // longer
        return picture.repeat(factor, axis=0).repeat(factor, axis=1)
    size = [max(1, round(side * _SIDE / longer)) for side in (width, height)]
    image = Image.fromarray(picture[..., 0] if channels == 1 else picture)
    method = Image.Resampling.NEAREST if exact else Image.Resampling.LANCZOS
    return np.array(image.resize(size, method)).reshape(*size[::-1], channels)


def _checkerboard(shape: tuple[int, int]) -> np.ndarray:
    y, x = np.indices(shape) // _CHECK
    return np.asarray(_GREYS, np.uint8)[(y + x) % 2]


def _centred(images: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Images `[n, h, w, C]` on white ones of the box's height and width."""
    framed = np.full((len(images), *box, images.shape[-1]), 255, np.uint8)
    top, left = (box - images.shape[1:3]) // 2
    framed[:, top : top + images.shape[1], left : left + images.shape[2]] = images
    return framed


def _label(name: str) -> str:
    if len(name) > _LABEL:
        name = name[: _LABEL - 1] + "…"
    return name.replace("$", r"\$")  # Matplotlib would read mathematics between two.
