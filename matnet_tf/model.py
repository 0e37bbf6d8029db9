# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""`MatNet`, the unconditional model: a Keras model whose training step maximizes Eq. 5."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from matnet_tf import serialization
from matnet_tf.autoregression import LocalAutoregression
from matnet_tf.bounds import Bound, StreamingLogMeanExp
from matnet_tf.config import ModelConfig
from matnet_tf.descent import Trace, descend
from matnet_tf.levels import Levels, check_count, rows_of, seed_tensor
from matnet_tf.likelihoods import Likelihood
from matnet_tf.network import Guide, TopDownNetwork, View, state_shape
from matnet_tf.training_step import images_of

tfd = tfp.distributions

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

    def __init__(self, config: ModelConfig | dict | None = None, seed: int = 0, **kwargs):
        if isinstance(config, dict):
            config = serialization.from_dict(ModelConfig, config)
        config = config or ModelConfig()
        if not isinstance(config, ModelConfig):
            raise ValueError(f"MatNet takes a ModelConfig; got {type(config).__name__}")
        # One name for all, so that variables have the same paths in every process.
        super().__init__(seed=seed, **{"name": "matnet", **kwargs})
        self.config = config
        self.guide = Guide(config, name="guide")
        self.top_down = TopDownNetwork(config, name="top_down")
        last = LocalAutoregression if config.autoregressive else Likelihood
        self.likelihood = last(config, name="likelihood")
        self.build((None, *config.image_shape))

    def build(self, input_shape):
        if self.built:
            return
        self.guide.build(input_shape)
        self.top_down.build((None, self.config.top_latents))
        finest = self.config.stages[-1]
        last = (
            (finest.filters,)
            if finest.dense
            else (*self.config.image_shape[:2], self.config.image_filters)
        )
        self.likelihood.build((None, *last))
        self.add_training_state(self.config.level_names)
        self.built = True
        self.initialize_weights()
        if self.top_down.mixture is not None:
            self.top_down.mixture.initialize(self.seed)

    # What the model is, as tensors in a graph: no checks, seeds are int32 [2].

    def call(self, x):
        """The reconstruction from one draw of every latent, `[B, H, W, C]`; see `images`."""
        seed = seed_tensor(self.seed)
        return self.images(self.walk(self.watch(x), rows_of(x), seed), seed)

    def watch(self, x: tf.Tensor) -> View:
        """All that the guide computes once per image, for images `[B, H, W, C]`."""
        return self.guide.watch(self.likelihood.pixels.standardize(x))

    def p_x(self, trace: Trace) -> tfd.Distribution:
        """p(x | z) at the end of a walk; `batch_shape` `[N]`, `event_shape` `[H, W, C]`."""
        return self.likelihood.distribution(self.likelihood(trace.h_td))

    def images(self, trace: Trace, seed: tf.Tensor, draw: bool = False) -> tf.Tensor:
        """Images in [0, 1] at the end of a walk, `[N, H, W, C]`.

        They are means of p(x | z), or draws from it if asked for. With the local autoregressive
        model, which has no mean in closed form, they are always draws.

        Args:
          trace: the walk.
          seed: the walk's, int32 `[2]`; the draw has a seed of its own made from it.
          draw: whether to draw the pixels too.
        """
        p_x = self.p_x(trace)
        if self.likelihood.has_mean and not draw:
            x = p_x.mean()
        else:
            x = p_x.sample(seed=tf.random.fold_in(seed, self.config.num_levels))
        return tf.clip_by_value(x, 0.0, 1.0)

    def walk(self, view: View | None, rows, seed: tf.Tensor, **arguments) -> Trace:
        """`descend` with this model's networks; generation where `view` is None."""
        guide = None if view is None else self.guide
        return descend(self.top_down, rows, seed, guide=guide, view=view, **arguments)

    def bound_and_trace(self, x: tf.Tensor, seed: tf.Tensor) -> tuple[Bound, Trace]:
        trace = self.walk(self.watch(x), rows_of(x), seed)
        log_likelihood = self.p_x(trace).log_prob(x)
        kl = {level.name: level.kl() for level in trace.levels}
        return Bound(log_likelihood - sum(kl.values()), log_likelihood, kl), trace

    def log_weight(
        self,
        x: tf.Tensor,
        view: View,
        num_samples: int | tf.Tensor,
        seed: tf.Tensor,
        num_inferred: int | None = None,
    ) -> tf.Tensor:
        """log p(x, z) - log q(z | x) of `num_samples` draws per image, `[K, B]`, in nats.

        Levels below the top `num_inferred` come from the prior, and their ratio is zero.
        """
        images = rows_of(x)
        trace = self.walk(view, num_samples * images, seed, num_inferred=num_inferred)
        log_weight = self.p_x(trace).log_prob(tf.tile(x, [num_samples, 1, 1, 1]))
        for level in trace.levels[:num_inferred]:
            log_weight += level.log_weight()
        return tf.reshape(log_weight, [num_samples, images])

    def regularizer_loss(self, rows: int | tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """The loss `[rows]` of the guide on images drawn from the model, in nats.

        For the regularizer `free_energy` it is minus their bound, which Eq. 13 maximizes: it
        brings KL(q(z | x) || p(z | x)) down. For `sleep` it is minus the log-probability, under
        the guide, of the latents from which they were drawn, which brings KL(p(z | x) || q(z | x))
        down. The draws themselves pass no gradient.
        """
        dream = self.walk(None, rows, seed)
        x = tf.stop_gradient(self.images(dream, seed, draw=True))
        if self.regularizer == "sleep":
            latents = [tf.stop_gradient(z) for z in dream.z]
            levels = self.walk(self.watch(x), rows, seed, latents=latents).levels
            return -sum(level.posterior.log_prob(level.z) for level in levels)
        bound, trace = self.bound_and_trace(x, tf.random.fold_in(seed, 1))
        return self.loss_of(bound, trace)

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
          seed: of the draw.

        Returns:
          A `Bound`: ELBO, log-likelihood and KL per level, each `[B]`, in nats.

        Raises:
          ValueError: if the images are not as the config says.
        """
        return self._graph(self._elbo)(self.checked(x), seed_tensor(seed))

    def _elbo(self, x, seed):
        return self.bound_and_trace(x, seed)[0]

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
          seed: of the samples.
          chunk: image-samples per pass, which bounds the memory; `samples_per_pass` by default.
          num_inferred: how many levels, from the top, come from the posterior; None is all.

        Raises:
          ValueError: if the images are not as the config says, or a number is out of range.
        """
        x = self.checked(x)
        bound = StreamingLogMeanExp(len(x))
        for log_weight in self.log_weights(x, num_samples, seed, chunk, num_inferred):
            bound.update(log_weight)
        return bound.result()

    def log_weights(
        self,
        x: Any,
        num_samples: int,
        seed: int = 0,
        chunk: int | None = None,
        num_inferred: int | None = None,
    ) -> Iterator[np.ndarray]:
        """Importance log-weights in pieces `[k, B]`; the bottom-up pass runs once per image."""
        check_count("num_samples", num_samples)
        num_inferred = self.checked_inferred(num_inferred)
        chunk = self.samples_per_pass if chunk is None else chunk
        check_count("chunk", chunk)
        x = self.checked(x)
        view = self._graph(self.watch)(x)
        per_pass = max(1, chunk // x.shape[0])
        for first in range(0, num_samples, per_pass):
            k = min(per_pass, num_samples - first)
            piece = tf.random.fold_in(seed_tensor(seed), first)
            yield self._graph(self.log_weight)(x, view, k, piece, num_inferred).numpy()

    @property
    def bound_weights(self) -> list[keras.Variable]:
        """All that the model's distributions depend on, statistics that are not trained too."""
        layers = (self.guide, self.top_down, self.likelihood)
        return [weight for layer in layers for weight in layer.weights]

    @property
    def samples_per_pass(self) -> int:
        """How many image-samples a pass of a bound takes: no state of theirs is above 64 MB."""
        config = self.config
        image = math.prod(config.image_shape[:2])
        sizes = [math.prod(state_shape(stage)) for stage in config.stages]
        sizes.append(image * self.likelihood.filters_per_position)
        return max(1, min(5000, 2**24 // max(sizes)))

    def get_config(self):
        return {"config": serialization.to_dict(self.config), "seed": self.seed, "name": self.name}
