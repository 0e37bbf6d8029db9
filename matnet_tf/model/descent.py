# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The one loop over the latents, `descend`: a walk down the top-down network (Eqs. 1 and 2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf
import tensorflow_probability as tfp

from matnet_tf.distributions import stateless_random
from matnet_tf.distributions.mixture import GaussianMixture, kl_per_unit, tempered
from matnet_tf.likelihoods.observation import ObservedPixels
from matnet_tf.model.networks import Encoding, Guide, TopDownNetwork

tfd = tfp.distributions

__all__ = ["Level", "Trace", "descend"]


class Level(NamedTuple):
    """One level of latents in a trace. N is the number of samples times images, sample first."""

    name: str  # Such as `03_7x7`; names sort in top-down order.
    z: tf.Tensor  # [N, ...] float32
    # p(z_i | z_0..z_{i-1}), batch_shape [N]. The prior of z_0 has no batch, and may be a mixture,
    # unless a generator's guide proposes it.
    prior: tfd.Independent | GaussianMixture
    posterior: tfd.Independent | None  # q(z_i | z_0..z_{i-1}, x); None without inference

    def kl_per_unit(self) -> tf.Tensor:
        """KL(posterior || prior) of every unit, `[N, ...]`, in nats; see `analytic_kl`."""
        return kl_per_unit(self.posterior, self.prior)

    def analytic_kl(self) -> tf.Tensor:
        """KL(posterior || prior) in closed form, or by Eq. 12 for a mixture, `[N]`, in nats."""
        units = self.kl_per_unit()
        return tf.reduce_sum(units, axis=list(range(1, units.shape.rank)))

    def kl(self) -> tf.Tensor:
        """An unbiased estimate of KL(posterior || prior), `[N]`, in nats.

        It is the closed form, or for a mixture, which has none, the log-ratio at the sample.
        """
        return -self.log_weight() if self.is_mixture else self.analytic_kl()

    @property
    def is_mixture(self) -> bool:
        """Whether the prior is a mixture of Gaussians."""
        return isinstance(self.prior, GaussianMixture)

    def log_weight(self) -> tf.Tensor:
        """log p(z_i | ..) - log q(z_i | .., x) at the sample, `[N]`, in nats."""
        return self.prior.log_prob(self.z) - self.posterior.log_prob(self.z)


class Trace(NamedTuple):
    """All latents of one walk down the top-down network, and the last state."""

    levels: tuple[Level, ...]  # Top first.
    h_td: tf.Tensor  # [N, H, W, filters] or [N, filters]: the input of the likelihood.
    observed: ObservedPixels | None = None  # Known pixels of the N images, if conditional.

    @property
    def z(self) -> tuple[tf.Tensor, ...]:
        """Every latent, top first."""
        return tuple(level.z for level in self.levels)


def descend(
    top_down: TopDownNetwork,
    rows: int | tf.Tensor,
    seed: tf.Tensor,
    *,
    guide: Guide | None = None,
    encoding: Encoding | None = None,
    generator: Guide | None = None,
    generator_encoding: Encoding | None = None,
    num_inferred: int | tf.Tensor | None = None,
    latents: Sequence[tf.Tensor | None] = (),
    temperature: float | tf.Tensor | Sequence[float] = 1.0,
    choose: Callable[[int, Any, Any], tf.Tensor] | None = None,
) -> Trace:
    """Walks down the top-down network once and draws, or takes, every latent.

    Training, generation, partial resampling, evaluation, imputation and lossless compression are
    this one loop with different arguments (Eqs. 1 and 2; with a generator's guide Eqs. 3 and 4).

    Args:
      top_down: The top-down network.
      rows: N, the number of samples times images, sample first.
      seed: Stateless seed, int32 `[2]`, or `[N, 2]` with one seed per row; it is split by level.
      guide: Proposes posteriors from `encoding`; None generates.
      encoding: The guide's encoding of B images; N is a multiple of B.
      generator: In a conditional model, the guide that proposes the priors from
        `generator_encoding`; None uses the top-down network's own priors (Eq. 8).
      generator_encoding: The generator's encoding of the known pixels of B images.
      num_inferred: Number of levels drawn from the posterior, from the top; None for all. Those
        below come from the prior and have no posterior. If it is a tensor, a scalar or one number
        per row `[N]`, one graph serves every number: all have one, and each draw is selected.
      latents: Values of the top levels, which are then not drawn; None entries are drawn.
      temperature: Factor on the scale of every prior that is drawn from, or one per level.
      choose: Gives every latent in place of a draw, from its level's index, prior and posterior.

    Returns:
      The `Trace`.
    """
    names = top_down.config.level_names
    draws = _Draws(names, rows, seed, num_inferred, latents, temperature, choose)
    posteriors = _GuideProposals(top_down, guide, encoding, num_inferred)
    priors = _TopDownPriors(top_down)
    if generator is not None:
        priors = _GuideProposals(top_down, generator, generator_encoding)
    return _walk(top_down, rows, draws, priors, posteriors)


