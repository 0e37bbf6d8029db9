# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The signatures of a SavedModel: the functions that a server offers.

B is the number of images in a request, 1 to `input_checks.MOST_ROWS`. Levels are called `00_top`,
`01_7x7`, ..., top first. Bounds and KLs are in nats.

    serving_default(images)         elbo, log_likelihood, kl_<level>: `[B]`. reconstruction, unless
                                    the likelihood is autoregressive (drawing from it is slow)
    log_likelihood(images, num_samples = 100, seed = 0)
                                    log_likelihood: the K-sample bound, bits_per_dim: float64 `[B]`
    encode(images, seed = 0)        loc_<level>, z_<level>: the posterior's mean and a sample
    decode(z_<level>, ...)          images `[B, H, W, C]`: the mean of p(x | z), and its parameters,
                                    `logits`, or `loc` and `scale`, of the same shape. Of a mixture:
                                    `logits` `[B, H, W, K]`, `loc` and `scale` `[B, H, W, C, K]`,
                                    `coefficients` if C > 1. If the likelihood is autoregressive: a
                                    sample (seed 0) alone
    sample(num = 1, temperature = 1, seed = 0)
                                    images `[num, H, W, C]`; image i has the seed `seed + i`
    sample_component(component, num = 1, temperature = 1, seed = 0)
                                    the same, with z_0 from one component of the mixture prior
    reconstruct(images, num_inferred, seed = 0)
                                    images: the top levels from the posterior, the rest sampled

A conditional model has no `decode`, `sample` or `sample_component`. Its signatures with `images`
also take `mask`, `[B, H, W, 1]`, 1 where a pixel is known and 0 elsewhere. Its bounds and bits per
dimension cover the hidden values only. It also has

    impute(images, mask, num_samples = 1, temperature = 1, seed = 0)
                                    samples `[B, num_samples, H, W, C]` and their mean
                                    `[B, H, W, C]`, with the known pixels unchanged. Hidden pixels
                                    may have any value, NaN included

Images are float32 `[B, H, W, C]` in the model's range. Each signature with images has two variants:
`<name>_uint8` takes 8-bit images, uint8 `[B, H, W, C]` (and masks, 0 where hidden).
`<name>_serialized` takes PNG or JPEG files, strings `[B]` (and masks with one channel, white where
known); it exists for images with 1, 3 or 4 channels.

`num_samples`, `num`, `num_inferred`, `component` and `seed` are int32, `temperature` is float32.
`seed`, `num_inferred` and the `num_samples` of a bound are one value, or one per image.

A row's random numbers depend on its own seed only, not on the other rows of the request. Its
results may differ in rounding with the number of rows. The methods of `MatNet` and
`ConditionalMatNet` with the same names give the same results, up to rounding, for the same seeds
(one per image). Large requests are computed in chunks of `Hierarchy.samples_per_pass`
image-samples, which bounds the memory.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from matnet_tf.distributions import stateless_random
from matnet_tf.likelihoods.observation import ObservedPixels
from matnet_tf.model.bounds import bits_per_dim
from matnet_tf.model.elbo_model import ElboModel
from matnet_tf.serving.chunks import Outputs, over_row_chunks, over_sample_chunks
from matnet_tf.serving.input_checks import (
    MOST_ROWS,
    MOST_SAMPLES,
    check_inputs,
    check_rows,
    check_shapes,
    consecutive_seeds,
    image_specs,
    per_image,
    pixel_bytes,
    row_seeds,
    scalar,
)
from matnet_tf.tracing import tf_function

__all__ = ["Signature", "signatures_of"]

_FILE_CHANNELS = (1, 3, 4)
_INT, _FLOAT = tf.TensorSpec(None, tf.int32), tf.TensorSpec(None, tf.float32)


