# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The model card of an export: architecture, data, training, and measured bounds."""

from __future__ import annotations

import math
import pathlib
from typing import Any

from matnet_tf.evaluation.records import read_records
from matnet_tf.runs.models import LoadedRun
from matnet_tf.runs.workdir import read_metrics, training_images
from matnet_tf.serving.signatures import signatures_of

__all__ = ["model_card"]

_BINARY = "The likelihood is Bernoulli: images are binary, 0 and 1 (as 8-bit pixels 0 and 255)."


def model_card(workdir: pathlib.Path, loaded: LoadedRun, max_image_samples: int = 0) -> str:
    """Returns a Markdown page about the model of a work directory.

    It lists the bounds of evaluation.json that were measured with these weights, each with its K,
    number of images, binarization and split, and the deviations from the paper. For an export it
    has the signatures, and the most images times samples that a request may ask for.

    Raises:
      ValueError: If a record of evaluation.json cannot be read.
    """
    parts = [
        "# A MatNet made with matnet-tf",
        _architecture(loaded),
        "## Data\n\n" + _data(workdir, loaded),
        "## Training\n\n" + _training(workdir, loaded),
        "## Bounds\n\n" + _bounds(workdir, loaded),
        "## Deviations from the paper\n\n" + _deviations(loaded),
    ]
    if max_image_samples:
        parts.append("## Signatures\n\n" + _signatures(loaded, max_image_samples))
    return "\n\n".join(parts) + "\n"


def _architecture(loaded):
    config = loaded.model.config
    stages = config.conditional_stages
    plural = "s" if stages > 1 else ""
    kind = f"Conditional, p(x_u | x_k), {stages} stage{plural}" if stages else "Unconditional, p(x)"
    height, width, channels = config.image_shape
    weights = sum(math.prod(v.shape) for v in loaded.model.bound_weights)
    scales = ", ".join(str(scale) for scale in config.scales)
    likelihood = ("local autoregressive " if config.autoregressive else "") + config.likelihood
    text = (
        f"{kind}. Images of {height}x{width}x{channels}, {config.num_levels} levels of latents, "
        f"{weights:,} weights. Scales {scales} (size:filters:latents:modules), {config.update} "
        f"updates, {likelihood} likelihood."
    )
    return f"{text} {_BINARY}" if config.likelihood == "bernoulli" else text


def _data(workdir, loaded):
    data, seen = loaded.experiment.data, training_images(workdir)
    count = f"{seen['count']:,} images (digest {seen['digest']})" if seen else "images"
    text = f"Trained on {count} of {data.name}, split {data.train_split}"
    text += f"; binarization {data.binarization}; draw seed {data.draw_seed}"
    if data.mask != "none":
        text += f"; masks: {data.mask}"
    return text + "."


def _training(workdir, loaded):
    rows = read_metrics(workdir)
    text = f"Step {loaded.step:,}, {loaded.weights} weights, seed {loaded.experiment.seed}"
    if rows:
        text += f"; mean ELBO on training images in the last interval: {rows[-1]['elbo']:.2f} nats"
    return text + "."


def _bounds(workdir, loaded):
    records = [
        record
        for record in read_records(workdir)
        if (record.get("weights"), record.get("checkpoint_step")) == (loaded.weights, loaded.step)
    ]
    if not records:
        return "None was measured with these weights: run `matnet evaluate` before `matnet export`."
    try:
        return "\n".join(_bound(record) for record in records)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{workdir / 'evaluation.json'} has a record that `matnet evaluate` did not write "
            f"({error!r}); move the file away to continue"
        ) from None


def _bound(record: dict[str, Any]) -> str:
    """Describes a record of `matnet evaluate` in one list item."""
    images, binarization = record["images"], record["binarization"]["method"]
    error = "" if record["nll_se"] is None else f" +- {record['nll_se']:.2f}"
    subset = images["subset_seed"]
    which = "all" if subset is None else f"{images['count']:,} (subset seed {subset}) of the"
    return (
        f"- {record['nll']:.2f}{error} nats per image, {record['bits_per_dim']:.3f} bits per "
        f"dimension: minus the importance-weighted bound, K={record['num_samples']}. Minus the "
        f"ELBO: {record['neg_elbo']:.2f} nats. Over {which} {images['of']:,} images of "
        f"{record['data']}, split {record['split']}, binarization {binarization}, seed "
        f"{record['seed']}."
    )


def _signatures(loaded, max_image_samples):
    names = ", ".join(f"`{name}`" for name in signatures_of(loaded.model))
    return f"{names}. A request may ask for at most {max_image_samples:,} images times samples."


def _deviations(loaded):
    config, train = loaded.model.config, loaded.experiment.train
    found = [
        (config.activation != "leaky_relu", f"activation {config.activation}, not leaky ReLU"),
        (True, f"one trained scalar on all latent parameters, initially {config.latent_scale:g}"),
        (True, f"log-variances bounded to +-{config.log_var_bound:g} by a tanh"),
        (config.prior != "learned", f"prior {config.prior} at every level"),
        (not config.deterministic_paths, "no deterministic path down (a ladder)"),
        (not config.merge_state, "no state in the merge chain"),
        (config.top_everywhere, "z_0 is an input of every module"),
        (config.known_everywhere and config.conditional_stages, "known pixels reach every module"),
        (loaded.weights == "averaged", "weights averaged over training steps"),
        (train.regularizer != "none", f"guide regularized by {train.regularizer}"),
    ]
    return "\n".join(f"- {text}" for holds, text in found if holds)