def _walk(top_down, rows, draws, priors, posteriors) -> Trace:
    levels = [draws.level(0, priors.top(rows), posteriors.top(rows))]
    z_0 = tf.cast(levels[0].z, top_down.compute_dtype)
    h_td = top_down.top(z_0)
    priors.start(z_0)
    posteriors.start(z_0)
    for index, module in enumerate(top_down.modules):
        if index in top_down.resampling:
            h_td = top_down.resampling[index](h_td)
        prior, posterior = priors.merged(index, h_td), posteriors.merged(index, h_td)
        levels.append(draws.level(index + 1, prior, posterior))
        h_td = module(h_td, top_down.module_input(levels[-1].z, z_0, priors.h_merge))
    return Trace(tuple(levels), top_down.to_image(h_td))


class _Draws:
    """Where latents come from: a function, given values, the posterior, or the tempered prior."""

    def __init__(self, names, rows, seed, num_inferred, latents, temperature, choose):
        self.names = names
        self.rows = rows
        self.seeds = stateless_random.split(seed, len(names))
        self.num_inferred = num_inferred
        self.latents = latents
        self.choose = choose
        per_level = isinstance(temperature, (list, tuple))
        self.temperatures = temperature if per_level else [temperature] * len(names)

    def level(self, index, prior, posterior) -> Level:
        given = self.latents[index] if index < len(self.latents) else None
        if self.choose is not None:
            z = self.choose(index, prior, posterior)
        elif given is not None:
            z = tf.cast(given, tf.float32)
        elif posterior is None:
            z = self._from_prior(index, prior)
        else:
            z = stateless_random.draw(posterior, self.seeds[index])
            if tf.is_tensor(self.num_inferred):
                inferred = index < self.num_inferred
                if inferred.shape.rank:  # One number per row.
                    inferred = tf.reshape(inferred, [-1] + [1] * (z.shape.rank - 1))
                z = tf.where(inferred, z, self._from_prior(index, prior))
        return Level(self.names[index], z, prior, posterior)

    def _from_prior(self, index, prior):
        warmed = tempered(prior, self.temperatures[index])
        return stateless_random.draw(warmed, self.seeds[index], self.rows)


class _TopDownPriors:
    """The priors of an unconditional model, which the top-down network computes (Eq. 8)."""

    h_merge = None

    def __init__(self, top_down):
        self.top_down = top_down

    def top(self, rows) -> tfd.Independent | GaussianMixture:
        return self.top_down.top_prior()

    def start(self, z_0):
        pass

    def merged(self, index, h_td) -> tfd.Independent:
        return self.top_down.gaussian(self.top_down.modules[index].prior_parameters(h_td))


class _GuideProposals:
    """The distributions that a guide proposes along its merge chain."""

    def __init__(self, top_down, guide, encoding, num_inferred=None):
        self.top_down = top_down
        self.guide = guide
        self.encoding = encoding
        every_level = num_inferred is None or tf.is_tensor(num_inferred)
        self.inferred = top_down.config.num_levels if every_level else num_inferred
        if guide is None:
            self.inferred = 0
        self.h_merge = None

    def top(self, rows) -> tfd.Independent | None:
        if self.inferred == 0:
            return None
        return self.top_down.gaussian(_repeat(self.encoding.top, rows))

    def start(self, z_0):
        """Starts the merge chain from a learned function of the sampled z_0."""
        if self.inferred > 1 and self.guide.start is not None:
            self.h_merge = self.guide.start(z_0)

    def merged(self, index, h_td) -> tfd.Independent | None:
        """The distribution of the latent that top-down module `index` takes (Eqs. 10 and 11)."""
        if index + 1 >= self.inferred:
            return None
        if index in self.guide.resampling:
            self.h_merge = self.guide.resampling[index](self.h_merge)
        parameters, self.h_merge = self.guide.modules[index].merge(
            self.encoding.projections[index], h_td, self.h_merge
        )
        return self.top_down.gaussian(parameters)


def _repeat(parameters: tf.Tensor, rows) -> tf.Tensor:
    """Repeats `[B, n]` to `[rows, n]`, sample first."""
    if isinstance(rows, int) and parameters.shape[0] == rows:
        return parameters
    return tf.tile(parameters, [rows // tf.shape(parameters)[0], 1])
