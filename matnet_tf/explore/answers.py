# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""What the page asks of a model, each question as one graph of fixed shapes.

`MatNet`'s own methods trace a graph for every number of kept levels, and for every choice of levels
to mix. Here such choices are tensors, so only the first call takes long.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from matnet_tf.distributions import stateless_random
from matnet_tf.distributions.stateless_random import seed_tensor
from matnet_tf.evaluation.scores import columns
from matnet_tf.model.bounds import bits_per_dim
from matnet_tf.model.matnet import MatNet
from matnet_tf.tracing import tf_function

__all__ = ["Answers"]


class Answers:
    """Answers about single images `[H, W, C]`, float32 in [0, 1]; the same seed gives the same one.

    Args:
      model: The model.
    """

    def __init__(self, model: MatNet):
        self._model = model
        self._reconstruct = tf_function(self._reconstructions)
        self._mix = tf_function(self._mixtures)
        self._weigh = tf_function(self._log_weights)

    def reconstructions(self, x: np.ndarray, seed: int = 0) -> np.ndarray:
        """The image as its top k levels give it, with the levels below from the prior.

        Args:
          x: The image.
          seed: Seed of all draws. Every k has the same noise, so that what changes is the level.

        Returns:
          Images `[L + 1, H, W, C]`, for k = 0 (a sample) to L, all levels of the model.
        """
        return self._reconstruct(self._batch(x), seed_tensor([seed], 1)).numpy()

    def between(
        self, a: np.ndarray, b: np.ndarray, levels: Sequence[int], num: int, seed: int = 0
    ) -> np.ndarray:
        """Images between two, see `MatNet.interpolate`, `[num, H, W, C]`.

        Args:
          a: The first image.
          b: The last image.
          levels: Indices of the levels that are mixed, 0 the top; the others are drawn.
          num: Number of images.
          seed: Seed of all draws.
        """
        mixed = np.isin(np.arange(self._model.config.num_levels), list(levels))
        ends = tf.concat([self._batch(a), self._batch(b)], axis=0)
        steps = tf.linspace(0.0, 1.0, num)
        return self._mix(ends, tf.constant(mixed), steps, seed_tensor([seed], 1)).numpy()

    def samples(self, num: int, temperatures: Sequence[float], seed: int = 0) -> np.ndarray:
        """Images from the prior, `[num, H, W, C]`.

        Args:
          num: Number of images.
          temperatures: Factors on the scales of the priors: of the top, and of each scale.
          seed: Seed of the draws.
        """
        config = self._model.config
        repeats = [1, *(scale.modules for scale in config.scales)]
        return self._model.sample(num, np.repeat(temperatures, repeats), seed).numpy()

    def scores(self, x: np.ndarray, num_samples: int, seed: int = 0) -> dict[str, float]:
        """The scores of `matnet score` of one image, by column, see `evaluation.scores`.

        Args:
          x: The image.
          num_samples: K.
          seed: Seed of the draws.
        """
        levels = self._model.config.num_levels
        inferred = tf.repeat(tf.range(levels, -1, -1), num_samples)
        seeds = stateless_random.for_samples(seed_tensor([seed], 1), 0, num_samples)
        seeds, per_pass = tf.tile(seeds, [levels + 1, 1]), self._model.samples_per_pass
        parts = [
            self._weigh(
                self._batch(x), inferred[first : first + per_pass], seeds[first : first + per_pass]
            )
            for first in range(0, inferred.shape[0], per_pass)
        ]
        log_weights = np.concatenate(parts).astype(np.float64).reshape(levels + 1, num_samples)
        bounds = np.logaddexp.reduce(log_weights, axis=1) - np.log(num_samples)
        bins = self._model.hierarchy.likelihood.observation.bins
        rate = bits_per_dim(-bounds[0], self._model.config.image_shape, bins)
        gaps = [(bound, bounds[0] - bound) for bound in bounds[1:]]
        values = [bounds[0], rate, *(value for pair in gaps for value in pair)]
        return dict(zip(columns(levels), map(float, values), strict=True))

    def _batch(self, x: np.ndarray) -> tf.Tensor:
        return self._model.input_form.check(x[None])[0]

    # The graphs.

    def _reconstructions(self, x: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        hierarchy, rows = self._model.hierarchy, self._model.config.num_levels + 1
        seeds = tf.tile(seed, [rows, 1])
        trace = hierarchy.top_down_pass(
            hierarchy.encode(x), rows, seeds, num_inferred=tf.range(rows)
        )
        return hierarchy.images(trace, seeds)

    def _mixtures(
        self, ends: tf.Tensor, mixed: tf.Tensor, steps: tf.Tensor, seed: tf.Tensor
    ) -> tf.Tensor:
        hierarchy, levels = self._model.hierarchy, self._model.config.num_levels
        own = stateless_random.for_pass(tf.tile(seed, [2, 1]), 1)
        latents = hierarchy.top_down_pass(hierarchy.encode(ends), 2, own).z
        rows = tf.size(steps)
        seeds = tf.tile(seed, [rows, 1])
        level_seeds = stateless_random.split(seeds, levels)

        def choose(level, prior, posterior):
            z, drawn = latents[level], stateless_random.draw(prior, level_seeds[level], rows)
            share = tf.reshape(steps, [-1] + [1] * (z.shape.rank - 1))
            return tf.where(mixed[level], (1 - share) * z[:1] + share * z[1:], drawn)

        return hierarchy.images(hierarchy.top_down_pass(None, rows, seeds, choose=choose), seeds)

    def _log_weights(self, x: tf.Tensor, inferred: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        """log p(x, z) - log q(z | x) of rows with numbers of inferred levels of their own."""
        hierarchy, rows = self._model.hierarchy, tf.size(inferred)
        trace = hierarchy.top_down_pass(hierarchy.encode(x), rows, seeds, num_inferred=inferred)
        log_weight = hierarchy.p_x(trace).log_prob(tf.tile(x, [rows, 1, 1, 1]))
        for index, level in enumerate(trace.levels):
            # A level that came from the prior contributes no ratio.
            log_weight += tf.where(index < inferred, level.log_weight(), 0.0)
        return log_weight
