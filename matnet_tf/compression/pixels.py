# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Codes the values of images with p(x | z), on a stack of `constriction`.

Values are whole numbers: 0 and 1, or 8-bit levels. `push` and `pop` compute the probabilities that
the coder sees by one function of the networks' outputs, in float64, and in one order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from constriction import stream

from matnet_tf.config import ModelConfig
from matnet_tf.distributions.logistic_mixture import num_pairs

__all__ = ["BinaryPixels", "LevelPixels", "make_pixels"]

_BERNOULLI = stream.model.Bernoulli(perfect=False)
_CATEGORICAL = stream.model.Categorical(perfect=False)
_LARGEST = 255
_GROUP = 16  # A level is coded in two steps: which 16 levels, then which of these.
_LEAST = 1e-20  # Mass of what cannot happen; the coder gives every symbol at least 2^-24.


def make_pixels(config: ModelConfig) -> BinaryPixels | LevelPixels:
    """The coder of a model's values.

    Raises:
      ValueError: If p(x | z) is a density.
    """
    if config.likelihood == "normal":
        raise ValueError(
            "compression needs probabilities of images, and likelihood normal is a density; "
            "expected bernoulli, logistic or logistic_mixture"
        )
    if config.likelihood == "bernoulli":
        return BinaryPixels()
    return LevelPixels(mixture=config.likelihood == "logistic_mixture")


class BinaryPixels:
    """Values of 0 and 1 with a logit each."""

    largest = 1

    def push(self, stack: stream.stack.AnsCoder, parameters: Sequence, x: np.ndarray) -> None:
        """Encodes x, uint8 [N, H, W, C], given what the observation model's `call` returns."""
        stack.encode_reverse(x.ravel().astype(np.int32), _BERNOULLI, self._ones(parameters))

    def pop(self, stack: stream.stack.AnsCoder, parameters: Sequence) -> np.ndarray:
        """Decodes what `push` encoded."""
        values = stack.decode(_BERNOULLI, self._ones(parameters))
        return values.astype(np.uint8).reshape(parameters[0].shape)

    def _ones(self, parameters):
        return _sigmoid(parameters[0].astype(np.float64)).ravel()


class LevelPixels:
    """8-bit levels with discretized Logistics, or mixtures of them over the channels of a pixel.

    Args:
      mixture: Whether parameters are those of `LogisticMixture`, or else those of `Logistic`.
    """

    largest = _LARGEST

    def __init__(self, mixture: bool):
        self._walk = _MixtureChannels if mixture else _AllValues

    def push(self, stack: stream.stack.AnsCoder, parameters: Sequence, x: np.ndarray) -> None:
        """Encodes x, uint8 [N, H, W, C], given what the observation model's `call` returns."""
        channels, steps = self._walk(parameters), []
        for values in channels.split(x):
            logistics = channels.next()
            group, within = np.divmod(values.astype(np.int32), _GROUP)
            steps += [(group, logistics.groups()), (within, logistics.within(group))]
            channels.follow(values)
        for symbols, masses in reversed(steps):
            stack.encode_reverse(symbols, _CATEGORICAL, masses)

    def pop(self, stack: stream.stack.AnsCoder, parameters: Sequence) -> np.ndarray:
        """Decodes what `push` encoded."""
        channels, found = self._walk(parameters), []
        for _ in range(channels.count):
            logistics = channels.next()
            group = stack.decode(_CATEGORICAL, logistics.groups())
            values = _GROUP * group + stack.decode(_CATEGORICAL, logistics.within(group))
            channels.follow(values)
            found.append(values)
        return channels.join(found)


