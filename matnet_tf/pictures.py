# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Pictures drawn from arrays and numbers, without a model: grids, areas and curves.

Everything is drawn by Agg through `Figure`, so no display, window or global state is involved.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import matplotlib.image
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

__all__ = [
    "bit_areas",
    "depths",
    "figure_to_array",
    "image_grid",
    "kl_area",
    "labelled_rows",
    "reconstruction_grid",
    "save",
    "training_curves",
]

PIXELS = "pixels"  # What the part of the bits that is not spent in a level is called.

# Pixels: the least side of a cell, the line between cells, the gap below a row set apart, the one
# between groups of columns, and the room for their titles.
_CELL, _SEPARATOR, _GAP, _GROUP_GAP, _TITLE = 56, 1, 8, 16, 20
_SEPARATOR_GREY = 128  # Seen against black and against white.
_DPI, _FILE_DPI = 100, 200

# Okabe and Ito's colours, which the colour-blind can tell apart, from the top stage down.
_HUES = ("#5B5B5B", "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")
_INK, _PALE = "#262626", "#D9D9D9"
_FADE = 0.6  # How much white the palest shade of a stage has.

# What the panels of `training_curves` show: title, y label, and (key, label) of each curve.
_PANELS = (
    (
        "ELBO",
        "nats per image",
        (
            ("elbo", "training"),
            ("val_elbo", "validation, raw weights"),
            ("val_elbo_averaged", "validation, averaged weights"),
        ),
    ),
    ("log-likelihood", "nats per image", (("log_likelihood", "training"),)),
    ("KL", "nats per image", (("kl", "training"),)),
    ("learning rate", "rate", (("learning_rate", "learning rate"),)),
)


