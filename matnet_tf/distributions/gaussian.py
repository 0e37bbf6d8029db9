# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Diagonal Gaussians over latents (paper, Eqs. 8 and 11).

Distributions are float32 whatever the compute dtype. Log-variances are bounded smoothly and means
are clipped far beyond the range of any trained model, so that finite parameters always give finite
densities and KLs, and finite squares of KLs.
"""

from __future__ import annotations

import tensorflow as tf
import tensorflow_probability as tfp

__all__ = ["bounded", "clipped_mean", "diagonal_normal"]

tfd = tfp.distributions

# A squared difference of means, divided by the smallest variance and squared again, fits a float32.
LARGEST_MEAN = 1e6


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
    parameters = latent_scale * tf.cast(parameters, tf.float32)
    loc, log_var = tf.split(parameters, 2, axis=-1)
    scale = tf.exp(bounded(log_var, log_var_bound) / 2)
    return tfd.Independent(
        tfd.Normal(clipped_mean(loc), scale), reinterpreted_batch_ndims=loc.shape.rank - 1
    )


def bounded(x: tf.Tensor, bound: float) -> tf.Tensor:
    """Squashes x into (-bound, bound) with a tanh that leaves small values almost unchanged."""
    return bound * tf.tanh(x / bound)


def clipped_mean(loc: tf.Tensor) -> tf.Tensor:
    """Clips means to plus or minus a million, far beyond those of any trained model."""
    return tf.clip_by_value(loc, -LARGEST_MEAN, LARGEST_MEAN)
