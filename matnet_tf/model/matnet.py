# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""`MatNet`, the unconditional model, and what users do with its levels of latents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

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
    check_mixture,
    checked_component,
    checked_config,
    checked_latents,
    checked_levels,
    checked_num_inferred,
    checked_temperatures,
)
from matnet_tf.model.bounds import Bound
from matnet_tf.model.descent import Trace
from matnet_tf.model.elbo_model import ElboModel
from matnet_tf.model.hierarchy import Hierarchy
from matnet_tf.model.input_checks import ImageInputs, images_of

__all__ = ["MatNet"]


@keras.saving.register_keras_serializable("matnet_tf")
class MatNet(ElboModel):
    """A Matryoshka Network p(x, z) with its guide q(z | x) (Sec. 2).

    The model is built when constructed: it has its weights, drawn from `seed`, and can be
    trained, saved or sampled at once. `fit` takes a `tf.data.Dataset` of images, of `(image,
    label)` pairs or of dictionaries with `image`, or an array of images. Images are float32 `[B,
    H, W, C]` in [0, 1], with the values that `config.likelihood` describes.

    Wherever a method takes a `seed`, it is an integer, or a sequence with one seed per image. With
    one seed per image, what is drawn for an image does not depend on the rest of the batch.

    Args:
      config: The `ModelConfig`; by default the paper's convolutional model for MNIST.
      seed: Integer seed of the initial weights and of the noise in training.

    Example:
      model = MatNet(ModelConfig((8, 8, 1), (Scale(1, 64, 8, 3),)), seed=0)
      model.compile(optimizer="adam")
      model.fit(dataset)
      model.log_likelihood(x, num_samples=100)  # nats per image, [B]
    """

    def __init__(self, config: ModelConfig | dict | None = None, seed: int = 0, **kwargs: Any):
        config = checked_config(type(self).__name__, config, conditional=False)
        with own_keras_settings():
            hierarchy = Hierarchy(config, name="hierarchy")
            form = ImageInputs(hierarchy.likelihood.observation)
            super().__init__(hierarchy, form, seed, **kwargs)

    def adapt(self, dataset: Iterable[Any]) -> None:
        """Computes the statistics of whitening; call it before `fit` if `config.whitening` is set.

        Args:
          dataset: Batches of training images, of `(image, label)` pairs or of dictionaries with
            `image`; it is read once.

        Raises:
          ValueError: If there are fewer than 2 images, or one is not finite.
        """
        self.hierarchy.likelihood.observation.adapt(images_of(element) for element in dataset)

    # Bounds.

    def elbo(self, x: Any, seed: Any = 0) -> Bound:
        """The ELBO (Eq. 5) from one draw of the latents.

        Args:
          x: Images `[B, H, W, C]`, float32 in [0, 1].
          seed: Integer seed, or one per image.

        Returns:
          A `Bound`: ELBO, log-likelihood and KL per level, each `[B]`, in nats.

        Raises:
          ValueError: If the images are not what the config says.
        """
        (x,) = self.input_form.check(x)
        return self.functions.get(self.hierarchy.elbo)(x, seed_tensor(seed, x.shape[0]))

    def log_likelihood(
        self,
        x: Any,
        num_samples: int = 100,
        seed: Any = 0,
        chunk: int | None = None,
        num_inferred: int | None = None,
    ) -> np.ndarray:
        """The importance-weighted bound on log p(x) with K samples, `[B]` float64, in nats.

        With n = `num_inferred` of L levels it is the bound "L>k" of outlier detection, k = L - n,
        in which the k lowest levels are drawn from the prior (Havtorn et al., ICML 2021). It
        bounds log p(x) too; its gap to the full bound is what those levels know of the image.

        Args:
          x: Images `[B, H, W, C]`.
          num_samples: K; the bound rises to log p(x) with it.
          seed: Integer seed, or one per image.
          chunk: Image-samples per pass, which bounds the memory; None for `samples_per_pass`.
          num_inferred: Number of levels from the posterior, from the top; None for all.

        Raises:
          ValueError: If the images are not what the config says, or a number is out of range.
        """
        inputs = self.input_form.check(x)
        return importance.log_likelihood(self, inputs, num_samples, seed, chunk, num_inferred)

    def log_weights(
        self,
        x: Any,
        num_samples: int,
        seed: Any = 0,
        chunk: int | None = None,
        num_inferred: int | None = None,
    ) -> Iterator[np.ndarray]:
        """Importance log-weights in pieces `[k, B]`; arguments as `log_likelihood`."""
        inputs = self.input_form.check(x)
        return importance.log_weights(self, inputs, num_samples, seed, chunk, num_inferred)

    # Levels of latents.

    def infer(self, x: Any, num_samples: int = 1, seed: Any = 0) -> Trace:
        """The latents, priors and posteriors of every level.

        Args:
          x: Images `[B, H, W, C]`.
          num_samples: K, draws per image.
          seed: Integer seed, or one per image.

        Returns:
          A `Trace` of K * B rows, sample first: row `k * B + b` is draw k of image b.

        Raises:
          ValueError: If the images are not what the config says, or K < 1.
        """
        check_count("num_samples", num_samples)
        (x,) = self.input_form.check(x)
        seed = stateless_random.for_pass(seed_tensor(seed, x.shape[0]), num_samples)
        encoding = self.hierarchy.encode(x)
        return self.hierarchy.top_down_pass(encoding, num_samples * x.shape[0], seed)

    def reconstruct(
        self, x: Any, num_inferred: int | None = None, temperature: Any = 1.0, seed: Any = 0
    ) -> tf.Tensor:
        """Images from the top `num_inferred` levels of x; the levels below come from the prior.

        Args:
          x: Images `[B, H, W, C]`.
          num_inferred: Number of levels from the posterior, from 0 (a sample) to all (the default).
          temperature: Factor on the scales of the priors, or one per level.
          seed: Integer seed, or one per image.

        Returns:
          images: Means of p(x | z), or draws (see `sample`), `[B, H, W, C]`.

        Raises:
          ValueError: If an argument is out of range.
        """
        num_inferred = checked_num_inferred(self.config, num_inferred)
        inputs = self.input_form.check(x)
        temperatures = checked_temperatures(self.config, temperature)
        return self.functions.get(self.hierarchy.reconstruct)(
            inputs, num_inferred, temperatures, seed_tensor(seed, inputs[0].shape[0])
        )

    def sample(
        self,
        num: int,
        temperature: Any = 1.0,
        seed: Any = 0,
        latents: Sequence[Any] = (),
        draw: bool = False,
        component: Any = None,
    ) -> tf.Tensor:
        """Images from the prior, or from given latents of some levels.

        Args:
          num: Number of images; at most `samples_per_pass` are computed at a time.
          temperature: Factor on the scales of the priors, or one per level.
          seed: Integer seed, or one per image.
          latents: Values of the levels, top first, each `[num, ...]`, such as `infer(x).z`, whole
            or in part. Levels that are None or left out are drawn.
          draw: Whether to draw pixels from p(x | z) instead of taking its mean. The local
            autoregressive model, which has no mean in closed form, always draws.
          component: Index of the mixture's component that z_0 is drawn from, or `num` of them.

        Returns:
          images: `[num, H, W, C]` float32.

        Raises:
          ValueError: If an argument is out of range or has another shape.
        """
        check_count("num", num)
        latents = checked_latents(self.config, latents, self.hierarchy.latent_shapes, num)
        component = checked_component(self.config, component, num)
        if component is not None and latents and latents[0] is not None:
            raise ValueError("sample takes a component or a value for the top level, not both")
        temperatures = checked_temperatures(self.config, temperature)
        seed, parts = seed_tensor(seed, num), []
        for first in range(0, num, self.samples_per_pass):
            rows = slice(first, min(first + self.samples_per_pass, num))
            count = rows.stop - first
            *own, own_component = (t if t is None else t[rows] for t in (*latents, component))
            own_seed = stateless_random.for_rows(seed, first, count)
            arguments = count, temperatures, own_seed, tuple(own), draw, own_component
            parts.append(self.functions.get(self.hierarchy.sample)(*arguments))
        return parts[0] if len(parts) == 1 else tf.concat(parts, axis=0)

    def decode(self, latents: Sequence[Any], temperature: Any = 1.0, seed: Any = 0) -> tf.Tensor:
        """Images from given latents, `[N, H, W, C]`, as `sample` gives them.

        Args:
          latents: Latents of the levels, top first; levels that are None or left out are drawn. At
            least one is given.
          temperature: Factor on the scales of the priors that are drawn from.
          seed: Integer seed, or one per image.

        Raises:
          ValueError: If no level is given, or one has another shape.
        """
        given = [z for z in latents if z is not None]
        if not given:
            raise ValueError("decode needs the latents of at least one level; got none")
        return self.sample(len(given[0]), temperature, seed, latents)

    def interpolate(
        self,
        a: Any,
        b: Any,
        num: int = 8,
        levels: Sequence[int] | None = None,
        temperature: Any = 1.0,
        seed: Any = 0,
    ) -> tf.Tensor:
        """Images between a and b, whose latents are mixed linearly at the chosen levels.

        The latents of a and b are one draw each from the posterior. The other levels are drawn from
        the prior, with the same noise at every step.

        Args:
          a: Images `[B, H, W, C]`.
          b: As many other images.
          num: Number of steps, both ends included, at least 2.
          levels: Indices of the levels, 0 the top; None for all.
          temperature: Factor on the scales of the priors that are drawn from, or one per level.
          seed: Integer seed, or one per image.

        Returns:
          images: `[num, B, H, W, C]`.

        Raises:
          ValueError: If the images are not what the config says, their numbers differ, or another
            argument is out of range.
        """
        check_count("num", num)
        if num < 2:
            raise ValueError("interpolate needs num of at least 2, for both ends; got 1")
        chosen = checked_levels(self.config, levels)
        (a,), (b,) = self.input_form.check(a), self.input_form.check(b)
        if a.shape[0] != b.shape[0]:
            raise ValueError(f"a and b must be as many images; got {a.shape[0]} and {b.shape[0]}")
        ends = zip(self.infer(a, seed=seed).z, self.infer(b, seed=seed).z, strict=True)
        ends = [pair if level in chosen else None for level, pair in enumerate(ends)]
        steps = (
            [pair and (1 - t) * pair[0] + t * pair[1] for pair in ends]
            for t in np.linspace(0, 1, num, dtype=np.float32)
        )
        return tf.stack([self.decode(latents, temperature, seed) for latents in steps])

    def assign(self, x: Any, num_samples: int = 16, seed: Any = 0) -> tf.Tensor:
        """Probabilities `[B, K]` of the mixture's components given images: q(component | x).

        They are the mean of p(component | z_0) over draws of z_0 from the posterior.

        Args:
          x: Images `[B, H, W, C]`.
          num_samples: Draws per image.
          seed: Integer seed, or one per image.

        Raises:
          ValueError: If the model has no mixture, or the images are not what the config says.
        """
        check_mixture(self.config, "assign")
        check_count("num_samples", num_samples)
        (x,) = self.input_form.check(x)
        seed = seed_tensor(seed, x.shape[0])
        return self.functions.get(self.hierarchy.assign)(x, num_samples, seed)
