# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The signatures of a SavedModel: what a server offers, as functions of their inputs alone.

B is any number of images up to `served_inputs.MOST_ROWS`; levels are called `00_top`, `01_7x7`,
..., top first; everything is in nats. Of an input "with a value of each image" a scalar does for
all of them.

    serving_default(images)         elbo, log_likelihood, kl_<level> [B]; reconstruction (not with
                                    the local autoregressive model, whose draw takes its time)
    log_likelihood(images, num_samples = 100, seed = 0)
                                    log_likelihood: the K-sample bound, bits_per_dim: [B] float64
    encode(images, seed = 0)        loc_<level>, z_<level>: the posterior's mean and a draw
    decode(z_<level>, ...)          images [B, H, W, C]: the mean of p(x | z), and the parameters of
                                    p(x | z), `logits` or `loc` and `scale`, each [B, H, W, C]. With
                                    the local autoregressive model: a draw (of seed 0), alone
    sample(num = 1, temperature = 1, seed = 0)
                                    images [num, H, W, C]; image i is that of `seed + i`
    sample_component(component, num = 1, temperature = 1, seed = 0)
                                    likewise, z_0 being drawn from one component of the mixture
    reconstruct(images, num_inferred, seed = 0)
                                    images: the top levels from the posterior, the rest drawn

A conditional model has none of `decode`, `sample` and `sample_component`. Wherever it takes images
it takes `mask` too, `[B, H, W, 1]`, 1 where a pixel is known and 0 elsewhere; its bounds, and bits
per dimension, are on the hidden values alone. Beside those above it has

    impute(images, mask, num_samples = 1, temperature = 1, seed = 0)
                                    samples [B, num_samples, H, W, C] and their mean [B, H, W, C],
                                    with the known pixels as they are; what stands in the place of
                                    hidden ones, NaN included, has no effect

Images are float32 `[B, H, W, C]` in the model's range. Each signature that takes them has two
twins: `<name>_uint8` takes 8-bit images, uint8 `[B, H, W, C]` (and masks, 0 where hidden), and, for
images of 1, 3 or 4 channels, `<name>_serialized` takes PNG or JPEG files, strings `[B]` (and masks
of one channel, white where known).

`num_samples`, `num`, `num_inferred`, `component` and `seed` are int32, `temperature` is float32.
`seed` and `num_inferred`, and `num_samples` of a bound, may have a value of each image.

What an image gets depends on the image, its own seed and the other inputs, not on how many or
which images share the batch, to the last bit: all is computed in `blocks` of rows, the last
filled up, each row with noise of its own. The methods of `MatNet`, and of
`ConditionalMatNet`, with the names of the signatures give the same for the same seeds, one for each
image.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from matnet_tf import noise
from matnet_tf.blocks import BLOCK, Outputs, by_block, in_passes, samples_per_pass
from matnet_tf.bounds import bits_per_dim
from matnet_tf.graphs import graph
from matnet_tf.hierarchy import Hierarchy
from matnet_tf.likelihoods import Known
from matnet_tf.served_inputs import (
    MOST_SAMPLES,
    bytes_of,
    checked,
    count_of,
    counted,
    image_specs,
    of_each,
    one,
    rising,
    seeds,
    shaped,
)

__all__ = ["Signature", "signatures_of"]

_CHANNELS_OF_FILES = (1, 3, 4)
_WHOLE, _REAL = tf.TensorSpec(None, tf.int32), tf.TensorSpec(None, tf.float32)


class Signature(NamedTuple):
    """A function as a server offers it."""

    function: Callable[..., Outputs]  # of its inputs, by name
    specs: dict[str, tf.TensorSpec]  # of the inputs; those with defaults come last
    defaults: dict[str, Any]

    def served(self) -> Any:
        """The `tf.function` that `tf.saved_model.save` takes, with its inputs' defaults."""
        specs = {n: tf.TensorSpec(s.shape, s.dtype, n) for n, s in self.specs.items()}

        def signature(*values):
            return self.function(**dict(zip(specs, values, strict=True)))

        signature.__signature__ = inspect.Signature([self._parameter(name) for name in specs])
        return tf.function(signature, input_signature=list(specs.values()), autograph=False)

    def _parameter(self, name: str) -> inspect.Parameter:
        default = inspect.Parameter.empty
        if name in self.defaults:
            default = tf.constant(self.defaults[name], self.specs[name].dtype)
        return inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default)


