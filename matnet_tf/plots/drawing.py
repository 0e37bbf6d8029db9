# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Grids of images, with labels or without, drawn from arrays and saved as PNG files.

Agg draws every figure through `Figure`, so no display, window or global state is involved.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib.image
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

__all__ = [
    "DPI",
    "INK",
    "depths",
    "figure_to_array",
    "image_grid",
    "labelled_rows",
    "reconstruction_grid",
    "save",
]

DPI, _FILE_DPI = 100, 200
INK = "#262626"  # The colour of text.

# Lengths in pixels.
_CELL = 56  # The minimum length of an image's shorter side.
_SEPARATOR, _SEPARATOR_GREY = 1, 128  # The line between images, visible on black and on white.
_ROW_GAP = 8  # White below the first row of `reconstruction_grid`.
_GROUP_GAP = 16  # White between groups of columns.
_TITLE, _BORDER = 20, 8  # Above the grid with titles; around it without.
_LABEL, _LETTER = 24, 7  # Left of the grid: this, and this for each letter of the longest label.


def image_grid(images: np.ndarray, columns: int) -> np.ndarray:
    """Places images side by side, row by row, with grey lines of one pixel between them.

    Small images are enlarged by a whole factor, each pixel to a square, until the shorter side
    has at least 56 pixels.

    Args:
      images: Images `[N, H, W, C]` in [0, 1]; values outside are clipped and NaN becomes
        mid-grey. One channel is grey, three are red, green and blue; any other number is averaged.
      columns: Images per row. Cells left over in the last row are grey.

    Returns:
      The grid, uint8 `[h, w, 3]`.

    Raises:
      ValueError: If the images are not of rank 4, there are none, or `columns` is below 1.
    """
    images = np.asarray(images, np.float32)
    if images.ndim != 4 or not images.size:
        raise ValueError(f"images must have shape [N, H, W, C]; got {list(images.shape)}")
    if columns < 1:
        raise ValueError(f"columns must be at least 1; got {columns!r}")
    cells = _cells(images)
    count, height, width = cells.shape[:3]
    rows = math.ceil(count / columns)
    step_y, step_x = height + _SEPARATOR, width + _SEPARATOR
    shape = (rows * step_y - _SEPARATOR, columns * step_x - _SEPARATOR, 3)
    grid = np.full(shape, _SEPARATOR_GREY, np.uint8)
    for index, cell in enumerate(cells):
        y, x = index // columns * step_y, index % columns * step_x
        grid[y : y + height, x : x + width] = cell
    return grid


def _cells(images: np.ndarray) -> np.ndarray:
    """Enlarges images to uint8 `[N, h, w, 3]`."""
    if images.shape[-1] != 3:
        images = np.repeat(images.mean(axis=-1, keepdims=True), 3, axis=-1)
    pixels = np.clip(np.nan_to_num(images, nan=0.5), 0, 1)
    pixels = np.rint(pixels * 255).astype(np.uint8)
    factor = max(1, math.ceil(_CELL / min(images.shape[1:3])))
    return pixels.repeat(factor, axis=1).repeat(factor, axis=2)


def depths(num_levels: int, most: int = 6) -> list[int]:
    """Chooses how many top levels each row of a reconstruction figure keeps: 0, 1, ..., all.

    Args:
      num_levels: Number of levels of the model.
      most: The largest number of rows, at least 3; with more levels the values are spread evenly.
    """
    spread = np.linspace(1, num_levels, min(most - 1, num_levels))
    return [0, *(int(k) for k in np.rint(spread))]


def reconstruction_grid(
    truth: np.ndarray,
    rows: Sequence[tuple[str, np.ndarray]],
    groups: Sequence[tuple[str, int]] = (),
) -> Figure:
    """Draws images above their reconstructions, one labelled row for each kind.

    Args:
      truth: Images `[N, H, W, C]` in [0, 1].
      rows: Label and images `[N, H, W, C]` of each row below.
      groups: Title and number of columns of each group of columns (paper, Fig. 3), from the left,
        N columns in all. With no groups, the columns form one group without a title.

    Raises:
      ValueError: If the rows' shapes differ, or the groups have more or fewer columns.
    """
    return labelled_rows([("images", truth), *rows], _ROW_GAP, groups)


