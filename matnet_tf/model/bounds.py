# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Bounds on log p(x): the ELBO (Eq. 5) and the importance-weighted bound, in nats and bits."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

__all__ = ["Bound", "StreamingLogMeanExp", "bits_per_dim", "nested_bounds", "nested_counts"]


class Bound(NamedTuple):
    """One-sample estimate of the free-energy bound of Eq. 5, per image, in nats."""

    elbo: tf.Tensor  # [B]: log_likelihood - sum of kl
    log_likelihood: tf.Tensor  # [B]: log p(x | z) at the sampled latents
    kl: dict[str, tf.Tensor]  # {level: [B]}: KL(q(z_i | ..) || p(z_i | ..)), see `Level.kl`


class StreamingLogMeanExp:
    """The log of the mean of exp(log_weight) over samples that arrive in chunks, in float64.

    It keeps two numbers per image, so memory does not limit K. Its value after K samples is the
    bound of the importance-weighted autoencoder (the paper's evaluation, Sec. 3).

    Args:
      num_images: B.
    """

    def __init__(self, num_images: int):
        self.num_samples = 0
        self._largest = np.full(num_images, -np.inf)
        self._sum = np.zeros(num_images)  # of exp(log_weight - largest)

    def update(self, log_weight: np.ndarray) -> None:
        """Adds importance log-weights `[k, B]`."""
        log_weight = np.asarray(log_weight, np.float64)
        largest = np.maximum(self._largest, log_weight.max(axis=0))
        # Where every weight so far is zero, a difference of infinities would be NaN.
        shift = np.where(np.isfinite(largest), largest, 0.0)
        self._sum = self._sum * np.exp(self._largest - shift) + np.exp(log_weight - shift).sum(0)
        self._largest = largest
        self.num_samples += len(log_weight)

    def result(self) -> np.ndarray:
        """The bound so far, `[B]`, in nats; minus infinity before the first sample."""
        if self.num_samples == 0:
            return np.full_like(self._sum, -np.inf)
        shift = np.where(np.isfinite(self._largest), self._largest, 0.0)
        with np.errstate(divide="ignore"):
            return shift + np.log(self._sum) - math.log(self.num_samples)


def nested_counts(num_samples: int) -> tuple[int, ...]:
    """The numbers of samples for which a bound is reported: 1, 10, 100, ... and K itself."""
    powers = itertools.takewhile(lambda n: n < num_samples, (10**i for i in itertools.count()))
    return (*powers, num_samples)


def nested_bounds(pieces: Iterable[np.ndarray], counts: Sequence[int]) -> dict[int, np.ndarray]:
    """The bounds `{K: [B]}` of the first K samples, for each K in `counts`, in nats.

    Args:
      pieces: Importance log-weights `[k, B]`, such as `MatNet.log_weights` gives.
      counts: Numbers of samples, increasing.
    """
    bound, results = None, {}
    for piece in pieces:
        bound = bound or StreamingLogMeanExp(piece.shape[1])
        before = bound.num_samples
        cuts = [c - before for c in counts if before < c < before + len(piece)]
        for first, last in itertools.pairwise([0, *cuts, len(piece)]):
            bound.update(piece[first:last])
            if bound.num_samples in counts:
                results[bound.num_samples] = bound.result()
    return results


def bits_per_dim(
    nats: float | tf.Tensor, image_shape: Sequence[int], bins: int = 1
) -> float | tf.Tensor:
    """Nats per image as bits per dimension, corrected for continuous observations (Sec. 3).

    `nats / (H W C log 2) + log2(bins)`. For discrete images, whose likelihood is a probability,
    `bins` is 1. For 8-bit images that were dequantized to [0, 1] it is 256, since each value
    covers 1/256 of the unit. By Jensen's inequality over the noise the result bounds the bits per
    dimension of the discrete image.

    Args:
      nats: Minus log p(x), or minus a bound on it.
      image_shape: `(H, W, C)`.
      bins: Number of 8-bit levels in a unit of the density: the `bins` of the observation model.
    """
    return nats / (math.prod(image_shape) * math.log(2.0)) + math.log2(bins)
