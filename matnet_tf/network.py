# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The three parts of a MatNet (Sec. 2.2).

A **guide** is a bottom-up network plus its chain of merge modules: it watches an image and
proposes a distribution for every latent. The top-down network turns latents into an image.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from matnet_tf.config import ModelConfig, Stage
from matnet_tf.configured import Configured
from matnet_tf.distributions import GaussianMixture, diagonal_normal
from matnet_tf.joints import FinalBottomUpModule, Resample, TopModule
from matnet_tf.layers import BottomUpModule, MergeModule, TopDownModule
from matnet_tf.priors import MixturePrior
from matnet_tf.updates import activation_function, linear

tfd = tfp.distributions

__all__ = [
    "BottomUpNetwork",
    "Guide",
    "TopDownNetwork",
    "View",
    "state_shape",
]


class View(NamedTuple):
    """What a guide computes once per image, whatever the number of samples."""

    top: tf.Tensor  # [B, 2 * top_latents]: mean and log-variance of q(z_0 | x)
    projections: tuple[tf.Tensor, ...]  # One per top-down module, top first


def state_shape(stage: Stage) -> tuple[int, ...]:
    """Shape of the stage's states without the batch."""
    return (stage.filters,) if stage.dense else (*stage.shape, stage.filters)


def _latent_shape(stage: Stage) -> tuple[int, ...]:
    return (*state_shape(stage)[:-1], stage.latents)


def _module_arguments(config: ModelConfig, stage: Stage) -> dict:
    return {
        "filters": stage.filters,
        "dense": stage.dense,
        "kernel_size": config.kernel_size,
        "activation": config.activation,
        "update": config.update,
        "normalization": config.normalization,
    }


def _resample(config: ModelConfig, a: Stage, b: Stage, name: str) -> Resample:
    return Resample(
        a.shape, b.shape, a.filters, b.filters, config.kernel_size, config.activation, name=name
    )


def _chain(config: ModelConfig, make) -> list[keras.layers.Layer]:
    """One module per top-down module, top first: `make(stage, name)`, once a stage if shared."""
    names = iter(config.level_names[1:])
    chain = []
    for stage in config.stages:
        stage_names = [next(names) for _ in range(stage.modules)]
        if config.shared:
            chain += [make(stage, f"{stage_names[0]}_shared")] * stage.modules
        else:
            chain += [make(stage, name) for name in stage_names]
    return chain


def _per_module(config: ModelConfig) -> list[Stage]:
    return [stage for stage in config.stages for _ in range(stage.modules)]


def _joins(config: ModelConfig, prefix: str) -> dict[int, Resample]:
    """Resampling layers of a top-down or merge chain, by the index of the module they precede."""
    joins, index = {}, 0
    for a, b in zip(config.stages[:-1], config.stages[1:], strict=True):
        index += a.modules
        joins[index] = _resample(config, a, b, f"{prefix}_to_{b.label}_{index}")
    return joins


