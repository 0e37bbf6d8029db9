# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks of what signatures take; a failed check is an error that names the input.

The checks are operations of the graph, because servers check names and types only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import tensorflow as tf

from matnet_tf.model.elbo_model import ElboModel

__all__ = [
    "check_finite",
    "check_image_samples",
    "check_inputs",
    "check_rows",
    "check_shapes",
    "consecutive_seeds",
    "image_specs",
    "most_image_samples",
    "per_image",
    "require",
    "row_seeds",
    "scalar",
]

_MOST = 10_000  # Image-samples of a request, unless they would take more than
_MOST_NUMBERS = 2**24  # numbers, 64 MiB of float32.


def most_image_samples(model: ElboModel) -> int:
    """The most images times samples that a request may ask for, unless an export says otherwise."""
    return max(1, min(_MOST, _MOST_NUMBERS // math.prod(model.config.image_shape)))


def image_specs(model: ElboModel) -> dict[str, tf.TensorSpec]:
    """The specs of a model's images, and of its masks if it is conditional."""
    shape = model.config.image_shape
    specs = {"images": tf.TensorSpec([None, *shape], tf.float32)}
    if model.config.conditional_stages:
        specs["mask"] = tf.TensorSpec([None, *shape[:2], 1], tf.float32)
    return specs


def check_inputs(
    model: ElboModel, most: int, images: tf.Tensor, mask: tf.Tensor | None = None
) -> dict[str, tf.Tensor]:
    """Checks shapes and values of images, and of masks if the model is conditional."""
    values = model.input_form.assert_valid(*check_shapes(model, most, images, mask))
    return dict(zip(("images", "mask"), values, strict=False))


def check_shapes(
    model: ElboModel, most: int, images: tf.Tensor, mask: tf.Tensor | None = None
) -> tuple[tf.Tensor, ...]:
    """Checks the shapes of images and masks, and that there are 1 to `most` of them."""
    shape, count = model.config.image_shape, tf.shape(images)[0]
    images = check_rows("images", images, count, shape, most)
    if mask is None:
        return (images,)
    return images, check_rows("mask", mask, count, (*shape[:2], 1), most)


def check_rows(
    name: str, value: tf.Tensor, count: tf.Tensor, shape: Sequence[int], most: int
) -> tf.Tensor:
    """Checks that a tensor is `[count, *shape]`, with 1 to `most` rows.

    A server may not compare inputs with the shapes in the SignatureDef.
    """
    with tf.name_scope(f"shape_of_{name}"):
        value = tf.ensure_shape(value, [None, *shape])
    same = tf.shape(value)[0] == count
    value = require(value, same, f"{name} must have one row for each image")
    inside = (count >= 1) & (count <= most)
    return require(value, inside, f"{name} must have 1 to {most} rows")


def check_finite(name: str, value: tf.Tensor) -> tf.Tensor:
    """Checks that no number is NaN or infinite."""
    return require(value, tf.reduce_all(tf.math.is_finite(value)), f"{name} must be finite")


def check_image_samples(num_samples: tf.Tensor, count: tf.Tensor, most: int) -> tf.Tensor:
    """Checks that as many images, times the samples of each, are not too many for one request.

    Args:
      num_samples: K, or K of each image. The largest one counts: all images are computed with it.
      count: Number of images.
      most: The most images times samples.
    """
    total = tf.cast(count, tf.int64) * tf.cast(tf.reduce_max(num_samples), tf.int64)
    message = f"images times num_samples must be at most {most} in a request; got"
    return require(num_samples, total <= most, message, total)


def per_image(name: str, value: tf.Tensor, count: tf.Tensor, least: int, most: int) -> tf.Tensor:
    """Returns one value per image, `[count]`, from such a vector or from a scalar."""
    fits = (tf.size(value) == 1) | (tf.equal(tf.rank(value), 1) & (tf.size(value) == count))
    value = require(value, fits, f"{name} must be one number, or one for each image")
    inside = tf.reduce_all((value >= least) & (value <= most))
    value = require(value, inside, f"{name} must lie in [{least}, {most}]")
    return tf.broadcast_to(tf.reshape(value, [-1]), [count])


def scalar(name: str, value: tf.Tensor, least: int, most: int | None) -> tf.Tensor:
    """Returns a scalar from itself, or from a vector of equal values as in a batch of requests."""
    if most is None:
        inside = tf.reduce_all((value >= least) & (value < value.dtype.max))
        message = f"{name} must be at least {least} and finite"
    else:
        inside = tf.reduce_all((value >= least) & (value <= most))
        message = f"{name} must lie in [{least}, {most}]"
    value = tf.reshape(require(value, inside, message), [-1])
    fits = (tf.size(value) >= 1) & tf.reduce_all(value == value[:1])
    return require(value, fits, f"{name} must be one number")[0]


def row_seeds(seed: int | tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Returns one seed per row, int32 `[count, 2]`, as `stateless_random.seed_tensor` does."""
    seed = per_image("seed", tf.convert_to_tensor(seed, tf.int32), count, 0, tf.int32.max)
    return tf.stack([tf.zeros_like(seed), seed], axis=1)


def consecutive_seeds(num: tf.Tensor, seed: tf.Tensor, most: int) -> tf.Tensor:
    """Returns `num` row seeds: `seed`, `seed + 1`, ..., and 0 after the largest int32."""
    num = scalar("num", num, 1, most)
    first = tf.cast(scalar("seed", seed, 0, tf.int32.max), tf.int64)
    numbers = (first + tf.range(tf.cast(num, tf.int64))) % 2**31
    return row_seeds(tf.cast(numbers, tf.int32), num)


def require(value: tf.Tensor, condition: tf.Tensor, message: str, *came: tf.Tensor) -> tf.Tensor:
    """Returns the value for use after the condition; the message ends with what came instead."""
    with tf.control_dependencies([tf.debugging.Assert(condition, [message, *came])]):
        return tf.identity(value)
