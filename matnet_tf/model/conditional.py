# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""`ConditionalMatNet` p(x_u | x_k), which predicts hidden pixels from known ones (Eqs. 3, 4, 6)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from matnet_tf.config import ModelConfig
from matnet_tf.distributions import stateless_random
from matnet_tf.distributions.stateless_random import seed_tensor
from matnet_tf.layers.base import own_keras_settings
from matnet_tf.model import importance
from matnet_tf.model.argument_checks import (
    check_count,
    checked_config,
    checked_num_inferred,
    checked_temperatures,
)
from matnet_tf.model.bounds import Bound
from matnet_tf.model.conditional_hierarchy import ConditionalHierarchy
from matnet_tf.model.descent import Trace
from matnet_tf.model.elbo_model import ElboModel
from matnet_tf.model.input_checks import MaskedImageInputs

__all__ = ["ConditionalMatNet", "Imputation"]


class Imputation(NamedTuple):
    """Completions of images; known pixels are returned bit for bit."""

    samples: tf.Tensor  # [K, B, H, W, C]
    mean: tf.Tensor  # [B, H, W, C]: the pixel-wise mean of the samples


@keras.saving.register_keras_serializable("matnet_tf")
class ConditionalMatNet(ElboModel):
    """A conditional MatNet p(x_u | x_k), which predicts hidden pixels from known ones (Sec. 2.1).

    The prior of every latent comes from a guide that encodes the known pixels x_k and the mask, its
    posterior from a guide that encodes the whole image; both share one top-down network. The bound
    (Eq. 6) counts the hidden pixels x_u alone. Like `MatNet` the model is built when constructed.
    `fit` takes a `tf.data.Dataset` of dictionaries with `image` and `mask`, or of pairs of them. A
    mask is `[B, H, W, 1]`, 1 where a pixel is known.

    With `config.conditional_stages` of 2 or more, later stages refine the guess of those before
    (the two-stage models of Sec. 3). Their guides also encode the guess, the mean image so far in
    place of the hidden pixels, and their last state is added to the earlier ones, before any
    squashing. The latents of all stages make one bound on log p(x_u | x_k), since the guess is a
    function of known pixels and of latents that are drawn already.

    Setting `training_stage` to s > 0 before `fit` trains stage s alone, on the bound of the first s
    stages, with the stages before it fixed; 0, the default, trains all at once.

    Args:
      config: The `ModelConfig`, with `conditional_stages` of at least 1.
      seed: Integer seed of the initial weights and of the noise in training.

    Example:
      config = ModelConfig((8, 8, 1), (Scale(1, 64, 8, 3),), conditional_stages=1)
      model = ConditionalMatNet(config, seed=0)
      model.compile(optimizer="adam")
      model.fit(dataset)  # of {"image": x, "mask": mask}
      samples, mean = model.impute(x, mask, num_samples=8)
    """

    def __init__(self, config: ModelConfig | dict | None = None, seed: int = 0, **kwargs: Any):
        config = checked_config(type(self).__name__, config, conditional=True)
        with own_keras_settings():
            hierarchy = ConditionalHierarchy(config, name="hierarchy")
            form = MaskedImageInputs(hierarchy.likelihood.observation)
            super().__init__(hierarchy, form, seed, **kwargs)

    def elbo(self, x: Any, mask: Any, seed: Any = 0) -> Bound:
        """The bound of Eq. 6 on log p(x_u | x_k) from one draw of the latents.

        Args:
          x: Whole images `[B, H, W, C]`, float32 in [0, 1].
          mask: 1 where a pixel is known, `[B, H, W, 1]`, or `[H, W, 1]` for all.
          seed: Integer seed, or one per image.

        Returns:
          A `Bound`: ELBO, log-likelihood of the hidden pixels and KL per level, `[B]`, in nats.

        Raises:
          ValueError: If images or masks are not what the config says, or a mask leaves nothing to
            predict.
        """
        x, mask = self.input_form.check(x, mask)
        return self.functions.get(self.hierarchy.elbo)(x, mask, seed_tensor(seed, x.shape[0]))

    def log_likelihood(
        self,
        x: Any,
        mask: Any,
        num_samples: int = 100,
        seed: Any = 0,
        chunk: int | None = None,
        num_inferred: int | None = None,
    ) -> np.ndarray:
        """The importance-weighted bound on log p(x_u | x_k), K samples, `[B]` float64, in nats.

        Args:
          x: Whole images `[B, H, W, C]`.
          mask: 1 where a pixel is known, `[B, H, W, 1]`, or `[H, W, 1]` for all.
          num_samples: K.
          seed: Integer seed, or one per image.
          chunk: Image-samples per pass, which bounds the memory; None for `samples_per_pass`.
          num_inferred: Number of levels from the posterior, from the top; None for all.

        Raises:
          ValueError: As `elbo`, or if a number is out of range.
        """
        inputs = self.input_form.check(x, mask)
        return importance.log_likelihood(self, inputs, num_samples, seed, chunk, num_inferred)

    def log_weights(
        self,
        x: Any,
        mask: Any,
        num_samples: int,
        seed: Any = 0,
        chunk: int | None = None,
        num_inferred: int | None = None,
    ) -> Iterator[np.ndarray]:
        """Importance log-weights in pieces `[k, B]`; arguments as `log_likelihood`."""
        inputs = self.input_form.check(x, mask)
        return importance.log_weights(self, inputs, num_samples, seed, chunk, num_inferred)

    def infer(self, x: Any, mask: Any, num_samples: int = 1, seed: Any = 0) -> Trace:
        """The latents, priors and posteriors of every level, for whole images.

        Returns:
          A `Trace` of K * B rows, sample first.

        Raises:
          ValueError: As `elbo`, or if K < 1.
        """
        check_count("num_samples", num_samples)
        x, mask = self.input_form.check(x, mask)
        seed = stateless_random.for_pass(seed_tensor(seed, x.shape[0]), num_samples)
        encoding = self.hierarchy.encode(x, mask)
        return self.hierarchy.top_down_pass(encoding, num_samples * x.shape[0], seed)

    def reconstruct(
        self,
        x: Any,
        mask: Any,
        num_inferred: int | None = None,
        temperature: Any = 1.0,
        seed: Any = 0,
    ) -> tf.Tensor:
        """Completions that take the top `num_inferred` levels from the whole image.

        The levels below are drawn from the priors, given the known pixels.

        Returns:
          images: `[B, H, W, C]`, with the known pixels as they are.

        Raises:
          ValueError: As `elbo`, or if a number is out of range.
        """
        num_inferred = checked_num_inferred(self.config, num_inferred)
        inputs = self.input_form.check(x, mask)
        temperatures = checked_temperatures(self.config, temperature)
        return self.functions.get(self.hierarchy.reconstruct)(
            inputs, num_inferred, temperatures, seed_tensor(seed, inputs[0].shape[0])
        )

    def impute(
        self,
        x: Any,
        mask: Any,
        num_samples: int = 1,
        temperature: Any = 1.0,
        seed: Any = 0,
        draw: bool = False,
    ) -> Imputation:
        """Completions of images whose hidden pixels are not known.

        Args:
          x: Images `[B, H, W, C]`; the values of hidden pixels, NaN included, have no effect.
          mask: 1 where a pixel is known, `[B, H, W, 1]`, or `[H, W, 1]` for all.
          num_samples: K, completions of each image.
          temperature: Factor on the scales of the priors, or one per level.
          seed: Integer seed, or one per image.
          draw: Whether to draw pixels from p(x_u | z, x_k) instead of taking its mean. The local
            autoregressive model always draws.

        Returns:
          An `Imputation`: the K samples and their mean.

        Raises:
          ValueError: If known pixels or masks are not what the config says, a mask leaves nothing
            to predict, or a number is out of range.
        """
        check_count("num_samples", num_samples)
        observed = self.input_form.check_observed(x, mask)
        temperatures = checked_temperatures(self.config, temperature)
        images, parts = observed.x.shape[0], []
        seed, per_pass = seed_tensor(seed, images), max(1, self.samples_per_pass // images)
        for first in range(0, num_samples, per_pass):
            k = min(per_pass, num_samples - first)
            own_seed = stateless_random.for_samples(seed, first, k)
            impute = self.functions.get(self.hierarchy.impute)
            parts.append(impute(observed, k, temperatures, own_seed, draw))
        samples = parts[0] if len(parts) == 1 else tf.concat(parts, axis=0)
        # The mean of equal numbers may differ from them in the last bit.
        return Imputation(samples, observed.paste(tf.reduce_mean(samples, axis=0)))
