# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""A mixture of discretized Logistics over pixels, whose channels depend on each other linearly.

Source: Salimans et al., PixelCNN++ (2017), Secs. 2.1 and 2.2.
"""

from __future__ import annotations

import tensorflow as tf
import tensorflow_probability as tfp

from matnet_tf.distributions import stateless_random
from matnet_tf.distributions.base import RowSeededDistribution
from matnet_tf.distributions.discretized_logistic import DiscretizedLogistic

__all__ = ["DiscretizedLogisticMixture", "num_pairs"]


def num_pairs(channels: int) -> int:
    """Number of pairs of a channel and one before it."""
    return channels * (channels - 1) // 2


class DiscretizedLogisticMixture(RowSeededDistribution):
    """A mixture of K components over pixels of C channels, in 256 levels each (PixelCNN++).

    A component gives every channel a `DiscretizedLogistic`. Its location moves with the values x
    of the channels before:

        location of channel c = loc[c] + sum over j < c of coefficient[c, j] * (x[j] - 1/2)

    So `loc` is the location where the channels before are mid-grey. An event is a pixel [C] with
    values `v / 255`, in [0, 1]; check data from outside first. The masses of all 256^C pixels sum
    to 1.

    Args:
      logits: Unnormalized log-weights of the components, [..., K].
      loc: Locations in the unit of the values, [..., C, K].
      scale: Scales in the same unit, positive, [..., C, K].
      coefficients: Coefficients of the pairs (c, j) in the order (1, 0), (2, 0), (2, 1), (3, 0),
        ..., [..., C (C - 1) / 2, K].
      name: Name of the distribution.
    """

    def __init__(
        self,
        logits: tf.Tensor,
        loc: tf.Tensor,
        scale: tf.Tensor,
        coefficients: tf.Tensor,
        name: str = "DiscretizedLogisticMixture",
    ):
        parameters = dict(locals())
        self._logits = tf.convert_to_tensor(logits, tf.float32)
        self._loc = tf.convert_to_tensor(loc, tf.float32)
        self._scale = tf.convert_to_tensor(scale, tf.float32)
        self._coefficients = tf.convert_to_tensor(coefficients, tf.float32)
        super().__init__(parameters, name)

    @classmethod
    def _parameter_properties(cls, dtype, num_classes=None):
        vector, matrix = (tfp.util.ParameterProperties(event_ndims=n) for n in (1, 2))
        return {"logits": vector, "loc": matrix, "scale": matrix, "coefficients": matrix}

    def _event_shape(self):
        return self._loc.shape[-2:-1]

    def _event_shape_tensor(self):
        return tf.shape(self._loc)[-2:-1]

    @property
    def _components(self) -> list[tf.Tensor]:
        """The parameters of all components, with the channels or pairs before the components."""
        return [self._loc, self._scale, self._coefficients]

    def _log_prob(self, x):
        before, log_prob = [], tf.nn.log_softmax(self._logits)
        components = [tf.unstack(part, axis=-2) for part in self._components]
        for value in tf.unstack(x[..., tf.newaxis], axis=-2):
            log_prob += _next_channel(*components, before).log_prob(value)
            before.append(value)
        return tf.reduce_logsumexp(log_prob, axis=-1)

    def from_noise(self, noise: tf.Tensor) -> tf.Tensor:
        """Pixels [..., C] from uniform noise [..., 1 + C] in [0, 1)."""
        borders = tf.cumsum(tf.nn.softmax(self._logits), axis=-1)
        borders = borders[..., :-1] / borders[..., -1:]  # 1 before components of weight 0.
        index = tf.reduce_sum(tf.cast(noise[..., :1] >= borders, tf.int32), axis=-1)
        chosen = tf.one_hot(index, self._logits.shape[-1])[..., tf.newaxis, :]
        component = [
            tf.unstack(tf.reduce_sum(chosen * part, axis=-1), axis=-1) for part in self._components
        ]
        before = []
        for uniform in tf.unstack(noise[..., 1:], axis=-1):
            before.append(_next_channel(*component, before).quantile(uniform))
        return tf.stack(before, axis=-1)

    def _sample_n(self, n, seed=None):
        shape = [[n], self.batch_shape_tensor(), 1 + self.event_shape_tensor()]
        seed = tfp.random.sanitize_seed(seed)
        return self.from_noise(tf.random.stateless_uniform(tf.concat(shape, axis=0), seed))

    def draw_rows(self, seed: tf.Tensor) -> tf.Tensor:
        """One sample for each row of the batch, whose first axis is the rows, from its own seed."""
        shape = [*self.batch_shape[1:], 1 + self.event_shape[0]]
        return self.from_noise(stateless_random.uniform(seed, shape))

    def _mean(self):
        """The mean of the components' means, with the Logistics cut to [0, 1].

        The first channel is within half a level of the exact mean, see `DiscretizedLogistic`. The
        location of a later one is moved by the means of the channels before. That is as exact
        where the Logistics lie within [0, 1], since the dependence is linear. Near the ends, what
        is cut off differs with the values before, which this mean neglects: the second channel of
        one component was off by up to 1 level at scale 0.01, and up to 11 levels at scale 0.15.
        """
        before, components = [], [tf.unstack(part, axis=-2) for part in self._components]
        for _ in components[0]:
            before.append(_next_channel(*components, before).mean())
        weights = tf.nn.softmax(self._logits)[..., tf.newaxis, :]
        return tf.reduce_sum(weights * tf.stack(before, axis=-2), axis=-1)


def _next_channel(
    loc: list[tf.Tensor],
    scale: list[tf.Tensor],
    coefficients: list[tf.Tensor],
    before: list[tf.Tensor],
) -> DiscretizedLogistic:
    """The Logistic of the channel that follows on the values of those before.

    Args:
      loc: Locations by channel.
      scale: Scales by channel.
      coefficients: Coefficients by pair.
      before: Values of the channels before, in [0, 1].
    """
    channel = len(before)
    own = coefficients[num_pairs(channel) : num_pairs(channel + 1)]
    shift = sum(a * (x - 0.5) for a, x in zip(own, before, strict=True))
    return DiscretizedLogistic(loc[channel] + shift, scale[channel])
