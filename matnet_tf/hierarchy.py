# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""What every model with levels of latents does with a walk down them: images, bounds, checks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from matnet_tf import noise, serialization
from matnet_tf.autoregression import LocalAutoregression
from matnet_tf.bounds import Bound, StreamingLogMeanExp
from matnet_tf.config import ModelConfig
from matnet_tf.descent import Trace
from matnet_tf.likelihoods import Likelihood
from matnet_tf.network import state_shape
from matnet_tf.training_step import TrainableBound

tfd = tfp.distributions

__all__ = ["Hierarchy", "check_count", "rows_of"]


class Hierarchy(TrainableBound):
    """A model with levels of latents; see `MatNet` and `ConditionalMatNet` for whole ones.

    It is built when constructed. A subclass defines `build_networks()`, `watch(*inputs)`,
    `walk(view, rows, seed, ...)`, `dream(inputs, seed)` and `networks`, and the inputs' form.

    Args:
      config: a `ModelConfig`, or its dictionary, as Keras gives it back when it loads a model.
      seed: of the initial weights and of the noise in training.
    """

    def __init__(self, config: ModelConfig | dict | None = None, seed: int = 0, **kwargs):
        if isinstance(config, dict):
            config = serialization.from_dict(ModelConfig, config)
        config = config or ModelConfig()
        if not isinstance(config, ModelConfig):
            raise ValueError(
                f"{type(self).__name__} takes a ModelConfig; got {type(config).__name__}"
            )
        self._check_kind(config)
        # One name for all, so that variables have the same paths in every process.
        super().__init__(seed=seed, **{"name": "matnet", **kwargs})
        self.config = config
        self.make_networks()
        last = LocalAutoregression if config.autoregressive else Likelihood
        self.likelihood = last(config, name="likelihood")
        self.build((None, *config.image_shape))

    def build(self, input_shape):
        if self.built:
            return
        self.build_networks()
        finest = self.config.stages[-1]
        area = (*self.config.image_shape[:2], self.config.image_filters)
        self.likelihood.build((None, finest.filters) if finest.dense else (None, *area))
        self.add_training_state(self.config.level_names)
        self.built = True
        self.initialize_weights()

    # What a walk leads to, as tensors in a graph: no checks, seeds are int32 [2].

    def p_x(self, trace: Trace) -> tfd.Distribution:
        """p(x | z) at the end of a walk; `batch_shape` `[N]`, `event_shape` `[H, W, C]`."""
        return self.likelihood.distribution(self.likelihood(trace.h_td), trace.known)

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
            x = noise.draw(p_x, noise.fold_in(seed, self.config.num_levels))
        return tf.clip_by_value(x, 0.0, 1.0)

    def bound_of(self, trace: Trace, x: tf.Tensor) -> Bound:
        """The bound of Eq. 5, or Eq. 6, from one walk with posteriors, for images x `[N, ...]`."""
        log_likelihood = self.p_x(trace).log_prob(x)
        kl = {level.name: level.kl() for level in trace.levels}
        # Levels that a part of the model does not have cost nothing.
        kl = {name: kl.get(name, tf.zeros_like(log_likelihood)) for name in self.config.level_names}
        return Bound(log_likelihood - sum(kl.values()), log_likelihood, kl)

    def log_weight(
        self,
        x: tf.Tensor,
        view: Any,
        num_samples: int | tf.Tensor,
        seed: tf.Tensor,
        num_inferred: int | None = None,
    ) -> tf.Tensor:
        """log p(x, z) - log q(z | x) of `num_samples` draws per image, `[K, B]`, in nats.

        Levels below the top `num_inferred` come from the prior, and their ratio is zero. In a
        conditional model all of it is given the known pixels.
        """
        images = rows_of(x)
        trace = self.walk(view, num_samples * images, seed, num_inferred=num_inferred)
        log_weight = self.p_x(trace).log_prob(tf.tile(x, [num_samples, 1, 1, 1]))
        for level in trace.levels[:num_inferred]:
            log_weight += level.log_weight()
        return tf.reshape(log_weight, [num_samples, images])

    def regularizer_loss(self, inputs: tuple[tf.Tensor, ...], seed: tf.Tensor) -> tf.Tensor:
        """The loss `[B]` of the guide on images drawn from the model, in nats.

        For the regularizer `free_energy` it is minus their bound, which Eq. 13 maximizes: it
        brings KL(q(z | x) || p(z | x)) down. For `sleep` it is minus the log-probability, under
        the guide, of the latents from which they were drawn, which brings KL(p(z | x) || q(z | x))
        down. The draws themselves pass no gradient.

        Args:
          inputs: of a step on data: as many images are drawn, with its masks if there are any.
          seed: int32 `[2]`.
        """
        dream = self.dream(inputs, seed)
        fantasies = tf.stop_gradient(self.images(dream, seed, draw=True)), *inputs[1:]
        if self.regularizer == "sleep":
            latents = [tf.stop_gradient(z) for z in dream.z]
            view = self.watch(*fantasies)
            levels = self.walk(view, rows_of(fantasies[0]), seed, latents=latents).levels
            return -sum(level.posterior.log_prob(level.z) for level in levels)
        # A seed that neither the dream's stages nor its pixels have.
        own_seed = noise.fold_in(seed, self.config.num_levels + 1)
        bound, trace = self.bound_and_trace(*fantasies, own_seed)
        return self.loss_of(bound, trace)

    # What users call, behind each model's own signature: checked, eager in and out.

    def _elbo(self, *inputs_and_seed):
        return self.bound_and_trace(*inputs_and_seed)[0]

    def _log_likelihood(self, inputs, *settings) -> np.ndarray:
        inputs = self.checked_inputs(*inputs)
        bound = StreamingLogMeanExp(len(inputs[0]))
        for log_weight in self._log_weights(inputs, *settings):
            bound.update(log_weight)
        return bound.result()

    def _log_weights(
        self, inputs, num_samples, seed, chunk, num_inferred=None
    ) -> Iterator[np.ndarray]:
        """Importance log-weights in pieces `[k, B]`; the bottom-up pass runs once per image."""
        inputs = self.checked_inputs(*inputs)
        pieces = self.log_weights_on_replicas(
            [inputs],
            num_samples,
            [noise.seed_tensor(seed, inputs[0].shape[0])],
            chunk,
            self.checked_inferred(num_inferred),
        )
        for (piece,) in pieces:
            yield piece

    # Several batches at once, one a replica: each result is that of its batch alone.

    def log_weights_on_replicas(
        self,
        batches: Sequence[tuple[tf.Tensor, ...]],
        num_samples: int,
        seeds: Sequence[tf.Tensor],
        chunk: int | None = None,
        num_inferred: int | None = None,
    ) -> Iterator[list[np.ndarray]]:
        """Importance log-weights of several batches in pieces, each a list of `[k, B]`.

        Args:
          batches: checked inputs of as many batches as there are replicas at most, all with B
            images.
          num_samples: K.
          seeds: of each batch, int32 `[2]`.
          chunk: image-samples per pass of a replica; by default `samples_per_pass`.
          num_inferred: see `log_weight`.
        """
        check_count("num_samples", num_samples)
        chunk = self.samples_per_pass if chunk is None else chunk
        check_count("chunk", chunk)
        views = self.on_replicas(self.watch, batches)
        per_pass = max(1, chunk // batches[0][0].shape[0])
        for first in range(0, num_samples, per_pass):
            k = min(per_pass, num_samples - first)
            arguments = [
                (x, view, k, noise.of_samples(seed, first, k), num_inferred)
                for (x, *_), view, seed in zip(batches, views, seeds, strict=True)
            ]
            pieces = self.on_replicas(self.log_weight, arguments)
            yield [piece.numpy() for piece in pieces]

    def bounds_on_replicas(
        self, batches: Sequence[tuple[tf.Tensor, ...]], seeds: Sequence[tf.Tensor]
    ) -> list[Bound]:
        """The bound of every image of several batches, as `elbo` gives it."""
        arguments = [(*batch, seed) for batch, seed in zip(batches, seeds, strict=True)]
        return self.on_replicas(self._elbo, arguments)

    def on_replicas(self, function: Callable, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Calls a function as a graph, on each replica with arguments of its own.

        Args:
          function: what is called; it must not ask for its replica, nor combine anything with
            those of others.
          arguments: of each call, at most as many as there are replicas.
        """
        if len(arguments) == 1:
            return [self._graphs.of(function)(*arguments[0])]
        strategy = self.distribute_strategy
        replicas = strategy.num_replicas_in_sync
        padded = [*arguments, *[arguments[-1]] * (replicas - len(arguments))]
        together = self._graphs.of(function, lambda *own: strategy.run(function, args=own))
        results = together(*_per_replica(strategy, padded))
        return _by_replica(strategy, results, replicas)[: len(arguments)]

    @property
    def bound_weights(self) -> list[keras.Variable]:
        """All that the model's distributions depend on, statistics that are not trained too."""
        return [weight for layer in (*self.networks, self.likelihood) for weight in layer.weights]

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
        config = self.config
        stages = [s for s in config.stages for _ in range(s.modules)]
        shapes = [(s.latents,) if s.dense else (*s.shape, s.latents) for s in stages]
        return ((config.top_latents,), *shapes) * max(1, config.conditional_stages)

    # Checks.

    def _check_kind(self, config: ModelConfig) -> None:
        """Raises a ValueError unless the config is of this kind of model."""

    def checked_inferred(self, num_inferred: int | None) -> int:
        """How many levels come from the posterior, or a ValueError; None is all of them."""
        levels = self.config.num_levels
        num_inferred = levels if num_inferred is None else num_inferred
        whole = isinstance(num_inferred, (int, np.integer)) and not isinstance(num_inferred, bool)
        if not whole or not 0 <= num_inferred <= levels:
            raise ValueError(
                f"num_inferred must be a whole number in [0, {levels}], the model's levels; "
                f"got {num_inferred!r}"
            )
        return int(num_inferred)

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

    def get_config(self):
        return {"config": serialization.to_dict(self.config), "seed": self.seed, "name": self.name}


def _per_replica(strategy: tf.distribute.Strategy, calls: Sequence[Any]) -> Any:
    """One structure, whose tensors are those of each replica, from one structure a replica."""

    def join(*own):
        if not tf.is_tensor(own[0]):
            return own[0]
        return strategy.experimental_distribute_values_from_function(
            lambda context: own[context.replica_id_in_sync_group]
        )

    return tf.nest.map_structure(join, *calls)


def _by_replica(strategy: tf.distribute.Strategy, structure: Any, replicas: int) -> list[Any]:
    """The reverse of `_per_replica`."""

    def own(index):
        return tf.nest.map_structure(
            lambda value: strategy.experimental_local_results(value)[index], structure
        )

    return [own(index) for index in range(replicas)]


def rows_of(x: tf.Tensor) -> int | tf.Tensor:
    """How many images, as an int where the graph knows it."""
    return x.shape[0] or tf.shape(x)[0]


def check_count(name: str, value: int) -> None:
    """Raises a ValueError that names the argument unless its value is a whole number from 1 on."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1; got {value!r}")
