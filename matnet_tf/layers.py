# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Modules of Sec. 2.2 as Keras layers: bottom-up (Eq. 9), top-down (Eqs. 7, 8), merge (10, 11)."""

from __future__ import annotations

import keras
import tensorflow as tf

from matnet_tf.updates import UPDATES, StateLayer, config_of

__all__ = ["BottomUpModule", "MergeModule", "TopDownModule"]


class _Module(StateLayer):
    """What all modules share: a state update, of the settings of its module."""

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
        self.update_layer = UPDATES[update](
            filters, dense, kernel_size, activation, self.normalization, self.carry, name="update"
        )

    def get_config(self):
        return super().get_config() | config_of(self, "update")


@keras.saving.register_keras_serializable("matnet_tf")
class BottomUpModule(_Module):
    """A bottom-up module f^b_i, Eq. 9: `h_bu -> h_bu`, same shape.

    Args:
      update: `residual` (Eq. 9) or `gru`.
      filters, dense, kernel_size, activation, normalization, carry: see `StateLayer`.
    """

    def build(self, h_bu_shape):
        self.update_layer.build(h_bu_shape)

    def call(self, h_bu):
        return self.update_layer(h_bu)

    def compute_output_shape(self, h_bu_shape):
        return h_bu_shape


@keras.saving.register_keras_serializable("matnet_tf")
class TopDownModule(_Module):
    """A top-down module f^t_i, Eqs. 7 and 8.

    `call(h_td, z)` gives the next top-down state; `prior_parameters(h_td)` gives the
    `[mean; log-variance]` of p(z_i | h_td), zeros (so N(0, I)) where `prior` is `standard`.

    Args:
      latents: channels of z_i.
      prior: `learned` (Eq. 8) or `standard`.
      update: `residual` (Eq. 7) or `gru`.
      filters, dense, kernel_size, activation, normalization, carry: see `StateLayer`.
    """

    def __init__(self, filters, dense, latents, prior="learned", **kwargs):
        super().__init__(filters, dense, **kwargs)
        self.latents = latents
        self.prior = prior
        self.prior_hidden = self.prior_head = None
        if prior == "learned":
            self.prior_hidden = self._linear(filters, name="prior_hidden")
            self.prior_head = self._linear(2 * latents, name="prior_head")

    def build(self, h_td_shape, z_shape):
        self.update_layer.build(h_td_shape, z_shape)
        if self.prior_hidden is not None:
            self.prior_hidden.build(h_td_shape)
            self.prior_head.build(h_td_shape)

    def call(self, h_td, z):
        return self.update_layer(h_td, inputs=tf.cast(z, h_td.dtype))

    def prior_parameters(self, h_td: tf.Tensor) -> tf.Tensor:
        """`[mean; log-variance]` of p(z_i | h_td): `[B, ..., 2 * latents]`."""
        if self.prior_head is None:
            return tf.zeros_like(h_td[..., :1]) * tf.zeros([2 * self.latents], h_td.dtype)
        return self.prior_head(self._act(self.prior_hidden(h_td)))

    def compute_output_shape(self, h_td_shape, z_shape):
        return h_td_shape

    def get_config(self):
        return super().get_config() | config_of(self, "latents", "prior")


@keras.saving.register_keras_serializable("matnet_tf")
class MergeModule(_Module):
    """A merge module f^m_i, Eqs. 10 and 11.

    `call(h_bu, h_td, h_merge)` gives the `[mean; log-variance]` of q(z_i | x, z_0..z_{i-1}) and
    the next merge state. The convolution over the concatenation of Eq. 10 is the sum of one over
    the bottom-up state and one over the rest, so `project(h_bu)` can be computed once per image
    and `merge(projection, h_td, h_merge)` for each of its K samples.

    Args:
      latents: channels of z_i.
      update: `residual` (Eq. 10) or `gru`.
      filters, dense, kernel_size, activation, normalization, carry: see `StateLayer`; the state
        is the merge state.
    """

    def __init__(self, filters, dense, latents, **kwargs):
        super().__init__(filters, dense, **kwargs)
        self.latents = latents
        self.projection = self._linear(
            self.update_layer.hidden_filters, use_bias=False, name="projection"
        )
        self.head = self._linear(2 * latents, name="head")

    def build(self, h_bu_shape, h_td_shape, h_merge_shape):
        self.projection.build(h_bu_shape)
        self.update_layer.build(h_merge_shape, h_td_shape)
        self.head.build(h_merge_shape)

    def call(self, h_bu, h_td, h_merge):
        return self.merge(self.project(h_bu), h_td, h_merge)

    def project(self, h_bu: tf.Tensor) -> tf.Tensor:
        """The part of Eq. 10's first convolution that reads the bottom-up state."""
        return self.projection(h_bu)

    def merge(self, projection, h_td, h_merge) -> tuple[tf.Tensor, tf.Tensor]:
        """Posterior parameters `[B, ..., 2 * latents]` and the next merge state."""
        h_merge = self.update_layer(h_merge, inputs=h_td, projection=projection)
        return self.head(h_merge), h_merge

    def compute_output_shape(self, h_bu_shape, h_td_shape, h_merge_shape):
        return (*h_merge_shape[:-1], 2 * self.latents), h_merge_shape

    def get_config(self):
        return super().get_config() | config_of(self, "latents")
