# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""What models are fed: images, or images and masks, in every form that a data set gives them in."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

__all__ = [
    "EMPTY",
    "OneClearError",
    "check_specs",
    "checked_mask",
    "image_and_mask_of",
    "images_of",
    "valid_images",
    "valid_masks",
]

EMPTY = "the data set is empty: it has no batch of images"

_MASK = "0 or 1 (known), and leave something to predict"


def images_of(element: Any) -> Any:
    """The images of a data set's element: itself, its first part, or its entry `image`.

    Raises:
      ValueError: if the element is a dictionary without `image`.
    """
    if isinstance(element, dict):
        if "image" not in element:
            raise ValueError(f"a dictionary of data needs the key 'image'; got {sorted(element)}")
        return element["image"]
    if isinstance(element, (tuple, list)):
        return images_of(element[0])
    return element


def image_and_mask_of(element: Any) -> tuple[Any, Any]:
    """Images and masks of an element: its entries `image` and `mask`, or its first two parts.

    Raises:
      ValueError: if the element has no mask.
    """
    if isinstance(element, dict):
        if "mask" not in element:
            raise ValueError(
                f"a dictionary of data for a conditional model needs the keys 'image' and 'mask'; "
                f"got {sorted(element)}"
            )
        return images_of(element), element["mask"]
    if isinstance(element, (tuple, list)):
        if len(element) == 1 or isinstance(element[0], dict):
            return image_and_mask_of(element[0])
        return element[0], element[1]
    raise ValueError(
        "a conditional model needs images and masks, as (image, mask) or a dictionary of both; "
        "got images alone"
    )


def check_specs(specs: Sequence[tf.TensorSpec], image_shape: tuple[int, int, int]) -> None:
    """Refuses a data set whose images, and masks if it has any, cannot be the model's.

    Args:
      specs: of a batch of images, and where there are masks of a batch of them.
      image_shape: `(H, W, C)`.

    Raises:
      ValueError: naming what was expected and what came.
    """
    images, *masks = specs
    expected = tuple(image_shape)
    if not images.dtype.is_floating or not _fits(images, expected):
        raise ValueError(
            f"a data set must give batches of float images (batch, "
            f"{', '.join(map(str, expected))}), as the model's config says; got "
            f"{images.dtype.name} {images.shape}"
        )
    for mask in masks:
        if not _fits(mask, (*expected[:2], 1)):
            raise ValueError(
                f"a data set for a conditional model must give batches of masks (batch, "
                f"{expected[0]}, {expected[1]}, 1); got {mask.dtype.name} {mask.shape}"
            )


def _fits(spec: tf.TensorSpec, shape: tuple[int, ...]) -> bool:
    return spec.shape.rank == 4 and spec.shape[1:].is_compatible_with(shape)


def valid_images(x: tf.Tensor, pixels: Any) -> tf.Tensor:
    """Images as float32, which in a graph fail unless every value is one that `pixels` takes."""
    x = tf.cast(x, tf.float32)
    bad = tf.math.count_nonzero(pixels.invalid(x))
    message = tf.strings.format(
        f"images must be {pixels.expected}; got a batch with {{}} values that are not", bad
    )
    with tf.control_dependencies([tf.debugging.Assert(bad == 0, [message])]):
        return tf.identity(x)


def valid_masks(mask: tf.Tensor) -> tf.Tensor:
    """Masks as float32, which in a graph fail unless each is one; see `checked_mask`."""
    mask = tf.cast(mask, tf.float32)
    bad = tf.math.count_nonzero(_wrong(mask))
    message = tf.strings.format(f"masks must be {_MASK}; got a batch with {{}} that are not", bad)
    with tf.control_dependencies([tf.debugging.Assert(bad == 0, [message])]):
        return tf.identity(mask)


def _wrong(mask: tf.Tensor) -> tf.Tensor:
    """Which masks `[B]` have another value than 0 and 1, or leave nothing to predict."""
    values = tf.reduce_any((mask != 0) & (mask != 1), axis=[1, 2, 3])
    return values | tf.reduce_all(mask == 1, axis=[1, 2, 3])


def checked_mask(mask: Any, images: int, image_shape: Sequence[int]) -> tf.Tensor:
    """A mask as float32 `[B, H, W, 1]`, 1 where the pixel is known.

    Args:
      mask: booleans or numbers, one `[B, H, W, 1]` for each image or one `[H, W, 1]` for all.
      images: B.
      image_shape: `(H, W, C)`.

    Raises:
      ValueError: if it has another shape, or other values than 0 and 1, or leaves nothing to
        predict in an image, which is named.
    """
    mask = np.asarray(mask)
    one = (*image_shape[:2], 1)
    if mask.shape == one:
        mask = np.broadcast_to(mask, (images, *one))
    if mask.shape != (images, *one):
        raise ValueError(
            f"mask must have shape {(images, *one)}, one for each image, or {one} for all; got "
            f"{mask.shape}"
        )
    if mask.dtype.kind not in "biuf" or not np.isin(mask, (0, 1)).all():
        raise ValueError("mask must be 1 where a pixel is known and 0 elsewhere; got other values")
    full = np.flatnonzero(mask.all(axis=(1, 2, 3)))
    if full.size:
        raise ValueError(f"the mask of image {full[0]} leaves nothing to predict: all is known")
    return tf.constant(mask, tf.float32)


class OneClearError:
    """Turns a failed check inside a data set into the ValueError that it means."""

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        if isinstance(error, tf.errors.InvalidArgumentError):
            found = re.search("(images|masks) must be .*? that are not", str(error))
            if found:
                raise ValueError(found.group()) from None