def signatures_of(model: Hierarchy) -> dict[str, Signature]:
    """The signatures of a model by name."""
    makers = [_serving_default, _log_likelihood, _encode, _reconstruct]
    if model.config.conditional_stages:
        makers.append(_impute)
    else:
        makers += [_decode, _sample]
        if model.config.mixture_components:
            makers.append(_sample_component)
    found = {}
    for make in makers:
        signature = make(model)
        # One graph, which its twins call, too.
        signature = signature._replace(function=graph(signature.function))
        found[make.__name__.removeprefix("_")] = signature
    for name, signature in list(found.items()):
        if "images" in signature.specs:
            found[f"{name}_uint8"] = _twin(model, signature, tf.uint8)
            if model.config.image_shape[-1] in _CHANNELS_OF_FILES:
                found[f"{name}_serialized"] = _twin(model, signature, tf.string)
    return found


# One function per signature, which makes it for a model.


def _serving_default(model):
    def block(seed, **inputs):
        bound, trace = model.bound_and_trace(*inputs.values(), seed)
        outputs = {"elbo": bound.elbo, "log_likelihood": bound.log_likelihood}
        outputs |= {f"kl_{level}": kl for level, kl in bound.kl.items()}
        if model.likelihood.has_mean:
            outputs["reconstruction"] = model.images(trace, seed)
        return outputs

    return _of_images(model, block, {})


def _log_likelihood(model):
    def block(num_samples, seed, **inputs):
        nats = _bound(model, tuple(inputs.values()), num_samples, seed)
        bits = bits_per_dim(-nats, (_dims(*inputs.values()),), model.likelihood.pixels.bins)
        return {"log_likelihood": nats, "bits_per_dim": bits}

    defaults = {"num_samples": 100, "seed": 0}
    return _of_images(model, block, defaults, num_samples=(1, MOST_SAMPLES))


def _encode(model):
    def block(seed, **inputs):
        trace = model.walk(model.watch(*inputs.values()), BLOCK, noise.of_walk(seed, 1))
        means = {f"loc_{level.name}": level.posterior.mean() for level in trace.levels}
        return means | {f"z_{level.name}": level.z for level in trace.levels}

    return _of_images(model, block, {"seed": 0})


def _reconstruct(model):
    def block(num_inferred, seed, **inputs):
        view = model.watch(*inputs.values())
        trace = model.walk(view, BLOCK, seed, num_inferred=num_inferred)
        return {"images": model.images(trace, seed)}

    return _of_images(model, block, {"seed": 0}, num_inferred=(0, model.config.num_levels))


def _impute(model):
    def block(x, mask, seed, num_samples, temperature):
        known = Known(x, mask)
        view = model.watch_known(known)

        def add(first, passes):
            own_seed = noise.of_samples(seed, first, samples_per_pass(model))
            trace = model.walk(
                view, samples_per_pass(model) * BLOCK, own_seed, temperature=temperature
            )
            return passes.write(passes.size(), model.images(trace, own_seed))

        start = tf.TensorArray(tf.float32, 0, True, element_shape=[None, *x.shape[1:]])
        passes = in_passes(model, num_samples, add, start).concat()
        samples = tf.reshape(passes, [-1, *x.shape])[:num_samples]
        mean = known.paste(tf.reduce_mean(samples, axis=0))
        return {"samples": tf.transpose(samples, [1, 0, 2, 3, 4]), "mean": mean}

    def impute(images, mask, num_samples, temperature, seed):
        num_samples = one("num_samples", num_samples, 1, MOST_SAMPLES)
        temperature = one("temperature", temperature, 0, None)
        # What is hidden is taken away before anything looks at the images, the checks included.
        x, mask = counted(model, images, mask)
        x, mask = model.valid_inputs(*Known.of(x, mask))
        rows = {"x": x, "mask": mask, "seed": seeds(seed, tf.shape(x)[0])}
        return by_block(block, rows, num_samples=num_samples, temperature=temperature)

    specs = image_specs(model) | {"num_samples": _WHOLE, "temperature": _REAL, "seed": _WHOLE}
    return Signature(impute, specs, {"num_samples": 1, "temperature": 1.0, "seed": 0})


def _decode(model):
    names = [f"z_{level}" for level in model.config.level_names]

    def block(seed, **latents):
        z = tuple(latents[name] for name in names)
        trace = model.walk(None, BLOCK, seed, latents=z)
        images, likelihood = model.images(trace, seed), model.likelihood
        if not likelihood.has_mean:
            return {"images": images}
        parameters = likelihood.pixels.named(likelihood(trace.h_td))
        return {"images": images} | parameters

    def decode(**latents):
        count = tf.shape(latents[names[0]])[0]
        rows = {
            name: shaped(name, latents[name], count, shape)
            for name, shape in zip(names, model.latent_shapes, strict=True)
        }
        return by_block(block, rows | {"seed": seeds(0, count)})

    shapes = zip(names, model.latent_shapes, strict=True)
    return Signature(decode, {n: tf.TensorSpec([None, *s], tf.float32) for n, s in shapes}, {})


