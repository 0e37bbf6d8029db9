# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Distributions of the latents (paper, Eqs. 8, 11 and 12) and of 8-bit pixels (Sec. 2.3).

Where parameters become a distribution: in float32 whatever the compute dtype, with log-variances
bounded smoothly and means clipped where no trained model has them, so that no finite parameter
gives an infinite number anywhere, a KL and its square included.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from matnet_tf import noise

tfd = tfp.distributions

__all__ = [
    "GaussianMixture",
    "IntegratedLogistic",
    "OwnDistribution",
    "bounded",
    "clipped_mean",
    "diagonal_normal",
    "kl_per_unit",
    "tempered",
]

LARGEST_LEVEL = 255.0  # Of 8-bit values.
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
    scale = tf.exp(bounded(log_var, log_var_bound) / 2)
    return tfd.Independent(
        tfd.Normal(clipped_mean(loc), scale), reinterpreted_batch_ndims=loc.shape.rank - 1
    )


def bounded(x: tf.Tensor, bound: float) -> tf.Tensor:
    """x where it is small, and smoothly never beyond plus or minus `bound`."""
    return bound * tf.tanh(x / bound)


def clipped_mean(loc: tf.Tensor) -> tf.Tensor:
    """`loc`, cut where no trained model has it: at plus and minus a million."""
    return tf.clip_by_value(loc, -LARGEST_MEAN, LARGEST_MEAN)


def kl_per_unit(posterior: tfd.Independent, prior: tfd.Independent | GaussianMixture) -> tf.Tensor:
    """KL(posterior || prior) of every latent unit, in nats: `[B, ...]` as the latents.

    The sum over the event dimensions is the closed-form KL of Eq. 5's last term. That from a
    mixture, Eq. 12's approximation, is one number for all units: each has an equal share of it.
    """
    if isinstance(prior, GaussianMixture):
        units = prior.event_shape[0]
        shares = tfd.kl_divergence(posterior, prior)[..., tf.newaxis] / units
        return tf.repeat(shares, units, axis=-1)
    return tfd.kl_divergence(posterior.distribution, prior.distribution)


def tempered(
    distribution: tfd.Independent | GaussianMixture, temperature: tf.Tensor | float
) -> tfd.Independent | GaussianMixture:
    """The same diagonal Gaussian, or mixture of such, with scales multiplied by `temperature`."""
    if isinstance(distribution, GaussianMixture):
        scale = temperature * distribution.scale
        return GaussianMixture(distribution.logits, distribution.loc, scale)
    normal = distribution.distribution
    return tfd.Independent(
        tfd.Normal(normal.loc, temperature * normal.scale),
        reinterpreted_batch_ndims=distribution.reinterpreted_batch_ndims,
    )


class OwnDistribution(tfd.Distribution):
    """What distributions of our own share: float32 values, and draws that pass no gradient.

    A subclass defines `draw_rows`, see `noise.draw_rows`.

    Args:
      parameters: the constructor's arguments by name, as TFP wants to know them.
      name: of the distribution.
    """

    def __init__(self, parameters: dict[str, Any], name: str):
        super().__init__(
            dtype=tf.float32,
            reparameterization_type=tfd.NOT_REPARAMETERIZED,
            validate_args=False,
            allow_nan_stats=True,
            parameters=parameters,
            name=name,
        )


@noise.draw_rows.register
def _(distribution: OwnDistribution, seed: tf.Tensor) -> tf.Tensor:
    return distribution.draw_rows(seed)


