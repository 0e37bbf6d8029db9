# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Distributions of the latents (paper, Eqs. 8 and 11).

The one place where parameters become a distribution: in float32 whatever the compute dtype, with
log-variances bounded smoothly and means clipped where no trained model has them, so that no
finite parameter gives an infinite number anywhere, a KL and its square included.
"""

from __future__ import annotations

import tensorflow as tf
import tensorflow_probability as tfp

tfd = tfp.distributions

__all__ = ["diagonal_normal", "kl_per_unit", "tempered"]

LARGEST_MEAN = 1e6  # Its square over the smallest variance, squared once more, is a float32.


def diagonal_normal(
    parameters: tf.Tensor, latent_scale: tf.Tensor | float = 1.0, log_var_bound: float = 8.0
) -> tfd.Independent:
    """A diagonal Gaussian over everything but the batch, from `[mean; log-variance]`.

    Args:
      parameters: `[B, ..., 2 c]`; the halves of the last axis are means and log-variances.
      latent_scale: factor on both halves, the reference's cure for wild log-variances.
      log_var_bound: log-variances approach plus and minus this by a tanh, which leaves small
        values as they are.

    Returns:
      A distribution with `batch_shape` `[B]` and `event_shape` `[..., c]`.
    """
    parameters = latent_scale * tf.cast(parameters, tf.float32)
    loc, log_var = tf.split(parameters, 2, axis=-1)
    loc = tf.clip_by_value(loc, -LARGEST_MEAN, LARGEST_MEAN)
    log_var = log_var_bound * tf.tanh(log_var / log_var_bound)
    return tfd.Independent(
        tfd.Normal(loc, tf.exp(log_var / 2)), reinterpreted_batch_ndims=loc.shape.rank - 1
    )


def kl_per_unit(posterior: tfd.Independent, prior: tfd.Independent) -> tf.Tensor:
    """KL(posterior || prior) of every latent unit, in nats: `[B, ...]` as the latents.

    The sum over the event dimensions is the closed-form KL of Eq. 5's last term.
    """
    return tfd.kl_divergence(posterior.distribution, prior.distribution)


def tempered(distribution: tfd.Independent, temperature: tf.Tensor | float) -> tfd.Independent:
    """The same diagonal Gaussian with its scale multiplied by `temperature`."""
    normal = distribution.distribution
    return tfd.Independent(
        tfd.Normal(normal.loc, temperature * normal.scale),
        reinterpreted_batch_ndims=distribution.reinterpreted_batch_ndims,
    )