def _sample(model):
    def block(seed, temperature):
        trace = model.walk(None, BLOCK, seed, temperature=temperature)
        return {"images": model.images(trace, seed)}

    def sample(num, temperature, seed):
        temperature = one("temperature", temperature, 0, None)
        return by_block(block, {"seed": rising(num, seed)}, temperature=temperature)

    specs = {"num": _WHOLE, "temperature": _REAL, "seed": _WHOLE}
    return Signature(sample, specs, {"num": 1, "temperature": 1.0, "seed": 0})


def _sample_component(model):
    components = model.config.mixture_components

    def block(seed, component, temperature):
        own = tf.fill([BLOCK], component)
        z_0 = model.top_of_component(own, seed, temperature)
        trace = model.walk(None, BLOCK, seed, latents=(z_0,), temperature=temperature)
        return {"images": model.images(trace, seed)}

    def sample_component(component, num, temperature, seed):
        settings = {
            "component": one("component", component, 0, components - 1),
            "temperature": one("temperature", temperature, 0, None),
        }
        return by_block(block, {"seed": rising(num, seed)}, **settings)

    specs = {"component": _WHOLE, "num": _WHOLE, "temperature": _REAL, "seed": _WHOLE}
    return Signature(sample_component, specs, {"num": 1, "temperature": 1.0, "seed": 0})


# Twins, for clients that have bytes.


def _twin(model: Hierarchy, signature: Signature, kind: tf.DType) -> Signature:
    """A signature with images, and masks, as uint8 or as the files' strings."""
    specs = dict(signature.specs)
    for name in ("images", "mask"):
        if name in specs:
            shape = specs[name].shape if kind == tf.uint8 else [None]
            specs[name] = tf.TensorSpec(shape, kind)

    def twin(images, **others):
        shape = model.config.image_shape
        images = bytes_of("images", images, shape)
        others["images"] = model.likelihood.pixels.of_bytes(images)
        if "mask" in others:
            mask = bytes_of("mask", others["mask"], (*shape[:2], 1))
            seen = mask > (127 if kind == tf.string else 0)
            others["mask"] = tf.cast(seen, tf.float32)
        return signature.function(**others)

    return Signature(twin, specs, signature.defaults)


# What they share.


def _of_images(
    model: Hierarchy,
    block: Callable[..., Outputs],
    defaults: dict[str, Any],
    **limits: tuple[int, int],
) -> Signature:
    """A signature of images, and masks if the model has them.

    Args:
      model: whose images they are.
      block: what it does with a block of rows.
      defaults: of `limits`' names, and of `seed`; without one there is no such input.
      limits: least and most of whole numbers that may have a value of each image.
    """

    def of_images(seed=0, **inputs):
        numbers = {name: inputs.pop(name) for name in limits}
        rows = checked(model, **inputs)
        count = count_of(rows)
        for name, number in numbers.items():
            rows[name] = of_each(name, number, count, *limits[name])
        return by_block(block, rows | {"seed": seeds(seed, count)})

    names = [*limits, *(name for name in defaults if name not in limits)]
    return Signature(of_images, image_specs(model) | dict.fromkeys(names, _WHOLE), defaults)


def _bound(
    model: Hierarchy, inputs: tuple[tf.Tensor, ...], num_samples: tf.Tensor, seed: tf.Tensor
) -> tf.Tensor:
    """The K-sample bound of a block, `[BLOCK]` float64, with K of each image."""
    view, x, samples = model.watch(*inputs), inputs[0], samples_per_pass(model)
    # So small that it adds nothing, and the difference of two is no NaN.
    nothing = tf.constant(tf.float64.min / 4, tf.float64)

    def add(first, so_far):
        largest, total = so_far
        own_seed = noise.of_samples(seed, first, samples)
        log_weight = tf.cast(model.log_weight(x, view, samples, own_seed), tf.float64)
        counts = (first + tf.range(samples))[:, tf.newaxis] < num_samples
        log_weight = tf.where(counts, log_weight, nothing)
        now_largest = tf.maximum(largest, tf.reduce_max(log_weight, axis=0))
        added = tf.reduce_sum(tf.exp(log_weight - now_largest), axis=0)
        return now_largest, total * tf.exp(largest - now_largest) + added

    start = tf.fill([BLOCK], nothing), tf.zeros([BLOCK], tf.float64)
    largest, total = in_passes(model, tf.reduce_max(num_samples), add, start)
    return largest + tf.math.log(total / tf.cast(num_samples, tf.float64))


def _dims(x: tf.Tensor, *masks: tf.Tensor) -> tf.Tensor:
    """How many values a bound is on, `[B]`: those of the image, or those that a mask hides."""
    hidden = 1.0 - masks[0] if masks else tf.ones_like(x[..., :1])
    return tf.reduce_sum(tf.cast(hidden, tf.float64), axis=[1, 2, 3]) * x.shape[-1]
