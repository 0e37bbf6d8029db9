# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The trained mixture prior over z_0 as a Keras layer (Sec. 2.3, first extension)."""

from __future__ import annotations

import keras
import tensorflow as tf

from matnet_tf.distributions.gaussian import bounded, slowed_mean
from matnet_tf.distributions.mixture import GaussianMixture
from matnet_tf.layers.base import config_of

__all__ = ["MixturePrior"]


@keras.saving.register_keras_serializable("matnet_tf")
class MixturePrior(keras.layers.Layer):
    """The trained parameters of a mixture of diagonal Gaussians.

    The layer has no `call`; use `distribution()`.

    Args:
      components: Number of components K.
      units: Units of the latent.
      spread: Standard deviation of the initial means and log-variances.
      trained_weights: Whether the component weights are trained. They start equal and stay equal
        if not.
      log_var_bound: Bound on the log-variances, see `gaussian.bounded`.
      **kwargs: Arguments of `keras.layers.Layer`.
    """

    def __init__(
        self, components, units, spread, trained_weights=False, log_var_bound=8.0, **kwargs
    ):
        super().__init__(**kwargs)
        self.components = components
        self.units = units
        self.spread = spread
        self.trained_weights = trained_weights
        self.log_var_bound = log_var_bound

    def build(self, input_shape=None):
        shape = (self.components, self.units)
        self.loc = self.add_weight(name="loc", shape=shape)
        self.log_var = self.add_weight(name="log_var", shape=shape)
        self.logits = self.add_weight(
            name="logits",
            shape=(self.components,),
            initializer="zeros",
            trainable=self.trained_weights,
        )
        self.initialize(0)

    def initialize(self, seed: int) -> None:
        """Draws the components from an integer seed; equal components would never part."""
        shape = (self.components, self.units)
        for index, variable in enumerate((self.loc, self.log_var)):
            draw = keras.random.normal(shape, stddev=self.spread, seed=1_000_003 * seed + index)
            variable.assign(draw)

    def distribution(self) -> GaussianMixture:
        """The prior p(z_0), with event shape [units]."""
        logits, loc, log_var = (
            tf.convert_to_tensor(v, tf.float32) for v in (self.logits, self.loc, self.log_var)
        )
        scale = tf.exp(bounded(log_var, self.log_var_bound) / 2)
        return GaussianMixture(logits, slowed_mean(loc), scale)

    def get_config(self):
        return super().get_config() | config_of(
            self, "components", "units", "spread", "trained_weights", "log_var_bound"
        )
