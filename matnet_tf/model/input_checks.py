# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The forms of input that models take, and the checks of images and masks.

`ImageInputs` and `MaskedImageInputs` do the same four things: `unpack` an element of a data set to
a tuple of tensors, `pack` it again, `check` inputs eagerly, and `assert_valid` in a graph.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from matnet_tf.likelihoods.base import ObservationModel, asserted
from matnet_tf.likelihoods.observation import ObservedPixels

__all__ = [
    "EMPTY",
    "ImageInputs",
    "MaskedImageInputs",
    "check_specs",
    "checked_mask",
    "data_errors",
    "images_of",
    "parts_of",
]

EMPTY = "the data set is empty: it has no batch of images"

_MASK = "0 where a pixel is hidden and 1 where it is known, not 1 everywhere"


class _Inputs:
    """Base class of the forms of input.

    Args:
      observation: The model of pixel values.
    """

    size: int  # Number of tensors that `unpack` returns.

    def __init__(self, observation: ObservationModel):
        self._observation = observation

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of images."""
        return self._observation.image_shape

    @property
    def shapes(self) -> dict[str, tuple[int, int, int]]:
        """The shapes of the tensors that `unpack` returns, by name, without the batch."""
        shapes = {"image": self.image_shape, "mask": (*self.image_shape[:2], 1)}
        return dict(list(shapes.items())[: self.size])

    def check_ready(self) -> None:
        """Raises a ValueError if the model's `adapt` must be called first."""
        self._observation.check_ready()

    def tensors(self, element: Any) -> tuple[tf.Tensor, ...]:
        """The inputs of an element in float32, and the weights of its images if it has any."""
        inputs, weights = parts_of(element)
        parts = self.unpack(inputs)
        parts = parts if weights is None else (*parts, weights)
        return tuple(tf.cast(part, tf.float32) for part in parts)

    def split(self, tensors: tuple[tf.Tensor, ...]) -> tuple[tuple[tf.Tensor, ...], Any]:
        """The inputs and the weights, or None, of what `tensors` returns."""
        inputs, weights = tensors[: self.size], tensors[self.size :]
        return inputs, (weights[0] if weights else None)


class ImageInputs(_Inputs):
    """Whole images: inputs are a tuple `(x,)`."""

    size = 1

    def unpack(self, element: Any) -> tuple[Any]:
        """The images of a data set's element, see `images_of`, in a tuple."""
        return (images_of(element),)

    def pack(self, x: Any) -> Any:
        """An element of a data set with these images."""
        return x

    def check(self, x: Any) -> tuple[tf.Tensor]:
        """Images as float32 `[B, H, W, C]`, or a ValueError that names what is wrong."""
        return (self._observation.checked(x),)

    def assert_valid(self, x: tf.Tensor) -> tuple[tf.Tensor]:
        """Casts images to float32 and asserts in the graph that the likelihood accepts them."""
        return (self._observation.assert_valid(x),)


class MaskedImageInputs(_Inputs):
    """Images and masks: inputs are a tuple `(x, mask)`."""

    size = 2

    def unpack(self, element: Any) -> tuple[Any, Any]:
        """Images and masks of an element: its entries `image` and `mask`, or its first two parts.

        Raises:
          ValueError: If the element has no mask.
        """
        if isinstance(element, dict):
            if "mask" not in element:
                raise ValueError(
                    f"a dictionary of data for a conditional model needs the keys 'image' and "
                    f"'mask'; got {sorted(element)}"
                )
            return images_of(element), element["mask"]
        if isinstance(element, (tuple, list)):
            if len(element) == 1 or isinstance(element[0], dict):
                return self.unpack(element[0])
            return element[0], element[1]
        raise ValueError(
            "a conditional model needs images and masks, as (image, mask) or a dictionary of both; "
            "got images alone"
        )

    def pack(self, x: Any, mask: Any) -> dict[str, Any]:
        """An element of a data set with these images and masks."""
        return {"image": x, "mask": mask}

    def check(self, x: Any, mask: Any) -> tuple[tf.Tensor, tf.Tensor]:
        """Whole images and masks, or a ValueError that names what is wrong with them."""
        x = self._observation.checked(x)
        return x, checked_mask(mask, x.shape[0], self._observation.image_shape)

    def check_observed(self, x: Any, mask: Any) -> ObservedPixels:
        """Known pixels and masks, as `check`; hidden pixels may hold anything, NaN included."""
        x = tf.convert_to_tensor(x)
        if not x.dtype.is_floating or x.shape.rank != 4 or not x.shape[0]:
            self._observation.checked(x)  # Raises: nothing can be hidden in such an array.
        mask = checked_mask(mask, x.shape[0], self._observation.image_shape)
        if tuple(x.shape[1:]) == self._observation.image_shape:
            x = ObservedPixels.of(tf.cast(x, tf.float32), mask).x
        return ObservedPixels(self._observation.checked(x), mask)

    def assert_valid(self, x: tf.Tensor, mask: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Casts images and masks to float32 and asserts in the graph that they are valid."""
        return self._observation.assert_valid(x), _valid_masks(mask)


def parts_of(element: Any) -> tuple[Any, Any]:
    """An element of data without its weights, and the weights of its images or None.

    Weights are the last of three parts, after targets or masks, as Keras orders them.
    """
    if isinstance(element, (tuple, list)) and len(element) == 3:
        *inputs, weights = element
        return tuple(part for part in inputs if part is not None), weights
    return element, None


def images_of(element: Any) -> Any:
    """The images of a data set's element: itself, its first part, or its entry `image`.

    Raises:
      ValueError: If the element is a dictionary without `image`.
    """
    if isinstance(element, dict):
        if "image" not in element:
            raise ValueError(f"a dictionary of data needs the key 'image'; got {sorted(element)}")
        return element["image"]
    if isinstance(element, (tuple, list)):
        return images_of(element[0])
    return element


def check_specs(specs: Sequence[tf.TensorSpec], image_shape: tuple[int, int, int]) -> None:
    """Refuses a data set whose images, or masks, do not have the model's shape and type.

    Args:
      specs: Spec of a batch of images, and of a batch of masks if the model is conditional.
      image_shape: `(H, W, C)`.

    Raises:
      ValueError: If they do not fit; it names what was expected and what came.
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


def checked_mask(mask: Any, images: int, image_shape: Sequence[int]) -> tf.Tensor:
    """A mask as float32 `[B, H, W, 1]`, 1 where the pixel is known.

    Args:
      mask: Booleans or numbers, `[B, H, W, 1]`, or `[H, W, 1]` for all images.
      images: B.
      image_shape: `(H, W, C)`.

    Raises:
      ValueError: If the mask has another shape or other values than 0 and 1, or leaves nothing to
        predict in an image, which is named.
    """
    if tf.is_symbolic_tensor(mask):  # Inside a `tf.function`.
        return _valid_masks(mask)
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


def _valid_masks(mask: tf.Tensor) -> tf.Tensor:
    mask = tf.cast(mask, tf.float32)
    other_values = tf.reduce_any((mask != 0) & (mask != 1), axis=[1, 2, 3])
    wrong = other_values | tf.reduce_all(mask == 1, axis=[1, 2, 3])
    bad = tf.math.count_nonzero(wrong)
    return asserted(mask, bad, f"masks must be {_MASK}; got a batch with {{}} masks that are not")


@contextlib.contextmanager
def data_errors() -> Iterator[None]:
    """Turns a failed assertion of `assert_valid` in a data set into a ValueError of one line."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        found = re.search("(images|masks) must be .*? that are not", str(error))
        if not found:
            raise
        raise ValueError(found.group()) from None