class Signature(NamedTuple):
    """A function that a server offers."""

    function: Callable[..., Outputs]  # takes its inputs by name
    specs: dict[str, tf.TensorSpec]  # of the inputs; those with defaults come last
    defaults: dict[str, Any]

    def served(self) -> Any:
        """Returns a `tf.function` for `tf.saved_model.save`, with the defaults of its inputs."""
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


def signatures_of(model: ElboModel) -> dict[str, Signature]:
    """Returns the signatures of a model by name."""
    makers = [_serving_default, _log_likelihood, _encode, _reconstruct]
    if model.config.conditional_stages:
        makers.append(_impute)
    else:
        makers += [_decode, _sample]
        if model.config.mixture_components:
            makers.append(_sample_component)
    signatures = {}
    for make in makers:
        signature = make(model)
        # One graph, which the variants call too.
        signature = signature._replace(function=tf_function(signature.function))
        signatures[make.__name__.removeprefix("_")] = signature
    for name, signature in list(signatures.items()):
        if "images" in signature.specs:
            signatures[f"{name}_uint8"] = _byte_variant(model, signature, tf.uint8)
            if model.config.image_shape[-1] in _FILE_CHANNELS:
                signatures[f"{name}_serialized"] = _byte_variant(model, signature, tf.string)
    return signatures


# One function per signature.


def _serving_default(model):
    hierarchy = model.hierarchy

    def compute(seed, **inputs):
        bound, trace = hierarchy.bound_and_trace(*inputs.values(), seed)
        outputs = {"elbo": bound.elbo, "log_likelihood": bound.log_likelihood}
        outputs |= {f"kl_{level}": kl for level, kl in bound.kl.items()}
        if hierarchy.likelihood.has_mean:
            outputs["reconstruction"] = hierarchy.images(trace, seed)
        return outputs

    return _of_images(model, compute, {})


def _log_likelihood(model):
    observation = model.hierarchy.likelihood.observation

    def compute(num_samples, seed, **inputs):
        nats = _bound(model.hierarchy, tuple(inputs.values()), num_samples, seed)
        bits = bits_per_dim(-nats, (_num_predicted(**inputs),), observation.bins)
        return {"log_likelihood": nats, "bits_per_dim": bits}

    defaults = {"num_samples": 100, "seed": 0}
    return _of_images(model, compute, defaults, num_samples=(1, MOST_SAMPLES))


def _encode(model):
    hierarchy = model.hierarchy

    def compute(seed, **inputs):
        encoding = hierarchy.encode(*inputs.values())
        own_seed = stateless_random.for_pass(seed, 1)
        trace = hierarchy.top_down_pass(encoding, tf.shape(seed)[0], own_seed)
        means = {f"loc_{level.name}": level.posterior.mean() for level in trace.levels}
        return means | {f"z_{level.name}": level.z for level in trace.levels}

    return _of_images(model, compute, {"seed": 0})


def _reconstruct(model):
    hierarchy = model.hierarchy

    def compute(num_inferred, seed, **inputs):
        encoding = hierarchy.encode(*inputs.values())
        rows = tf.shape(seed)[0]
        trace = hierarchy.top_down_pass(encoding, rows, seed, num_inferred=num_inferred)
        return {"images": hierarchy.images(trace, seed)}

    return _of_images(model, compute, {"seed": 0}, num_inferred=(0, model.config.num_levels))


def _impute(model):
    def impute(images, mask, num_samples, temperature, seed):
        num_samples = scalar("num_samples", num_samples, 1, MOST_SAMPLES)
        temperature = scalar("temperature", temperature, 0, None)
        # Removes hidden values before the checks look at the images.
        observed = ObservedPixels.of(*check_shapes(model, images, mask))
        x, mask = model.input_form.assert_valid(*observed)

        def compute(x, mask, seed):
            known = ObservedPixels(x, mask)
            samples = _samples(model.hierarchy, known, num_samples, temperature, seed)
            mean = known.paste(tf.reduce_mean(samples, axis=0))
            return {"samples": tf.transpose(samples, [1, 0, 2, 3, 4]), "mean": mean}

        rows = {"x": x, "mask": mask, "seed": row_seeds(seed, tf.shape(x)[0])}
        return over_row_chunks(compute, rows, model.hierarchy.samples_per_pass, MOST_ROWS)

    specs = image_specs(model) | {"num_samples": _INT, "temperature": _FLOAT, "seed": _INT}
    return Signature(impute, specs, {"num_samples": 1, "temperature": 1.0, "seed": 0})