class GaussianMixture(OwnDistribution):
    """A mixture of diagonal Gaussians over a vector: the prior over z_0 of Sec. 2.3.

    `tfd.kl_divergence(posterior, mixture)`, with a diagonal Gaussian of the same `event_shape`, is
    Eq. 12's approximation; see `approximate_kl`.

    Args:
      logits: `[K]`, unnormalized log-weights of the components.
      loc: `[K, units]`.
      scale: `[K, units]`, positive.
    """

    def __init__(
        self, logits: tf.Tensor, loc: tf.Tensor, scale: tf.Tensor, name: str = "GaussianMixture"
    ):
        parameters = dict(locals())
        self.logits = tf.nn.log_softmax(tf.convert_to_tensor(logits, tf.float32))
        self.loc = tf.convert_to_tensor(loc, tf.float32)
        self.scale = tf.convert_to_tensor(scale, tf.float32)
        super().__init__(parameters, name)

    @classmethod
    def _parameter_properties(cls, dtype, num_classes=None):
        return {
            "logits": tfp.util.ParameterProperties(event_ndims=1),
            "loc": tfp.util.ParameterProperties(event_ndims=2),
            "scale": tfp.util.ParameterProperties(event_ndims=2),
        }

    def components(self) -> tfd.Independent:
        """Every component, as one distribution with `batch_shape` `[K]`."""
        return tfd.Independent(tfd.Normal(self.loc, self.scale), 1)

    def component(self, index: int | tf.Tensor) -> tfd.Independent:
        """The component of that index, or one for each of several indices `[N]`."""
        loc, scale = tf.gather(self.loc, index), tf.gather(self.scale, index)
        return tfd.Independent(tfd.Normal(loc, scale), 1)

    def assign(self, value: tf.Tensor) -> tf.Tensor:
        """Log-probabilities `[..., K]` of the components given values `[..., units]`."""
        return tf.nn.log_softmax(self._joint(value))

    def _joint(self, value):
        """log p(component, value), `[..., K]`."""
        return self.logits + self.components().log_prob(value[..., tf.newaxis, :])

    def _event_shape(self):
        return self.loc.shape[-1:]

    def _event_shape_tensor(self):
        return tf.shape(self.loc)[-1:]

    def _log_prob(self, value):
        return tf.reduce_logsumexp(self._joint(value), axis=-1)

    def _sample_n(self, n, seed=None):
        of_component, of_value = tfp.random.split_seed(tfp.random.sanitize_seed(seed))
        drawn = tf.random.stateless_categorical(self.logits[tf.newaxis], n, of_component)[0]
        return self.component(drawn).sample(seed=of_value)

    def draw_rows(self, seed: tf.Tensor) -> tf.Tensor:
        """As `noise.draw_rows`."""
        of_component, of_value = noise.split(seed, 2)
        reached = noise.uniform(of_component, [1]) >= tf.cumsum(tf.exp(self.logits))[:-1]
        index = tf.reduce_sum(tf.cast(reached, tf.int32), axis=1)
        return noise.draw_rows(self.component(index), of_value)

    def _mean(self):
        return tf.linalg.matvec(self.loc, tf.exp(self.logits), transpose_a=True)


@tfd.RegisterKL(tfd.Independent, GaussianMixture)
def approximate_kl(
    posterior: tfd.Independent, mixture: GaussianMixture, name: str = "approximate_kl"
) -> tf.Tensor:
    """KL of a diagonal Gaussian from a mixture by Eq. 12's approximation, in nats.

    `-log sum_k w_k exp(-KL(posterior || component k))`, with the weights w_k of the mixture. It is
    the KL itself for one component, and an upper bound on it for several, so the ELBO with it
    bounds log p(x), too. The paper prints the sum without weights: with uniform ones that is less
    by log K, bounds nothing, and has the same gradients.

    Returns:
      The approximation, `batch_shape` of the posterior.
    """
    one_of_each = tfd.Independent(
        tfd.Normal(
            posterior.distribution.loc[..., tf.newaxis, :],
            posterior.distribution.scale[..., tf.newaxis, :],
        ),
        1,
    )
    with tf.name_scope(name):
        kl = tfd.kl_divergence(one_of_each, mixture.components())
        return -tf.reduce_logsumexp(mixture.logits - kl, axis=-1)


