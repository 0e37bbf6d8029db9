# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""A Logistic discretized to the 256 levels of 8-bit values (paper, Sec. 2.3)."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from matnet_tf.distributions import stateless_random
from matnet_tf.distributions.base import RowSeededDistribution

__all__ = ["LARGEST_LEVEL", "DiscretizedLogistic"]

LARGEST_LEVEL = 255.0  # The largest 8-bit value.


class DiscretizedLogistic(RowSeededDistribution):
    """A Logistic integrated over each of the 256 levels of an 8-bit value (Sec. 2.3, its ref. 11).

    Level v has the Logistic's mass between v - 1/2 and v + 1/2. Level 0 also has all the mass
    below, and level 255 all the mass above, so the masses sum to 1. Values are `v / 255`, in
    [0, 1], like all images of this package. `log_prob` scores a value between two levels as the
    nearest level; check data from outside first, as `likelihoods.observation.Logistic` does.

    Args:
      loc: Location of the Logistic in the unit of the values; [0, 1] is their range.
      scale: Scale of the Logistic in the same unit, positive; broadcasts with `loc`.
      name: Name of the distribution.
    """

    def __init__(self, loc: tf.Tensor, scale: tf.Tensor, name: str = "DiscretizedLogistic"):
        parameters = dict(locals())
        self._loc = tf.convert_to_tensor(loc, tf.float32)
        self._scale = tf.convert_to_tensor(scale, tf.float32)
        super().__init__(parameters, name)

    @property
    def loc(self) -> tf.Tensor:
        """Location of the Logistic, in the unit of the values."""
        return self._loc

    @property
    def scale(self) -> tf.Tensor:
        """Scale of the Logistic, in the unit of the values."""
        return self._scale

    @classmethod
    def _parameter_properties(cls, dtype, num_classes=None):
        return {"loc": tfp.util.ParameterProperties(), "scale": tfp.util.ParameterProperties()}

    def _event_shape(self):
        return tf.TensorShape([])

    def _event_shape_tensor(self):
        return tf.constant([], tf.int32)

    def _log_prob(self, value):
        # Let a < b be the edges of a level, standardized. Then sigmoid(b) - sigmoid(a) equals
        # sigmoid(b) sigmoid(-a) (1 - exp(a - b)), a sum of three logarithms without cancellation,
        # and a - b is the same for every level. Edges are exact in units of levels.
        level = tf.round(value * LARGEST_LEVEL)
        distance = level - self._loc * LARGEST_LEVEL
        scale = self._scale * LARGEST_LEVEL
        below = tf.where(level > 0, (distance - 0.5) / scale, 0.0)
        above = tf.where(level < LARGEST_LEVEL, (distance + 0.5) / scale, 0.0)
        log_prob = tf.where(level < LARGEST_LEVEL, -tf.nn.softplus(-above), 0.0)
        log_prob -= tf.where(level > 0, tf.nn.softplus(below), 0.0)
        inner = (level > 0) & (level < LARGEST_LEVEL)
        # The gradient of tfp.math.log1mexp is NaN where the scale is huge.
        return log_prob + tf.where(inner, tf.math.log(-tf.math.expm1(-1 / scale)), 0.0)

    def _quantile(self, value):
        """The smallest level whose cumulative probability reaches `value`, in [0, 1)."""
        tiny = np.finfo(np.float32).tiny
        logit = tf.math.log(tf.maximum(value, tiny)) - tf.math.log1p(-value)
        level = tf.round((self._loc + self._scale * logit) * LARGEST_LEVEL)
        return tf.clip_by_value(level, 0, LARGEST_LEVEL) / LARGEST_LEVEL

    def _sample_n(self, n, seed=None):
        shape = tf.concat([[n], self.batch_shape_tensor()], axis=0)
        seed = tfp.random.sanitize_seed(seed)
        return self._quantile(tf.random.stateless_uniform(shape, seed))

    def draw_rows(self, seed: tf.Tensor) -> tf.Tensor:
        """One sample for each row of the batch, whose first axis is the rows, from its own seed."""
        return self._quantile(stateless_random.uniform(seed, self.batch_shape[1:]))

    def _mean(self):
        """The mean of the Logistic cut to [0, 1], within half a level of the exact mean."""
        # The mean is the integral of sigmoid((loc - t) / scale) over t from 0 to 1. A location far
        # outside costs precision only, and so does the difference where the scale is large.
        loc = tf.clip_by_value(self._loc, -20 * self._scale, 1 + 20 * self._scale)
        above = self._scale * tf.nn.softplus((1 - loc) / self._scale)
        below = self._scale * tf.nn.softplus(-loc / self._scale)
        flat = tf.sigmoid((self._loc - 0.5) / self._scale)
        return tf.where(self._scale > 3, flat, tf.clip_by_value(1 - (above - below), 0, 1))
