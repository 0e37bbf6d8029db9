# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""A mixture of diagonal Gaussians, its approximate KL (paper, Eq. 12), and priors of either kind.

`kl_per_unit` and `tempered` take any prior of a latent: a diagonal Gaussian or a mixture.
"""

from __future__ import annotations

import tensorflow as tf
import tensorflow_probability as tfp

from matnet_tf.distributions import stateless_random
from matnet_tf.distributions.base import RowSeededDistribution
from matnet_tf.tracing import traced_once

__all__ = ["GaussianMixture", "approximate_kl", "kl_per_unit", "tempered"]

tfd = tfp.distributions


class GaussianMixture(RowSeededDistribution):
    """A mixture of K diagonal Gaussians over a vector: the prior over z_0 of Sec. 2.3.

    `tfd.kl_divergence(posterior, mixture)`, where the posterior is a diagonal Gaussian of the same
    event shape, gives Eq. 12's approximation; see `approximate_kl`.

    Args:
      logits: Unnormalized log-weights of the components, [K].
      loc: Means of the components, [K, units].
      scale: Standard deviations of the components, [K, units].
      name: Name of the distribution.
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
        """All components as one distribution with batch shape [K]."""
        return tfd.Independent(tfd.Normal(self.loc, self.scale), 1)

    def component(self, index: int | tf.Tensor) -> tfd.Independent:
        """The component with this index, or one component for each of several indices [N]."""
        loc, scale = tf.gather(self.loc, index), tf.gather(self.scale, index)
        return tfd.Independent(tfd.Normal(loc, scale), 1)

    def assign(self, value: tf.Tensor) -> tf.Tensor:
        """Log-probabilities [..., K] of the components given values [..., units], in nats."""
        return tf.nn.log_softmax(self._joint(value))

    def tempered(self, temperature: tf.Tensor | float) -> GaussianMixture:
        """The mixture with every component's scale multiplied by `temperature`."""
        return GaussianMixture(self.logits, self.loc, temperature * self.scale)

    def kl_per_unit(self, posterior: tfd.Independent) -> tf.Tensor:
        """Eq. 12's KL(posterior || mixture) in equal shares for every unit: [B, units], in nats."""
        units = self.event_shape[0]
        shares = tfd.kl_divergence(posterior, self)[..., tf.newaxis] / units
        return tf.repeat(shares, units, axis=-1)

    def _joint(self, value):
        """log p(component, value), [..., K]."""
        return self.logits + self.components().log_prob(value[..., tf.newaxis, :])

    def _event_shape(self):
        return self.loc.shape[-1:]

    def _event_shape_tensor(self):
        return tf.shape(self.loc)[-1:]

    def _log_prob(self, value):
        return tf.reduce_logsumexp(self._joint(value), axis=-1)

    def _sample_n(self, n, seed=None):
        component_seed, value_seed = tfp.random.split_seed(tfp.random.sanitize_seed(seed))
        index = tf.random.stateless_categorical(self.logits[tf.newaxis], n, component_seed)[0]
        return self.component(index).sample(seed=value_seed)

    def draw_rows(self, seed: tf.Tensor) -> tf.Tensor:
        """One sample for each row's own seed, see `stateless_random.draw_rows`."""
        component_seed, value_seed = stateless_random.split(seed, 2)
        uniform = stateless_random.uniform(component_seed, [1])
        exceeded = uniform >= tf.cumsum(tf.exp(self.logits))[:-1]
        index = tf.reduce_sum(tf.cast(exceeded, tf.int32), axis=1)
        return stateless_random.draw_rows(self.component(index), value_seed)

    def _mean(self):
        return tf.linalg.matvec(self.loc, tf.exp(self.logits), transpose_a=True)


@tfd.RegisterKL(tfd.Independent, GaussianMixture)
def approximate_kl(
    posterior: tfd.Independent, mixture: GaussianMixture, name: str = "approximate_kl"
) -> tf.Tensor:
    """Approximates the KL of a diagonal Gaussian from a mixture by Eq. 12, in nats.

    `-log sum_k w_k exp(-KL(posterior || component k))`, where w_k are the mixture's weights. For
    one component this is the exact KL. For several it is an upper bound on the KL, so the ELBO
    computed with it is still a bound on log p(x). The paper prints the sum without weights; with
    uniform weights that version is smaller by log K, bounds nothing, and has the same gradients.

    Args:
      posterior: Diagonal Gaussian with batch shape [B] and event shape [units].
      mixture: Mixture with event shape [units].
      name: Name scope of the operations.

    Returns:
      The approximation for each row, [B].
    """
    normal = posterior.distribution
    for_each_component = tfd.Independent(
        tfd.Normal(normal.loc[..., tf.newaxis, :], normal.scale[..., tf.newaxis, :]), 1
    )
    with tf.name_scope(name):
        kl = tfd.kl_divergence(for_each_component, mixture.components())
        return -tf.reduce_logsumexp(mixture.logits - kl, axis=-1)


def kl_per_unit(posterior: tfd.Independent, prior: tfd.Independent | GaussianMixture) -> tf.Tensor:
    """KL(posterior || prior) of every latent unit, in nats.

    Its sum over the event dimensions is the KL term of Eq. 5: in closed form for a Gaussian prior,
    by Eq. 12 for a mixture, whose approximation has no parts and is divided equally over the units.

    Args:
      posterior: Diagonal Gaussian with batch shape [B].
      prior: Diagonal Gaussian or mixture of the same event shape.

    Returns:
      One number for each unit, [B, ...] like the latents.
    """
    if isinstance(prior, GaussianMixture):
        return prior.kl_per_unit(posterior)
    normals = posterior.distribution, prior.distribution
    return _kl_of_normals(*[number for n in normals for number in (n.loc, n.scale)])


@traced_once
def _kl_of_normals(loc, scale, prior_loc, prior_scale):
    return tfd.kl_divergence(tfd.Normal(loc, scale), tfd.Normal(prior_loc, prior_scale))


def tempered(
    prior: tfd.Independent | GaussianMixture, temperature: tf.Tensor | float
) -> tfd.Independent | GaussianMixture:
    """The same diagonal Gaussian or mixture with its scales multiplied by `temperature`."""
    if isinstance(prior, GaussianMixture):
        return prior.tempered(temperature)
    normal = prior.distribution
    return tfd.Independent(
        tfd.Normal(normal.loc, temperature * normal.scale),
        reinterpreted_batch_ndims=prior.reinterpreted_batch_ndims,
    )