def _decode(model):
    hierarchy, likelihood = model.hierarchy, model.hierarchy.likelihood
    names = [f"z_{level}" for level in model.config.level_names]
    shapes = dict(zip(names, hierarchy.latent_shapes, strict=True))

    def compute(seed, **latents):
        z = tuple(latents[name] for name in names)
        trace = hierarchy.top_down_pass(None, tf.shape(seed)[0], seed, latents=z)
        outputs = {"images": hierarchy.images(trace, seed)}
        if likelihood.has_mean:
            outputs |= likelihood.observation.named_parameters(likelihood(trace.h_td))
        return outputs

    def decode(**latents):
        count = tf.shape(latents[names[0]])[0]
        rows = {n: check_rows(n, latents[n], count, shape) for n, shape in shapes.items()}
        rows["seed"] = row_seeds(0, count)
        return over_row_chunks(compute, rows, hierarchy.samples_per_pass, MOST_ROWS)

    specs = {name: tf.TensorSpec([None, *shape], tf.float32) for name, shape in shapes.items()}
    return Signature(decode, specs, {})


def _sample(model):
    hierarchy = model.hierarchy

    def sample(num, temperature, seed):
        temperature = scalar("temperature", temperature, 0, None)

        def compute(seed):
            rows = tf.shape(seed)[0]
            trace = hierarchy.top_down_pass(None, rows, seed, temperature=temperature)
            return {"images": hierarchy.images(trace, seed)}

        rows = {"seed": consecutive_seeds(num, seed)}
        return over_row_chunks(compute, rows, hierarchy.samples_per_pass, MOST_SAMPLES)

    specs = {"num": _INT, "temperature": _FLOAT, "seed": _INT}
    return Signature(sample, specs, {"num": 1, "temperature": 1.0, "seed": 0})


def _sample_component(model):
    hierarchy, components = model.hierarchy, model.config.mixture_components

    def sample_component(component, num, temperature, seed):
        component = scalar("component", component, 0, components - 1)
        temperature = scalar("temperature", temperature, 0, None)

        def compute(seed):
            rows = tf.shape(seed)[0]
            z_0 = hierarchy.component_latent(tf.fill([rows], component), seed, temperature)
            trace = hierarchy.top_down_pass(
                None, rows, seed, latents=(z_0,), temperature=temperature
            )
            return {"images": hierarchy.images(trace, seed)}

        rows = {"seed": consecutive_seeds(num, seed)}
        return over_row_chunks(compute, rows, hierarchy.samples_per_pass, MOST_SAMPLES)

    specs = {"component": _INT, "num": _INT, "temperature": _FLOAT, "seed": _INT}
    return Signature(sample_component, specs, {"num": 1, "temperature": 1.0, "seed": 0})


# Variants for clients that have bytes.


def _byte_variant(model: ElboModel, signature: Signature, dtype: tf.DType) -> Signature:
    """Returns a signature that takes images, and masks, as uint8 pixels or as files."""
    shape, observation = model.config.image_shape, model.hierarchy.likelihood.observation
    specs = dict(signature.specs)
    for name in specs.keys() & {"images", "mask"}:
        specs[name] = tf.TensorSpec(specs[name].shape if dtype == tf.uint8 else [None], dtype)

    def variant(images, **others):
        others["images"] = observation.from_bytes(pixel_bytes("images", images, shape))
        if "mask" in others:
            mask = pixel_bytes("mask", others["mask"], (*shape[:2], 1))
            others["mask"] = tf.cast(mask > (127 if dtype == tf.string else 0), tf.float32)
        return signature.function(**others)

    return Signature(variant, specs, signature.defaults)


