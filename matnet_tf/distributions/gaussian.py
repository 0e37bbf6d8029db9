# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Diagonal Gaussians over latents (paper, Eqs. 8 and 11).

Distributions are float32 whatever the compute dtype. Log-variances are bounded smoothly, and means
grow slowly beyond the range of trained models, so that finite parameters always give finite
densities and KLs, and finite squares of KLs.
"""

from __future__ import annotations

import tensorflow as tf
import tensorflow_probability as tfp

from matnet_tf.tracing import traced_once

__all__ = ["bounded", "slowed_mean", "diagonal_normal"]

tfd = tfp.distributions

_LINEAR = 100.0  # Means up to this are what the networks say.


def diagonal_normal(
    parameters: tf.Tensor, latent_scale: tf.Tensor | float = 1.0, log_var_bound: float = 8.0
) -> tfd.Independent:
    """A diagonal Gaussian over all axes but the batch, from `[mean; log-variance]`.

    Args:
      parameters: Tensor [B, ..., 2c]; the halves of the last axis are means and log-variances.
      latent_scale: Factor on both halves. The reference code tames large log-variances with it.
      log_var_bound: Bound on the log-variances, see `bounded`.

    Returns:
      A distribution with batch shape [B] and event shape [..., c].
    """
    loc, scale = _loc_and_scale(parameters, latent_scale, log_var_bound)
    return tfd.Independent(tfd.Normal(loc, scale), reinterpreted_batch_ndims=loc.shape.rank - 1)


@traced_once
def _loc_and_scale(parameters, latent_scale, log_var_bound):
    parameters = latent_scale * tf.cast(parameters, tf.float32)
    loc, log_var = tf.split(parameters, 2, axis=-1)
    return slowed_mean(loc), tf.exp(bounded(log_var, log_var_bound) / 2)


def bounded(x: tf.Tensor, bound: float) -> tf.Tensor:
    """Squashes x into (-bound, bound) with a tanh that leaves small values almost unchanged."""
    return bound * tf.tanh(x / bound)


def slowed_mean(loc: tf.Tensor) -> tf.Tensor:
    """Means as they are up to 100; beyond, they grow with the logarithm only: 1e30 becomes 6,547.

    A few images may send a network far out while it learns. A bound that cuts has no gradient
    there, which would leave them out for good; this one always leads back.
    """
    size = tf.abs(loc)
    beyond = _LINEAR * (1.0 + tf.math.log(tf.maximum(size, _LINEAR) / _LINEAR))
    return tf.where(size <= _LINEAR, loc, tf.sign(loc) * beyond)
