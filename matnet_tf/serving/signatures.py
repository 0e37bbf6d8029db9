# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The signatures of a SavedModel: the functions that a server offers.

B is the number of images in a request. Levels are called `00_top`, `01_7x7`, ..., top first. Bounds
and KLs are in nats.

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
(one per image).

A request asks for at most `max_image_samples` images times samples (`num_samples` or `num`), by
default 10,000, or as many images as fill 64 MiB of float32 if those are fewer. Where `encode` and
`decode` return more numbers than an image has, they take fewer images in proportion. All are
computed in chunks, so that the memory does not grow with their number, except for what is returned.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from matnet_tf.distributions import stateless_random
from matnet_tf.likelihoods.observation import ObservedPixels
from matnet_tf.model.bounds import bits_per_dim
from matnet_tf.model.elbo_model import ElboModel
from matnet_tf.serving.chunks import (
    Outputs,
    bound_in_chunks,
    over_row_chunks,
    rows_per_chunk,
    samples_in_chunks,
)
from matnet_tf.serving.input_checks import (
    check_finite,
    check_image_samples,
    check_inputs,
    check_rows,
    check_shapes,
    consecutive_seeds,
    image_specs,
    most_image_samples,
    per_image,
    row_seeds,
    scalar,
)
from matnet_tf.serving.picture_files import pixels_of_files
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


def signatures_of(model: ElboModel, max_image_samples: int = 0) -> dict[str, Signature]:
    """Returns the signatures of a model by name.

    Args:
      model: The model.
      max_image_samples: The most images times samples of a request; 0 for the default, see above.
    """
    most = max_image_samples or most_image_samples(model)
    makers = [_serving_default, _log_likelihood, _encode, _reconstruct]
    if model.config.conditional_stages:
        makers.append(_impute)
    else:
        makers += [_decode, _sample]
        if model.config.mixture_components:
            makers.append(_sample_component)
    signatures = {}
    for make in makers:
        signature = make(model, most)
        # One graph, which the variants call too.
        signature = signature._replace(function=tf_function(signature.function))
        signatures[make.__name__.removeprefix("_")] = signature
    for name, signature in list(signatures.items()):
        if "images" in signature.specs:
            signatures[f"{name}_uint8"] = _byte_variant(model, most, signature, tf.uint8)
            if model.config.image_shape[-1] in _FILE_CHANNELS:
                signatures[f"{name}_serialized"] = _byte_variant(model, most, signature, tf.string)
    return signatures


# One function per signature.


def _serving_default(model, most):
    hierarchy = model.hierarchy

    def compute(seed, **inputs):
        bound, trace = hierarchy.bound_and_trace(*inputs.values(), seed)
        outputs = {"elbo": bound.elbo, "log_likelihood": bound.log_likelihood}
        outputs |= {f"kl_{level}": kl for level, kl in bound.kl.items()}
        if hierarchy.likelihood.has_mean:
            outputs["reconstruction"] = hierarchy.images(trace, seed)
        return outputs

    return _of_images(model, most, compute, {})


def _log_likelihood(model, most):
    observation = model.hierarchy.likelihood.observation

    def compute(num_samples, seed, **inputs):
        nats = bound_in_chunks(model.hierarchy, tuple(inputs.values()), num_samples, seed)
        bits = bits_per_dim(-nats, (_num_predicted(**inputs),), observation.bins)
        return {"log_likelihood": nats, "bits_per_dim": bits}

    defaults = {"num_samples": 100, "seed": 0}
    return _of_images(model, most, compute, defaults, num_samples=(1, most))


def _encode(model, most):
    hierarchy = model.hierarchy

    def compute(seed, **inputs):
        encoding = hierarchy.encode(*inputs.values())
        own_seed = stateless_random.for_pass(seed, 1)
        trace = hierarchy.top_down_pass(encoding, tf.shape(seed)[0], own_seed)
        means = {f"loc_{level.name}": level.posterior.mean() for level in trace.levels}
        return means | {f"z_{level.name}": level.z for level in trace.levels}

    # It returns two numbers for each latent.
    most = _fewer(model, most, 2 * sum(map(math.prod, hierarchy.latent_shapes)))
    return _of_images(model, most, compute, {"seed": 0})


def _reconstruct(model, most):
    hierarchy = model.hierarchy

    def compute(num_inferred, seed, **inputs):
        encoding = hierarchy.encode(*inputs.values())
        rows = tf.shape(seed)[0]
        trace = hierarchy.top_down_pass(encoding, rows, seed, num_inferred=num_inferred)
        return {"images": hierarchy.images(trace, seed)}

    return _of_images(model, most, compute, {"seed": 0}, num_inferred=(0, model.config.num_levels))


def _impute(model, most):
    def impute(images, mask, num_samples, temperature, seed):
        num_samples = scalar("num_samples", num_samples, 1, most)
        num_samples = check_image_samples(num_samples, tf.shape(images)[0], most)
        temperature = scalar("temperature", temperature, 0, None)
        # Removes hidden values before the checks look at the images.
        observed = ObservedPixels.of(*check_shapes(model, most, images, mask))
        x, mask = model.input_form.assert_valid(*observed)

        def compute(x, mask, seed):
            known = ObservedPixels(x, mask)
            images = samples_in_chunks(model.hierarchy, known, num_samples, temperature, seed)
            mean = known.paste(tf.reduce_mean(images, axis=0))
            return {"samples": tf.transpose(images, [1, 0, 2, 3, 4]), "mean": mean}

        rows = {"x": x, "mask": mask, "seed": row_seeds(seed, tf.shape(x)[0])}
        return over_row_chunks(compute, rows, rows_per_chunk(model.hierarchy), most)

    specs = image_specs(model) | {"num_samples": _INT, "temperature": _FLOAT, "seed": _INT}
    return Signature(impute, specs, {"num_samples": 1, "temperature": 1.0, "seed": 0})