@keras.saving.register_keras_serializable("matnet_tf")
class BottomUpNetwork(Configured):
    """Deterministic network from the image to one state per top-down module (Eq. 9).

    Args:
      config: the `ModelConfig`.
      channels: of the input, the image's own by default.

    Returns (from `call(x)`, with x `[B, H, W, channels]`): a tuple of states h^b_1, h^b_2, ...,
    top first; h^b_i is the output of the mirror of top-down module i.
    """

    def __init__(self, config: ModelConfig | dict, channels: int | None = None, **kwargs):
        super().__init__(config, **kwargs)
        config = self.config
        self.channels = channels or config.image_shape[-1]
        self._act = activation_function(config.activation)
        finest = config.stages[-1]
        self._image = Stage(config.image_shape[:2], config.image_filters, 1, 1)
        if finest.dense:
            self.image_in = keras.layers.Dense(finest.filters, name="image_in")
            self.image_hidden = keras.layers.Dense(finest.filters, name="image_hidden")
        else:
            self.image_in = linear(config.image_filters, config.kernel_size, False, name="image_in")
            self.image_hidden = _resample(config, self._image, finest, "from_image")
        self.modules = _chain(
            config, lambda s, n: BottomUpModule(**_module_arguments(config, s), name=n)
        )
        self.joins = []
        for i, (a, b) in enumerate(zip(config.stages[1:], config.stages[:-1], strict=True)):
            self.joins.append(_resample(config, a, b, f"down_{i}_to_{b.label}"))

    def build(self, x_shape):
        if self.config.stages[-1].dense:
            self.image_in.build((None, math.prod(x_shape[1:])))
            self.image_hidden.build((None, self.config.stages[-1].filters))
        else:
            self.image_in.build(x_shape)
            self.image_hidden.build((*x_shape[:-1], self.config.image_filters))
        for module, stage in zip(self.modules, _per_module(self.config), strict=True):
            if not module.built:
                module.build((None, *state_shape(stage)))
        for join, stage in zip(self.joins, self.config.stages[1:], strict=True):
            join.build((None, *state_shape(stage)))

    def call(self, x):
        h_bu = self._enter(x)
        states = []
        last = len(self.modules)
        for index in reversed(range(len(self.config.stages))):
            first = last - self.config.stages[index].modules
            for module in reversed(self.modules[first:last]):
                h_bu = module(h_bu)
                states.append(h_bu)
            if index > 0:
                h_bu = self.joins[index - 1](h_bu)
            last = first
        return tuple(reversed(states))

    def _enter(self, x):
        if not self.config.stages[-1].dense:
            return self.image_hidden(self._act(self.image_in(x)))
        h_bu = self._act(self.image_in(tf.reshape(x, [-1, math.prod(x.shape[1:])])))
        return self._act(self.image_hidden(h_bu))

    def compute_output_shape(self, x_shape):
        return tuple((x_shape[0], *state_shape(s)) for s in _per_module(self.config))

    def get_config(self):
        return super().get_config() | {"channels": self.channels}


@keras.saving.register_keras_serializable("matnet_tf")
class TopDownNetwork(Configured):
    """The generator: priors and updates of the top-down state (Eqs. 7 and 8).

    `descend` walks it. Its own `call` is never used: it holds the parts, among them the trained
    scalar `latent_scale` that multiplies every Gaussian's mean and log-variance.
    """

    def __init__(self, config: ModelConfig | dict, **kwargs):
        super().__init__(config, **kwargs)
        config = self.config
        self._act = activation_function(config.activation)
        first, finest = config.stages[0], config.stages[-1]
        self.top = TopModule(config.top_units, state_shape(first), config.activation, name="top")
        self.mixture = None
        if config.mixture_components:
            self.mixture = MixturePrior(
                config.mixture_components,
                config.top_latents,
                config.mixture_spread,
                config.mixture_weights == "trained",
                config.log_var_bound,
                name="mixture",
            )
        self.modules = _chain(
            config,
            lambda s, n: TopDownModule(
                latents=s.latents,
                # In a conditional model the generator's guide proposes the priors.
                prior="standard" if config.conditional_stages else config.prior,
                carry=config.deterministic_paths,
                **_module_arguments(config, s),
                name=n,
            ),
        )
        self.joins = _joins(config, "up")
        if finest.dense:
            self.image_out = keras.layers.Dense(finest.filters, name="image_out")
        else:
            image = Stage(config.image_shape[:2], config.image_filters, 1, 1)
            self.image_out = _resample(config, finest, image, "to_image")

    def build(self, z_shape):
        self.latent_scale = self.add_weight(
            name="latent_scale",
            shape=(),
            initializer=keras.initializers.Constant(self.config.latent_scale),
        )
        self.top.build(z_shape)
        if self.mixture is not None:
            self.mixture.build()
        config = self.config
        for module, stage in zip(self.modules, _per_module(config), strict=True):
            if not module.built:
                more = config.top_latents if config.top_everywhere else 0
                if config.conditional_stages and config.known_everywhere:
                    more += stage.filters
                *positions, channels = _latent_shape(stage)
                module.build((None, *state_shape(stage)), (None, *positions, channels + more))
        _build_joins(self.joins, self.config)
        self.image_out.build((None, *state_shape(self.config.stages[-1])))

    def gaussian(self, parameters: tf.Tensor) -> tfd.Independent:
        """The latent distribution that raw parameters stand for, scaled and bounded."""
        scale = tf.cast(self.latent_scale, tf.float32)
        return diagonal_normal(parameters, scale, self.config.log_var_bound)

    def top_prior(self) -> tfd.Independent | GaussianMixture:
        """p(z_0), N(0, I) or the mixture: `event_shape` `[top_latents]`, no batch."""
        if self.mixture is not None:
            return self.mixture.distribution()
        zeros = tf.zeros([self.config.top_latents])
        return tfd.Independent(tfd.Normal(zeros, tf.ones_like(zeros)), 1)

    def module_input(
        self, z: tf.Tensor, z_0: tf.Tensor, h_merge: tf.Tensor | None = None
    ) -> tf.Tensor:
        """What a module's update reads beside the state.

        It is its latent, and where configured z_0 and, in a conditional model, the merge state of
        the generator's guide.
        """
        parts = [z]
        if self.config.top_everywhere:
            z_0 = tf.cast(z_0, z.dtype)
            for axis in range(1, z.shape.rank - 1):
                z_0 = tf.repeat(tf.expand_dims(z_0, axis), z.shape[axis], axis)
            parts.append(z_0)
        if self.config.conditional_stages and self.config.known_everywhere:
            parts.append(tf.cast(h_merge, z.dtype))
        return parts[0] if len(parts) == 1 else tf.concat(parts, axis=-1)

    def leave(self, h_td: tf.Tensor) -> tf.Tensor:
        """From the last module's state to what the likelihood reads."""
        if self.config.stages[-1].dense:
            return self._act(self.image_out(h_td))
        return self.image_out(h_td)


