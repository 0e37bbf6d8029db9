# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Inputs of signatures: what fails a check is an error that names the input.

The checks are operations of the graph: servers look at no more than names and types.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from matnet_tf.hierarchy import Hierarchy

__all__ = [
    "MOST_ROWS",
    "MOST_SAMPLES",
    "bytes_of",
    "checked",
    "count_of",
    "counted",
    "image_specs",
    "of_each",
    "one",
    "rising",
    "seeds",
    "shaped",
]

MOST_ROWS = 4096  # of a request
MOST_SAMPLES = 10_000  # of an image


def bytes_of(name: str, values: tf.Tensor, shape: Sequence[int]) -> tf.Tensor:
    """uint8 `[B, *shape]`, from itself or from the strings `[B]` of image files."""
    if values.dtype == tf.uint8:
        return values

    def one(string):
        # Their names are in what TensorFlow says of a file that is none, or of another size.
        decoded = tf.io.decode_image(
            string, channels=shape[-1], expand_animations=False, name=f"{name}_as_PNG_or_JPEG"
        )
        return tf.ensure_shape(decoded, shape, name=f"{name}_of_{shape[0]}x{shape[1]}_pixels")

    with tf.name_scope(f"shape_of_{name}"):
        values = tf.ensure_shape(values, [None])
    return tf.map_fn(one, values, fn_output_signature=tf.TensorSpec(shape, tf.uint8))


def image_specs(model: Hierarchy) -> dict[str, tf.TensorSpec]:
    """What a model's images, and masks if it has them, are like."""
    shape = model.config.image_shape
    specs = {"images": tf.TensorSpec([None, *shape], tf.float32)}
    if model.config.conditional_stages:
        specs["mask"] = tf.TensorSpec([None, *shape[:2], 1], tf.float32)
    return specs


def count_of(rows: dict[str, tf.Tensor]) -> tf.Tensor:
    """How many rows there are."""
    return tf.shape(next(iter(rows.values())))[0]


def checked(model: Hierarchy, **inputs: tf.Tensor) -> dict[str, tf.Tensor]:
    """Images, and masks if the model has them, which nothing can use unless they are valid."""
    return dict(zip(inputs, model.valid_inputs(*counted(model, **inputs)), strict=True))


def counted(
    model: Hierarchy, images: tf.Tensor, mask: tf.Tensor | None = None
) -> tuple[tf.Tensor, ...]:
    """Images of the right shape, not too few nor too many, and if there are masks one for each."""
    shape, count = model.config.image_shape, tf.shape(images)[0]
    images = shaped("images", images, count, shape)
    inside = (count >= 1) & (count <= MOST_ROWS)
    images = _ensured(images, inside, f"images must be 1 to {MOST_ROWS}; got another number")
    if mask is None:
        return (images,)
    return images, shaped("mask", mask, count, (*shape[:2], 1))


def shaped(name: str, value: tf.Tensor, count: tf.Tensor, shape: Sequence[int]) -> tf.Tensor:
    """The value, if it is `[count, *shape]`: a server need not look at what signatures promise."""
    with tf.name_scope(f"shape_of_{name}"):
        value = tf.ensure_shape(value, [None, *shape])
    message = f"{name} must have one row for each image"
    return _ensured(value, tf.shape(value)[0] == count, message)


def of_each(name: str, value: tf.Tensor, count: tf.Tensor, least: int, most: int) -> tf.Tensor:
    """A value of each image, `[count]`, from such a vector or from a scalar."""
    fits = (tf.size(value) == 1) | (tf.equal(tf.rank(value), 1) & (tf.size(value) == count))
    value = _ensured(value, fits, f"{name} must be one number, or one for each image")
    inside = tf.reduce_all((value >= least) & (value <= most))
    value = _ensured(value, inside, f"{name} must lie in [{least}, {most}]")
    return tf.broadcast_to(tf.reshape(value, [-1]), [count])


def one(name: str, value: tf.Tensor, least: int, most: int | None) -> tf.Tensor:
    """A scalar, from itself or from a vector of equal values, as batches of requests have it."""
    if most is None:
        inside = tf.reduce_all((value >= least) & (value < value.dtype.max))
        message = f"{name} must be at least {least} and finite"
    else:
        inside = tf.reduce_all((value >= least) & (value <= most))
        message = f"{name} must lie in [{least}, {most}]"
    value = tf.reshape(_ensured(value, inside, message), [-1])
    fits = (tf.size(value) >= 1) & tf.reduce_all(value == value[:1])
    return _ensured(value, fits, f"{name} must be one number")[0]


def seeds(seed: int | tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """The seeds of rows, int32 `[count, 2]`: what `noise.seed_tensor` makes of the same numbers."""
    seed = of_each("seed", tf.convert_to_tensor(seed, tf.int32), count, 0, tf.int32.max)
    return tf.stack([tf.zeros_like(seed), seed], axis=1)


def rising(num: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Seeds of `num` rows: `seed`, `seed + 1`, ..., beginning at 0 again after the largest."""
    num = one("num", num, 1, MOST_SAMPLES)
    first = tf.cast(one("seed", seed, 0, tf.int32.max), tf.int64)
    numbers = (first + tf.range(tf.cast(num, tf.int64))) % 2**31
    return seeds(tf.cast(numbers, tf.int32), num)


def _ensured(value: tf.Tensor, condition: tf.Tensor, message: str) -> tf.Tensor:
    """The value, which nothing can use before the condition was seen to hold."""
    with tf.control_dependencies([tf.debugging.Assert(condition, [message])]):
        return tf.identity(value)