class _Logistics:
    """Mixtures of K Logistics over levels, for n values.

    Args:
      log_weights: Logarithms of the components' weights, up to a constant [n, K].
      loc: Locations in levels [n, K].
      scale: Scales in levels [n, K].
    """

    def __init__(self, log_weights, loc, scale):
        weights = np.exp(log_weights - log_weights.max(axis=-1, keepdims=True))
        self._weights = weights / weights.sum(axis=-1, keepdims=True)
        self._loc, self._scale = loc, scale

    def groups(self) -> np.ndarray:
        """Masses of the 16 groups of levels, [n, 16]."""
        starts = np.arange(0, _LARGEST + 2, _GROUP)
        return self._mixed(np.broadcast_to(starts, (len(self._loc), len(starts))))

    def within(self, group: np.ndarray) -> np.ndarray:
        """Masses of the 16 levels of each value's group, [n, 16], up to a factor."""
        return self._mixed(_GROUP * group[:, np.newaxis] + np.arange(_GROUP + 1))

    def log_masses(self, values: np.ndarray) -> np.ndarray:
        """Logarithms of each component's mass of the values, [n, K]."""
        levels = values[:, np.newaxis].astype(np.int64)
        return np.log(self._masses(np.concatenate([levels, levels + 1], axis=1))[..., 0] + 1e-300)

    def _mixed(self, starts):
        masses = np.einsum("nk,nke->ne", self._weights, self._masses(starts))
        return (masses + _LEAST) / (masses.sum(axis=-1, keepdims=True) + _GROUP * _LEAST)

    def _masses(self, starts):
        """Masses from each start [n, e] to the next, [n, K, e - 1]."""
        edges = np.where(starts > _LARGEST, np.inf, np.where(starts < 1, -np.inf, starts - 0.5))
        standard = (edges[:, np.newaxis] - self._loc[..., np.newaxis]) / self._scale[
            ..., np.newaxis
        ]
        below, above = standard[..., :-1], standard[..., 1:]
        # Taken from the nearer tail, where the difference of the two keeps its digits.
        flipped = below + above > 0
        low, high = np.where(flipped, -above, below), np.where(flipped, -below, above)
        return _sigmoid(high) - _sigmoid(low)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    from scipy import special

    return special.expit(x)


class _AllValues:
    """The values of images, independent of each other: one step for all."""

    count = 1

    def __init__(self, parameters):
        loc, scale = (part.astype(np.float64) for part in parameters)
        self._shape = loc.shape
        self._loc = (_LARGEST * (0.5 + 0.5 * loc)).reshape(-1, 1)
        self._scale = (0.5 * _LARGEST * scale).reshape(-1, 1)

    def split(self, x):
        return [x.ravel()]

    def join(self, values):
        return values[0].astype(np.uint8).reshape(self._shape)

    def next(self):
        return _Logistics(np.zeros_like(self._loc), self._loc, self._scale)

    def follow(self, values):
        pass


class _MixtureChannels:
    """The channels of pixels, one after another, each given those before."""

    def __init__(self, parameters):
        logits, loc, scale, coefficients = (part.astype(np.float64) for part in parameters)
        *self._area, self.count, components = loc.shape
        self._log_weights = logits.reshape(-1, components)
        self._loc = loc.reshape(-1, self.count, components)
        self._scale = _LARGEST * scale.reshape(-1, self.count, components)
        self._coefficients = coefficients.reshape(len(self._loc), -1, components)
        self._before, self._now = [], None

    def split(self, x):
        return np.moveaxis(x, -1, 0).reshape(self.count, -1)

    def join(self, values):
        return np.stack(values, axis=-1).astype(np.uint8).reshape(*self._area, self.count)

    def next(self):
        channel = len(self._before)
        loc = self._loc[:, channel]
        for j, values in enumerate(self._before):
            coefficient = self._coefficients[:, num_pairs(channel) + j]
            loc = loc + coefficient * (values[:, np.newaxis] / _LARGEST - 0.5)
        self._now = _Logistics(self._log_weights, _LARGEST * loc, self._scale[:, channel])
        return self._now

    def follow(self, values):
        self._before.append(values)
        self._log_weights = self._log_weights + self._now.log_masses(values)
