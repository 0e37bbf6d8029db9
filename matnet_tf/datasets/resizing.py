# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Images of any size, brought to one."""

from __future__ import annotations

import tensorflow as tf

__all__ = ["resize"]


def resize(image: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """The largest central part of an image that has the shape of `size`, in that size.

    The part's sides are rounded to whole pixels; where its margins differ, the upper or left one is
    the smaller. Sizes are changed by linear interpolation, widened to the area that an output pixel
    covers where the image shrinks, so no pixel is skipped. An image of that size stays as it is.

    Args:
      image: uint8 or floats, `[H', W', C]`.
      size: height and width, H and W.

    Returns:
      `[H, W, C]` of the same type, whose values lie in the range of the image's.
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
    # The rounding of sums must not lead out of [0, 1].
    resized = tf.cast(resized, image.dtype)
    return tf.clip_by_value(resized, tf.reduce_min(image), tf.reduce_max(image))
