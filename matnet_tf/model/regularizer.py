# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The loss of a guide on images drawn from the model (Eq. 13)."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from matnet_tf.distributions import stateless_random
from matnet_tf.model.bounds import Bound
from matnet_tf.model.descent import Trace
from matnet_tf.model.hierarchy import Hierarchy, num_rows

__all__ = ["regularizer_loss"]


def regularizer_loss(
    hierarchy: Hierarchy,
    kind: str,
    loss_per_image: Callable[[Bound, Trace], tf.Tensor],
    inputs: tuple[tf.Tensor, ...],
    seed: tf.Tensor,
) -> tf.Tensor:
    """The guide's loss `[B]` on images drawn from the model, in nats. The draws pass no gradient.

    Args:
      hierarchy: The hierarchy.
      kind: `free_energy` is minus the bound of the images, which Eq. 13 maximizes: it lowers
        KL(q(z | x) || p(z | x)). `sleep` is minus the log-probability, under the guide, of the
        latents they were drawn from: it lowers KL(p(z | x) || q(z | x)).
      loss_per_image: The training loss of a bound and its trace, for `free_energy`.
      inputs: A batch of data: as many images are drawn, with its masks if there are any.
      seed: int32 `[2]`.
    """
    trace = hierarchy.sample_trace(inputs, seed)
    # Not clipped to [0, 1]: Eq. 13 is about the model's own images, and those of a Gaussian may
    # leave that range, though data do not.
    images = tf.stop_gradient(hierarchy.draw(trace, seed))
    drawn = (images, *inputs[1:])
    if kind == "sleep":
        latents = [tf.stop_gradient(z) for z in trace.z]
        encoding = hierarchy.encode(*drawn)
        levels = hierarchy.top_down_pass(encoding, num_rows(images), seed, latents=latents).levels
        return -sum(level.posterior.log_prob(level.z) for level in levels)
    # The stages and the pixels of the draw use the seeds before this one.
    own_seed = stateless_random.fold_in(seed, hierarchy.config.num_levels + 1)
    return loss_per_image(*hierarchy.bound_and_trace(*drawn, own_seed))
