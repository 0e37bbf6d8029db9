# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""`MatNet`, the unconditional model: a Keras model whose training step maximizes Eq. 5."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
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
from matnet_tf.likelihoods import Likelihood
from matnet_tf.network import Guide, TopDownNetwork, View, state_shape
from matnet_tf.training_step import TrainableBound, images_of

tfd = tfp.distributions

__all__ = ["MatNet"]


@keras.saving.register_keras_serializable("matnet_tf")
class MatNet(TrainableBound):
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

    # What the model is, as tensors in a graph: no checks, seeds are int32 [2].

    def call(self, x):
        """The reconstruction from one draw of every latent, `[B, H, W, C]`; see `images`."""
        seed = seed_tensor(self.seed)
        return self.images(self.walk(self.watch(x), _rows(x), seed), seed)

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
        trace = self.walk(self.watch(x), _rows(x), seed)
        log_likelihood = self.p_x(trace).log_prob(x)
        kl = {level.name: level.kl() for level in trace.levels}
        return Bound(log_likelihood - sum(kl.values()), log_likelihood, kl), trace

    def log_weight(
        self, x: tf.Tensor, view: View, num_samples: int | tf.Tensor, seed: tf.Tensor
    ) -> tf.Tensor:
        """log p(x, z) - log q(z | x) of `num_samples` draws per image, `[K, B]`, in nats."""
        images = _rows(x)
        trace = self.walk(view, num_samples * images, seed)
        log_weight = self.p_x(trace).log_prob(tf.tile(x, [num_samples, 1, 1, 1]))
        for level in trace.levels:
            log_weight += level.log_weight()
        return tf.reshape(log_weight, [num_samples, images])

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

    def infer(self, x: Any, num_samples: int = 1, seed: int = 0) -> Trace:
        """Every level's latents, prior and posterior.

        Args:
          x: images `[B, H, W, C]`.
          num_samples: K draws per image.
          seed: of the draws.

        Returns:
          A `Trace` whose tensors have K * B rows, sample first: row `k * B + b` is draw k of
          image b.

        Raises:
          ValueError: if the images are not as the config says, or K < 1.
        """
        _check_count("num_samples", num_samples)
        x = self.checked(x)
        return self.walk(self.watch(x), num_samples * x.shape[0], seed_tensor(seed))

    def reconstruct(
        self, x: Any, num_inferred: int | None = None, temperature: Any = 1.0, seed: int = 0
    ) -> tf.Tensor:
        """Images from the top `num_inferred` levels of x; the levels below come from the prior.

        Args:
          x: images `[B, H, W, C]`.
          num_inferred: how many levels to keep from the posterior, 0 (a sample) to all (the
            default).
          temperature: multiplies the priors' scales; a sequence has one value per level.
          seed: of the draws.

        Returns:
          images: means of p(x | z), or draws (see `sample`), `[B, H, W, C]`.

        Raises:
          ValueError: if an argument is out of range.
        """
        levels = self.config.num_levels
        num_inferred = levels if num_inferred is None else num_inferred
        whole = isinstance(num_inferred, (int, np.integer))
        if not whole or not 0 <= num_inferred <= levels:
            raise ValueError(
                f"num_inferred must be a whole number in [0, {levels}], the model's levels; "
                f"got {num_inferred!r}"
            )
        x = self.checked(x)
        return self._graph(self._reconstruct)(
            x, num_inferred, self._temperatures(temperature), seed_tensor(seed)
        )

    def _reconstruct(self, x, num_inferred, temperatures, seed):
        trace = self.walk(
            self.watch(x),
            _rows(x),
            seed,
            num_inferred=num_inferred,
            temperature=tf.unstack(temperatures),
        )
        return self.images(trace, seed)

    def sample(
        self,
        num: int,
        temperature: Any = 1.0,
        seed: int = 0,
        latents: Sequence[Any] = (),
        draw: bool = False,
    ) -> tf.Tensor:
        """Images from the prior, or from given top levels.

        Args:
          num: how many.
          temperature: multiplies the priors' scales; a sequence has one value per level.
          seed: of the draws.
          latents: values for the top levels, top first, each `[num, ...]`: what `infer` gives as
            `trace.z`, whole or in part. The levels below are drawn.
          draw: draw the pixels from p(x | z) too, instead of giving its mean. The local
            autoregressive model has no mean in closed form: it always draws.

        Returns:
          images: `[num, H, W, C]` float32.

        Raises:
          ValueError: if an argument is out of range or of another shape.
        """
        _check_count("num", num)
        latents = self._checked_latents(latents, num)
        return self._graph(self._sample)(
            num, self._temperatures(temperature), seed_tensor(seed), latents, draw
        )

    def _sample(self, num, temperatures, seed, latents, draw):
        trace = self.walk(None, num, seed, latents=latents, temperature=tf.unstack(temperatures))
        return self.images(trace, seed, draw)

    def decode(self, latents: Sequence[Any], seed: int = 0) -> tf.Tensor:
        """Means of p(x | z), or draws (see `sample`), `[N, H, W, C]`, from the levels given."""
        if not latents:
            raise ValueError("decode needs the latents of at least the top level; got none")
        return self.sample(int(tf.shape(latents[0])[0]), seed=seed, latents=latents)

    def log_likelihood(
        self, x: Any, num_samples: int = 100, seed: int = 0, chunk: int | None = None
    ) -> np.ndarray:
        """The importance-weighted bound on log p(x) with K samples, `[B]` float64, in nats.

        Args:
          x: images `[B, H, W, C]`.
          num_samples: K; the bound rises to log p(x) with it.
          seed: of the samples.
          chunk: image-samples per pass, which bounds the memory; `samples_per_pass` by default.

        Raises:
          ValueError: if the images are not as the config says, or K < 1.
        """
        x = self.checked(x)
        bound = StreamingLogMeanExp(len(x))
        for log_weight in self.log_weights(x, num_samples, seed, chunk):
            bound.update(log_weight)
        return bound.result()

    def log_weights(
        self, x: Any, num_samples: int, seed: int = 0, chunk: int | None = None
    ) -> Iterator[np.ndarray]:
        """Importance log-weights in pieces `[k, B]`; the bottom-up pass runs once per image."""
        _check_count("num_samples", num_samples)
        chunk = self.samples_per_pass if chunk is None else chunk
        _check_count("chunk", chunk)
        x = self.checked(x)
        view = self._graph(self.watch)(x)
        per_pass = max(1, chunk // x.shape[0])
        for first in range(0, num_samples, per_pass):
            k = min(per_pass, num_samples - first)
            piece = tf.random.fold_in(seed_tensor(seed), first)
            yield self._graph(self.log_weight)(x, view, k, piece).numpy()

    # Checks.

    def checked(self, x: Any) -> tf.Tensor:
        """x as a float32 tensor, or a ValueError that names what is wrong with it."""
        return self.likelihood.pixels.checked(x)

    def _temperatures(self, temperature) -> tf.Tensor:
        levels = self.config.num_levels
        try:
            values = np.asarray(temperature, np.float32)
        except (TypeError, ValueError):
            values = np.asarray(np.nan)
        if values.shape not in ((), (levels,)) or not np.all(np.isfinite(values) & (values >= 0)):
            raise ValueError(
                f"temperature must be one number >= 0 or one per level ({levels}); "
                f"got {temperature!r}"
            )
        return tf.broadcast_to(tf.constant(values), [levels])

    def _checked_latents(self, latents, num) -> tuple[tf.Tensor, ...]:
        shapes = [(num, *shape) for shape in self.latent_shapes]
        if len(latents) > len(shapes):
            raise ValueError(f"the model has {len(shapes)} levels; got {len(latents)} latents")
        latents = tuple(tf.convert_to_tensor(z, tf.float32) for z in latents)
        for name, z, shape in zip(self.config.level_names, latents, shapes, strict=False):
            if tuple(z.shape) != shape:
                raise ValueError(
                    f"latents of level {name} must have shape {shape}; got {tuple(z.shape)}"
                )
        return latents

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

    @property
    def latent_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shape of every level's latent without the batch, top first."""
        stages = [s for s in self.config.stages for _ in range(s.modules)]
        return (
            (self.config.top_latents,),
            *((s.latents,) if s.dense else (*s.shape, s.latents) for s in stages),
        )

    def get_config(self):
        return {"config": serialization.to_dict(self.config), "seed": self.seed, "name": self.name}


def seed_tensor(seed: int | tf.Tensor) -> tf.Tensor:
    """A stateless seed, int32 `[2]`, from an int or from such a tensor."""
    if isinstance(seed, (int, np.integer)):
        # In two words, since TensorFlow would cut a larger one to 32 bits in silence.
        return tf.constant([(int(seed) >> 31) % 2**31, int(seed) % 2**31], tf.int32)
    return tf.convert_to_tensor(seed, tf.int32)


def _rows(x: tf.Tensor) -> int | tf.Tensor:
    """How many images, as an int where the graph knows it."""
    return x.shape[0] or tf.shape(x)[0]


def _check_count(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1; got {value!r}")
