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

A conditional model has no `decode` and no `sample`. Wherever it takes images it takes `mask` too,
float32 `[B, H, W, 1]`, 1 where a pixel is known and 0 elsewhere; its bounds, and bits per
dimension, are on the hidden values alone. Beside those above it has

    impute(images, mask, num_samples, temperature, seed)
                                    samples [num_samples, B, H, W, C] and their mean [B, H, W, C],
                                    with the known pixels as they are; what stands in the place of
                                    hidden ones, NaN included, has no effect

Each is a function of its inputs alone, and gives what the method of `MatNet`, or of
`ConditionalMatNet`, with its name gives for the same seed; `serving_default` has seed 0.
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
from matnet_tf.files import reason_of
from matnet_tf.hierarchy import Hierarchy, seed_tensor
from matnet_tf.likelihoods import Known
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


def save(model: Hierarchy, path: str | os.PathLike) -> None:
    """Writes any model as a SavedModel with the signatures of this module, in a new folder.

    It holds the weights that they read, and neither optimizer nor training counters.

    Raises:
      OSError: if it cannot be written.
    """
    holder = tf.Module()
    holder.weights = tuple(weight.value for weight in model.bound_weights)
    try:
        tf.saved_model.save(holder, str(path), signatures=signatures_of(model))
    except tf.errors.OpError as error:
        raise OSError(
            f"the SavedModel could not be written to {path}: {reason_of(error)}"
        ) from None


def signatures_of(model: Hierarchy) -> dict[str, Any]:
    """The signatures of a model by name, as concrete functions."""
    config, temperature = model.config, tf.TensorSpec([], tf.float32)
    inputs = {"images": tf.TensorSpec([None, *config.image_shape], tf.float32)}
    if config.conditional_stages:
        inputs["mask"] = tf.TensorSpec([None, *config.image_shape[:2], 1], tf.float32)
    samples = {"num_samples": _NUMBER, "seed": _NUMBER}
    specs = {
        _serving_default: inputs,
        _log_likelihood: inputs | samples,
        _encode: inputs | {"seed": _NUMBER},
        _reconstruct: inputs | {"num_inferred": _NUMBER, "seed": _NUMBER},
    }
    if config.conditional_stages:
        specs[_impute] = inputs | samples | {"temperature": temperature}
    else:
        levels = zip(config.level_names, model.latent_shapes, strict=True)
        specs[_decode] = {f"z_{name}": tf.TensorSpec([None, *s], tf.float32) for name, s in levels}
        specs[_sample] = {"num": _NUMBER, "temperature": temperature, "seed": _NUMBER}
    return {
        make.__name__.removeprefix("_"): _concrete(make(model), of_one)
        for make, of_one in specs.items()
    }


def _concrete(function: Callable[..., Outputs], specs: dict[str, tf.TensorSpec]) -> Any:
    named = {name: tf.TensorSpec(s.shape, s.dtype, name) for name, s in specs.items()}
    return tf.function(function).get_concrete_function(**named)


# One function per signature, which makes it for a model. `inputs` are images, or images and masks.


def _serving_default(model):
    def serving_default(**inputs):
        bound, trace = model.bound_and_trace(*_checked(model, **inputs), seed_tensor(0))
        outputs = {"elbo": bound.elbo, "log_likelihood": bound.log_likelihood}
        outputs |= {f"kl_{level}": kl for level, kl in bound.kl.items()}
        if model.likelihood.has_mean:
            outputs["reconstruction"] = model.images(trace, seed_tensor(0))
        return outputs

    return serving_default


def _log_likelihood(model):
    def log_likelihood(num_samples, seed, **inputs):
        num_samples = _at_least(1, "num_samples", num_samples)
        inputs = _checked(model, **inputs)
        nats = _bound(model, inputs, num_samples, _stateless(seed))
        bits = bits_per_dim(-nats, (_dims(*inputs),), model.likelihood.pixels.bins)
        return {"log_likelihood": nats, "bits_per_dim": bits}

    return log_likelihood


def _encode(model):
    def encode(seed, **inputs):
        inputs = _checked(model, **inputs)
        trace = model.walk(model.watch(*inputs), tf.shape(inputs[0])[0], _stateless(seed))
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
        num = _at_least(1, "num", num)
        temperature = _at_least(0, "temperature", temperature)
        trace = model.walk(None, num, _stateless(seed), temperature=temperature)
        return {"images": model.images(trace, _stateless(seed))}

    return sample


