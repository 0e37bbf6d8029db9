# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The paper's figures, drawn from a work directory into its folder `figures`.

They are, in order:

samples.png                 100 draws from the model, as means of p(x | z) (paper, Fig. 3), or
                            with the local model as draws from it (paper, Fig. 5a)
samples_by_temperature.png  draws with the priors' scales multiplied by 1 down to 0.25
reconstructions.png         images, and what is left of them if the top k levels are kept from
                            the posterior and the rest drawn from the prior
kl_area.png                 the KL of every module over training, in nats, stacked (Fig. 4)
bits.png                    where the bits go: those of every module and of the pixels given
                            the latents, in bits per dimension over training, stacked; beside
                            it the runs to compare with
curves.png                  ELBO, log-likelihood, KL and learning rate over training

Of a conditional model, completions.png takes the place of the samples: masked images, several
completions and their pixel-wise mean, and the truth (Fig. 5); and there is no bits.png, since what
is hidden differs from image to image.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from matnet_tf import data, experiment, pictures
from matnet_tf.bounds import bits_per_dim
from matnet_tf.completions import completion_grid
from matnet_tf.config import DataConfig, Experiment
from matnet_tf.graphs import as_written
from matnet_tf.hierarchy import Hierarchy
from matnet_tf.model import MatNet
from matnet_tf.noise import seed_tensor
from matnet_tf.pixels import PIXELS

__all__ = ["write_figures"]

_SIDE = 10  # samples a side, and images a row
_COMPLETIONS, _IN_MEAN = 6, 100  # completions shown, and in their mean
_TEMPERATURES = (1.0, 0.85, 0.7, 0.5, 0.25)


@as_written
def write_figures(
    workdir: str | os.PathLike,
    weights: str = "auto",
    seed: int = 0,
    compare: Sequence[str | os.PathLike] = (),
) -> list[str]:
    """Draws a work directory's figures, listed above, into `<workdir>/figures/`.

    The images are the first 10 of the test split in an order shuffled by the seed. They are
    held-out examples to look at: no number is computed from them and nothing is chosen by them.

    Args:
      workdir: where `bin/train` ran.
      weights: `raw`, `averaged`, or `auto`: averaged where there are any.
      seed: of the samples, the reconstructions and the choice of images.
      compare: other work directories, for bits.png.

    Returns:
      The paths written, in the order above.

    Raises:
      ValueError: if the work directory has no config, no metrics or no checkpoint, the data set is
        not there, or runs are to be compared of which one is of a conditional model.
    """
    setup = experiment.read(workdir)
    rows = _metrics(workdir, setup.model.level_names)
    bits = _bit_areas(setup, workdir, compare)
    model = experiment.load(workdir, weights).model
    inputs = _examples(model, setup.data, seed)
    drawn = {
        **_draws(model, inputs, seed),
        "reconstructions": _reconstructions(model, inputs, seed),
        "kl_area": _kl_area(rows, setup.model.level_names),
        **bits,
        "curves": pictures.training_curves(rows),
    }
    folder = pathlib.Path(workdir) / "figures"
    folder.mkdir(exist_ok=True)
    paths = [str(folder / f"{name}.png") for name in drawn]
    for path, picture in zip(paths, drawn.values(), strict=True):
        pictures.save(picture, path)
    return paths


def _metrics(workdir: str | os.PathLike, level_names: tuple[str, ...]) -> list[dict[str, float]]:
    """The rows of metrics.csv, refused if there are none or they are of other levels."""
    rows = experiment.metrics_rows(workdir)
    if not rows:
        raise ValueError(f"{workdir} has no metrics yet (metrics.csv): train first")
    missing = [n for n in ("step", *(f"kl/{name}" for name in level_names)) if n not in rows[-1]]
    if missing:
        raise ValueError(f"{workdir}/metrics.csv has no value of {missing[0]} in its last row")
    return rows


