# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The one loop over the latents, `descend`: Eqs. 1 and 2 as a walk down the top-down network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf
import tensorflow_probability as tfp

from matnet_tf.distributions import GaussianMixture, kl_per_unit, tempered
from matnet_tf.network import Guide, TopDownNetwork, View

tfd = tfp.distributions

__all__ = ["Level", "Trace", "descend"]


class Level(NamedTuple):
    """One latent, as `descend` met it. `N` is samples times images, sample first."""

    name: str  # Such as `03_7x7`; names sort in top-down order.
    z: tf.Tensor  # [N, ...] float32
    # p(z_i | z_0..z_{i-1}), batch_shape [N]; that of z_0 has no batch, and may be a mixture.
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
    num_inferred: int | tf.Tensor | None = None,
    latents: Sequence[tf.Tensor | None] = (),
    temperature: float | tf.Tensor | Sequence[float] = 1.0,
) -> Trace:
    """Walks the top-down network once, drawing or taking every latent.

    Training, generation, partial resampling and importance-weighted evaluation are this one loop
    with other arguments (Eqs. 1 and 2).

    Args:
      top_down: the generator.
      rows: N, how many walks: samples times images, sample first.
      seed: stateless seed, int32 `[2]`; each level draws with one split from it.
      guide: proposes posteriors from `view`; None is generation.
      view: what the guide saw in the images, `[B, ...]`, with N a multiple of B.
      num_inferred: how many levels, from the top, are drawn from the posterior; the rest come
        from the prior and have no posterior. None is all. With a tensor, which one graph can
        take for every number, all levels have a posterior and the draws are chosen by it.
      latents: values for the top levels instead of draws; None entries are drawn.
      temperature: multiplies the scale of every prior that is drawn from; a sequence has one
        value per level.

    Returns:
      The `Trace`: every level's latent, prior and (where asked) posterior, and the last state.
    """
    draws = _Draws(top_down.config.level_names, rows, seed, num_inferred, latents, temperature)
    proposals = _Proposals(top_down, guide, view, num_inferred)
    levels = [draws.level(0, top_down.top_prior(), proposals.top(rows))]
    z_0 = tf.cast(levels[0].z, top_down.compute_dtype)
    h_td = top_down.top(z_0)
    proposals.start(z_0)
    for index, module in enumerate(top_down.modules):
        if index in top_down.joins:
            h_td = top_down.joins[index](h_td)
        prior = top_down.gaussian(module.prior_parameters(h_td))
        levels.append(draws.level(index + 1, prior, proposals.merged(index, h_td)))
        h_td = module(h_td, top_down.module_input(levels[-1].z, z_0))
    return Trace(tuple(levels), top_down.leave(h_td))


class _Draws:
    """Where each level's latent comes from: given, the posterior, or the tempered prior."""

    def __init__(self, names, rows, seed, num_inferred, latents, temperature):
        self.names = names
        self.rows = rows
        self.seeds = tf.random.split(seed, len(names))
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
            z = posterior.sample(seed=self.seeds[index])
            if tf.is_tensor(self.num_inferred):
                z = tf.where(index < self.num_inferred, z, self._from_prior(index, prior))
        return Level(self.names[index], z, prior, posterior)

    def _from_prior(self, index, prior):
        warmed = tempered(prior, self.temperatures[index])
        return warmed.sample(*([self.rows] if index == 0 else []), seed=self.seeds[index])


class _Proposals:
    """The posteriors of the levels that are inferred, along the guide's merge chain."""

    def __init__(self, top_down, guide, view, num_inferred):
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
        """The posterior of the latent that top-down module `index` consumes, Eqs. 10 and 11."""
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
