# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The loss of importance-weighted training: minus the bound of K samples per image, in nats.

The bound is that of Burda et al. (2016, arXiv 1509.00519). Its gradient passes through the samples
(reparametrization), or is the doubly reparametrized one of Tucker et al. (2019, arXiv 1810.04152).
"""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from matnet_tf.config import ElboLoss
from matnet_tf.model.bounds import Bound
from matnet_tf.model.descent import Trace
from matnet_tf.model.hierarchy import Hierarchy, num_rows

__all__ = ["importance_loss"]


def importance_loss(
    hierarchy: Hierarchy,
    inputs: tuple[tf.Tensor, ...],
    seed: tf.Tensor,
    settings: ElboLoss,
    kl_weight: Any = 1.0,
    stages: int | None = None,
) -> tuple[tf.Tensor, Bound]:
    """Minus the log of the mean of K importance weights per image; images are encoded once.

    A log-weight is log p(x | z) + kl_weight * (log p(z) - log q(z | x)).

    Args:
      hierarchy: The hierarchy.
      inputs: Images `[B, H, W, C]`, and masks if the model is conditional.
      seed: Stateless seed, int32 `[2]`.
      settings: `num_samples`, which is K, and `gradient`.
      kl_weight: Factor on the log-ratios.
      stages: Number of stages of a conditional model that take part; None for all.

    Returns:
      loss: `[B]`, in nats. Only its gradient depends on `gradient`.
      bound: The plain bound, as the mean over the K samples of each image.
    """
    num_samples = settings.num_samples
    x = tf.tile(inputs[0], [num_samples, 1, 1, 1])
    encoding = hierarchy.encode(*inputs)

    def walk(latents=()):
        rows = num_samples * num_rows(inputs[0])
        return hierarchy.top_down_pass(encoding, rows, seed, latents=latents, stages=stages)

    trace = walk()
    bound = hierarchy.bound(trace, x)
    log_weight = bound.log_likelihood + kl_weight * sum(lv.log_weight() for lv in trace.levels)
    log_weight = tf.reshape(log_weight, [num_samples, -1])
    loss = math.log(num_samples) - tf.reduce_logsumexp(log_weight, axis=0)
    if settings.gradient == "doubly_reparametrized":
        fixed = walk([tf.stop_gradient(z) for z in trace.z])
        fixed_likelihood = hierarchy.p_x(fixed).log_prob(x)
        surrogate = _surrogate(log_weight, fixed, fixed_likelihood, kl_weight)
        loss = tf.stop_gradient(loss - surrogate) + surrogate
    means = [tf.reduce_mean(tf.reshape(v, [num_samples, -1]), 0) for v in tf.nest.flatten(bound)]
    return loss, tf.nest.pack_sequence_as(bound, means)


def _surrogate(
    log_weight: tf.Tensor, fixed: Trace, log_likelihood: tf.Tensor, kl_weight: Any
) -> tf.Tensor:
    """A loss `[B]` with the doubly reparametrized gradient by every weight of the model.

    Let v be the share of a sample among its image's weights, and w the KL weight. At fixed z, the
    gradient of v * log q(z | x) has the same expectation as (v - v^2) times the gradient of the
    log-weight through z. So log p keeps the factor v at fixed z, log q leaves there, and what goes
    through z has the factor v - w (v - v^2), which is v^2 without a KL warm-up.

    A posterior depends on the weights both directly and through the latents above it, on the
    guide's weights as well as, through h_td, on the generator's. So nothing can be stopped within
    one pass. The gradient of the log-weight has the factor of z everywhere, and a second pass at
    the same z, but fixed, corrects the terms at fixed z.

    Args:
      log_weight: `[K, B]`, of samples through which the gradient passes.
      fixed: The trace of the same samples, through which no gradient passes.
      log_likelihood: log p(x | z) of `fixed`, `[K * B]`.
      kl_weight: w.
    """
    share = tf.stop_gradient(tf.nn.softmax(log_weight, axis=0))
    through_z = share - kl_weight * (share - tf.square(share))
    log_p = log_likelihood + kl_weight * sum(lv.prior.log_prob(lv.z) for lv in fixed.levels)
    log_q = kl_weight * sum(lv.posterior.log_prob(lv.z) for lv in fixed.levels)
    log_p, log_q = (tf.reshape(part, tf.shape(log_weight)) for part in (log_p, log_q))
    terms = through_z * (log_weight + log_q) + (share - through_z) * log_p
    return -tf.reduce_sum(terms, axis=0)
