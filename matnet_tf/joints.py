# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""What joins the image, z_0 and the scales (Sec. 2.2): the top modules and `Resample`."""

from __future__ import annotations

import itertools
import math

import keras
import tensorflow as tf

from matnet_tf.config import halvings
from matnet_tf.updates import Conv2D, activation_function, config_of, linear

__all__ = ["FinalBottomUpModule", "Resample", "TopModule"]


@keras.saving.register_keras_serializable("matnet_tf")
class TopModule(keras.layers.Layer):
    """From z_0 to the first state of a chain: two dense layers, then the shape of the state.

    The top-down chain and each merge chain have one of their own (Sec. 2.2).

    Args:
      units: of the first dense layer.
      state_shape: shape of the state without the batch, `(filters,)` or `(h, w, filters)`.
      activation: name, see `activation_function`.
    """

    def __init__(self, units, state_shape, activation="leaky_relu", **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.state_shape = tuple(state_shape)
        self.activation = activation
        self._act = activation_function(activation)
        size = math.prod(self.state_shape)
        self.hidden = keras.layers.Dense(units, name="hidden")
        self.output_map = keras.layers.Dense(size, name="output")

    def build(self, z_shape):
        self.hidden.build(z_shape)
        self.output_map.build((*z_shape[:-1], self.units))

    def call(self, z):
        h = self._act(self.hidden(z))
        return tf.reshape(self._act(self.output_map(h)), [-1, *self.state_shape])

    def compute_output_shape(self, z_shape):
        return (z_shape[0], *self.state_shape)

    def get_config(self):
        return super().get_config() | config_of(self, "units", "state_shape", "activation")


@keras.saving.register_keras_serializable("matnet_tf")
class FinalBottomUpModule(keras.layers.Layer):
    """The final bottom-up module f^b_0: `[mean; log-variance]` of q(z_0 | x), `[B, 2 * latents]`.

    Args:
      units: of the dense layer between the state and the parameters.
      latents: units of z_0.
      activation: name, see `activation_function`.
    """

    def __init__(self, units, latents, activation="leaky_relu", **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.latents = latents
        self.activation = activation
        self._act = activation_function(activation)
        self.flatten = keras.layers.Flatten(name="flatten")
        self.hidden = keras.layers.Dense(units, name="hidden")
        self.head = keras.layers.Dense(2 * latents, name="head")

    def build(self, h_bu_shape):
        size = math.prod(h_bu_shape[1:])
        self.flatten.build(h_bu_shape)
        self.hidden.build((h_bu_shape[0], size))
        self.head.build((h_bu_shape[0], self.units))

    def call(self, h_bu):
        return self.head(self._act(self.hidden(self.flatten(h_bu))))

    def compute_output_shape(self, h_bu_shape):
        return (h_bu_shape[0], 2 * self.latents)

    def get_config(self):
        return super().get_config() | config_of(self, "units", "latents", "activation")


@keras.saving.register_keras_serializable("matnet_tf")
class Resample(keras.layers.Layer):
    """From one scale to the next: strided or transposed convolutions, or dense layers, activated.

    A chain halves or doubles a side at a time; odd sides round up on the way down, and the surplus
    row or column is cut on the way up.

    Args:
      from_shape, to_shape: `(h, w)` of both scales; `(1, 1)` is a dense state.
      filters: channels or units after it.
      kernel_size: side of the kernels.
      activation: name, see `activation_function`.
      from_filters: channels before it.
    """

    def __init__(
        self,
        from_shape,
        to_shape,
        from_filters,
        filters,
        kernel_size=3,
        activation="leaky_relu",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.from_shape = tuple(from_shape)
        self.to_shape = tuple(to_shape)
        self.from_filters = from_filters
        self.filters = filters
        self.kernel_size = kernel_size
        self.activation = activation
        self._act = activation_function(activation)
        self.steps, self.sizes = self._plan()

    @property
    def dense(self) -> bool:
        """Whether one dense layer does the work, since one of the scales is dense."""
        return (1, 1) in (self.from_shape, self.to_shape)

    def _plan(self):
        if self.dense:
            size = math.prod(self.to_shape) * self.filters
            return [keras.layers.Dense(size, name="dense")], [self.to_shape]
        up = self.to_shape > self.from_shape
        fine, coarse = (self.to_shape, self.from_shape) if up else (self.from_shape, self.to_shape)
        path = _halving_path(fine, coarse)
        path = path[::-1] if up else path
        if len(path) == 1:
            return [linear(self.filters, self.kernel_size, False, name="conv")], [path[0]]
        kind = keras.layers.Conv2DTranspose if up else Conv2D
        steps = [
            kind(
                self.filters,
                self.kernel_size,
                strides=tuple(2 if x != y else 1 for x, y in zip(a, b, strict=True)),
                padding="same",
                name=f"conv_{b[0]}x{b[1]}",
            )
            for a, b in itertools.pairwise(path)
        ]
        return steps, path[1:]

    def build(self, state_shape):
        if self.dense:
            self.steps[0].build((state_shape[0], math.prod(state_shape[1:])))
            return
        shape = tuple(state_shape)
        for step, size in zip(self.steps, self.sizes, strict=True):
            step.build(shape)
            shape = (shape[0], *size, self.filters)

    def call(self, state):
        if self.dense:
            flat = tf.reshape(state, [-1, math.prod(self.from_shape) * self.from_filters])
            state = self._act(self.steps[0](flat))
            return (
                state
                if self.to_shape == (1, 1)
                else tf.reshape(state, [-1, *self.to_shape, self.filters])
            )
        for step, (height, width) in zip(self.steps, self.sizes, strict=True):
            state = self._act(step(state)[:, :height, :width])
        return state

    def compute_output_shape(self, state_shape):
        if self.to_shape == (1, 1):
            return (state_shape[0], self.filters)
        return (state_shape[0], *self.to_shape, self.filters)

    def get_config(self):
        return super().get_config() | config_of(
            self, "from_shape", "to_shape", "from_filters", "filters", "kernel_size", "activation"
        )


def _halving_path(fine: tuple[int, int], coarse: tuple[int, int]) -> list[tuple[int, int]]:
    """Sizes from `fine` to `coarse`, both included, halving (rounding up) both sides at a time."""
    path = [fine]
    while path[-1] != coarse:
        path.append(tuple(halvings(side)[min(1, side - 1)] for side in path[-1]))
        if path[-1] == path[-2]:
            raise ValueError(f"halving does not reach {coarse} from {fine}")
    return path
