# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Figures over training steps: stacked areas of the KL or of the bits, and curves of the metrics.

Rows whose values are missing or not finite are left out of every figure.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from matnet_tf.plots.drawing import DPI, INK

__all__ = ["PIXELS", "bit_areas", "kl_area", "kl_bars", "training_curves"]

PIXELS = "pixels"  # Name of the area of `bit_areas` for the pixels given the latents.

# Okabe and Ito's colours, which colour-blind readers can tell apart, from the top scale down.
_HUES = ("#5B5B5B", "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")
_DEAD = "#D55E00"  # The colour of a level that carries nothing.
_PALE = "#D9D9D9"  # The colour of the pixels' area.
_FADE = 0.6  # The share of white in the palest shade of a scale.

# The panels of `training_curves`: title, y label, and (key, label) of each curve.
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


def kl_area(steps: Sequence[float], kl: Mapping[str, Sequence[float]], title: str = "") -> Figure:
    """Draws the KL of every module over training as stacked areas (paper, Fig. 4).

    Each scale (the paper's "meta module") has one hue, with light lines between its modules and
    dark lines between scales; the top level is at the bottom. The axis ends at the highest total
    of the last nine tenths of the steps, so a peak at the start does not flatten the rest.

    Args:
      steps: Training step of each row; one row is enough.
      kl: KL in nats at each step by level name, such as `01_7x7`, in top-down order.
      title: Title of the figure.

    Raises:
      ValueError: If there is no level, no row of finite values, or the numbers of rows differ.
    """
    steps, values = _finite_columns("kl", steps, kl)
    figure = Figure(figsize=(8.0, 4.4), dpi=DPI, layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    _draw_areas(axes, steps, values, list(kl), "nats")
    _style(axes, "training step", "KL(q || p), nats per image")
    axes.set_title(title, fontsize=12, loc="left", color=INK)
    axes.set_ylim(0, max(1e-3, 1.06 * _settled(steps, values.sum(axis=0)).max()))
    return figure


def kl_bars(kl: Mapping[str, float], alive: float = 0.01) -> Figure:
    """Draws the KL of every level at one step as bars on a logarithmic axis, the top level first.

    A line marks what a level must carry to count as alive; bars below it are red.

    Args:
      kl: KL in nats by level name, such as `01_7x7`, in top-down order, all finite.
      alive: That line, in nats.
    """
    figure = Figure(figsize=(max(4.0, 1.5 + 0.3 * len(kl)), 3.5), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    # A KL of 0 has no logarithm; nor may a level be invisible.
    heights = np.maximum(list(kl.values()), alive / 10)
    colours = [_DEAD if height < alive else _HUES[1] for height in heights]
    axes.bar(range(len(kl)), heights, color=colours)
    axes.axhline(alive, color=INK, linewidth=1.0)
    axes.set_yscale("log")
    axes.set_ylim(alive / 20, max(2.0, 1.5 * heights.max()))
    axes.set_xticks(range(len(kl)), list(kl), rotation=90)
    axes.set_ylabel("KL, nats per image", fontsize=11, color=INK)
    axes.tick_params(labelsize=8, colors=INK)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def bit_areas(
    panels: Sequence[tuple[str, Sequence[float], Mapping[str, Sequence[float]]]],
) -> Figure:
    """Draws where the bits go over training as stacked areas, one panel for each run.

    All panels share one vertical axis, so their areas compare (paper, discussion of Fig. 4).

    Args:
      panels: For each run its title, the training steps, and the bits per dimension at each step
        by part: every level (such as `01_7x7`, in top-down order), then the pixels given the
        latents (such as `11_pixels`).

    Raises:
      ValueError: As for `kl_area`, or if there is no panel.
    """
    if not panels:
        raise ValueError("bit_areas needs at least one run; got none")
    size = (8.0 * len(panels), 4.4)
    figure = Figure(figsize=size, dpi=DPI, layout="constrained", facecolor="white")
    highest = 1e-3
    row = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (title, steps, bits) in zip(row, panels, strict=True):
        steps, values = _finite_columns("bits", steps, bits)
        _draw_areas(axes, steps, values, list(bits), "bits/dim")
        _style(axes, "training step", "bits per dimension" if axes is row[0] else "")
        axes.set_title(title, fontsize=12, loc="left", color=INK)
        highest = max(highest, 1.06 * _settled(steps, values.sum(axis=0)).max())
    row[0].set_ylim(0, highest)
    return figure


def _finite_columns(
    name: str, steps: Sequence[float], parts: Mapping[str, Sequence[float]]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns steps `[n]` and values `[parts, n]` of the rows in which all values are finite."""
    values = [np.asarray(v, np.float64) for v in parts.values()]
    if not values or any(v.shape != (len(steps),) for v in values):
        lengths = {part: len(v) for part, v in parts.items()}
        raise ValueError(f"{name} must give each of {len(steps)} steps a value; got {lengths}")
    steps, values = np.asarray(steps, np.float64), np.stack(values)
    kept = np.isfinite(values).all(axis=0)
    if not kept.any():
        raise ValueError(f"{name} must have a row of finite values; got none in {len(steps)} rows")
    return steps[kept], values[:, kept]


def _draw_areas(
    axes: Axes, steps: np.ndarray, values: np.ndarray, names: list[str], unit: str
) -> None:
    last = values[:, -1]
    if len(steps) == 1:
        # An area over a single step has no width: draw a bar around the step.
        axes.set_xticks(steps, [f"{steps[0]:g}"])
        steps, values = steps + np.array([-0.5, 0.5]), values.repeat(2, axis=1)
    edges = np.concatenate([np.zeros((1, len(steps))), np.cumsum(values, axis=0)])
    first, borders = 0, []
    for (label, group), hue in zip(_scales(names), itertools.cycle(_HUES)):
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
        axes.plot(steps, border, color=INK, linewidth=1.4)
    axes.set_xlim(steps[0], steps[-1])
    _add_legend(axes, sum(not name.endswith(f"_{PIXELS}") for name in names))


def _scales(names: list[str]) -> list[tuple[str, int]]:
    """Returns label and number of levels of each scale, in the order of the names."""
    groups = itertools.groupby(names, key=lambda name: name.partition("_")[2])
    return [(label, len(list(group))) for label, group in groups]


def _shade(hue: str, index: int, count: int) -> tuple[float, ...]:
    """Mixes a hue with more white the later a module comes in its scale."""
    colour = np.array([int(hue[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    white = _FADE * index / max(1, count - 1)
    return tuple((1 - white) * colour + white)


def _legend_text(label: str, last: np.ndarray, unit: str) -> str:
    levels = f", {len(last)} level" + "s" * (len(last) > 1)
    digits = 1 if unit == "nats" else 3
    return f"{label}{levels * (label != PIXELS)}: {last.sum():.{digits}f} {unit}"


def _add_legend(axes: Axes, levels: int) -> None:
    """Places the legend beside the axes, where it hides nothing, in the order of the stack."""
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(
        handles[::-1],
        labels[::-1],
        title=f"{levels} levels, at the last step\n(of a scale, the top one is darkest)",
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        frameon=False,
        fontsize=10,
        title_fontsize=10,
        alignment="left",
    )


def _settled(steps: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Drops the first tenth of training, whose extremes would flatten the rest."""
    return values[steps >= steps[-1] / 10]


def _style(axes: Axes, x_label: str, y_label: str) -> None:
    axes.set_xlabel(x_label, fontsize=11, color=INK)
    axes.set_ylabel(y_label, fontsize=11, color=INK)
    axes.tick_params(labelsize=10, colors=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.02)
    if len(axes.get_xticks()) > 5:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))


def training_curves(rows: Sequence[Mapping[str, float]], title: str = "") -> Figure:
    """Draws ELBO, log-likelihood, KL and learning rate over training, a panel each.

    The ELBO's panel also shows `val_elbo` and `val_elbo_averaged` where the rows have them, the
    KL's the weight that the KL has in the loss, if it varies. The axes cover the values of the last
    nine tenths of the steps.

    Args:
      rows: Rows of `metrics.csv`, each with `step`; bounds in nats per image.
      title: Title of the figure.

    Raises:
      ValueError: If there are no rows.
    """
    if not rows:
        raise ValueError("training curves need at least one row of metrics; got none")
    figure = Figure(figsize=(10.0, 6.4), dpi=DPI, layout="constrained", facecolor="white")
    panels = figure.subplots(2, 2, sharex=True)
    for axes, (title_of_panel, unit, curves) in zip(panels.flat, _PANELS, strict=True):
        _draw_panel(axes, rows, curves)
        axes.set_title(title_of_panel, fontsize=12, loc="left", color=INK)
        _style(axes, "training step" if axes in panels[-1] else "", unit)
        axes.grid(axis="y", color="0.9", linewidth=0.8)
        axes.set_axisbelow(True)
        if title_of_panel == "KL":
            _draw_kl_weight(axes, rows)
    figure.suptitle(title, fontsize=12, x=0.01, ha="left", color=INK)
    return figure


def _draw_kl_weight(axes: Axes, rows: Sequence[Mapping[str, float]]) -> None:
    """Draws the weight of the KL, on an axis of its own at the right, if it varies."""
    steps, weights = _finite(rows, "kl_weight")
    if not len(steps) or weights.min() == weights.max():
        return
    right = axes.twinx()
    right.plot(steps, weights, color=INK, linewidth=1.2, linestyle="--")
    right.set_ylim(0, 1.05)
    right.set_ylabel("weight in the loss (dashed)", fontsize=10, color=INK)
    right.tick_params(labelsize=9, colors=INK)
    right.spines["top"].set_visible(False)


def _draw_panel(axes: Axes, rows: Sequence[Mapping[str, float]], curves) -> None:
    settled, drawn = [], 0
    for (key, label), hue in zip(curves, (_HUES[1], _HUES[5], _HUES[3]), strict=False):
        steps, values = _finite(rows, key)
        if not len(steps):
            continue
        drawn += 1
        marker = "o" if len(steps) == 1 else None
        axes.plot(steps, values, color=hue, linewidth=1.6, marker=marker, label=label)
        settled.append(_settled(steps, values))
    if settled:
        low, high = np.concatenate(settled).min(), np.concatenate(settled).max()
        margin = 0.06 * (high - low) or max(0.5 * abs(high), 1e-6)
        axes.set_ylim(low - margin, high + margin)
    if drawn > 1:
        axes.legend(frameon=False, fontsize=10)


def _finite(rows: Sequence[Mapping[str, float]], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns steps and values of the rows in which the key's value is finite."""
    pairs = [(row["step"], row.get(key)) for row in rows]
    pairs = [(s, v) for s, v in pairs if v is not None and math.isfinite(v)]
    return tuple(np.array(pairs, np.float64).reshape(-1, 2).T)