def _decode(model, most):
    hierarchy, likelihood = model.hierarchy, model.hierarchy.likelihood
    names = [f"z_{level}" for level in model.config.level_names]
    shapes = dict(zip(names, hierarchy.latent_shapes, strict=True))
    most = _fewer(model, most, math.prod(likelihood.observation.parameters_shape))

    def compute(seed, **latents):
        z = tuple(latents[name] for name in names)
        trace = hierarchy.top_down_pass(None, tf.shape(seed)[0], seed, latents=z)
        outputs = {"images": hierarchy.images(trace, seed)}
        if likelihood.has_mean:
            outputs |= likelihood.observation.named_parameters(likelihood(trace.h_td))
        return outputs

    def decode(**latents):
        count = tf.shape(latents[names[0]])[0]
        rows = {n: check_rows(n, latents[n], count, shape, most) for n, shape in shapes.items()}
        rows = {name: check_finite(name, value) for name, value in rows.items()}
        rows["seed"] = row_seeds(0, count)
        return over_row_chunks(compute, rows, rows_per_chunk(hierarchy), most)

    specs = {name: tf.TensorSpec([None, *shape], tf.float32) for name, shape in shapes.items()}
    return Signature(decode, specs, {})


def _sample(model, most):
    hierarchy = model.hierarchy

    def sample(num, temperature, seed):
        temperature = scalar("temperature", temperature, 0, None)

        def compute(seed):
            rows = tf.shape(seed)[0]
            trace = hierarchy.top_down_pass(None, rows, seed, temperature=temperature)
            return {"images": hierarchy.images(trace, seed)}

        rows = {"seed": consecutive_seeds(num, seed, most)}
        return over_row_chunks(compute, rows, rows_per_chunk(hierarchy), most)

    specs = {"num": _INT, "temperature": _FLOAT, "seed": _INT}
    return Signature(sample, specs, {"num": 1, "temperature": 1.0, "seed": 0})


def _sample_component(model, most):
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

        rows = {"seed": consecutive_seeds(num, seed, most)}
        return over_row_chunks(compute, rows, rows_per_chunk(hierarchy), most)

    specs = {"component": _INT, "num": _INT, "temperature": _FLOAT, "seed": _INT}
    return Signature(sample_component, specs, {"num": 1, "temperature": 1.0, "seed": 0})


# Variants for clients that have bytes.


def _byte_variant(model: ElboModel, most: int, signature: Signature, dtype: tf.DType) -> Signature:
    """Returns a signature that takes images, and masks, as uint8 pixels or as files."""
    shape, observation = model.config.image_shape, model.hierarchy.likelihood.observation
    specs = dict(signature.specs)
    for name in specs.keys() & {"images", "mask"}:
        specs[name] = tf.TensorSpec(specs[name].shape if dtype == tf.uint8 else [None], dtype)

    def pixels(name, values, shape):
        return values if dtype == tf.uint8 else pixels_of_files(name, values, shape, most)

    def variant(images, **others):
        others["images"] = observation.from_bytes(pixels("images", images, shape))
        if "mask" in others:
            mask = pixels("mask", others["mask"], (*shape[:2], 1))
            others["mask"] = tf.cast(mask > (127 if dtype == tf.string else 0), tf.float32)
        return signature.function(**others)

    return Signature(variant, specs, signature.defaults)


# What several signatures share.


def _of_images(
    model: ElboModel,
    most: int,
    compute: Callable[..., Outputs],
    defaults: dict[str, int],
    **limits: tuple[int, int],
) -> Signature:
    """Returns a signature with images, and with masks if the model is conditional.

    Args:
      model: The model.
      most: The most images times samples.
      compute: Takes checked images, masks, row seeds and the numbers of `limits`, all `[b, ...]`.
      defaults: Default values of inputs. Without `seed` the signature takes no seed and uses 0.
      **limits: The least and the largest value of inputs with one number per image.
    """

    def of_images(seed=0, **inputs):
        numbers = {name: inputs.pop(name) for name in limits}
        rows = check_inputs(model, most, **inputs)
        count = tf.shape(rows["images"])[0]
        rows |= {n: per_image(n, value, count, *limits[n]) for n, value in numbers.items()}
        if "num_samples" in rows:
            rows["num_samples"] = check_image_samples(rows["num_samples"], count, most)
        rows["seed"] = row_seeds(seed, count)
        return over_row_chunks(compute, rows, rows_per_chunk(model.hierarchy), most)

    names = [*limits, *(name for name in defaults if name not in limits)]
    return Signature(of_images, image_specs(model) | dict.fromkeys(names, _INT), defaults)


def _fewer(model: ElboModel, most: int, numbers: int) -> int:
    """The most images for which `numbers` numbers each are as many as `most` images have."""
    own = math.prod(model.config.image_shape)
    return max(1, most * own // max(own, numbers))


def _num_predicted(images: tf.Tensor, mask: tf.Tensor | None = None) -> tf.Tensor:
    """The number of values that a bound covers, float64 `[b]`: all of an image, or hidden ones."""
    hidden = tf.ones_like(images[..., :1]) if mask is None else 1.0 - mask
    return tf.reduce_sum(tf.cast(hidden, tf.float64), axis=[1, 2, 3]) * images.shape[-1]
