# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The page that goes with an exported model: what it is, what it saw, what was measured of it."""

from __future__ import annotations

import math
import pathlib
from typing import Any

from matnet_tf import evaluation_files, experiment
from matnet_tf.signatures import signatures_of

__all__ = ["model_card"]

_BINARY = (
    "Its likelihood is Bernoulli: the numbers are likelihoods for binary images only; for pixels "
    "between 0 and 1 they are expected log-probabilities of their binarization."
)


def model_card(workdir: pathlib.Path, loaded: experiment.Loaded) -> str:
    """Markdown text on the model of a work directory.

    It gives the architecture, the data, the training, every bound of evaluation.json that was
    measured with these weights (which bound, K, how many images, which binarization, on which
    split), and where this model is not the paper's.
    """
    parts = [
        "# A MatNet made with matnet-tf",
        _what(loaded),
        "## Data\n\n" + _data(workdir, loaded),
        "## Training\n\n" + _training(workdir, loaded),
        "## Bounds\n\n" + _bounds(workdir, loaded),
        "## Deviations from the paper\n\n" + _deviations(loaded),
        "## Signatures\n\n" + ", ".join(f"`{name}`" for name in signatures_of(loaded.model)) + ".",
    ]
    return "\n\n".join(parts) + "\n"


def _what(loaded):
    config = loaded.model.config
    stages = config.conditional_stages
    kind = f"conditional, p(x_u | x_k), of {stages} stages" if stages else "unconditional, p(x)"
    height, width, channels = config.image_shape
    weights = sum(math.prod(v.shape) for v in loaded.model.bound_weights)
    modules = ", ".join(str(stage) for stage in config.stages)
    text = (
        f"It is {kind}, for images of {height}x{width}x{channels}, with {config.num_levels} levels "
        f"of latents and {weights:,} weights: modules {modules} (size:filters:latents:modules), "
        f"updates {config.update}, likelihood {config.likelihood}"
        f"{', with the local autoregressive model' if config.autoregressive else ''}."
    )
    return f"{text} {_BINARY}" if config.likelihood == "bernoulli" else text


def _data(workdir, loaded):
    data, seen = loaded.experiment.data, experiment.training_images(workdir)
    count = f"{seen['count']:,} images (digest {seen['digest']})" if seen else "images"
    text = f"Trained on {count} of {data.name}, split {data.train_split}"
    text += f"; binarization {data.binarization}; draw seed {data.draw_seed}"
    if data.mask != "none":
        text += f"; masks: {data.mask}"
    return text + "."


def _training(workdir, loaded):
    rows = experiment.metrics_rows(workdir)
    text = f"Step {loaded.step:,}, {loaded.weights} weights, seed {loaded.experiment.seed}"
    if rows:
        text += f"; ELBO on training images, mean since the row before: {rows[-1]['elbo']:.2f} nats"
    return text + "."


def _bounds(workdir, loaded):
    records = [
        record
        for record in evaluation_files.read_records(workdir)
        if (record.get("weights"), record.get("checkpoint_step")) == (loaded.weights, loaded.step)
    ]
    if not records:
        return "None was measured with these weights: run `bin/evaluate` before `bin/export`."
    try:
        return "\n".join(_line(record) for record in records)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{workdir / 'evaluation.json'} has a record that bin/evaluate did not write "
            f"({error!r}); move the file away to go on"
        ) from None


def _line(record: dict[str, Any]) -> str:
    """What a record of `bin/evaluate` says, as an entry of a list."""
    images, binarization = record["images"], record["binarization"]["method"]
    error = "" if record["nll_se"] is None else f" +- {record['nll_se']:.2f}"
    subset = images["subset_seed"]
    some = "all" if subset is None else f"{images['count']:,} (subset seed {subset}) of the"
    tuned = "; TUNED ON TEST IMAGES" if record["tuned_on_test"] else ""
    return (
        f"- {record['nll']:.2f}{error} nats per image, {record['bits_per_dim']:.3f} bits per "
        f"dimension: minus the importance-weighted bound with K={record['num_samples']}; "
        f"{record['neg_elbo']:.2f} nats: minus the ELBO. Over {some} {images['of']:,} images of "
        f"{record['data']}, split {record['split']}, binarization {binarization}, seed "
        f"{record['seed']}{tuned}."
    )


def _deviations(loaded):
    """Where the model is not as the paper has it."""
    config, train = loaded.model.config, loaded.experiment.train
    found = [
        (config.activation != "leaky_relu", f"activation {config.activation}, not leaky ReLU"),
        (True, f"one trained scalar, at first {config.latent_scale:g}, on all latent parameters"),
        (True, f"log-variances bounded to +-{config.log_var_bound:g} by a tanh"),
        (config.prior != "learned", f"prior {config.prior} at every level"),
        (not config.deterministic_paths, "no deterministic path down (a ladder)"),
        (not config.merge_state, "no state of the merge chain"),
        (config.top_everywhere, "z_0 is an input of every module"),
        (config.known_everywhere and config.conditional_stages, "known pixels reach every module"),
        (loaded.weights == "averaged", "weights averaged over training steps"),
        (train.regularizer != "none", f"guide regularized by {train.regularizer}"),
    ]
    return "\n".join(f"- {text}" for holds, text in found if holds)
