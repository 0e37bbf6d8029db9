# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The modules of Sec. 2.2 as Keras layers.

Bottom-up (Eq. 9), top-down (Eqs. 7 and 8) and merge modules (Eqs. 10 and 11), the top modules
between z_0 and the first states, and the final bottom-up module.
"""

from __future__ import annotations

import math

import keras
import tensorflow as tf

from matnet_tf.layers.base import StateLayer, activation_function, config_of
from matnet_tf.layers.calls import SharedGraphs, of_weights
from matnet_tf.layers.updates import UPDATES

__all__ = ["BottomUpModule", "FinalBottomUpModule", "MergeModule", "TopDownModule", "TopModule"]


class _Module(StateLayer):
    """Base class of modules, which pass their settings on to a state update.

    Attributes:
      scale: Label of the module's scale, see `calls`; networks set it.
      graphs: The `SharedGraphs` of its methods; networks give modules that are alike the same.
    """

    scale = ""

    def __init__(
        self,
        filters,
        dense,
        kernel_size=3,
        activation="leaky_relu",
        update="residual",
        *settings,
        **kwargs,
    ):
        super().__init__(filters, dense, kernel_size, activation, *settings, **kwargs)
        self.update = update
        self.graphs = SharedGraphs(self)
        self.update_layer = UPDATES[update](
            filters, dense, kernel_size, activation, self.normalization, self.carry, name="update"
        )

    def _head(self, latents: int, name: str) -> keras.layers.Layer:
        """A map from (hidden units of) a state to the parameters of a Gaussian."""
        return self.update_layer.input_map(2 * latents, name=name)

    def get_config(self):
        return super().get_config() | config_of(self, "update")


@keras.saving.register_keras_serializable("matnet_tf")
class BottomUpModule(_Module):
    """A bottom-up module f^b_i (Eq. 9), which maps h_bu to the next h_bu of the same shape.

    Args:
      update: `residual` (Eq. 9), `gru` or `bottleneck`.
      filters, dense, kernel_size, activation, normalization, carry: See `StateLayer`.
    """

    def build(self, h_bu_shape):
        self.update_layer.build(h_bu_shape)

    @of_weights
    def call(self, h_bu):
        return self.update_layer(h_bu)

    def compute_output_shape(self, h_bu_shape):
        return h_bu_shape


@keras.saving.register_keras_serializable("matnet_tf")
class TopDownModule(_Module):
    """A top-down module f^t_i (Eqs. 7 and 8).

    `call(h_td, z)` returns the next top-down state and `prior_parameters(h_td)` the parameters of
    p(z_i | h_td).

    Args:
      latents: Channels of z_i.
      prior: `learned` (Eq. 8), or `standard` for N(0, I).
      update: `residual` (Eq. 7), `gru` or `bottleneck`.
      filters, dense, kernel_size, activation, normalization, carry: See `StateLayer`.
    """

    def __init__(self, filters, dense, latents, prior="learned", **kwargs):
        super().__init__(filters, dense, **kwargs)
        self.latents = latents
        self.prior = prior
        self.prior_hidden = self.prior_head = None
        if prior == "learned":
            self.prior_hidden = self._linear(self._prior_filters, name="prior_hidden")
            self.prior_head = self._head(latents, "prior_head")

    def build(self, h_td_shape, z_shape):
        self.update_layer.build(h_td_shape, z_shape)
        if self.prior_hidden is not None:
            self.prior_hidden.build(h_td_shape)
            self.prior_head.build((*h_td_shape[:-1], self._prior_filters))

    @of_weights
    def call(self, h_td, z):
        return self.update_layer(h_td, inputs=tf.cast(z, h_td.dtype))

    @of_weights
    def prior_parameters(self, h_td: tf.Tensor) -> tf.Tensor:
        """The `[mean; log-variance]` of p(z_i | h_td), [B, ..., 2 * latents]; zeros if standard."""
        if self.prior_head is None:
            return tf.zeros_like(h_td[..., :1]) * tf.zeros([2 * self.latents], h_td.dtype)
        hidden = self.prior_hidden(self.update_layer.activated_input(h_td))
        return self.prior_head(self._act(hidden))

    @property
    def _prior_filters(self):
        bottleneck = self.update == "bottleneck"
        return self.update_layer.hidden_filters if bottleneck else self.filters

    def compute_output_shape(self, h_td_shape, z_shape):
        return h_td_shape

    def get_config(self):
        return super().get_config() | config_of(self, "latents", "prior")


@keras.saving.register_keras_serializable("matnet_tf")
class MergeModule(_Module):
    """A merge module f^m_i (Eqs. 10 and 11).

    `call(h_bu, h_td, h_merge)` returns the `[mean; log-variance]` of q(z_i | x, z_0..z_{i-1}) and
    the next merge state. Eq. 10's convolution over a concatenation is the sum of a convolution over
    the bottom-up state and one over the rest, so `project(h_bu)` is computed once per image and
    `merge(projection, h_td, h_merge)` for each of its K samples.

    Args:
      latents: Channels of z_i.
      update: `residual` (Eq. 10), `gru` or `bottleneck`.
      filters, dense, kernel_size, activation, normalization, carry: See `StateLayer`, for the merge
        state.
    """

    def __init__(self, filters, dense, latents, **kwargs):
        super().__init__(filters, dense, **kwargs)
        self.latents = latents
        self.projection = self.update_layer.input_map(
            self.update_layer.hidden_filters, use_bias=False, name="projection"
        )
        self.head = self._head(latents, "head")

    def build(self, h_bu_shape, h_td_shape, h_merge_shape):
        self.projection.build(h_bu_shape)
        self.update_layer.build(h_merge_shape, h_td_shape)
        self.head.build(h_merge_shape)

    def call(self, h_bu, h_td, h_merge):
        return self.merge(self.project(h_bu), h_td, h_merge)

    @of_weights
    def project(self, h_bu: tf.Tensor) -> tf.Tensor:
        """The share of the bottom-up state [B, ...] in Eq. 10's first convolution."""
        return self.projection(self.update_layer.activated_input(h_bu))

    @of_weights
    def merge(self, projection, h_td, h_merge=None) -> tuple[tf.Tensor, tf.Tensor]:
        """Parameters of the posterior and the next merge state.

        Args:
          projection: The result of `project` for B images.
          h_td: Top-down state of K samples per image, [K * B, ...], sample first.
          h_merge: Merge state [K * B, ...].

        Returns:
          parameters: `[mean; log-variance]` of z_i, [K * B, ..., 2 * latents].
          h_merge: The next merge state.
        """
        h_merge = self.update_layer(h_merge, inputs=h_td, projection=projection)
        return self.head(self.update_layer.activated_input(h_merge)), h_merge

    def compute_output_shape(self, h_bu_shape, h_td_shape, h_merge_shape):
        return (*h_merge_shape[:-1], 2 * self.latents), h_merge_shape

    def get_config(self):
        return super().get_config() | config_of(self, "latents")


@keras.saving.register_keras_serializable("matnet_tf")
class TopModule(keras.layers.Layer):
    """Maps z_0 to the first state of a chain by two dense layers.

    The top-down chain and each merge chain have a top module of their own (Sec. 2.2).

    Args:
      units: Units of the first dense layer.
      state_shape: Shape of the state without the batch, `(filters,)` or `(h, w, filters)`.
      activation: Name of the activation, see `activation_function`.
      **kwargs: Arguments of `keras.layers.Layer`.
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
    """The final bottom-up module f^b_0, which gives the parameters of q(z_0 | x).

    Maps the last bottom-up state to a `[mean; log-variance]`, [B, 2 * latents].

    Args:
      units: Units of the dense layer between the state and the parameters.
      latents: Units of z_0.
      activation: Name of the activation, see `activation_function`.
      **kwargs: Arguments of `keras.layers.Layer`.
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