class IntegratedLogistic(OwnDistribution):
    """A Logistic integrated over each of the 256 levels of an 8-bit value (Sec. 2.3; [11] there).

    The mass of level v is the Logistic's between v - 1/2 and v + 1/2; level 0 has all below 1/2
    and level 255 all above 254 1/2, so the masses sum to 1. Values are `v / 255`, in [0, 1], as
    images are everywhere in this package; values between two levels have the mass of neither, so
    they have to be refused by whoever takes data from outside.

    Args:
      loc: of the Logistic, in [0, 1] for one within the range of the values.
      scale: of the Logistic, positive, in the same unit; broadcasts with `loc`.
    """

    def __init__(self, loc: tf.Tensor, scale: tf.Tensor, name: str = "IntegratedLogistic"):
        parameters = dict(locals())
        self._loc = tf.convert_to_tensor(loc, tf.float32)
        self._scale = tf.convert_to_tensor(scale, tf.float32)
        super().__init__(parameters, name)

    @property
    def loc(self) -> tf.Tensor:
        """Location of the Logistic, on the scale of the values."""
        return self._loc

    @property
    def scale(self) -> tf.Tensor:
        """Scale of the Logistic, on the scale of the values."""
        return self._scale

    @classmethod
    def _parameter_properties(cls, dtype, num_classes=None):
        return {"loc": tfp.util.ParameterProperties(), "scale": tfp.util.ParameterProperties()}

    def _event_shape(self):
        return tf.TensorShape([])

    def _event_shape_tensor(self):
        return tf.constant([], tf.int32)

    def _log_prob(self, value):
        # With a < b the edges of a level in units of the scale, sigmoid(b) - sigmoid(a) is
        # sigmoid(b) sigmoid(-a) (1 - exp(a - b)): a sum of three logarithms without cancellation,
        # where a - b is the same for every level. In units of levels, since those are exact.
        level = tf.round(value * LARGEST_LEVEL)
        distance = level - self._loc * LARGEST_LEVEL
        scale = self._scale * LARGEST_LEVEL
        below = tf.where(level > 0, (distance - 0.5) / scale, 0.0)
        above = tf.where(level < LARGEST_LEVEL, (distance + 0.5) / scale, 0.0)
        log_prob = tf.where(level < LARGEST_LEVEL, -tf.nn.softplus(-above), 0.0)
        log_prob -= tf.where(level > 0, tf.nn.softplus(below), 0.0)
        inner = (level > 0) & (level < LARGEST_LEVEL)
        # Not log1mexp, whose gradient is NaN where the scale is huge.
        return log_prob + tf.where(inner, tf.math.log(-tf.math.expm1(-1 / scale)), 0.0)

    def _quantile(self, value):
        """The smallest value whose cumulative probability reaches `value`, in [0, 1)."""
        tiny = np.finfo(np.float32).tiny
        logit = tf.math.log(tf.maximum(value, tiny)) - tf.math.log1p(-value)
        level = tf.round((self._loc + self._scale * logit) * LARGEST_LEVEL)
        return tf.clip_by_value(level, 0, LARGEST_LEVEL) / LARGEST_LEVEL

    def _sample_n(self, n, seed=None):
        shape = tf.concat([[n], self.batch_shape_tensor()], axis=0)
        seed = tfp.random.sanitize_seed(seed)
        return self._quantile(tf.random.stateless_uniform(shape, seed))

    def draw_rows(self, seed: tf.Tensor) -> tf.Tensor:
        """As `noise.draw_rows`, of a `batch_shape` that begins with the rows."""
        return self._quantile(noise.uniform(seed, self.batch_shape[1:]))

    def _mean(self):
        """The mean of the Logistic cut to [0, 1], within half a level of the masses' own."""
        # The mean is the integral over t of sigmoid((loc - t) / scale), from 0 to 1. A location
        # far outside only costs precision, and so does the difference where the scale is large.
        loc = tf.clip_by_value(self._loc, -20 * self._scale, 1 + 20 * self._scale)
        above = self._scale * tf.nn.softplus((1 - loc) / self._scale)
        below = self._scale * tf.nn.softplus(-loc / self._scale)
        flat = tf.sigmoid((self._loc - 0.5) / self._scale)
        return tf.where(self._scale > 3, flat, tf.clip_by_value(1 - (above - below), 0, 1))