def image_grid(images: np.ndarray, columns: int) -> np.ndarray:
    """Images side by side, row by row, with grey lines of one pixel between them.

    Small images are enlarged by a whole factor, each pixel to a square, until a cell's shorter
    side has at least 56 pixels.

    Args:
      images: `[N, H, W, C]` in [0, 1]; values outside are clipped, NaN is drawn mid-grey. One
        channel is grey, three are red, green and blue, any other number is drawn as its mean.
      columns: images per row; cells that are left over in the last row are grey.

    Returns:
      The picture, uint8 `[h, w, 3]`.

    Raises:
      ValueError: if the images are not of rank 4, or none, or `columns` is below 1.
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
    """Images as enlarged uint8 `[N, h, w, 3]`."""
    if images.shape[-1] != 3:
        images = np.repeat(images.mean(axis=-1, keepdims=True), 3, axis=-1)
    pixels = np.clip(np.nan_to_num(images, nan=0.5), 0, 1)
    pixels = np.rint(pixels * 255).astype(np.uint8)
    factor = max(1, math.ceil(_CELL / min(images.shape[1:3])))
    return pixels.repeat(factor, axis=1).repeat(factor, axis=2)


def depths(num_levels: int, most: int = 6) -> list[int]:
    """How many levels the rows of "keep the top k levels" keep: 0, 1, ..., all.

    Args:
      num_levels: of the model.
      most: how many values at most, at least 3; they are spread evenly if there are more levels.
    """
    spread = np.linspace(1, num_levels, min(most - 1, num_levels))
    return [0, *(int(k) for k in np.rint(spread))]


def kl_area(steps: Sequence[float], kl: Mapping[str, Sequence[float]]) -> Figure:
    """The KL of every module over training, stacked (paper, Fig. 4).

    One hue per stage (the paper's "meta module"), light lines between modules, dark lines
    between stages, the top level at the bottom. If training begins with a peak, the axis ends
    at the highest total of the last nine tenths of the steps.

    Args:
      steps: training step of each row; one row is enough.
      kl: level name, such as `01_7x7`, to its KL in nats at each step; in top-down order. Rows
        with a value that is not finite are left out.

    Raises:
      ValueError: if there is no level, or no row without NaN, or numbers of rows differ.
    """
    steps, values = _finite_columns("kl", steps, kl)
    figure, axes = _one_panel()
    _draw_areas(axes, steps, values, list(kl), "nats")
    _style(axes, "training step", "KL(q || p), nats per image")
    axes.set_ylim(0, max(1e-3, 1.06 * _settled(steps, values.sum(axis=0)).max()))
    return figure


def bit_areas(
    panels: Sequence[tuple[str, Sequence[float], Mapping[str, Sequence[float]]]],
) -> Figure:
    """Where the bits go over training, stacked, for one run or several side by side.

    All panels have one vertical axis, so that areas can be compared (the discussion of Fig. 4).

    Args:
      panels: of each run its title, the training steps, and bits per dimension at each step of
        every level (such as `01_7x7`, top-down order) and of the pixels given the latents (such
        as `11_pixels`, last).

    Raises:
      ValueError: as `kl_area`, or if there is no panel.
    """
    if not panels:
        raise ValueError("bit_areas needs at least one run; got none")
    size = (8.0 * len(panels), 4.4)
    figure = Figure(figsize=size, dpi=_DPI, layout="constrained", facecolor="white")
    highest = 1e-3
    row = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (title, steps, bits) in zip(row, panels, strict=True):
        steps, values = _finite_columns("bits", steps, bits)
        _draw_areas(axes, steps, values, list(bits), "bits/dim")
        _style(axes, "training step", "bits per dimension" if axes is row[0] else "")
        axes.set_title(title, fontsize=12, loc="left", color=_INK)
        highest = max(highest, 1.06 * _settled(steps, values.sum(axis=0)).max())
    row[0].set_ylim(0, highest)
    return figure


def _finite_columns(
    name: str, steps: Sequence[float], parts: Mapping[str, Sequence[float]]
) -> tuple[np.ndarray, np.ndarray]:
    """Steps `[n]` and values `[parts, n]`, without the steps that have a value not finite."""
    values = [np.asarray(v, np.float64) for v in parts.values()]
    if not values or any(v.shape != (len(steps),) for v in values):
        lengths = {part: len(v) for part, v in parts.items()}
        raise ValueError(f"{name} must give each of {len(steps)} steps a value; got {lengths}")
    steps, values = np.asarray(steps, np.float64), np.stack(values)
    kept = np.isfinite(values).all(axis=0)
    if not kept.any():
        raise ValueError(f"{name} must have a row of finite values; got none in {len(steps)} rows")
    return steps[kept], values[:, kept]


def _one_panel() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8.0, 4.4), dpi=_DPI, layout="constrained", facecolor="white")
    return figure, figure.add_subplot()


def _draw_areas(
    axes: Axes, steps: np.ndarray, values: np.ndarray, names: list[str], unit: str
) -> None:
    last = values[:, -1]
    if len(steps) == 1:
        # An area over a single step has no width: draw it as a bar around the step.
        axes.set_xticks(steps, [f"{steps[0]:g}"])
        steps, values = steps + np.array([-0.5, 0.5]), values.repeat(2, axis=1)
    edges = np.concatenate([np.zeros((1, len(steps))), np.cumsum(values, axis=0)])
    first, borders = 0, []
    for (label, group), hue in zip(_stages(names), itertools.cycle(_HUES)):
        hue = _PALE if label == PIXELS else hue
        for i in range(group):
            below, above = edges[first + i], edges[first + i + 1]
            text = _legend_text(label, last[first : first + group], unit) if i == 0 else None
            shade = _shade(hue, i, group)
            axes.fill_between(steps, below, above, color=shade, linewidth=0, label=text)
            if i > 0:
                axes.plot(steps, below, color="white", linewidth=0.8)
        first += group
        borders.append(edges[first])
    for border in borders:
        axes.plot(steps, border, color=_INK, linewidth=1.4)
    axes.set_xlim(steps[0], steps[-1])
    _legend_of_stages(axes, sum(not name.endswith(f"_{PIXELS}") for name in names))


def _stages(names: list[str]) -> list[tuple[str, int]]:
    """Label and number of levels of each stage, in the order of the names."""
    groups = itertools.groupby(names, key=lambda name: name.partition("_")[2])
    return [(label, len(list(group))) for label, group in groups]


def _shade(hue: str, index: int, count: int) -> tuple[float, ...]:
    """The hue, mixed with the more white the later a module comes in its stage."""
    colour = np.array([int(hue[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    white = _FADE * index / max(1, count - 1)
    return tuple((1 - white) * colour + white)


def _legend_text(label: str, last: np.ndarray, unit: str) -> str:
    levels = f", {len(last)} level" + "s" * (len(last) > 1)
    digits = 1 if unit == "nats" else 3
    return f"{label}{levels * (label != PIXELS)}: {last.sum():.{digits}f} {unit}"


def _legend_of_stages(axes: Axes, levels: int) -> None:
    """Outside the axes and in the order of the stack, so that nothing is hidden."""
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(
        handles[::-1],
        labels[::-1],
        title=f"{levels} levels, at the last step",
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        frameon=False,
        fontsize=10,
        title_fontsize=10,
        alignment="left",
    )


def _settled(steps: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values after the first tenth of training, whose extremes would flatten all the rest."""
    return values[steps >= steps[-1] / 10]


def _style(axes: Axes, x_label: str, y_label: str) -> None:
    axes.set_xlabel(x_label, fontsize=11, color=_INK)
    axes.set_ylabel(y_label, fontsize=11, color=_INK)
    axes.tick_params(labelsize=10, colors=_INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.02)
    if len(axes.get_xticks()) > 5:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))


