# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""`MatNet`, the unconditional model: a Keras model whose training step maximizes Eq. 5."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from matnet_tf.bounds import Bound
from matnet_tf.descent import Trace, descend
from matnet_tf.hierarchy import rows_of
from matnet_tf.inputs import images_of, valid_images
from matnet_tf.levels import Levels
from matnet_tf.network import Guide, TopDownNetwork, View
from matnet_tf.noise import seed_tensor

__all__ = ["MatNet"]


@keras.saving.register_keras_serializable("matnet_tf")
class MatNet(Levels):
    """A Matryoshka Network p(x, z) with its guide q(z | x) (paper, Sec. 2).

    The model is built when constructed: it has all its weights, initialized from `seed`, and can
    be saved, summarized, sampled from or trained at once. `fit` takes a `tf.data.Dataset` of
    images, of `(image, label)` pairs or of dictionaries with `image`, or an array of images;
    images are float32 `[B, H, W, C]` in [0, 1], as `config.likelihood` needs them.

    Args:
      config: the architecture; the default is the paper's convolutional model for MNIST.
      seed: of the initial weights and of the noise in training.

    Example:
      model = MatNet(ModelConfig((8, 8, 1), (Stage(1, 64, 8, 3),)), seed=0)
      model.compile(optimizer="adam")
      model.fit(dataset)
      model.log_likelihood(x, num_samples=100)  # nats per image, [B]
    """

    def make_networks(self) -> None:
        """The parts of the model, not built yet."""
        self.guide = Guide(self.config, name="guide")
        self.top_down = TopDownNetwork(self.config, name="top_down")

    def build_networks(self) -> None:
        """Gives the parts their weights."""
        self.guide.build((None, *self.config.image_shape))
        self.top_down.build((None, self.config.top_latents))

    def initialize_weights(self) -> None:
        """Draws the weights from the seed."""
        super().initialize_weights()
        if self.top_down.mixture is not None:
            self.top_down.mixture.initialize(self.seed)

    @property
    def networks(self) -> tuple[keras.layers.Layer, ...]:
        """What the model is made of beside the likelihood."""
        return self.guide, self.top_down

    def _check_kind(self, config):
        if config.conditional_stages:
            raise ValueError(
                f"MatNet is a model of whole images: it takes conditional_stages 0; got "
                f"{config.conditional_stages}, which ConditionalMatNet takes"
            )

    # What its inputs are: images.

    def inputs_of(self, element: Any) -> tuple[Any]:
        """The images of a data set's element, as a tuple; see `inputs.images_of`."""
        return (images_of(element),)

    def element_of(self, x: Any) -> Any:
        """A data set's element with these images."""
        return x

    def checked_inputs(self, x: Any) -> tuple[tf.Tensor]:
        """As `checked`, in a tuple."""
        return (self.checked(x),)

    def valid_inputs(self, x: tf.Tensor) -> tuple[tf.Tensor]:
        """Images that fail in a graph unless they are valid."""
        return (valid_images(x, self.likelihood.pixels),)

    # What the model is, as tensors in a graph: no checks, seeds are int32 [2].

    def call(self, x):
        """The reconstruction from one draw of every latent, `[B, H, W, C]`; see `images`."""
        seed = seed_tensor(self.seed)
        return self.images(self.walk(self.watch(x), rows_of(x), seed), seed)

    def watch(self, x: tf.Tensor) -> View:
        """All that the guide computes once per image, for images `[B, H, W, C]`."""
        return self.guide.watch(self.likelihood.pixels.standardize(x))

    def walk(self, view: View | None, rows, seed: tf.Tensor, **arguments) -> Trace:
        """`descend` with this model's networks; generation where `view` is None."""
        guide = None if view is None else self.guide
        return descend(self.top_down, rows, seed, guide=guide, view=view, **arguments)

    def bound_and_trace(self, x: tf.Tensor, seed: tf.Tensor) -> tuple[Bound, Trace]:
        trace = self.walk(self.watch(x), rows_of(x), seed)
        return self.bound_of(trace, x), trace

    def dream(self, inputs: tuple[tf.Tensor], seed: tf.Tensor) -> Trace:
        """A walk from the prior, for as many images as there are in the inputs."""
        return self.walk(None, rows_of(inputs[0]), seed)

    @property
    def guide_variables(self) -> list[keras.Variable]:
        """The trained weights of the guide: what the regularizer moves."""
        return self.guide.trainable_variables

    # What users call: checked, eager in and out.

    def adapt(self, dataset: Iterable[Any]) -> None:
        """Shows the model the training images before `fit`, where `config.whitening` needs it.

        Their mean and covariance become weights. Without whitening nothing happens.

        Args:
          dataset: batches of images, of `(image, label)` pairs or of dictionaries with `image`;
            one pass.

        Raises:
          ValueError: if there are fewer than 2 images, or one is not finite.
        """
        self.likelihood.pixels.adapt(images_of(element) for element in dataset)

    def elbo(self, x: Any, seed: int = 0) -> Bound:
        """The free-energy bound of Eq. 5 from one draw of the latents.

        Args:
          x: images `[B, H, W, C]`, float32 in [0, 1].
          seed: of the draw; a sequence has one for each image, see `noise`.

        Returns:
          A `Bound`: ELBO, log-likelihood and KL per level, each `[B]`, in nats.

        Raises:
          ValueError: if the images are not as the config says.
        """
        x = self.checked(x)
        return self._graphs.of(self._elbo)(x, seed_tensor(seed, x.shape[0]))

    def log_likelihood(
        self,
        x: Any,
        num_samples: int = 100,
        seed: int = 0,
        chunk: int | None = None,
        num_inferred: int | None = None,
    ) -> np.ndarray:
        """The importance-weighted bound on log p(x) with K samples, `[B]` float64, in nats.

        With n = `num_inferred` of L levels it is the "L>k" of outlier detection, k = L - n: the k
        lowest levels are drawn from the prior (Havtorn et al., ICML 2021). It bounds log p(x), too;
        what it loses against the whole is what those levels know of the image.

        Args:
          x: images `[B, H, W, C]`.
          num_samples: K; the bound rises to log p(x) with it.
          seed: of the samples; a sequence has one for each image, see `noise`.
          chunk: image-samples per pass, which bounds the memory; `samples_per_pass` by default.
          num_inferred: how many levels, from the top, come from the posterior; None is all.

        Raises:
          ValueError: if the images are not as the config says, or a number is out of range.
        """
        return self._log_likelihood((x,), num_samples, seed, chunk, num_inferred)

    def log_weights(
        self,
        x: Any,
        num_samples: int,
        seed: int = 0,
        chunk: int | None = None,
        num_inferred: int | None = None,
    ) -> Iterator[np.ndarray]:
        """Importance log-weights in pieces `[k, B]`; the bottom-up pass runs once per image."""
        return self._log_weights((x,), num_samples, seed, chunk, num_inferred)
