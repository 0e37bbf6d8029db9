# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""A SavedModel with named signatures, which runs without this package.

Inputs and outputs have names; B is any number of images, float32 `[B, H, W, C]` in the model's
range; `num_samples`, `num`, `num_inferred` and `seed` are int32 scalars, `temperature` is a
float32 scalar. Levels are called `00_top`, `01_7x7`, ..., top first. Everything in nats.

    serving_default(images)         elbo, log_likelihood, kl_<level> [B]; reconstruction (not with
                                    the local autoregressive model, whose draw takes its time)
    log_likelihood(images, num_samples, seed)
                                    log_likelihood: the K-sample bound, bits_per_dim: [B] float64
    encode(images, seed)            loc_<level>, z_<level>: the posterior's mean and a draw
    decode(z_<level>, ...)          images [B, H, W, C]: the mean of p(x | z), or with the local
                                    autoregressive model a draw (with seed 0), as in the next two
    sample(num, temperature, seed)  images [num, H, W, C]
    reconstruct(images, num_inferred, seed)
                                    images: the top levels from the posterior, the rest drawn

Each is a function of its inputs alone, and gives what the method of `MatNet` with its name gives
for the same seed; `serving_default` has seed 0.
"""

from __future__ import annotations

import errno
import json
import os
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from matnet_tf import experiment
from matnet_tf.bounds import bits_per_dim
from matnet_tf.levels import seed_tensor
from matnet_tf.model import MatNet
from matnet_tf.version import __version__

__all__ = ["export", "save", "signatures_of"]

_NUMBER = tf.TensorSpec([], tf.int32)

Outputs = dict[str, tf.Tensor]


def export(workdir: str | os.PathLike, weights: str = "auto") -> str:
    """Writes the trained model of a work directory as a new version of its SavedModel.

    A version appears whole, under a number above all others, so a server that watches the folder
    never sees half of one. Its `assets.extra/` holds the run's config.json, and export.json: which
    weights, of which step.

    Args:
      workdir: where `bin/train` ran.
      weights: `raw`, `averaged`, or `auto`: averaged where there are such.

    Returns:
      The path, `<workdir>/export/<version>`.

    Raises:
      ValueError: if the work directory cannot be used.
      OSError: if the files cannot be written; nothing is left of them then.
    """
    loaded = experiment.load(workdir, weights)
    folder = pathlib.Path(workdir) / "export"
    folder.mkdir(exist_ok=True)
    temporary = folder / f".writing.{os.getpid()}"
    try:
        save(loaded.model, temporary)
        extra = temporary / "assets.extra"
        extra.mkdir()
        shutil.copy(pathlib.Path(workdir) / "config.json", extra)
        origin = {
            "weights": loaded.weights,
            "checkpoint_step": loaded.step,
            "package_version": __version__,
            "commit": experiment.commit(),
        }
        (extra / "export.json").write_text(json.dumps(origin, indent=2) + "\n", encoding="utf-8")
        return str(_publish(temporary, folder))
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def save(model: MatNet, path: str | os.PathLike) -> None:
    """Writes any MatNet as a SavedModel with the signatures of this module, in a new folder.

    It holds the weights that they read, and neither optimizer nor training counters.

    Raises:
      OSError: if it cannot be written.
    """
    holder = tf.Module()
    holder.weights = tuple(weight.value for weight in model.bound_weights)
    try:
        tf.saved_model.save(holder, str(path), signatures=signatures_of(model))
    except tf.errors.OpError as error:
        reason = str(error).splitlines()[0][:200]
        raise OSError(f"the SavedModel could not be written to {path}: {reason}") from None


def signatures_of(model: MatNet) -> dict[str, Any]:
    """The signatures of a MatNet by name, as concrete functions."""
    images = tf.TensorSpec([None, *model.config.image_shape], tf.float32)
    temperature = tf.TensorSpec([], tf.float32)
    latents = {
        f"z_{level}": tf.TensorSpec([None, *shape], tf.float32)
        for level, shape in zip(model.config.level_names, model.latent_shapes, strict=True)
    }
    inputs = {
        _serving_default: {"images": images},
        _log_likelihood: {"images": images, "num_samples": _NUMBER, "seed": _NUMBER},
        _encode: {"images": images, "seed": _NUMBER},
        _decode: latents,
        _sample: {"num": _NUMBER, "temperature": temperature, "seed": _NUMBER},
        _reconstruct: {"images": images, "num_inferred": _NUMBER, "seed": _NUMBER},
    }
    return {
        make.__name__.removeprefix("_"): _concrete(make(model), specs)
        for make, specs in inputs.items()
    }


def _concrete(function: Callable[..., Outputs], specs: dict[str, tf.TensorSpec]) -> Any:
    named = {name: tf.TensorSpec(s.shape, s.dtype, name) for name, s in specs.items()}
    return tf.function(function).get_concrete_function(**named)


# One function per signature, which makes it for a model.


def _serving_default(model):
    def serving_default(images):
        bound, trace = model.bound_and_trace(_checked(model, images), seed_tensor(0))
        outputs = {"elbo": bound.elbo, "log_likelihood": bound.log_likelihood}
        outputs |= {f"kl_{level}": kl for level, kl in bound.kl.items()}
        if model.likelihood.has_mean:
            outputs["reconstruction"] = model.images(trace, seed_tensor(0))
        return outputs

    return serving_default


def _log_likelihood(model):
    def log_likelihood(images, num_samples, seed):
        num_samples = _ensured(num_samples, num_samples >= 1, "num_samples must be at least 1")
        nats = _bound(model, _checked(model, images), num_samples, _stateless(seed))
        bits = bits_per_dim(-nats, model.config.image_shape, model.likelihood.pixels.bins)
        return {"log_likelihood": nats, "bits_per_dim": bits}

    return log_likelihood


def _encode(model):
    def encode(images, seed):
        x = _checked(model, images)
        trace = model.walk(model.watch(x), tf.shape(x)[0], _stateless(seed))
        means = {f"loc_{level.name}": level.posterior.mean() for level in trace.levels}
        return means | {f"z_{level.name}": level.z for level in trace.levels}

    return encode


def _decode(model):
    def decode(**latents):
        z = tuple(latents[f"z_{level}"] for level in model.config.level_names)
        trace = model.walk(None, tf.shape(z[0])[0], seed_tensor(0), latents=z)
        return {"images": model.images(trace, seed_tensor(0))}

    return decode


def _sample(model):
    def sample(num, temperature, seed):
        num = _ensured(num, num >= 1, "num must be at least 1")
        temperature = _ensured(temperature, temperature >= 0, "temperature must be at least 0")
        trace = model.walk(None, num, _stateless(seed), temperature=temperature)
        return {"images": model.images(trace, _stateless(seed))}

    return sample


def _reconstruct(model):
    levels = model.config.num_levels

    def reconstruct(images, num_inferred, seed):
        inside = (num_inferred >= 0) & (num_inferred <= levels)
        message = f"num_inferred must lie in [0, {levels}], the model's levels"
        num_inferred = _ensured(num_inferred, inside, message)
        x = _checked(model, images)
        trace = model.walk(
            model.watch(x), tf.shape(x)[0], _stateless(seed), num_inferred=num_inferred
        )
        return {"images": model.images(trace, _stateless(seed))}

    return reconstruct


# What they share.


def _bound(model: MatNet, x: tf.Tensor, num_samples: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """`MatNet.log_likelihood` as a graph: the K-sample bound `[B]`, float64, chunk by chunk."""
    view, images = model.watch(x), tf.shape(x)[0]
    per_pass = tf.maximum(1, model.samples_per_pass // tf.maximum(1, images))

    def add_chunk(first, largest, total):
        k = tf.minimum(per_pass, num_samples - first)
        log_weight = model.log_weight(x, view, k, tf.random.fold_in(seed, first))
        log_weight = tf.cast(log_weight, tf.float64)
        now_largest = tf.maximum(largest, tf.reduce_max(log_weight, axis=0))
        added = tf.reduce_sum(tf.exp(log_weight - now_largest), axis=0)
        return first + k, now_largest, total * tf.exp(largest - now_largest) + added

    nothing = tf.zeros([images], tf.float64)
    start = (0, nothing + tf.float64.min, nothing)
    _, largest, total = tf.while_loop(
        lambda first, *_: first < num_samples, add_chunk, start, parallel_iterations=1
    )
    return largest + tf.math.log(total / tf.cast(num_samples, tf.float64))


def _stateless(seed: tf.Tensor) -> tf.Tensor:
    """The seed, int32 `[2]`, that `seed_tensor` makes of the same number."""
    return tf.stack([tf.zeros_like(seed), seed])


def _checked(model: MatNet, images: tf.Tensor) -> tf.Tensor:
    pixels = model.likelihood.pixels
    images = _ensured(images, tf.shape(images)[0] >= 1, "images must be at least one")
    valid = ~tf.reduce_any(pixels.invalid(images))
    return _ensured(images, valid, f"images must be {pixels.expected}")


def _ensured(value: tf.Tensor, condition: tf.Tensor, message: str) -> tf.Tensor:
    """The value, which nothing can use before the condition was seen to hold."""
    with tf.control_dependencies([tf.debugging.Assert(condition, [message])]):
        return tf.identity(value)


# Versions.


def _publish(temporary: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """Renames a whole SavedModel to the next version, also while others do the same."""
    while True:
        versions = [int(p.name) for p in folder.iterdir() if p.name.isdecimal()]
        target = folder / str(1 + max(versions, default=0))
        try:
            temporary.rename(target)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
        else:
            return target