def _reconstruct(model):
    levels = model.config.num_levels

    def reconstruct(num_inferred, seed, **inputs):
        inside = (num_inferred >= 0) & (num_inferred <= levels)
        message = f"num_inferred must lie in [0, {levels}], the model's levels"
        num_inferred = _ensured(num_inferred, inside, message)
        inputs = _checked(model, **inputs)
        rows, seed = tf.shape(inputs[0])[0], _stateless(seed)
        trace = model.walk(model.watch(*inputs), rows, seed, num_inferred=num_inferred)
        return {"images": model.images(trace, seed)}

    return reconstruct


def _impute(model):
    image_shape = model.config.image_shape

    def impute(images, mask, num_samples, temperature, seed):
        num_samples = _at_least(1, "num_samples", num_samples)
        temperature = _at_least(0, "temperature", temperature)
        # What is hidden is taken away before anything looks at the images, the checks included.
        known = Known(*model.valid_inputs(*Known.of(*_counted(images, mask))))
        view, rows = model.watch_known(known), tf.shape(known.x)[0]

        def add(samples, k, seed):
            trace = model.walk(view, k * rows, seed, temperature=temperature)
            return samples.write(samples.size(), model.images(trace, seed))

        passes = tf.TensorArray(
            tf.float32, 0, dynamic_size=True, infer_shape=False, element_shape=[None, *image_shape]
        )
        passes = _in_passes(model, rows, num_samples, _stateless(seed), add, passes)
        samples = tf.reshape(passes.concat(), [num_samples, rows, *image_shape])
        return {"samples": samples, "mean": known.paste(tf.reduce_mean(samples, axis=0))}

    return impute


# What they share.


def _bound(
    model: Hierarchy, inputs: tuple[tf.Tensor, ...], num_samples: tf.Tensor, seed: tf.Tensor
) -> tf.Tensor:
    """The model's `log_likelihood` as a graph: the K-sample bound `[B]`, float64."""
    view, x = model.watch(*inputs), inputs[0]
    images = tf.shape(x)[0]

    def add(so_far, k, seed):
        largest, total = so_far
        log_weight = tf.cast(model.log_weight(x, view, k, seed), tf.float64)
        now_largest = tf.maximum(largest, tf.reduce_max(log_weight, axis=0))
        added = tf.reduce_sum(tf.exp(log_weight - now_largest), axis=0)
        return now_largest, total * tf.exp(largest - now_largest) + added

    nothing = tf.zeros([images], tf.float64)
    start = nothing + tf.float64.min, nothing
    largest, total = _in_passes(model, images, num_samples, seed, add, start)
    return largest + tf.math.log(total / tf.cast(num_samples, tf.float64))


def _in_passes(
    model: Hierarchy,
    images: tf.Tensor,
    num_samples: tf.Tensor,
    seed: tf.Tensor,
    add: Callable[[Any, tf.Tensor, tf.Tensor], Any],
    start: Any,
) -> Any:
    """Takes K samples per image in the passes, and with the seeds, of the model's methods.

    Args:
      model: its `samples_per_pass` bounds the memory.
      images: how many there are, at least 1.
      num_samples: K.
      seed: int32 `[2]`, from which each pass has its own.
      add: makes the next state from the last one, a number of samples and the seed of a pass.
      start: the first state.
    """
    per_pass = tf.maximum(1, model.samples_per_pass // images)

    def take(first, state):
        k = tf.minimum(per_pass, num_samples - first)
        return first + k, add(state, k, tf.random.fold_in(seed, first))

    return tf.while_loop(
        lambda first, _: first < num_samples, take, (0, start), parallel_iterations=1
    )[1]


def _dims(x: tf.Tensor, *masks: tf.Tensor) -> tf.Tensor:
    """How many values a bound is on, `[B]`: those of the image, or those that a mask hides."""
    hidden = 1.0 - masks[0] if masks else tf.ones_like(x[..., :1])
    return tf.reduce_sum(tf.cast(hidden, tf.float64), axis=[1, 2, 3]) * x.shape[-1]


def _stateless(seed: tf.Tensor) -> tf.Tensor:
    """The seed, int32 `[2]`, that `seed_tensor` makes of the same number."""
    return tf.stack([tf.zeros_like(seed), seed])


def _checked(model: Hierarchy, **inputs: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """Images, and masks if the model has them, which nothing can use unless they are valid."""
    return model.valid_inputs(*_counted(**inputs))


def _counted(images: tf.Tensor, mask: tf.Tensor | None = None) -> tuple[tf.Tensor, ...]:
    """At least one image, and if there are masks one for each."""
    count = tf.shape(images)[0]
    images = _ensured(images, count >= 1, "images must be at least one")
    if mask is None:
        return (images,)
    message = "mask must have as many entries as images, one for each"
    return images, _ensured(mask, tf.shape(mask)[0] == count, message)


def _at_least(least: int, name: str, value: tf.Tensor) -> tf.Tensor:
    return _ensured(value, value >= least, f"{name} must be at least {least}")


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
