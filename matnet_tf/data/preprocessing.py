# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Pure tensor functions from stored images to a model's input.

Every random draw is a function of its `seed`, an int32 tensor of shape [2] for TensorFlow's
stateless operations, so a restart draws the same images again.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

__all__ = [
    "binarize",
    "binarize_by_index",
    "dequantize",
    "dequantize_by_index",
    "resize",
    "scale",
    "threshold",
    "uniform_by_index",
]

# Steps of the noise within a bin. A float32 from 128 to 255 has 16 fractional bits, so the sum of a
# value and noise on 2^16 steps is exact and never rounds up into the next bin.
_NOISE_STEPS = 65536.0


def scale(images: tf.Tensor) -> tf.Tensor:
    """Maps stored intensities to [0, 1].

    Args:
      images: Images of any shape, uint8, or floats in [0, 1].

    Returns:
      float32 tensor of the same shape.

    Raises:
      ValueError: If the images are of another type.
    """
    images = tf.convert_to_tensor(images)
    if images.dtype == tf.uint8:
        return tf.cast(images, tf.float32) / 255.0
    if images.dtype.is_floating:
        return tf.cast(images, tf.float32)
    raise ValueError(f"images must be uint8 or floats in [0, 1]; got {images.dtype.name}")


def binarize(x: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Draws every pixel from a Bernoulli distribution whose mean is its intensity.

    With a new seed at each use this is the dynamic binarization of Salakhutdinov & Murray (2008).
    Intensities of 0 and 1 stay as they are.

    Args:
      x: float32 intensities in [0, 1], any shape.
      seed: int32 seed [2].

    Returns:
      float32 tensor of zeros and ones, of the shape of `x`.
    """
    # Uniform draws lie in [0, 1), so "less than" is never true for 0 and always true for 1.
    return tf.cast(tf.random.stateless_uniform(tf.shape(x), seed) < x, tf.float32)


def binarize_by_index(x: tf.Tensor, indices: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Binarizes with one draw per image that depends only on the seed and the image's index.

    An image gets the same pixels in any subset, order and batch size, as a reproducible test set
    requires.

    Args:
      x: float32 intensities in [0, 1], [B, ...].
      indices: Integers [B], the index of each image within its split.
      seed: int32 seed [2].

    Returns:
      float32 tensor of zeros and ones, of the shape of `x`.
    """
    return tf.cast(uniform_by_index(x.shape[1:], indices, seed) < x, tf.float32)


def dequantize(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Spreads every 8-bit value evenly over its bin: `(value + U[0, 1)) / 256`.

    The expected log-density of the result is a lower bound on the log-probability of the 8-bit
    images, up to the width of the bins (Uria et al. 2013; Theis et al. 2016), so a density gains
    nothing from peaks at the 256 values. `floor(256 * result)` recovers every value exactly.

    Args:
      images: uint8 images, any shape.
      seed: int32 seed [2].

    Returns:
      float32 tensor in [0, 1), of the shape of `images`.

    Raises:
      ValueError: If the images are not uint8.
    """
    images = _eight_bit(images)
    return _spread(images, tf.random.stateless_uniform(tf.shape(images), seed))


def dequantize_by_index(images: tf.Tensor, indices: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Dequantizes with one draw per image that depends only on the seed and the image's index.

    Args:
      images: uint8 images [B, ...].
      indices: Integers [B], the index of each image within its split.
      seed: int32 seed [2].

    Returns:
      float32 tensor in [0, 1), of the shape of `images`.

    Raises:
      ValueError: If the images are not uint8.
    """
    images = _eight_bit(images)
    return _spread(images, uniform_by_index(images.shape[1:], indices, seed))


def threshold(x: tf.Tensor) -> tf.Tensor:
    """Returns 1.0 where an intensity in [0, 1] exceeds one half, 0.0 elsewhere."""
    return tf.cast(x > 0.5, tf.float32)


def uniform_by_index(shape: Sequence[int], indices: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Draws from U[0, 1) for each image, as a function of the seed and the image's index.

    Args:
      shape: Shape of the draws for one image.
      indices: Integers [B], the index of each image within its split.
      seed: int32 seed [2].

    Returns:
      float32 tensor [B, *shape].
    """

    def draw(index: tf.Tensor) -> tf.Tensor:
        image_seed = tf.random.experimental.stateless_fold_in(seed, index)
        return tf.random.stateless_uniform(shape, image_seed)

    signature = tf.TensorSpec(shape, tf.float32)
    return tf.map_fn(draw, tf.cast(indices, tf.int64), fn_output_signature=signature)


def _spread(images: tf.Tensor, uniform: tf.Tensor) -> tf.Tensor:
    """Returns `(images + uniform) / 256`, the noise rounded down to a multiple of 2^-16."""
    noise = tf.floor(uniform * _NOISE_STEPS) / _NOISE_STEPS
    return (tf.cast(images, tf.float32) + noise) / 256.0


def _eight_bit(images: tf.Tensor) -> tf.Tensor:
    images = tf.convert_to_tensor(images)
    if images.dtype != tf.uint8:
        raise ValueError(f"images to dequantize must be uint8; got {images.dtype.name}")
    return images


def resize(image: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Crops the largest central part with the aspect ratio of `size` and resizes it.

    Interpolation is linear and antialiased: where the image shrinks, the filter widens to the area
    of an output pixel. An image that already has the size stays as it is.

    Args:
      image: Image [H', W', C], uint8 or floats.
      size: Height H and width W.

    Returns:
      Image [H, W, C] of the same type, within the range of values of `image`.
    """
    height, width = size
    found = tf.shape(image)
    # (2 a + b) // (2 b) is a / b, rounded to a whole number.
    rows = tf.minimum(found[0], (2 * found[1] * height + width) // (2 * width))
    columns = tf.minimum(found[1], (2 * found[0] * width + height) // (2 * height))
    rows, columns = tf.maximum(rows, 1), tf.maximum(columns, 1)
    top, left = (found[0] - rows) // 2, (found[1] - columns) // 2
    part = image[top : top + rows, left : left + columns]
    resized = tf.image.resize(part, size, "bilinear", antialias=True)
    if image.dtype.is_integer:
        return tf.cast(tf.round(resized), image.dtype)
    # Rounding errors of the weighted sums may leave [0, 1].
    resized = tf.cast(resized, image.dtype)
    return tf.clip_by_value(resized, tf.reduce_min(image), tf.reduce_max(image))
