# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Completions by a conditional model: of masked images (paper, Fig. 5), and of picture files."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from matnet_tf.model.conditional import ConditionalMatNet
from matnet_tf.plots import drawing

__all__ = ["completion_grid", "contact_row", "contact_sheet", "thumbnail"]

_MISSING = 0.5  # The grey of missing pixels in `completion_grid`.
_ROW_GAP = 8  # White pixels below the masked images.

_MOST_COMPLETIONS = 6
_SIDE = 128  # The most pixels of a thumbnail's longer side; it has more than half as many.
_SQUARE, _GREYS = 8, (96, 160)  # The checkerboard that stands for missing pixels.
_LETTERS = 24  # Longer names are cut.


def completion_grid(
    model: ConditionalMatNet, inputs: tuple[Any, Any], shown: int, drawn: int, seed: int
) -> drawing.Figure:
    """Draws masked images above some completions, the mean of more of them, and the truth.

    Args:
      model: A conditional model.
      inputs: Whole images `[N, H, W, C]` and masks `[N, H, W, 1]`.
      shown: Number of completions in the figure, a row each.
      drawn: Number of completions in the mean, at least `shown`.
      seed: Integer seed for the completions.
    """
    x, mask = (np.asarray(part, np.float32) for part in inputs)
    samples, mean = (part.numpy() for part in model.impute(x, mask, drawn, seed=seed))
    rows = [(f"completion {i + 1}", samples[i]) for i in range(shown)]
    rows += [(f"mean of {drawn}", mean), ("truth", x)]
    given = np.where(mask > 0, x, _MISSING)
    return drawing.labelled_rows([("given", given), *rows], _ROW_GAP)


def contact_sheet(rows: Sequence[tuple[str, np.ndarray]], num_samples: int) -> np.ndarray:
    """Draws the rows of several pictures below each other, uint8 `[h, w, 3]`.

    Args:
      rows: At least one `contact_row`; all have as many thumbnails and channels.
      num_samples: Number of completions of each picture.
    """
    box = np.max([thumbnails.shape[1:3] for _, thumbnails in rows], axis=0)
    framed = [(label, _centred(thumbnails, box) / 255.0) for label, thumbnails in rows]
    shown = len(rows[0][1]) - 2
    title = "completions" if shown == num_samples else f"completions 1 to {shown} of {num_samples}"
    groups = [("known", 1), (title, shown), ("mean", 1)]
    with warnings.catch_warnings():
        # File names may have letters that the font lacks; it draws boxes for them.
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
        return drawing.figure_to_array(drawing.labelled_rows(framed, groups=groups))


def contact_row(
    name: str, picture: np.ndarray, mask: np.ndarray, completions: np.ndarray, mean: np.ndarray
) -> tuple[str, np.ndarray]:
    """Makes the row of one picture for `contact_sheet`.

    Args:
      name: File name of the picture.
      picture: uint8 `[H, W, C]`.
      mask: bool `[H, W]`, False where a pixel is missing, which the row shows as a checkerboard.
      completions: uint8 `[K, H, W, C]`; the row shows the first six.
      mean: uint8 `[H, W, C]`.

    Returns:
      The row's label, and its thumbnails `[n, h, w, C]`: known pixels, completions, mean.
    """
    shown = [thumbnail(one) for one in (picture, *completions[:_MOST_COMPLETIONS], mean)]
    missing = thumbnail(~mask[..., None] * np.uint8(255), exact=True)[..., 0] > 0
    y, x = np.indices(missing.shape) // _SQUARE
    checkerboard = np.asarray(_GREYS, np.uint8)[(y + x) % 2]
    shown[0][missing] = checkerboard[missing, None]
    return _label(name), np.stack(shown)


def thumbnail(picture: np.ndarray, exact: bool = False) -> np.ndarray:
    """Scales a picture until its longer side has 65 to 128 pixels.

    Small pictures are enlarged by a whole factor, each pixel to a square.

    Args:
      picture: uint8 `[H, W, C]`.
      exact: Whether to shrink by dropping pixels instead of smoothing, so that no new values
        arise.

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


def _centred(thumbnails: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Centres thumbnails `[n, h, w, C]` on white ones of the box's height and width."""
    framed = np.full((len(thumbnails), *box, thumbnails.shape[-1]), 255, np.uint8)
    height, width = thumbnails.shape[1:3]
    top, left = (box - (height, width)) // 2
    framed[:, top : top + height, left : left + width] = thumbnails
    return framed


def _label(name: str) -> str:
    if len(name) > _LETTERS:
        name = name[: _LETTERS - 1] + "…"
    return name.replace("$", r"\$")  # Matplotlib would set text between two as mathematics.
