# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""From the last top-down state to p(x | z): Keras layers with a TFP distribution.

A likelihood is a layer whose `call(h_td)` gives the parameters of p(x | z), and whose
`distribution(parameters)` makes the distribution, with `event_shape` `[H, W, C]`. `LIKELIHOODS`
is the seam: another one needs a row there and a name in `ModelConfig.likelihood`.
"""

from __future__ import annotations

import math

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from matnet_tf.updates import config_of, linear

tfd = tfp.distributions

__all__ = ["LIKELIHOODS", "Bernoulli"]


@keras.saving.register_keras_serializable("matnet_tf")
class Bernoulli(keras.layers.Layer):
    """Independent Bernoulli pixels (Sec. 2.2), for images in [0, 1].

    For pixels strictly between 0 and 1 `log_prob` is the expected log-probability of their
    binarization, not a density: the model's numbers are likelihoods for binary images only.

    Args:
      image_shape: `(H, W, C)`.
      dense: whether the last state is `[B, filters]` rather than `[B, H, W, filters]`.
      kernel_size: side of the kernels.
    """

    low, high = 0.0, 1.0  # The range of the images.

    def __init__(self, image_shape, dense, kernel_size=3, **kwargs):
        super().__init__(**kwargs)
        self.image_shape = tuple(image_shape)
        self.dense = dense
        self.kernel_size = kernel_size
        channels = math.prod(self.image_shape) if dense else self.image_shape[-1]
        self.logits = linear(channels, kernel_size, dense, name="logits")

    def build(self, h_td_shape):
        self.logits.build(h_td_shape)

    def call(self, h_td):
        return tf.reshape(self.logits(h_td), [-1, *self.image_shape])

    def distribution(self, parameters: tf.Tensor) -> tfd.Independent:
        """p(x | z) from logits `[B, H, W, C]`."""
        logits = tf.cast(parameters, tf.float32)
        bernoulli = tfd.Bernoulli(logits=logits, dtype=tf.float32)
        return tfd.Independent(bernoulli, reinterpreted_batch_ndims=3)

    def compute_output_shape(self, h_td_shape):
        return (h_td_shape[0], *self.image_shape)

    def get_config(self):
        return super().get_config() | config_of(self, "image_shape", "dense", "kernel_size")


LIKELIHOODS = {"bernoulli": Bernoulli}
