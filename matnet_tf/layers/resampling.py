# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Resampling of states between scales (Sec. 2.2)."""

from __future__ import annotations

import itertools
import math

import keras
import tensorflow as tf

from matnet_tf.config import halvings
from matnet_tf.layers.base import Conv2D, activation_function, config_of, linear

__all__ = ["Resample"]


@keras.saving.register_keras_serializable("matnet_tf")
class Resample(keras.layers.Layer):
    """Maps a state to another scale by activated linear maps.

    Between two convolutional states these are strided or transposed convolutions, each of which
    halves or doubles the sides. Odd sides round up on the way down, and the surplus row or column
    is cut on the way up. To or from a dense state it is one dense layer.

    With `upsampling="nearest"` the way up between convolutional states repeats rows and columns, of
    a 1x1 convolution if the channels change, and adds a learned bias for every position and
    channel, without an activation.

    Args:
      from_shape: Height and width before, `(1, 1)` for a dense state.
      to_shape: Height and width after, `(1, 1)` for a dense state.
      from_filters: Channels or units before.
      filters: Channels or units after.
      kernel_size: Height and width of the kernels.
      activation: Name of the activation, see `activation_function`.
      upsampling: `transposed` or `nearest`.
      **kwargs: Arguments of `keras.layers.Layer`.

    Attributes:
      steps: The convolutions in order, or the one dense layer.
      sizes: Height and width after each step.
      bias: The bias after repeated rows and columns, or None.
    """

    def __init__(
        self,
        from_shape,
        to_shape,
        from_filters,
        filters,
        kernel_size=3,
        activation="leaky_relu",
        upsampling="transposed",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.from_shape = tuple(from_shape)
        self.to_shape = tuple(to_shape)
        self.from_filters = from_filters
        self.filters = filters
        self.kernel_size = kernel_size
        self.activation = activation
        self.upsampling = upsampling
        self.bias = None
        self._act = activation_function(activation)
        if self.dense:
            self.steps, self.sizes = self._dense_plan()
        elif self._repeats:
            self.steps, self.sizes = self._nearest_plan()
        else:
            self.steps, self.sizes = self._convolutional_plan()

    @property
    def dense(self) -> bool:
        """Whether the state before or after is dense."""
        return (1, 1) in (self.from_shape, self.to_shape)

    def _dense_plan(self):
        size = math.prod(self.to_shape) * self.filters
        return [keras.layers.Dense(size, name="dense")], [self.to_shape]

    @property
    def _repeats(self) -> bool:
        up = self.to_shape > self.from_shape
        return self.upsampling == "nearest" and up and not self.dense

    def _nearest_plan(self):
        if self.filters == self.from_filters:
            return [], []
        return [linear(self.filters, 1, False, name="conv")], [self.from_shape]

    def _convolutional_plan(self):
        up = self.to_shape > self.from_shape
        if up:
            path = _halving_path(self.to_shape, self.from_shape)[::-1]
        else:
            path = _halving_path(self.from_shape, self.to_shape)
        if len(path) == 1:
            return [linear(self.filters, self.kernel_size, False, name="conv")], path
        pairs = itertools.pairwise(path)
        return [self._convolution(before, after, up) for before, after in pairs], path[1:]

    def _convolution(self, before, after, up):
        return (keras.layers.Conv2DTranspose if up else Conv2D)(
            self.filters,
            self.kernel_size,
            strides=tuple(1 if a == b else 2 for a, b in zip(before, after, strict=True)),
            padding="same",
            name=f"conv_{after[0]}x{after[1]}",
        )

    def build(self, state_shape):
        if self.dense:
            self.steps[0].build((state_shape[0], math.prod(state_shape[1:])))
            return
        shape = tuple(state_shape)
        for step, size in zip(self.steps, self.sizes, strict=True):
            step.build(shape)
            shape = (shape[0], *size, self.filters)
        if self._repeats:
            shape = (*self.to_shape, self.filters)
            self.bias = self.add_weight(name="bias", shape=shape, initializer="zeros")

    def call(self, state):
        if self.dense:
            flat = tf.reshape(state, [-1, math.prod(self.from_shape) * self.from_filters])
            shape = self.compute_output_shape((-1,))
            return tf.reshape(self._act(self.steps[0](flat)), shape)
        if self._repeats:
            return self._repeated(self.steps[0](state) if self.steps else state)
        for step, (height, width) in zip(self.steps, self.sizes, strict=True):
            state = self._act(step(state)[:, :height, :width])
        return state

    def _repeated(self, state):
        for axis, (before, after) in enumerate(zip(self.from_shape, self.to_shape, strict=True)):
            state = tf.repeat(state, -(-after // before), axis=axis + 1)
        return state[:, : self.to_shape[0], : self.to_shape[1]] + tf.cast(self.bias, state.dtype)

    def compute_output_shape(self, state_shape):
        if self.to_shape == (1, 1):
            return (state_shape[0], self.filters)
        return (state_shape[0], *self.to_shape, self.filters)

    def get_config(self):
        return super().get_config() | config_of(
            self,
            *("from_shape", "to_shape", "from_filters", "filters"),
            *("kernel_size", "activation", "upsampling"),
        )


def _halving_path(fine: tuple[int, int], coarse: tuple[int, int]) -> list[tuple[int, int]]:
    """The sizes from `fine` to `coarse`, both included; each step halves the sides, rounding up."""
    path = [fine]
    while path[-1] != coarse:
        path.append(tuple(halvings(side)[min(1, side - 1)] for side in path[-1]))
        if path[-1] == path[-2]:
            raise ValueError(f"halving does not reach {coarse} from {fine}")
    return path
