# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Pure tensor functions from stored images to the model's input: seed in, tensor out.

Every draw is a function of its `seed`, an int32 tensor of shape `[2]` as TensorFlow's stateless
random operations take it, so the same seed gives the same images before and after a restart.
"""

from __future__ import annotations

import tensorflow as tf

__all__ = ["binarize", "binarize_by_index", "scale", "threshold"]


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

    def draw(index: tf.Tensor) -> tf.Tensor:
        own_seed = tf.random.experimental.stateless_fold_in(seed, index)
        return tf.random.stateless_uniform(tf.shape(x)[1:], own_seed)

    signature = tf.TensorSpec(x.shape[1:], tf.float32)
    uniform = tf.map_fn(draw, tf.cast(indices, tf.int64), fn_output_signature=signature)
    return tf.cast(uniform < x, tf.float32)


def threshold(x: tf.Tensor) -> tf.Tensor:
    """1.0 where an intensity in [0, 1] is above one half, 0.0 elsewhere."""
    return tf.cast(x > 0.5, tf.float32)
