# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The base class of observation models."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from matnet_tf.layers.base import config_of

__all__ = ["ObservationModel", "asserted"]

tfd = tfp.distributions


def asserted(value: tf.Tensor, bad: tf.Tensor, message: str) -> tf.Tensor:
    """The value, which a graph cannot use unless `bad`, which the message names, is 0."""
    with tf.control_dependencies(
        [tf.debugging.Assert(bad == 0, [tf.strings.format(message, bad)])]
    ):
        return tf.identity(value)


class ObservationModel(keras.layers.Layer):
    """Base class of observation models.

    `distribution(parameters)` is p(x | z) and `values(parameters)` the distribution of each value
    (of each pixel in a mixture). `call(parameters)` returns the tensors that `values` makes its
    distribution from.

    Args:
      image_shape: Image shape (H, W, C).
      scale: What has a scale of its own: `pixel` (every value, from its parameters), `channel` or
        `scalar` (a trained constant). Unused by `Bernoulli`.
      **kwargs: Arguments of `keras.layers.Layer`.

    Attributes:
      expected: What images must be, in words; `invalid` finds the values that are not.
      convert: What to do with integer images, in words.
      bins: Number of 8-bit levels per unit of the density; 1 for probabilities.
      pointwise: Whether a convolution to the parameters is 1x1, for models with many of them.
    """

    expected = "finite values in [0, 1]"
    convert = "divide 8-bit images by 255 first"
    bins = 1
    pointwise = False

    def __init__(self, image_shape, scale="pixel", **kwargs):
        super().__init__(**kwargs)
        self.image_shape = tuple(image_shape)
        self.scale = scale

    @property
    def num_parameters(self) -> int:
        """Number of parameters per value of the image, P."""
        return 2 if self.scale == "pixel" else 1

    @property
    def parameters_shape(self) -> tuple[int, ...]:
        """Shape of the parameters of an image, (H, W, C, P)."""
        return (*self.image_shape, self.num_parameters)

    def invalid(self, x: tf.Tensor) -> tf.Tensor:
        """Where x cannot be a value of an image; booleans of its shape."""
        # Comparisons with NaN are false, so this finds NaN too.
        return ~((x >= 0.0) & (x <= 1.0))

    def checked(self, x: Any) -> tf.Tensor:
        """Checks images and returns them as float32 [B, H, W, C].

        Raises:
          ValueError: If x has the wrong dtype or shape, is empty or has invalid values, or if
            `adapt` must be called first.
        """
        x = self._checked_values(x)
        self.check_ready()
        return x

    def _checked_values(self, x: Any) -> tf.Tensor:
        x = self._array(x)
        self._check_form(x)
        if tf.is_symbolic_tensor(x):  # Inside a `tf.function`.
            return self.assert_valid(x)
        x = tf.cast(x, tf.float32)
        if bool(tf.reduce_any(self.invalid(x))):
            nan = " and NaN" if bool(tf.reduce_any(tf.math.is_nan(x))) else ""
            least, most = float(tf.reduce_min(x)), float(tf.reduce_max(x))
            raise ValueError(
                f"images must be {self.expected}; got values from {least:g} to {most:g}{nan}"
            )
        return x

    def assert_valid(self, x: tf.Tensor) -> tf.Tensor:
        """Casts images to float32 and asserts in the graph that they are valid."""
        x = tf.cast(x, tf.float32)
        bad = tf.math.count_nonzero(self.invalid(x))
        message = f"images must be {self.expected}; got a batch with {{}} values that are not"
        return asserted(x, bad, message)

    def _array(self, x: Any) -> tf.Tensor:
        """The array as a tensor."""
        kind = type(x).__name__
        if isinstance(x, (tf.data.Dataset, keras.utils.PyDataset, Iterator, dict)):
            raise ValueError(
                f"expected an array of images; got a {kind}: take its batches one by one, or use "
                f"fit, evaluate or predict"
            )
        try:
            return tf.convert_to_tensor(x)
        except (TypeError, ValueError):
            raise ValueError(f"expected an array of images; got a {kind}") from None

    def _check_form(self, x: tf.Tensor) -> None:
        if not x.dtype.is_floating:
            raise ValueError(
                f"images must be float32, {self.expected}; got dtype {x.dtype.name}: {self.convert}"
            )
        if x.shape.rank != 4 or tuple(x.shape[1:]) != self.image_shape:
            raise ValueError(
                f"images must have shape (batch, {', '.join(map(str, self.image_shape))}), as the "
                f"model's config says; got {tuple(x.shape)}"
            )
        if x.shape[0] == 0:
            raise ValueError("expected at least one image; got an empty batch")

    def build(self, parameters_shape):
        """Creates the weights, of which most models have none."""

    def adapt(self, dataset: Iterable[Any]) -> None:
        """Computes statistics of training images, given in batches [B, H, W, C], if any are needed.

        Only `Normal` with whitening needs any.
        """

    def check_ready(self) -> None:
        """Raises a ValueError if `adapt` must be called first."""
        # AutoGraph, in a user's `tf.function`, fails on a function without a statement.
        pass

    def from_bytes(self, values: tf.Tensor) -> tf.Tensor:
        """Images from 8-bit values, uint8 [B, H, W, C], without noise."""
        return tf.cast(values, tf.float32) / 255.0

    def standardize(self, x: tf.Tensor) -> tf.Tensor:
        """Maps images to the values that the networks read, here to [-1, 1]."""
        return 2.0 * x - 1.0

    def named_parameters(self, parameters: tf.Tensor) -> dict[str, tf.Tensor]:
        """Parameters of the distributions of images in [0, 1] by name, [B, H, W, C] each."""
        raise NotImplementedError

    def values(self, parameters: tf.Tensor) -> tfd.Distribution:
        """The distribution of every value on its own, with batch shape [B, H, W, C]."""
        raise NotImplementedError

    def distribution(self, parameters: tf.Tensor) -> tfd.Distribution:
        """p(x | z) with event shape [H, W, C], from parameters [B, H, W, C, P]."""
        values = self.values(parameters)
        return tfd.Independent(values, reinterpreted_batch_ndims=values.batch_shape.rank - 1)

    def log_probs(self, parameters: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        """log p of every value on its own, [B, H, W, C], in nats; they sum to `log_prob`."""
        return self.values(parameters).log_prob(x)

    @property
    def num_uniforms(self) -> int:
        """Number of uniform variables that `quantile` draws a pixel from, C."""
        return self.image_shape[-1]

    def quantile(self, parameters: tf.Tensor, uniform: tf.Tensor) -> tf.Tensor:
        """Values from uniform noise [B, H, W, num_uniforms] in [0, 1); only for discrete values."""
        raise NotImplementedError

    def compute_output_shape(self, parameters_shape):
        return (tuple(parameters_shape[:-1]),) * 2

    def get_config(self):
        return super().get_config() | config_of(self, "image_shape", "scale")
