# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks of what signatures take; a failed check is an error that names the input.

The checks are operations of the graph, because servers check names and types only.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from matnet_tf.model.elbo_model import ElboModel

__all__ = [
    "MOST_ROWS",
    "MOST_SAMPLES",
    "check_inputs",
    "check_rows",
    "check_shapes",
    "consecutive_seeds",
    "image_specs",
    "per_image",
    "pixel_bytes",
    "row_seeds",
    "scalar",
]

MOST_ROWS = 4096  # images per request
_LUMA = (19595, 38470, 7471)  # Shares of red, green and blue in a grey value, out of 2^16.
MOST_SAMPLES = 10_000  # samples per image, or sampled images per request


def image_specs(model: ElboModel) -> dict[str, tf.TensorSpec]:
    """The specs of a model's images, and of its masks if it is conditional."""
    shape = model.config.image_shape
    specs = {"images": tf.TensorSpec([None, *shape], tf.float32)}
    if model.config.conditional_stages:
        specs["mask"] = tf.TensorSpec([None, *shape[:2], 1], tf.float32)
    return specs


def pixel_bytes(name: str, values: tf.Tensor, shape: Sequence[int]) -> tf.Tensor:
    """Returns 8-bit pixels, uint8 `[B, *shape]`, from pixels or from image files, strings `[B]`."""
    if values.dtype == tf.uint8:
        return values

    channels = shape[-1]

    def decode(string):
        # TensorFlow names these operations if a string is no image file or has another size.
        kind = f"{name}_as_PNG_or_JPEG"
        if channels == 4:  # No JPEG has them.
            pixels = tf.io.decode_image(string, channels, expand_animations=False, name=kind)
        else:  # PNG files too, in spite of the name; the accurate transform is that of Pillow.
            pixels = tf.io.decode_jpeg(string, 3, dct_method="INTEGER_ACCURATE", name=kind)
        pixels = _grey(pixels) if channels == 1 else pixels
        return tf.ensure_shape(pixels, shape, name=f"{name}_of_{shape[0]}x{shape[1]}_pixels")

    with tf.name_scope(f"shape_of_{name}"):
        values = tf.ensure_shape(values, [None])
    return tf.map_fn(decode, values, fn_output_signature=tf.TensorSpec(shape, tf.uint8))


def _grey(pixels: tf.Tensor) -> tf.Tensor:
    """Grey values of colours, as Pillow rounds them."""
    weighted = tf.reduce_sum(tf.cast(pixels, tf.int32) * _LUMA, axis=-1, keepdims=True)
    return tf.cast((weighted + 2**15) // 2**16, tf.uint8)


def check_inputs(
    model: ElboModel, images: tf.Tensor, mask: tf.Tensor | None = None
) -> dict[str, tf.Tensor]:
    """Checks shapes and values of images, and of masks if the model is conditional."""
    values = model.input_form.assert_valid(*check_shapes(model, images, mask))
    return dict(zip(("images", "mask"), values, strict=False))


def check_shapes(
    model: ElboModel, images: tf.Tensor, mask: tf.Tensor | None = None
) -> tuple[tf.Tensor, ...]:
    """Checks the shapes of images and masks, and that there are 1 to MOST_ROWS of them."""
    shape, count = model.config.image_shape, tf.shape(images)[0]
    images = check_rows("images", images, count, shape)
    if mask is None:
        return (images,)
    return images, check_rows("mask", mask, count, (*shape[:2], 1))


def check_rows(name: str, value: tf.Tensor, count: tf.Tensor, shape: Sequence[int]) -> tf.Tensor:
    """Checks that a tensor is `[count, *shape]`, with 1 to MOST_ROWS rows.

    A server may not compare inputs with the shapes in the SignatureDef.
    """
    with tf.name_scope(f"shape_of_{name}"):
        value = tf.ensure_shape(value, [None, *shape])
    same = tf.shape(value)[0] == count
    value = _require(value, same, f"{name} must have one row for each image")
    inside = (count >= 1) & (count <= MOST_ROWS)
    return _require(value, inside, f"{name} must have 1 to {MOST_ROWS} rows")


def per_image(name: str, value: tf.Tensor, count: tf.Tensor, least: int, most: int) -> tf.Tensor:
    """Returns one value per image, `[count]`, from such a vector or from a scalar."""
    fits = (tf.size(value) == 1) | (tf.equal(tf.rank(value), 1) & (tf.size(value) == count))
    value = _require(value, fits, f"{name} must be one number, or one for each image")
    inside = tf.reduce_all((value >= least) & (value <= most))
    value = _require(value, inside, f"{name} must lie in [{least}, {most}]")
    return tf.broadcast_to(tf.reshape(value, [-1]), [count])


def scalar(name: str, value: tf.Tensor, least: int, most: int | None) -> tf.Tensor:
    """Returns a scalar from itself, or from a vector of equal values as in a batch of requests."""
    if most is None:
        inside = tf.reduce_all((value >= least) & (value < value.dtype.max))
        message = f"{name} must be at least {least} and finite"
    else:
        inside = tf.reduce_all((value >= least) & (value <= most))
        message = f"{name} must lie in [{least}, {most}]"
    value = tf.reshape(_require(value, inside, message), [-1])
    fits = (tf.size(value) >= 1) & tf.reduce_all(value == value[:1])
    return _require(value, fits, f"{name} must be one number")[0]


def row_seeds(seed: int | tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Returns one seed per row, int32 `[count, 2]`, as `stateless_random.seed_tensor` does."""
    seed = per_image("seed", tf.convert_to_tensor(seed, tf.int32), count, 0, tf.int32.max)
    return tf.stack([tf.zeros_like(seed), seed], axis=1)


def consecutive_seeds(num: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Returns `num` row seeds: `seed`, `seed + 1`, ..., and 0 after the largest int32."""
    num = scalar("num", num, 1, MOST_SAMPLES)
    first = tf.cast(scalar("seed", seed, 0, tf.int32.max), tf.int64)
    numbers = (first + tf.range(tf.cast(num, tf.int64))) % 2**31
    return row_seeds(tf.cast(numbers, tf.int32), num)


def _require(value: tf.Tensor, condition: tf.Tensor, message: str) -> tf.Tensor:
    """Returns the value for use after the condition has been checked."""
    with tf.control_dependencies([tf.debugging.Assert(condition, [message])]):
        return tf.identity(value)