# What several signatures share.


def _of_images(
    model: ElboModel,
    compute: Callable[..., Outputs],
    defaults: dict[str, int],
    **limits: tuple[int, int],
) -> Signature:
    """Returns a signature with images, and with masks if the model is conditional.

    Args:
      model: The model.
      compute: Takes checked images, masks, row seeds and the numbers of `limits`, all `[b, ...]`.
      defaults: Default values of inputs. Without `seed` the signature takes no seed and uses 0.
      **limits: The least and the largest value of inputs with one number per image.
    """

    def of_images(seed=0, **inputs):
        numbers = {name: inputs.pop(name) for name in limits}
        rows = check_inputs(model, **inputs)
        count = tf.shape(rows["images"])[0]
        rows |= {n: per_image(n, value, count, *limits[n]) for n, value in numbers.items()}
        rows["seed"] = row_seeds(seed, count)
        return over_row_chunks(compute, rows, model.hierarchy.samples_per_pass, MOST_ROWS)

    names = [*limits, *(name for name in defaults if name not in limits)]
    return Signature(of_images, image_specs(model) | dict.fromkeys(names, _INT), defaults)


def _bound(hierarchy, inputs, num_samples, seed) -> tf.Tensor:
    """The importance-weighted bound, float64 `[b]`, with K of each image in `num_samples` `[b]`."""
    encoding, x = hierarchy.encode(*inputs), inputs[0]

    def add(first, num, log_sum):
        own_seed = stateless_random.for_samples(seed, first, num)
        log_weight = tf.cast(hierarchy.log_weight(x, encoding, num, own_seed), tf.float64)
        counts = (first + tf.range(num))[:, tf.newaxis] < num_samples
        log_weight = tf.where(counts, log_weight, tf.constant(-float("inf"), tf.float64))
        return tf.reduce_logsumexp(tf.concat([log_sum[tf.newaxis], log_weight], axis=0), axis=0)

    start = tf.fill(tf.shape(num_samples), tf.constant(-float("inf"), tf.float64))
    size = _samples_per_chunk(hierarchy, seed)
    log_sum = over_sample_chunks(tf.reduce_max(num_samples), size, add, start)
    return log_sum - tf.math.log(tf.cast(num_samples, tf.float64))


def _samples(hierarchy, known, num_samples, temperature, seed) -> tf.Tensor:
    """Completions of images, `[num_samples, b, H, W, C]`, given their known pixels."""
    encoding = hierarchy.encode_observed(known)

    def add(first, num, chunks):
        own_seed = stateless_random.for_samples(seed, first, num)
        rows = num * tf.shape(seed)[0]
        trace = hierarchy.top_down_pass(encoding, rows, own_seed, temperature=temperature)
        return chunks.write(chunks.size(), hierarchy.images(trace, own_seed))

    start = tf.TensorArray(
        tf.float32,
        0,
        dynamic_size=True,
        infer_shape=False,
        element_shape=[None, *known.x.shape[1:]],
    )
    size = _samples_per_chunk(hierarchy, seed)
    images = over_sample_chunks(num_samples, size, add, start).concat()
    return tf.reshape(images, tf.concat([[num_samples], tf.shape(known.x)], axis=0))


def _samples_per_chunk(hierarchy, seed) -> tf.Tensor:
    return tf.maximum(1, hierarchy.samples_per_pass // tf.shape(seed)[0])


def _num_predicted(images: tf.Tensor, mask: tf.Tensor | None = None) -> tf.Tensor:
    """The number of values that a bound covers, float64 `[b]`: all of an image, or hidden ones."""
    hidden = tf.ones_like(images[..., :1]) if mask is None else 1.0 - mask
    return tf.reduce_sum(tf.cast(hidden, tf.float64), axis=[1, 2, 3]) * images.shape[-1]
