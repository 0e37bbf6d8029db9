# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Pure tensor functions from stored images to the model's input: seed in, tensor out.

Every draw is a function of its `seed`, an int32 tensor of shape `[2]` as TensorFlow's stateless
random operations take it, so the same seed gives the same images before and after a restart.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

__all__ = [
    "binarize",
    "binarize_by_index",
    "dequantize",
    "dequantize_by_index",
    "scale",
    "threshold",
    "uniform_by_index",
]

# Steps of the noise within a bin. A float32 from 128 to 255 has 16 bits behind the point, so with
# 2^16 steps the sum of a value and its noise is exact, and none is rounded into the next bin.
_NOISE_STEPS = 65536.0


def scale(images: tf.Tensor) -> tf.Tensor:
    """Maps stored intensities to [0, 1].

    Args:
      images: uint8, or floats that lie in [0, 1] already; any shape.

    Returns:
      float32 tensor of the same shape.

    Raises:
      ValueError: if the images are of another type.
    """
    images = tf.convert_to_tensor(images)
    if images.dtype == tf.uint8:
        return tf.cast(images, tf.float32) / 255.0
    if images.dtype.is_floating:
        return tf.cast(images, tf.float32)
    raise ValueError(f"images must be uint8 or floats in [0, 1]; got {images.dtype.name}")


def binarize(x: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Draws every pixel from a Bernoulli distribution whose mean is its intensity.

    This is the dynamic binarization of Salakhutdinov & Murray (2008), with a new seed each time
    that an image is seen. A pixel of 0 or 1 stays as it is.

    Args:
      x: float32 intensities in [0, 1], any shape.
      seed: int32 `[2]`.

    Returns:
      float32 tensor of zeros and ones, of the shape of `x`.
    """
    # Uniform draws lie in [0, 1), so "less than" is never true at 0 and always at 1.
    return tf.cast(tf.random.stateless_uniform(tf.shape(x), seed) < x, tf.float32)


def binarize_by_index(x: tf.Tensor, indices: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """`binarize` with one draw for each image, fixed by the image's own index.

    A subset, another order or another batch size gives the same image the same pixels, which is
    what a stated test set needs.

    Args:
      x: float32 intensities in [0, 1], `[B, ...]`.
      indices: integers `[B]`, which image of the split each one is.
      seed: int32 `[2]`.

    Returns:
      float32 tensor of zeros and ones, of the shape of `x`.
    """
    return tf.cast(uniform_by_index(x.shape[1:], indices, seed) < x, tf.float32)


def dequantize(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Spreads every value of 8-bit images evenly over its bin: `(value + U[0, 1)) / 256`.

    The expected log-density of the result is a lower bound on the log-probability of the 8-bit
    images, up to the bins' width (Uria et al. 2013; Theis et al. 2016), so a density cannot gain
    from peaks on the 256 values. `floor(256 * result)` gives every value back exactly.

    Args:
      images: uint8, any shape.
      seed: int32 `[2]`.

    Returns:
      float32 tensor in [0, 1), of the shape of `images`.

    Raises:
      ValueError: if the images are not uint8.
    """
    images = _eight_bit(images)
    return _spread(images, tf.random.stateless_uniform(tf.shape(images), seed))


def dequantize_by_index(images: tf.Tensor, indices: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """`dequantize` with one draw for each image, fixed by the image's own index.

    Args:
      images: uint8 `[B, ...]`.
      indices: integers `[B]`, which image of the split each one is.
      seed: int32 `[2]`.

    Returns:
      float32 tensor in [0, 1), of the shape of `images`.

    Raises:
      ValueError: if the images are not uint8.
    """
    images = _eight_bit(images)
    return _spread(images, uniform_by_index(images.shape[1:], indices, seed))


def threshold(x: tf.Tensor) -> tf.Tensor:
    """1.0 where an intensity in [0, 1] is above one half, 0.0 elsewhere."""
    return tf.cast(x > 0.5, tf.float32)


def uniform_by_index(shape: Sequence[int], indices: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Draws from U[0, 1) for each image, fixed by the image's own index.

    Args:
      shape: of the draws for one image.
      indices: integers `[B]`, which image of the split each one is.
      seed: int32 `[2]`.

    Returns:
      float32 `[B, *shape]`; what an image gets depends on its index and on no other image's.
    """

    def draw(index: tf.Tensor) -> tf.Tensor:
        own_seed = tf.random.experimental.stateless_fold_in(seed, index)
        return tf.random.stateless_uniform(shape, own_seed)

    signature = tf.TensorSpec(shape, tf.float32)
    return tf.map_fn(draw, tf.cast(indices, tf.int64), fn_output_signature=signature)


def _spread(images: tf.Tensor, uniform: tf.Tensor) -> tf.Tensor:
    """`(images + uniform) / 256` with the noise rounded down to one of `_NOISE_STEPS`."""
    noise = tf.floor(uniform * _NOISE_STEPS) / _NOISE_STEPS
    return (tf.cast(images, tf.float32) + noise) / 256.0


def _eight_bit(images: tf.Tensor) -> tf.Tensor:
    images = tf.convert_to_tensor(images)
    if images.dtype != tf.uint8:
        raise ValueError(f"images to dequantize must be uint8; got {images.dtype.name}")
    return images
