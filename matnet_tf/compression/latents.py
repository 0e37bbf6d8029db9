# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Codes latents with Gaussians, on a stack of `constriction`.

A latent is prior mean + prior deviation * step * k for a whole number k. Steps are powers of two,
one for each channel of each level, and follow from how narrow the posteriors are: a channel whose
posterior equals its prior needs three or four bits, of which bits-back returns all.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from constriction import stream

from matnet_tf.compression.networks import REACH, Gaussians, Mixture

__all__ = ["LatentCoder", "MixtureCoder", "suitable_steps"]

_CATEGORICAL = stream.model.Categorical(perfect=False)
_FINEST = 10  # Smallest step: 2^-10 prior deviations.
_LEAST = 1e-20  # Mass of what cannot happen; the coder gives every symbol at least 2^-24.
_NARROW = 0.1  # Quantile of a channel's posterior deviations that its step suits.


def suitable_steps(levels: Sequence[Gaussians], channels: Sequence[int], bins: float) -> list:
    """Chooses the steps for each channel of each level from Gaussians of some images.

    Args:
      levels: Gaussians of every level.
      channels: Number of channels of every level.
      bins: Steps in a posterior's deviation, for the narrow ones of a channel.

    Returns:
      Exponents e of the steps 2^-e, a list of whole numbers from 1 for each level.
    """
    exponents = []
    for gaussians, count in zip(levels, channels, strict=True):
        ratio = gaussians.posterior_scale / gaussians.prior_scale
        narrow = np.quantile(ratio.reshape(-1, count), _NARROW, axis=0)
        wanted = np.ceil(np.log2(bins / narrow))
        exponents.append(np.clip(wanted, 1, _FINEST).astype(int).tolist())
    return exponents


class LatentCoder:
    """Codes the latents of one level, for the N first images of a batch.

    Args:
      exponents: Exponents e of the channels' steps 2^-e.
      gaussians: Prior and posterior, [B, latents]; channels vary fastest.
      count: N.

    Raises:
      ValueError: If a mean or deviation is not finite.
    """

    def __init__(self, exponents: Sequence[int], gaussians: Gaussians, count: int):
        if not all(np.isfinite(part).all() for part in gaussians):
            raise ValueError("the networks compute priors or posteriors that are not finite")
        rows, latents = gaussians.prior_loc.shape
        self._shape = (rows, latents)
        self._count = count
        largest = REACH << max(exponents)
        self._model = stream.model.QuantizedGaussian(-largest, largest)
        self._largest = largest
        steps = np.ldexp(1.0, -np.asarray(exponents))
        self._steps = np.broadcast_to(np.tile(steps, latents // len(exponents)), self._shape)
        self._gaussians = Gaussians(*(part.astype(np.float64) for part in gaussians))

    def _prior(self):
        deviations = 1.0 / self._steps[: self._count].ravel()
        return np.zeros_like(deviations), deviations

    def _posterior(self):
        prior_loc, prior_scale, loc, scale = self._gaussians
        unit = prior_scale * self._steps
        mean = np.clip((loc - prior_loc) / unit, -self._largest, self._largest)
        return mean[: self._count].ravel(), (scale / unit)[: self._count].ravel()

    def pop_posterior(self, stack: stream.stack.AnsCoder) -> np.ndarray:
        """Decodes whole numbers with the posterior, int32 [N * latents]."""
        return stack.decode(self._model, *self._posterior())

    def push_posterior(self, stack: stream.stack.AnsCoder, numbers: np.ndarray) -> None:
        """Encodes whole numbers with the posterior."""
        stack.encode_reverse(numbers, self._model, *self._posterior())

    def pop_prior(self, stack: stream.stack.AnsCoder) -> np.ndarray:
        """Decodes whole numbers with the prior, int32 [N * latents]."""
        return stack.decode(self._model, *self._prior())

    def push_prior(self, stack: stream.stack.AnsCoder, numbers: np.ndarray) -> None:
        """Encodes whole numbers with the prior."""
        stack.encode_reverse(numbers, self._model, *self._prior())

    def latents(self, numbers: np.ndarray) -> np.ndarray:
        """The latents of whole numbers, float32 [B, latents]; of empty images the prior's means."""
        whole = np.zeros(self._shape)
        whole[: self._count] = numbers.reshape(self._count, -1)
        loc, scale = self._gaussians[:2]
        return (loc + scale * (self._steps * whole)).astype(np.float32)

    def entropy_bits(self) -> float:
        """About how many bits `pop_posterior` takes from the stack."""
        deviations = self._posterior()[1]
        return float(np.sum(np.log2(np.maximum(deviations, 0.5)) + 2.05))


class MixtureCoder(LatentCoder):
    """Codes z_0 with a mixture prior, and the component with it.

    To encode, a component is decoded from the stack with its probability given z_0; then z_0 is
    encoded with that component, and the component with its weight. What stays is -log p(z_0) under
    the whole mixture, whichever component it was.

    Args:
      exponents: As for `LatentCoder`.
      gaussians: As for `LatentCoder`.
      count: N.
      mixture: The prior.
    """

    def __init__(self, exponents, gaussians: Gaussians, count: int, mixture: Mixture):
        super().__init__(exponents, gaussians, count)
        loc, unit = self._gaussians.prior_loc[0], (self._gaussians.prior_scale * self._steps)[0]
        self._means, self._deviations = (mixture.loc - loc) / unit, mixture.scale / unit
        self._log_weights = mixture.log_weights
        self._weights = _masses(np.tile(mixture.log_weights, (count, 1)))

    def pop_prior(self, stack: stream.stack.AnsCoder) -> np.ndarray:
        """Decodes what `push_prior` encoded, int32 [N * latents]."""
        component = stack.decode(_CATEGORICAL, self._weights)
        numbers = stack.decode(self._model, *self._of(component))
        stack.encode_reverse(component, _CATEGORICAL, self._assigned(numbers))
        return numbers

    def push_prior(self, stack: stream.stack.AnsCoder, numbers: np.ndarray) -> None:
        """Encodes whole numbers with the mixture."""
        component = stack.decode(_CATEGORICAL, self._assigned(numbers))
        stack.encode_reverse(numbers, self._model, *self._of(component))
        stack.encode_reverse(component, _CATEGORICAL, self._weights)

    def _of(self, component):
        return self._means[component].ravel(), self._deviations[component].ravel()

    def _assigned(self, numbers):
        """Probabilities of the components given z_0, [N, K]."""
        whole = numbers.reshape(self._count, 1, -1)
        standard = (whole - self._means) / self._deviations
        log_density = -0.5 * standard**2 - np.log(self._deviations)
        return _masses(self._log_weights + log_density.sum(axis=-1))


def _masses(log_masses: np.ndarray) -> np.ndarray:
    return np.exp(log_masses - log_masses.max(axis=-1, keepdims=True)) + _LEAST
