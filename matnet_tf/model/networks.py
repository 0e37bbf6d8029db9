# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The three parts of a MatNet (Sec. 2.2).

A **guide** is a bottom-up network and its chain of merge modules: it encodes an image and proposes
a distribution for every latent. The top-down network turns latents into an image.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from matnet_tf.config import ModelConfig, Scale
from matnet_tf.distributions.gaussian import diagonal_normal
from matnet_tf.distributions.mixture import GaussianMixture
from matnet_tf.layers.base import Configured, activation_function, linear
from matnet_tf.layers.mixture_prior import MixturePrior
from matnet_tf.layers.modules import (
    BottomUpModule,
    FinalBottomUpModule,
    MergeModule,
    TopDownModule,
    TopModule,
)
from matnet_tf.layers.resampling import Resample

tfd = tfp.distributions

__all__ = [
    "BottomUpNetwork",
    "Guide",
    "TopDownNetwork",
    "Encoding",
    "state_shape",
]


class Encoding(NamedTuple):
    """What a guide computes once per image, whatever the number of samples."""

    top: tf.Tensor  # [B, 2 * top_latents]: mean and log-variance of q(z_0 | x)
    projections: tuple[tf.Tensor, ...]  # One per top-down module, top first


def state_shape(scale: Scale) -> tuple[int, ...]:
    """Shape of the states of a scale, without the batch."""
    return (scale.filters,) if scale.dense else (*scale.shape, scale.filters)


def _latent_shape(scale: Scale) -> tuple[int, ...]:
    return (*state_shape(scale)[:-1], scale.latents)


def _module_arguments(config: ModelConfig, scale: Scale) -> dict:
    # A larger kernel would see mostly padding.
    tiny = config.update == "bottleneck" and max(scale.shape) <= 2
    return {
        "filters": scale.filters,
        "dense": scale.dense,
        "kernel_size": 1 if tiny else config.kernel_size,
        "activation": config.activation,
        "update": config.update,
        "normalization": config.normalization,
    }


def _resample(
    config: ModelConfig, a: Scale, b: Scale, name: str, upsampling: str = "transposed"
) -> Resample:
    shapes, filters = (a.shape, b.shape), (a.filters, b.filters)
    settings = (config.kernel_size, config.activation, upsampling)
    return Resample(*shapes, *filters, *settings, name=name)


def _chain(config: ModelConfig, make) -> list[keras.layers.Layer]:
    """Modules of a chain, top first, from `make(scale, name)`; one per scale if shared."""
    names = iter(config.level_names[1:])
    chain = []
    for scale in config.scales:
        scale_names = [next(names) for _ in range(scale.modules)]
        if config.shared:
            modules = [make(scale, f"{scale_names[0]}_shared")] * scale.modules
        else:
            modules = [make(scale, name) for name in scale_names]
        for module in modules:
            module.scale, module.graphs = scale.label, modules[0].graphs
        chain += modules
    return chain


def _per_module(config: ModelConfig) -> list[Scale]:
    return [scale for scale in config.scales for _ in range(scale.modules)]


def _resampling_layers(config: ModelConfig, prefix: str) -> dict[int, Resample]:
    """Resampling layers of a top-down or merge chain, by the index of the module they precede."""
    layers, index = {}, 0
    for a, b in zip(config.scales[:-1], config.scales[1:], strict=True):
        index += a.modules
        name = f"{prefix}_to_{b.label}_{index}"
        layers[index] = _resample(config, a, b, name, config.upsampling)
    return layers