def _examples(model: Hierarchy, config: DataConfig, seed: int) -> tuple[tf.Tensor, ...]:
    """Images `[n, H, W, C]` of the test split, n at most 10, and for a conditional model masks."""
    split = data.load(config, "test")
    # NumPy promises that RandomState gives the same numbers in every later version.
    chosen = np.random.RandomState(seed).permutation(split.num_images)[:_SIDE]
    return model.checked_inputs(
        *model.inputs_of(next(iter(split.evaluation_dataset(_SIDE, chosen))))
    )


# The model is walked without tf.function: each picture needs a graph of its own, and tracing it
# takes longer than the picture.


def _draws(
    model: Hierarchy, inputs: tuple[tf.Tensor, ...], seed: int
) -> dict[str, pictures.Figure]:
    """The figures of what the model makes up: samples, or completions of masked images."""
    if model.config.conditional_stages:
        return {"completions": completion_grid(model, inputs, _COMPLETIONS, _IN_MEAN, seed)}
    return {
        "samples": pictures.image_grid(_images(model, _SIDE**2, seed), _SIDE),
        "samples_by_temperature": pictures.labelled_rows(_by_temperature(model, seed)),
    }


def _images(model: Hierarchy, rows: int, seed: int, view: Any = None, **arguments: Any):
    """Images `[rows, H, W, C]` at the end of one walk down the network."""
    trace = model.walk(view, rows, seed_tensor(seed), **arguments)
    return model.images(trace, seed_tensor(seed)).numpy()


def _by_temperature(model: MatNet, seed: int) -> list[tuple[str, np.ndarray]]:
    """The same draws, colder from row to row."""
    return [
        (f"temperature {t:g}", _images(model, _SIDE, seed, temperature=t)) for t in _TEMPERATURES
    ]


def _reconstructions(model: Hierarchy, inputs: tuple[tf.Tensor, ...], seed: int) -> pictures.Figure:
    x, view, levels = inputs[0].numpy(), model.watch(*inputs), model.config.num_levels
    rows = [
        (f"keep top {k} of {levels}", _images(model, len(x), seed, view, num_inferred=k))
        for k in pictures.depths(levels)
    ]
    return pictures.reconstruction_grid(x, rows)


def _kl_area(rows: list[dict[str, float]], level_names: tuple[str, ...]) -> pictures.Figure:
    nothing = float("nan")
    kl = {name: [row.get(f"kl/{name}", nothing) for row in rows] for name in level_names}
    return pictures.kl_area([row["step"] for row in rows], kl)


def _bit_areas(
    setup: Experiment, workdir: str | os.PathLike, compare: Sequence[str | os.PathLike]
) -> dict[str, pictures.Figure]:
    """The figure of the bits; none of a conditional model."""
    if setup.model.conditional_stages and not compare:
        return {}
    return {"bits": pictures.bit_areas([_bits(other) for other in (workdir, *compare)])}


def _bits(workdir: str | os.PathLike) -> tuple[str, list[float], dict[str, list[float]]]:
    """Title, steps, and bits per dimension of every level and of the pixels."""
    model = experiment.unconditional(workdir, "bits.png").model
    rows = _metrics(workdir, model.level_names)
    nothing = float("nan")

    def column(tag: str, sign: float = 1.0, bins: int = 1) -> list[float]:
        nats = [sign * row.get(tag, nothing) for row in rows]
        return [bits_per_dim(n, model.image_shape, bins) for n in nats]

    parts = {name: column(f"kl/{name}") for name in model.level_names}
    name = f"{len(parts):02d}_{pictures.PIXELS}"
    parts[name] = column("log_likelihood", -1.0, PIXELS[model.likelihood].bins)
    extras = {"local model": model.autoregressive, "whitened": model.whitening}
    kind = ", ".join([model.likelihood, *(name for name, there in extras.items() if there)])
    title = f"{pathlib.Path(workdir).name}: {kind}"
    return title, [row["step"] for row in rows], parts
