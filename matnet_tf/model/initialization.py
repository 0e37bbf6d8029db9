# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Initial weights of a hierarchy, such that depth changes neither states nor gradients.

Every kernel is Glorot uniform times a gain, and every bias 0. A chain of N residual modules is a
sum of N branches: with gains of 1 its scale, and that of its gradients, grows exponentially with N.
Under `initialization="depth"` the gains are:

- 1 / sqrt(N) for the last map of each branch; 1 / N if modules share it, since their branches then
  add up in phase. The gates of a GRU start so that a state keeps most of itself over N modules.
- 0 for the heads of priors, which start at N(0, I), and 0.01 for those of merge modules, whose
  posteriors start near it. The head of q(z_0 | x) has 1: started small, it left z_0 with less to
  carry, and cost 8 nats of 104 after 1,500 steps.
- for maps into a chain and between scales, what makes up for Glorot's mean of inputs and outputs
  and for the stride on the way up; between scales for the activation as well, so that states keep
  their rms.

Under `initialization="glorot"` all gains are 1; the paper says nothing of initial weights.

The first map of a merge module is one kernel over a concatenation (Eq. 10), of which the program
holds the part for h_bu separately. Both parts are drawn as parts of that kernel.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from matnet_tf.config import ModelConfig
from matnet_tf.layers.base import activation_function
from matnet_tf.layers.modules import MergeModule
from matnet_tf.layers.resampling import Resample
from matnet_tf.layers.updates import GRUUpdate
from matnet_tf.model.networks import Guide, TopDownNetwork

__all__ = ["Networks", "initialize"]

_MERGE_HEAD_GAIN = 0.01


class Networks(NamedTuple):
    """The networks of a model, or of one stage of a conditional model."""

    top_down: TopDownNetwork
    guide: Guide
    generator: Guide | None = None  # Proposes the priors of a conditional model.


def initialize(
    config: ModelConfig,
    variables: Sequence[keras.Variable],
    stages: Sequence[Networks],
    seed: int,
) -> None:
    """Draws every kernel, independently of Keras's global seed.

    Args:
      config: The model's config.
      variables: All trainable weights.
      stages: The networks of every stage.
      seed: Integer seed.
    """
    gains = {}
    for networks in stages:
        gains |= {id(kernel): gain for kernel, gain in _concatenation_gains(networks)}
        if config.initialization == "depth":
            for kernel, gain in _depth_gains(config, networks):
                gains[id(kernel)] = gain * gains.get(id(kernel), 1.0)
    for index, variable in enumerate(variables):
        if len(variable.shape) > 1:
            draw = keras.initializers.GlorotUniform(seed=1_000_003 * seed + index)
            variable.assign(gains.get(id(variable), 1.0) * draw(variable.shape, variable.dtype))
    for networks in stages:
        if config.initialization == "depth":
            _open_gates(config, networks)
        if networks.top_down.mixture is not None:
            networks.top_down.mixture.initialize(seed)


Gains = Iterator[tuple[keras.Variable, float | np.ndarray]]


def _guides(networks: Networks) -> list[Guide]:
    return [guide for guide in (networks.guide, networks.generator) if guide is not None]


def _depth_gains(config: ModelConfig, networks: Networks) -> Gains:
    modules = config.levels_per_stage - 1
    branch_gain = 1 / modules if config.shared else 1 / math.sqrt(modules)
    for module in _every_module(networks):
        if module.carry and not isinstance(module.update_layer, GRUUpdate):
            yield module.update_layer.output_map.kernel, branch_gain
    for guide in _guides(networks):
        prior = guide is networks.generator
        yield guide.top.head.kernel, 0.0 if prior else 1.0
        for module in _unique(guide.modules):
            yield module.head.kernel, 0.0 if prior else _MERGE_HEAD_GAIN
    for module in _unique(networks.top_down.modules):
        if module.prior_head is not None:
            yield module.prior_head.kernel, 0.0
    for layer in _entries(networks):
        yield layer.kernel, _rms_gain(layer)
    for resample in _resampling(networks):
        for layer in resample.steps:
            yield layer.kernel, _rms_gain(layer) * _activation_gain(config.activation)


def _unique(modules) -> list[keras.layers.Layer]:
    """The modules, of which those of a scale may be one and the same."""
    return list({id(module): module for module in modules}.values())


def _every_module(networks: Networks) -> list[keras.layers.Layer]:
    chains = [networks.top_down.modules]
    for guide in _guides(networks):
        chains += [guide.modules, guide.bottom_up.modules]
    return _unique(module for chain in chains for module in chain)


def _entries(networks: Networks) -> Iterator[keras.layers.Layer]:
    """The maps from the image and from z_0 to the first states."""
    tops = [networks.top_down.top]
    for guide in _guides(networks):
        tops += [guide.start] if guide.start is not None else []
        for layer in (guide.bottom_up.image_in, guide.bottom_up.image_hidden):
            yield from layer.steps if isinstance(layer, Resample) else [layer]
    for top in tops:
        yield from (top.hidden, top.output_map)


def _resampling(networks: Networks) -> Iterator[Resample]:
    """The layers between scales."""
    yield from networks.top_down.resampling.values()
    for guide in _guides(networks):
        yield from guide.resampling.values()
        yield from guide.bottom_up.resampling


def _rms_gain(layer: keras.layers.Layer) -> float:
    """The gain with which a Glorot kernel keeps the rms of its input."""
    *_, inputs, outputs = layer.kernel.shape
    if isinstance(layer, keras.layers.Conv2DTranspose):
        # Its kernel has the outputs first, and an output pixel sees one of `strides` parts of it.
        return math.sqrt((inputs + outputs) / (2 * outputs) * math.prod(layer.strides))
    return math.sqrt((inputs + outputs) / (2 * inputs))


def _activation_gain(name: str) -> float:
    """1 / rms of the activation of N(0, 1), by its quantiles."""
    x = tf.sqrt(2.0) * tf.math.erfinv(tf.linspace(-0.9995, 0.9995, 2000))
    return float(1 / tf.sqrt(tf.reduce_mean(tf.square(activation_function(name)(x)))))


def _concatenation_gains(networks: Networks) -> Gains:
    for guide in _guides(networks):
        for module in _unique(guide.modules):
            yield from _merge_gains(module)


def _merge_gains(module: MergeModule) -> Gains:
    """Gains with which `projection` and the update's first maps are parts of whole kernels."""
    projection, update = module.projection.kernel, module.update_layer
    gains = []
    for part in update.first_maps:
        own_in, outputs = part.kernel.shape[-2:]
        whole = own_in + projection.shape[-2] + outputs
        yield part.kernel, math.sqrt((own_in + outputs) / whole)
        gains += [math.sqrt(sum(projection.shape[-2:]) / whole)] * outputs
    yield projection, np.array(gains, np.float32)


def _open_gates(config: ModelConfig, networks: Networks) -> None:
    """Raises the bias of GRU update gates, so that N modules keep exp(-1/2) of a state."""
    modules = config.levels_per_stage - 1
    # The gate has a constant bias of 1 already, see `GRUUpdate`.
    more = max(0.0, math.log(max(1, 2 * modules - 1)) - 1)
    for module in _every_module(networks):
        update = module.update_layer
        if isinstance(update, GRUUpdate) and update.carry:
            reset, keep = np.zeros(update.filters), np.full(update.filters, more)
            update.gates.bias.assign(np.concatenate([reset, keep]))