@keras.saving.register_keras_serializable("matnet_tf")
class BottomUpNetwork(Configured):
    """Deterministic network from the image to one state per top-down module (Eq. 9).

    Args:
      config: The `ModelConfig`.
      channels: Channels of the input; None for those of the image.

    Returns (from `call(x)`, with x `[B, H, W, channels]`): a tuple of states h^b_1, h^b_2, ...,
    top first; h^b_i is the output of the mirror of top-down module i.
    """

    def __init__(self, config: ModelConfig | dict, channels: int | None = None, **kwargs):
        super().__init__(config, **kwargs)
        config = self.config
        self.channels = channels or config.image_shape[-1]
        self._act = activation_function(config.activation)
        finest = config.scales[-1]
        self._image = Scale(config.image_shape[:2], config.image_filters, 1, 1)
        if finest.dense:
            self.image_in = keras.layers.Dense(finest.filters, name="image_in")
            self.image_hidden = keras.layers.Dense(finest.filters, name="image_hidden")
        else:
            self.image_in = linear(config.image_filters, config.kernel_size, False, name="image_in")
            self.image_hidden = _resample(config, self._image, finest, "from_image")
        self.modules = _chain(
            config, lambda s, n: BottomUpModule(**_module_arguments(config, s), name=n)
        )
        self.resampling = []
        for i, (a, b) in enumerate(zip(config.scales[1:], config.scales[:-1], strict=True)):
            self.resampling.append(_resample(config, a, b, f"down_{i}_to_{b.label}"))

    def build(self, x_shape):
        if self.config.scales[-1].dense:
            self.image_in.build((None, math.prod(x_shape[1:])))
            self.image_hidden.build((None, self.config.scales[-1].filters))
        else:
            self.image_in.build(x_shape)
            self.image_hidden.build((*x_shape[:-1], self.config.image_filters))
        for module, scale in zip(self.modules, _per_module(self.config), strict=True):
            if not module.built:
                module.build((None, *state_shape(scale)))
        for layer, scale in zip(self.resampling, self.config.scales[1:], strict=True):
            layer.build((None, *state_shape(scale)))

    def call(self, x):
        h_bu = self._from_image(x)
        states = []
        last = len(self.modules)
        for index in reversed(range(len(self.config.scales))):
            first = last - self.config.scales[index].modules
            for module in reversed(self.modules[first:last]):
                h_bu = module(h_bu)
                states.append(h_bu)
            if index > 0:
                h_bu = self.resampling[index - 1](h_bu)
            last = first
        return tuple(reversed(states))

    def _from_image(self, x):
        if not self.config.scales[-1].dense:
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

    `descend` walks down it; it has no `call` of its own. It holds the trained scalar
    `latent_scale`, which multiplies the mean and log-variance of every Gaussian.
    """

    def __init__(self, config: ModelConfig | dict, **kwargs):
        super().__init__(config, **kwargs)
        config = self.config
        self._act = activation_function(config.activation)
        first, finest = config.scales[0], config.scales[-1]
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
        self.resampling = _resampling_layers(config, "up")
        if finest.dense:
            self.image_out = keras.layers.Dense(finest.filters, name="image_out")
        else:
            image = Scale(config.image_shape[:2], config.image_filters, 1, 1)
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
        for module, scale in zip(self.modules, _per_module(config), strict=True):
            if not module.built:
                more = config.top_latents if config.top_everywhere else 0
                if config.conditional_stages and config.known_everywhere:
                    more += scale.filters
                *positions, channels = _latent_shape(scale)
                module.build((None, *state_shape(scale)), (None, *positions, channels + more))
        _build_resampling(self.resampling, self.config)
        self.image_out.build((None, *state_shape(self.config.scales[-1])))

    def gaussian(self, parameters: tf.Tensor) -> tfd.Independent:
        """The Gaussian with these parameters, scaled by `latent_scale` and bounded."""
        scale = tf.cast(self.latent_scale, tf.float32)
        return diagonal_normal(parameters, scale, self.config.log_var_bound)

    def top_prior(self) -> tfd.Independent | GaussianMixture:
        """p(z_0), N(0, I) or the mixture: `event_shape` `[top_latents]`, without a batch."""
        if self.mixture is not None:
            return self.mixture.distribution()
        zeros = tf.zeros([self.config.top_latents])
        return tfd.Independent(tfd.Normal(zeros, tf.ones_like(zeros)), 1)

    def module_input(
        self, z: tf.Tensor, z_0: tf.Tensor, h_merge: tf.Tensor | None = None
    ) -> tf.Tensor:
        """The input of a module's update beside the state.

        It is the module's latent, z_0 if `top_everywhere`, and in a conditional model the merge
        state of the generator's guide if `known_everywhere`.
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

    def to_image(self, h_td: tf.Tensor) -> tf.Tensor:
        """Maps the last module's state to the input of the likelihood."""
        if self.config.scales[-1].dense:
            return self._act(self.image_out(h_td))
        return self.image_out(h_td)


def _build_resampling(layers, config):
    scales = _per_module(config)
    for index, layer in layers.items():
        layer.build((None, *state_shape(scales[index - 1])))


@keras.saving.register_keras_serializable("matnet_tf")
class Guide(Configured):
    """A bottom-up network and its chain of merge modules (Eqs. 9 to 11).

    Args:
      config: The `ModelConfig`.
      channels: Channels of the input; None for those of the image.
    """

    def __init__(self, config: ModelConfig | dict, channels: int | None = None, **kwargs):
        super().__init__(config, **kwargs)
        config = self.config
        self.channels = channels or config.image_shape[-1]
        self.bottom_up = BottomUpNetwork(config, channels, name="bottom_up")
        self.top = FinalBottomUpModule(
            config.top_units, config.top_latents, config.activation, name="top"
        )
        first = state_shape(config.scales[0])
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
        self.resampling = _resampling_layers(config, "merge") if config.merge_state else {}

    def build(self, x_shape):
        self.bottom_up.build(x_shape)
        scales = _per_module(self.config)
        self.top.build((None, *state_shape(scales[0])))
        if self.start is not None:
            self.start.build((None, self.config.top_latents))
        for module, scale in zip(self.modules, scales, strict=True):
            if not module.built:
                module.build(*[(None, *state_shape(scale))] * 3)
        _build_resampling(self.resampling, self.config)

    def call(self, x):
        return self.encode(x)

    def encode(self, x: tf.Tensor) -> Encoding:
        """Computes what depends on the image alone, for images `[B, H, W, C]`."""
        states = self.bottom_up(x)
        projections = tuple(m.project(h) for m, h in zip(self.modules, states, strict=True))
        return Encoding(self.top(states[0]), projections)

    def get_config(self):
        return super().get_config() | {"channels": self.channels}
