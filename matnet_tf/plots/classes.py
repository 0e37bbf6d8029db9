# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Figures of the components of a mixture prior: images assigned to them, and draws from them.

classes.png     for some components three images assigned to them, and below each what is left of
                it if the top k levels are kept and the rest drawn from the prior (paper, Fig. 3)
components.png  for the most used components free draws from each
"""

from __future__ import annotations

import pathlib

import numpy as np

from matnet_tf.distributions.stateless_random import seed_tensor
from matnet_tf.model.matnet import MatNet
from matnet_tf.plots import drawing

__all__ = ["example_images", "kept_levels", "write_class_figures"]

_EXAMPLES = 3
_KEPT = (1, 2, 4, 6, 8, 10)  # The rows of the paper's Fig. 3.
_MOST_COMPONENTS, _DRAWS = 10, 10


def write_class_figures(
    folder: pathlib.Path,
    model: MatNet,
    x: np.ndarray,
    probabilities: np.ndarray,
    groups: int = 6,
    seed: int = 0,
) -> list[str]:
    """Writes components.png, and classes.png if a component has at least three images.

    Args:
      folder: Folder of the figures; created if it does not exist.
      model: A MatNet with a mixture prior.
      x: Images `[N, H, W, C]`, float32 in [0, 1].
      probabilities: Probabilities of the components given each image, `[N, K]`.
      groups: The largest number of components in classes.png.
      seed: Integer seed for the draws.

    Returns:
      The paths written.
    """
    folder.mkdir(exist_ok=True)
    drawn = {"components": _components(model, probabilities, seed)}
    examples = example_images(probabilities, groups)
    if examples:
        drawn = {"classes": _classes(model, x, examples, seed)} | drawn
    else:
        # A figure left by an earlier run would look like one of this run.
        (folder / "classes.png").unlink(missing_ok=True)
    paths = {str(folder / f"{name}.png"): figure for name, figure in drawn.items()}
    for path, figure in paths.items():
        drawing.save(figure, path)
    return list(paths)


def example_images(probabilities: np.ndarray, groups: int) -> dict[int, np.ndarray]:
    """Picks the three most surely assigned images of each of some components.

    Only components with at least three images count. Components whose three images are assigned
    most surely come first; where they differ by less than a percent, larger components do.

    Args:
      probabilities: Probabilities of the components given each image, `[N, K]`.
      groups: The largest number of components.

    Returns:
      Positions of the images by component; in both the most surely assigned come first.
    """
    assigned, largest = probabilities.argmax(axis=1), probabilities.max(axis=1)
    counts = np.bincount(assigned, minlength=probabilities.shape[1])
    found = {}
    for component in np.flatnonzero(counts >= _EXAMPLES):
        members = np.flatnonzero(assigned == component)
        order = np.argsort(-largest[members], kind="stable")
        found[int(component)] = members[order[:_EXAMPLES]]

    def rank(component):
        return -round(float(largest[found[component]].min()), 2), -counts[component]

    return {component: found[component] for component in sorted(found, key=rank)[:groups]}


def kept_levels(num_levels: int) -> list[int]:
    """Returns how many levels the rows of classes.png keep: the paper's numbers, up to all."""
    return sorted({min(k, num_levels) for k in _KEPT})


def _classes(
    model: MatNet, x: np.ndarray, examples: dict[int, np.ndarray], seed: int
) -> drawing.Figure:
    images = x[np.concatenate(list(examples.values()))]
    hierarchy, levels = model.hierarchy, model.config.num_levels
    encoding, rows = hierarchy.encode(*model.input_form.check(images)), []
    for kept in kept_levels(levels):
        # Eager: each row would need a graph of its own, which takes longer than the pass.
        trace = hierarchy.top_down_pass(encoding, len(images), seed_tensor(seed), num_inferred=kept)
        row = hierarchy.images(trace, seed_tensor(seed)).numpy()
        rows.append((f"keep top {kept} of {levels}", row))
    groups = [(f"component {component}", _EXAMPLES) for component in examples]
    return drawing.reconstruction_grid(images, rows, groups)


def _components(model: MatNet, probabilities: np.ndarray, seed: int) -> drawing.Figure:
    counts = np.bincount(probabilities.argmax(axis=1), minlength=probabilities.shape[1])
    order = np.argsort(-counts, kind="stable")
    used = order[counts[order] > 0][:_MOST_COMPONENTS]
    draws = model.sample(len(used) * _DRAWS, seed=seed, component=np.repeat(used, _DRAWS)).numpy()
    labels = [f"component {c}, {counts[c]} assigned" for c in used]
    return drawing.labelled_rows(list(zip(labels, np.split(draws, len(used)), strict=True)))