def _build_joins(joins, config):
    stages = _per_module(config)
    for index, join in joins.items():
        join.build((None, *state_shape(stages[index - 1])))


@keras.saving.register_keras_serializable("matnet_tf")
class Guide(Configured):
    """A bottom-up network and its chain of merge modules (Eqs. 9 to 11).

    Args:
      config: the `ModelConfig`.
      channels: of the input, the image's own by default.
    """

    def __init__(self, config: ModelConfig | dict, channels: int | None = None, **kwargs):
        super().__init__(config, **kwargs)
        config = self.config
        self.channels = channels or config.image_shape[-1]
        self.bottom_up = BottomUpNetwork(config, channels, name="bottom_up")
        self.top = FinalBottomUpModule(
            config.top_units, config.top_latents, config.activation, name="top"
        )
        first = state_shape(config.stages[0])
        self.start = None
        if config.merge_state:
            self.start = TopModule(config.top_units, first, config.activation, name="start")
        self.modules = _chain(
            config,
            lambda s, n: MergeModule(
                latents=s.latents,
                carry=config.merge_state,
                **_module_arguments(config, s),
                name=n,
            ),
        )
        self.joins = _joins(config, "merge") if config.merge_state else {}

    def build(self, x_shape):
        self.bottom_up.build(x_shape)
        stages = _per_module(self.config)
        self.top.build((None, *state_shape(stages[0])))
        if self.start is not None:
            self.start.build((None, self.config.top_latents))
        for module, stage in zip(self.modules, stages, strict=True):
            if not module.built:
                module.build(*[(None, *state_shape(stage))] * 3)
        _build_joins(self.joins, self.config)

    def call(self, x):
        return self.watch(x)

    def watch(self, x: tf.Tensor) -> View:
        """All that depends on the image alone, for images `[B, H, W, C]`."""
        states = self.bottom_up(x)
        projections = tuple(m.project(h) for m, h in zip(self.modules, states, strict=True))
        return View(self.top(states[0]), projections)

    def get_config(self):
        return super().get_config() | {"channels": self.channels}
