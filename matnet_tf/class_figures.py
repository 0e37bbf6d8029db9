# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The pictures of a mixture prior's components: what images they hold, and what they give.

classes.png     for some components three images that they hold, and below each what is left of
                it if the top k levels are kept and the rest drawn from the prior (paper, Fig. 3)
components.png  for the most used components free draws from each
"""

from __future__ import annotations

import pathlib

import numpy as np

from matnet_tf import pictures
from matnet_tf.model import MatNet
from matnet_tf.noise import seed_tensor

__all__ = ["example_images", "kept_levels", "write_class_figures"]

_EXAMPLES = 3
_KEPT = (1, 2, 4, 6, 8, 10)  # The paper's rows.
_MOST_COMPONENTS, _DRAWS = 10, 10


def write_class_figures(
    folder: pathlib.Path,
    model: MatNet,
    x: np.ndarray,
    probabilities: np.ndarray,
    groups: int = 6,
    seed: int = 0,
) -> list[str]:
    """Draws classes.png and components.png; the former only if a component has three images.

    Args:
      folder: where to; made if it does not exist.
      model: a MatNet with a mixture prior.
      x: images `[N, H, W, C]` as the model reads them.
      probabilities: of the components given each image, `[N, K]`.
      groups: components in classes.png at most.
      seed: of the draws.

    Returns:
      The paths written.
    """
    folder.mkdir(exist_ok=True)
    drawn = {"components": _components(model, probabilities, seed)}
    examples = example_images(probabilities, groups)
    if examples:
        drawn = {"classes": _classes(model, x, examples, seed)} | drawn
    else:
        # One of an earlier look would pass for a picture of this one.
        (folder / "classes.png").unlink(missing_ok=True)
    paths = {str(folder / f"{name}.png"): picture for name, picture in drawn.items()}
    for path, picture in paths.items():
        pictures.save(picture, path)
    return list(paths)


def example_images(probabilities: np.ndarray, groups: int) -> dict[int, np.ndarray]:
    """The three images of each of some components that are assigned to it most surely.

    Only components with at least three images count. Those whose three are the surest come first;
    where they differ by less than a percent, those with more images.

    Args:
      probabilities: of the components given each image, `[N, K]`.
      groups: how many components at most.

    Returns:
      Positions of the images by component, the surest first in both.
    """
    assigned, surest = probabilities.argmax(axis=1), probabilities.max(axis=1)
    counts = np.bincount(assigned, minlength=probabilities.shape[1])
    found = {}
    for component in np.flatnonzero(counts >= _EXAMPLES):
        members = np.flatnonzero(assigned == component)
        order = np.argsort(-surest[members], kind="stable")
        found[int(component)] = members[order[:_EXAMPLES]]

    def rank(component):
        return -round(float(surest[found[component]].min()), 2), -counts[component]

    return {component: found[component] for component in sorted(found, key=rank)[:groups]}


def kept_levels(num_levels: int) -> list[int]:
    """How many levels the rows of classes.png keep: the paper's, or all of fewer."""
    return sorted({min(k, num_levels) for k in _KEPT})


def _classes(
    model: MatNet, x: np.ndarray, examples: dict[int, np.ndarray], seed: int
) -> pictures.Figure:
    images = x[np.concatenate(list(examples.values()))]
    view, levels = model.watch(model.checked(images)), model.config.num_levels
    rows = []
    for kept in kept_levels(levels):
        # Without tf.function: each row needs a graph of its own, which takes longer than the walk.
        trace = model.walk(view, len(images), seed_tensor(seed), num_inferred=kept)
        row = model.images(trace, seed_tensor(seed)).numpy()
        rows.append((f"keep top {kept} of {levels}", row))
    groups = [(f"component {component}", _EXAMPLES) for component in examples]
    return pictures.reconstruction_grid(images, rows, groups)


def _components(model: MatNet, probabilities: np.ndarray, seed: int) -> pictures.Figure:
    counts = np.bincount(probabilities.argmax(axis=1), minlength=probabilities.shape[1])
    order = np.argsort(-counts, kind="stable")
    used = order[counts[order] > 0][:_MOST_COMPONENTS]
    draws = model.sample(len(used) * _DRAWS, seed=seed, component=np.repeat(used, _DRAWS)).numpy()
    labels = [f"component {c}, {counts[c]} assigned" for c in used]
    return pictures.labelled_rows(list(zip(labels, np.split(draws, len(used)), strict=True)))
