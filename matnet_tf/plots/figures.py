# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The paper's figures, drawn from a work directory into its folder `figures`.

In order:

samples.png                 100 samples of the model, as means of p(x | z) (paper, Fig. 3), or with
                            the local autoregressive model as draws (paper, Fig. 5a)
samples_by_temperature.png  samples with the priors' scales multiplied by 1 down to 0.25
reconstructions.png         images, and what is left of them if the top k levels are kept from
                            the posterior and the rest drawn from the prior
kl_area.png                 the KL of every module over training, in nats, stacked (Fig. 4)
bits.png                    where the bits go: bits per dimension of every module and of the
                            pixels given the latents over training, stacked; beside them those of
                            other runs to compare with
curves.png                  ELBO, log-likelihood, KL and learning rate over training

For a conditional model, completions.png replaces the samples: masked images, several completions
and their pixel-wise mean, and the truth (Fig. 5). It has no bits.png, since the number of missing
pixels differs from image to image. A published model has no record of its training, and none of the
figures of it: kl_area.png, bits.png, curves.png.
"""

from __future__ import annotations

import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from matnet_tf.config import DataConfig, Experiment
from matnet_tf.data import loading
from matnet_tf.distributions.stateless_random import seed_tensor
from matnet_tf.likelihoods.observation import OBSERVATIONS
from matnet_tf.model.bounds import bits_per_dim
from matnet_tf.model.elbo_model import ElboModel
from matnet_tf.plots import curves, drawing
from matnet_tf.plots.completions import completion_grid
from matnet_tf.presets import is_published
from matnet_tf.runs.models import load_run
from matnet_tf.runs.workdir import read_experiment, read_metrics, read_unconditional
from matnet_tf.tracing import without_autograph

__all__ = ["write_figures", "write_samples"]

_SIDE = 10  # Samples per side, and images per row.
_COMPLETIONS, _IN_MEAN = 6, 100  # Completions shown, and completions in their mean.
_TEMPERATURES = (1.0, 0.85, 0.7, 0.5, 0.25)
_NAN = float("nan")


@without_autograph
def write_figures(
    workdir: str | os.PathLike,
    weights: str = "auto",
    seed: int = 0,
    compare: Sequence[str | os.PathLike] = (),
    data_dir: str = "",
) -> list[str]:
    """Draws the figures of a work directory, listed above, into `<workdir>/figures/`.

    The images are the first 10 of the test split in an order shuffled by the seed. They only
    illustrate: no number is computed from them and nothing is chosen by them.

    Args:
      workdir: A work directory of `matnet train`.
      weights: `raw`, `averaged`, or `auto`: averaged where the run has averages.
      seed: Integer seed for the samples, the reconstructions and the choice of images.
      compare: Other work directories, for bits.png.
      data_dir: Directory of the data, if it is not the one in the work directory's config.

    Returns:
      The paths written, in the order above.

    Raises:
      ValueError: If the work directory has no config, no metrics or no checkpoint, the data set is
        missing, or one of the runs to compare is conditional.
    """
    experiment = read_experiment(workdir, data_dir)
    training = {} if is_published(workdir) else _training(experiment, workdir, compare)
    model = load_run(workdir, weights).model
    inputs = _examples(model, experiment.data, seed)
    drawn = {
        **_draws(model, inputs, seed),
        "reconstructions": _reconstructions(model, inputs, seed),
        **training,
    }
    folder = pathlib.Path(workdir) / "figures"
    folder.mkdir(exist_ok=True)
    paths = [str(folder / f"{name}.png") for name in drawn]
    for path, picture in zip(paths, drawn.values(), strict=True):
        drawing.save(picture, path)
    return paths


@without_autograph
def write_samples(
    workdir: str | os.PathLike,
    num: int,
    output: str | os.PathLike = "",
    temperature: float = 1.0,
    seed: int = 0,
    weights: str = "auto",
) -> str:
    """Draws images from the model of a work directory into one PNG file.

    Args:
      workdir: A work directory of `matnet train`.
      num: Number of images; they form a square as nearly as possible.
      output: The file; by default `<workdir>/figures/draws.png`.
      temperature: Factor on the scales of all priors.
      seed: Integer seed of the images.
      weights: As in `write_figures`.

    Returns:
      The path written.

    Raises:
      ValueError: If the work directory cannot be used, its model is conditional, the file's name
        does not end in .png, or a number is out of range.
    """
    read_unconditional(workdir, "sampling")
    path = pathlib.Path(output or pathlib.Path(workdir) / "figures" / "draws.png")
    if path.suffix.lower() != ".png" or path.is_dir():
        raise ValueError(f"the output must be a file whose name ends in .png; got {path}")
    images = load_run(workdir, weights).model.sample(num, temperature, seed).numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    drawing.save(drawing.image_grid(images, math.ceil(math.sqrt(num))), str(path))
    return str(path)


def _training(
    experiment: Experiment, workdir: str | os.PathLike, compare: Sequence[str | os.PathLike]
) -> dict[str, drawing.Figure]:
    """Draws the figures of the training from metrics.csv."""
    levels = experiment.model.level_names
    rows = _metrics(workdir, levels)
    title = _title(workdir, experiment.data.name, rows[-1])
    return {
        "kl_area": _kl_area(rows, levels, title),
        **_bit_areas(experiment, workdir, compare),
        "curves": curves.training_curves(rows, title),
    }


def _title(workdir: str | os.PathLike, data: str, row: dict[str, float]) -> str:
    name = pathlib.Path(workdir).resolve().name
    elbo = f"ELBO of training images {row.get('elbo', _NAN):.2f} nats"
    return f"{name}: {data}, step {row['step']:,.0f}, {elbo}"


def _metrics(workdir: str | os.PathLike, level_names: tuple[str, ...]) -> list[dict[str, float]]:
    """Reads the rows of metrics.csv; refuses a file without rows or with other levels."""
    rows = read_metrics(workdir)
    if not rows:
        raise ValueError(f"{workdir} has no metrics yet (metrics.csv): train first")
    missing = [n for n in ("step", *(f"kl/{name}" for name in level_names)) if n not in rows[-1]]
    if missing:
        raise ValueError(f"{workdir}/metrics.csv has no value of {missing[0]} in its last row")
    return rows


def _examples(model: ElboModel, config: DataConfig, seed: int) -> tuple[tf.Tensor, ...]:
    """Loads at most 10 images `[n, H, W, C]` of the test split, with masks if conditional."""
    split = loading.load(config, "test")
    # NumPy promises that RandomState gives the same numbers in every later version.
    chosen = np.random.RandomState(seed % 2**32).permutation(split.num_images)[:_SIDE]
    with split.images.reading():
        element = next(iter(split.evaluation_dataset(_SIDE, chosen)))
    return model.input_form.check(*model.input_form.unpack(element))


# The passes below are eager: each figure would need a graph of its own, and tracing it takes
# longer than the pass.


def _draws(model: ElboModel, inputs: tuple[tf.Tensor, ...], seed: int) -> dict[str, Any]:
    """Draws samples, or for a conditional model completions of masked images."""
    if model.config.conditional_stages:
        return {"completions": completion_grid(model, inputs, _COMPLETIONS, _IN_MEAN, seed)}
    by_temperature = [
        (f"temperature {t:g}", _images(model, _SIDE, seed, temperature=t)) for t in _TEMPERATURES
    ]
    return {
        "samples": drawing.image_grid(_images(model, _SIDE**2, seed), _SIDE),
        "samples_by_temperature": drawing.labelled_rows(by_temperature),
    }


def _images(model: ElboModel, rows: int, seed: int, encoding: Any = None, **arguments: Any):
    """Returns the images `[rows, H, W, C]` of one top-down pass."""
    seed = seed_tensor(seed)
    trace = model.hierarchy.top_down_pass(encoding, rows, seed, **arguments)
    return model.hierarchy.images(trace, seed).numpy()


def _reconstructions(model: ElboModel, inputs: tuple[tf.Tensor, ...], seed: int) -> drawing.Figure:
    x, encoding = inputs[0].numpy(), model.hierarchy.encode(*inputs)
    levels = model.config.num_levels
    rows = [
        (f"keep top {k} of {levels}", _images(model, len(x), seed, encoding, num_inferred=k))
        for k in drawing.depths(levels)
    ]
    return drawing.reconstruction_grid(x, rows)


def _kl_area(
    rows: list[dict[str, float]], level_names: tuple[str, ...], title: str
) -> drawing.Figure:
    kl = {name: [row.get(f"kl/{name}", _NAN) for row in rows] for name in level_names}
    return curves.kl_area([row["step"] for row in rows], kl, title)


def _bit_areas(
    experiment: Experiment, workdir: str | os.PathLike, compare: Sequence[str | os.PathLike]
) -> dict[str, drawing.Figure]:
    """Draws bits.png, unless the model is conditional and there is nothing to compare with."""
    if experiment.model.conditional_stages and not compare:
        return {}
    return {"bits": curves.bit_areas([_bits(other) for other in (workdir, *compare)])}


def _bits(workdir: str | os.PathLike) -> tuple[str, list[float], dict[str, list[float]]]:
    """Returns title, steps, and bits per dimension of every level and of the pixels."""
    model = read_unconditional(workdir, "bits.png").model
    rows = _metrics(workdir, model.level_names)

    def column(tag: str, sign: float = 1.0, bins: int = 1) -> list[float]:
        nats = [sign * row.get(tag, _NAN) for row in rows]
        return [bits_per_dim(n, model.image_shape, bins) for n in nats]

    parts = {name: column(f"kl/{name}") for name in model.level_names}
    pixels = f"{len(parts):02d}_{curves.PIXELS}"
    parts[pixels] = column("log_likelihood", -1.0, OBSERVATIONS[model.likelihood].bins)
    extras = {"local model": model.autoregressive, "whitened": model.whitening}
    kind = ", ".join([model.likelihood, *(name for name, used in extras.items() if used)])
    title = f"{pathlib.Path(workdir).name}: {kind}"
    return title, [row["step"] for row in rows], parts
