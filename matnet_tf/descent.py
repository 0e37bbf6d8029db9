# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The one loop over the latents, `descend`: Eqs. 1 and 2 as a walk down the top-down network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf
import tensorflow_probability as tfp

from matnet_tf import noise
from matnet_tf.distributions import GaussianMixture, kl_per_unit, tempered
from matnet_tf.likelihoods import Known
from matnet_tf.network import Guide, TopDownNetwork, View

tfd = tfp.distributions

__all__ = ["Level", "Trace", "descend"]


class Level(NamedTuple):
    """One latent, as `descend` met it. `N` is samples times images, sample first."""

    name: str  # Such as `03_7x7`; names sort in top-down order.
    z: tf.Tensor  # [N, ...] float32
    # p(z_i | z_0..z_{i-1}), batch_shape [N]. That of z_0 has no batch, and may be a mixture, unless
    # the known pixels say it.
    prior: tfd.Independent | GaussianMixture
    posterior: tfd.Independent | None  # q(z_i | z_0..z_{i-1}, x), or None where none was asked

    def kl_per_unit(self) -> tf.Tensor:
        """KL(posterior || prior) of every unit, `[N, ...]`, in nats: see `analytic_kl`."""
        return kl_per_unit(self.posterior, self.prior)

    def analytic_kl(self) -> tf.Tensor:
        """KL(posterior || prior) in closed form, from a mixture by Eq. 12, `[N]`, in nats."""
        units = self.kl_per_unit()
        return tf.reduce_sum(units, axis=list(range(1, units.shape.rank)))

    def kl(self) -> tf.Tensor:
        """An unbiased KL(posterior || prior), `[N]`, in nats.

        In closed form; from a mixture, where there is none, the log-ratio at the sample.
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
    """One walk down the top-down network."""

    levels: tuple[Level, ...]  # Top first.
    h_td: tf.Tensor  # [N, H, W, filters] or [N, filters]: what the likelihood reads.
    known: Known | None = None  # In a conditional model, what is known of the N images.

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
    view: View | None = None,
    generator: Guide | None = None,
    generator_view: View | None = None,
    num_inferred: int | tf.Tensor | None = None,
    latents: Sequence[tf.Tensor | None] = (),
    temperature: float | tf.Tensor | Sequence[float] = 1.0,
) -> Trace:
    """Walks the top-down network once, drawing or taking every latent.

    Training, generation, partial resampling, importance-weighted evaluation and imputation are
    this one loop with other arguments (Eqs. 1 and 2; with a generator's guide Eqs. 3 and 4).

    Args:
      top_down: the generator.
      rows: N, how many walks: samples times images, sample first.
      seed: stateless seed, int32 `[2]`, or `[N, 2]` with one for each walk; each level draws with
        one split from it.
      guide: proposes posteriors from `view`; None is generation.
      view: what the guide saw in the images, `[B, ...]`, with N a multiple of B.
      generator: the guide that proposes the priors from `generator_view`, in a conditional MatNet;
        None takes the top-down network's own (Eq. 8).
      generator_view: what it saw in the known pixels.
      num_inferred: how many levels, from the top, are drawn from the posterior; the rest come
        from the prior and have no posterior. None is all. With a tensor, which one graph can
        take for every number, or with `[N]` of each walk, all levels have a posterior and the draws
        are chosen by it.
      latents: values for the top levels instead of draws; None entries are drawn.
      temperature: multiplies the scale of every prior that is drawn from; a sequence has one
        value per level.

    Returns:
      The `Trace`: every level's latent, prior and (where asked) posterior, and the last state.
    """
    draws = _Draws(top_down.config.level_names, rows, seed, num_inferred, latents, temperature)
    posteriors = _Proposals(top_down, guide, view, num_inferred)
    priors = _OwnPriors(top_down)
    if generator is not None:
        priors = _Proposals(top_down, generator, generator_view)
    return _walk(top_down, rows, draws, priors, posteriors)


def _walk(top_down, rows, draws, priors, posteriors) -> Trace:
    levels = [draws.level(0, priors.top(rows), posteriors.top(rows))]
    z_0 = tf.cast(levels[0].z, top_down.compute_dtype)
    h_td = top_down.top(z_0)
    priors.start(z_0)
    posteriors.start(z_0)
    for index, module in enumerate(top_down.modules):
        if index in top_down.joins:
            h_td = top_down.joins[index](h_td)
        prior, posterior = priors.merged(index, h_td), posteriors.merged(index, h_td)
        levels.append(draws.level(index + 1, prior, posterior))
        h_td = module(h_td, top_down.module_input(levels[-1].z, z_0, priors.h_merge))
    return Trace(tuple(levels), top_down.leave(h_td))


class _Draws:
    """Where each level's latent comes from: given, the posterior, or the tempered prior."""

    def __init__(self, names, rows, seed, num_inferred, latents, temperature):
        self.names = names
        self.rows = rows
        self.seeds = noise.split(seed, len(names))
        self.num_inferred = num_inferred
        self.latents = latents
        per_level = isinstance(temperature, (list, tuple))
        self.temperatures = temperature if per_level else [temperature] * len(names)

    def level(self, index, prior, posterior) -> Level:
        given = self.latents[index] if index < len(self.latents) else None
        if given is not None:
            z = tf.cast(given, tf.float32)
        elif posterior is None:
            z = self._from_prior(index, prior)
        else:
            z = noise.draw(posterior, self.seeds[index])
            if tf.is_tensor(self.num_inferred):
                inferred = index < self.num_inferred
                if inferred.shape.rank:  # One number for each walk.
                    inferred = tf.reshape(inferred, [-1] + [1] * (z.shape.rank - 1))
                z = tf.where(inferred, z, self._from_prior(index, prior))
        return Level(self.names[index], z, prior, posterior)

    def _from_prior(self, index, prior):
        warmed = tempered(prior, self.temperatures[index])
        return noise.draw(warmed, self.seeds[index], self.rows)


class _OwnPriors:
    """The priors of an unconditional model: the top-down network's own, Eq. 8."""

    h_merge = None

    def __init__(self, top_down):
        self.top_down = top_down

    def top(self, rows) -> tfd.Independent | GaussianMixture:
        return self.top_down.top_prior()

    def start(self, z_0):
        pass

    def merged(self, index, h_td) -> tfd.Independent:
        return self.top_down.gaussian(self.top_down.modules[index].prior_parameters(h_td))


class _Proposals:
    """The distributions that a guide proposes along its merge chain, of the upper levels or all."""

    def __init__(self, top_down, guide, view, num_inferred=None):
        self.top_down = top_down
        self.guide = guide
        self.view = view
        whole = num_inferred is None or tf.is_tensor(num_inferred)
        self.inferred = top_down.config.num_levels if whole else num_inferred
        if guide is None:
            self.inferred = 0
        self.h_merge = None

    def top(self, rows) -> tfd.Independent | None:
        if self.inferred == 0:
            return None
        return self.top_down.gaussian(_repeat(self.view.top, rows))

    def start(self, z_0):
        """The merge chain begins with a learned function of the sampled z_0."""
        if self.inferred > 1 and self.guide.start is not None:
            self.h_merge = self.guide.start(z_0)

    def merged(self, index, h_td) -> tfd.Independent | None:
        """The distribution of the latent that top-down module `index` consumes, Eqs. 10 and 11."""
        if index + 1 >= self.inferred:
            return None
        if index in self.guide.joins:
            self.h_merge = self.guide.joins[index](self.h_merge)
        parameters, self.h_merge = self.guide.modules[index].merge(
            self.view.projections[index], h_td, self.h_merge
        )
        return self.top_down.gaussian(parameters)


def _repeat(parameters: tf.Tensor, rows) -> tf.Tensor:
    """`[B, n]` repeated to `[rows, n]`, sample first."""
    if isinstance(rows, int) and parameters.shape[0] == rows:
        return parameters
    return tf.tile(parameters, [rows // tf.shape(parameters)[0], 1])
