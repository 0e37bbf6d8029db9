# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The training loss: minus the ELBO, with what keeps levels alive and mixtures apart.

Nothing here changes a reported number: metrics and bounds have the plain ELBO.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import tensorflow as tf

from matnet_tf.config import ElboLoss
from matnet_tf.model.bounds import Bound
from matnet_tf.model.descent import Trace

__all__ = ["LossWeights", "loss_per_image"]

_SMALLEST_KL = 0.01  # Nats; keeps the coefficients of KL balancing away from 0.


class LossWeights(NamedTuple):
    """The scheduled scalars of the loss, each in [0, 1]."""

    kl_weight: tf.Tensor  # Factor on the KL.
    free_bits_weight: tf.Tensor  # Factor on `ElboLoss.free_bits`.
    kl_balance: tf.Tensor  # 0: every level counts alike; 1: balanced, see `_balance`.


def loss_per_image(
    settings: ElboLoss, weights: LossWeights, bound: Bound, trace: Trace
) -> tf.Tensor:
    """The training loss `[B]`: minus log-likelihood plus the weighted KL, in nats.

    Args:
      settings: The loss.
      weights: The scheduled scalars.
      bound: The bound of B images.
      trace: Its trace.
    """
    weighted = weights.kl_weight * _kl_cost(settings, weights, bound, trace)
    if settings.kl_schedule == "squared":
        squares = [tf.square(level.kl_per_unit()) for level in trace.levels]
        squared = [tf.reduce_sum(s, axis=list(range(1, s.shape.rank))) for s in squares]
        weighted += (1 - weights.kl_weight) * sum(squared)
    return weighted - bound.log_likelihood


def _kl_cost(settings, weights, bound, trace) -> tf.Tensor:
    """What the KL of all levels costs, `[B]`."""
    top, kl = trace.levels[0], dict(bound.kl)
    if top.is_mixture and settings.mixture_kl == "approximate":
        kl[top.name] = top.analytic_kl()
    if settings.free_bits or settings.kl_balancing:
        cost = _per_level_cost(settings, weights, kl, trace)
    else:
        cost = sum(kl.values())
    if top.is_mixture and settings.entropy_penalty:
        log_prob = top.prior.assign(top.z)
        cost -= settings.entropy_penalty * tf.reduce_sum(tf.exp(log_prob) * log_prob, axis=-1)
    return cost


def _per_level_cost(settings, weights, kl, trace) -> tf.Tensor:
    """The cost of the KL with free bits and KL balancing, `[B]`.

    A level whose mean over the batch is below the free bits costs exactly those, without gradient
    (Kingma et al., 2016, per level in place of per group of units). The batch is what one device
    computes at a time: its part of the global batch, or one of its micro-batches.
    """
    means = tf.stop_gradient(tf.reduce_mean(tf.stack(list(kl.values())), axis=1))
    coefficients = tf.ones_like(means)
    if settings.kl_balancing:
        coefficients += weights.kl_balance * (_balance(means, kl, trace) - 1)
    floor = weights.free_bits_weight * settings.free_bits
    costs = [
        tf.where(means[i] > floor, coefficients[i] * value, floor)
        for i, value in enumerate(kl.values())
    ]
    return sum(costs)


def _balance(means, kl, trace) -> tf.Tensor:
    """Coefficients of the levels, with mean 1: proportional to the KL per unit of each.

    What a level costs rises with what it carries, so no level is emptied by the others before it
    has learned anything (KL balancing, Vahdat and Kautz, 2020).
    """
    units = {level.name: math.prod(level.z.shape[1:]) for level in trace.levels}
    per_unit = (means + _SMALLEST_KL) / [float(units.get(name, 1)) for name in kl]
    return per_unit / tf.reduce_mean(per_unit)