def labelled_rows(
    rows: Sequence[tuple[str, np.ndarray]], gap: int = 0, groups: Sequence[tuple[str, int]] = ()
) -> Figure:
    """Draws rows of images with labels on the left, at one dot per pixel of `image_grid`.

    Args:
      rows: Label and images `[N, H, W, C]` in [0, 1] of each row, all of one shape.
      gap: White pixels below the first row.
      groups: Groups of columns, see `reconstruction_grid`.

    Raises:
      ValueError: If there are no rows, their shapes differ, or the groups do not fit them.
    """
    shapes = {tuple(np.shape(images)) for _, images in rows}
    if len(shapes) != 1:
        raise ValueError(f"rows of images must be of one shape; got {sorted(shapes)}")
    grid, titles = _groups_side_by_side([images for _, images in rows], groups)
    height = (grid.shape[0] + _SEPARATOR) // len(rows)
    centres = np.arange(len(rows)) * height + (height - _SEPARATOR) / 2
    if gap:
        strip = np.full((gap, *grid.shape[1:]), 255, np.uint8)
        grid = np.concatenate([grid[: height - 1], strip, grid[height:]])
        centres[1:] += gap - _SEPARATOR
    return _with_labels(grid, centres, [label for label, _ in rows], titles)


def _groups_side_by_side(
    rows: Sequence[np.ndarray], groups: Sequence[tuple[str, int]]
) -> tuple[np.ndarray, list[tuple[float, str]]]:
    """Returns one grid with white between the groups, and the centre and text of each title."""
    columns = len(rows[0])
    if groups and sum(size for _, size in groups) != columns:
        raise ValueError(f"groups must have {columns} columns in all; got {list(groups)}")
    parts, titles, first, left = [], [], 0, 0
    for title, size in groups or [("", columns)]:
        part = image_grid(np.concatenate([r[first : first + size] for r in rows]), size)
        titles.append((left + part.shape[1] / 2, title))
        parts += [part, np.full((part.shape[0], _GROUP_GAP, 3), 255, np.uint8)]
        first, left = first + size, left + part.shape[1] + _GROUP_GAP
    return np.concatenate(parts[:-1], axis=1), titles if groups else []


def _with_labels(
    grid: np.ndarray,
    centres: np.ndarray,
    labels: list[str],
    titles: Sequence[tuple[float, str]] = (),
) -> Figure:
    """Draws the grid beside its labels, in axes of exactly its size so that no pixel is blurred."""
    left, top = _LABEL + _LETTER * max(map(len, labels)), _TITLE if titles else _BORDER
    height, width = grid.shape[:2]
    whole = (left + width + _BORDER, height + top + _BORDER)
    figure = Figure(figsize=tuple(n / DPI for n in whole), dpi=DPI, facecolor="white")
    box = (left / whole[0], _BORDER / whole[1], width / whole[0], height / whole[1])
    axes = figure.add_axes(box)
    axes.imshow(grid, interpolation="nearest", aspect="auto")
    axes.xaxis.tick_top()
    texts = [text for _, text in titles]
    axes.set_xticks([x - 0.5 for x, _ in titles], texts, fontsize=9.5, color=INK)
    axes.set_yticks(centres - 0.5, labels, fontsize=9.5, color=INK)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def figure_to_array(figure: Figure) -> np.ndarray:
    """Draws a figure into an array, uint8 `[h, w, 3]`."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]


def save(picture: Figure | np.ndarray, path: str) -> None:
    """Writes a figure, at 200 dots per inch, or a uint8 `[h, w, 3]` array to a PNG file."""
    if isinstance(picture, Figure):
        FigureCanvasAgg(picture).print_figure(path, dpi=_FILE_DPI)
    else:
        matplotlib.image.imsave(path, picture, format="png")