def training_curves(rows: Sequence[Mapping[str, float]]) -> Figure:
    """ELBO, log-likelihood, KL and learning rate over training.

    The ELBO has the validation images' beside it where the rows have `val_elbo` and
    `val_elbo_averaged`. Values that are missing or not finite are left out. The axes' ranges
    are those of the last nine tenths of the steps.

    Args:
      rows: of `metrics.csv`, each with `step`; bounds in nats per image.

    Raises:
      ValueError: if there are no rows.
    """
    if not rows:
        raise ValueError("training curves need at least one row of metrics; got none")
    figure = Figure(figsize=(10.0, 6.4), dpi=_DPI, layout="constrained", facecolor="white")
    panels = figure.subplots(2, 2, sharex=True)
    for axes, (title, unit, curves) in zip(panels.flat, _PANELS, strict=True):
        _draw_panel(axes, rows, curves)
        axes.set_title(title, fontsize=12, loc="left", color=_INK)
        _style(axes, "training step" if axes in panels[-1] else "", unit)
        axes.grid(axis="y", color="0.9", linewidth=0.8)
        axes.set_axisbelow(True)
    return figure


def _draw_panel(axes: Axes, rows: Sequence[Mapping[str, float]], curves) -> None:
    seen, drawn = [], 0
    for (key, label), hue in zip(curves, (_HUES[1], _HUES[5], _HUES[3]), strict=False):
        steps, values = _finite(rows, key)
        if not len(steps):
            continue
        drawn += 1
        marker = "o" if len(steps) == 1 else None
        axes.plot(steps, values, color=hue, linewidth=1.6, marker=marker, label=label)
        seen.append(_settled(steps, values))
    if seen:
        low, high = np.concatenate(seen).min(), np.concatenate(seen).max()
        margin = 0.06 * (high - low) or max(0.5 * abs(high), 1e-6)
        axes.set_ylim(low - margin, high + margin)
    if drawn > 1:
        axes.legend(frameon=False, fontsize=10)


def _finite(rows: Sequence[Mapping[str, float]], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of the rows where the key's value is a finite number."""
    pairs = [(row["step"], row.get(key)) for row in rows]
    pairs = [(s, v) for s, v in pairs if v is not None and math.isfinite(v)]
    return tuple(np.array(pairs, np.float64).reshape(-1, 2).T)


def reconstruction_grid(
    truth: np.ndarray,
    rows: Sequence[tuple[str, np.ndarray]],
    groups: Sequence[tuple[str, int]] = (),
) -> Figure:
    """Images above what the model makes of them, a labelled row for each way.

    Args:
      truth: `[N, H, W, C]` in [0, 1].
      rows: label and images `[N, H, W, C]` of each row below.
      groups: title and number of columns of each group of columns (paper, Fig. 3), from the left,
        N columns in all; none is all of them together, without a title.

    Raises:
      ValueError: if the rows' shapes differ, or the groups have more or fewer columns.
    """
    return labelled_rows([("images", truth), *rows], _GAP, groups)


def labelled_rows(
    rows: Sequence[tuple[str, np.ndarray]], gap: int = 0, groups: Sequence[tuple[str, int]] = ()
) -> Figure:
    """Rows of images with their labels on the left, at one dot per pixel of `image_grid`.

    Args:
      rows: label and images `[N, H, W, C]` in [0, 1] of each row, all of one shape.
      gap: white pixels below the first row.
      groups: of columns, see `reconstruction_grid`.

    Raises:
      ValueError: if there are no rows, their shapes differ, or the groups do not fit them.
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
    """One grid of all groups of columns with white between them, and the titles' places in it."""
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
    """The grid with labels beside it, in axes of exactly its size so that no pixel is blurred."""
    border = 8
    left, top = 24 + 7 * max(map(len, labels)), _TITLE if titles else border
    height, width = grid.shape[:2]
    whole = (left + width + border, height + top + border)
    figure = Figure(figsize=tuple(n / _DPI for n in whole), dpi=_DPI, facecolor="white")
    box = (left / whole[0], border / whole[1], width / whole[0], height / whole[1])
    axes = figure.add_axes(box)
    axes.imshow(grid, interpolation="nearest", aspect="auto")
    axes.xaxis.tick_top()
    texts = [text for _, text in titles]
    axes.set_xticks([x - 0.5 for x, _ in titles], texts, fontsize=9.5, color=_INK)
    axes.set_yticks(centres - 0.5, labels, fontsize=9.5, color=_INK)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def figure_to_array(figure: Figure) -> np.ndarray:
    """The figure drawn, uint8 `[h, w, 3]`."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]


def save(picture: Figure | np.ndarray, path: str) -> None:
    """Writes a figure, at 200 dots per inch, or a uint8 `[h, w, 3]` array to a PNG file."""
    if isinstance(picture, Figure):
        FigureCanvasAgg(picture).print_figure(path, dpi=_FILE_DPI)
    else:
        matplotlib.image.imsave(path, picture, format="png")
