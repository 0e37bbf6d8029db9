# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""State updates of Sec. 2.2: residual (the body of Eqs. 7, 9 and 10) and GRU; and bottlenecks.

A state is [B, h, w, filters], or [B, filters] if the layer is `dense`. The code is the same for
both; only the linear maps differ, which are convolutions or dense layers.
"""

from __future__ import annotations

import keras
import tensorflow as tf

from matnet_tf.layers.base import StateLayer, linear

__all__ = ["UPDATES", "BottleneckUpdate", "GRUUpdate", "ResidualUpdate", "add_per_image"]


def add_per_image(rows: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
    """Adds a tensor with one row per image to one with K rows per image.

    The sum broadcasts, so nothing is copied K times.

    Args:
      rows: Tensor [K * B, ...], sample first.
      image: Tensor [B, ...].
    """
    if rows.shape[0] is not None and rows.shape[0] == image.shape[0]:
        return rows + image
    tail = image.shape[1:]
    stacked = tf.reshape(rows, [-1, tf.shape(image)[0], *tail]) + image
    return tf.reshape(stacked, [-1, *tail])


class _Update(StateLayer):
    """Base class of updates, which map a state and the inputs concatenated to it to a state.

    Attributes:
      hidden_filters: Channels of a `projection`.
      first_maps: The maps of `[state; inputs]`, in the order of their channels in a `projection`.
    """

    def input_map(self, filters: int, **arguments) -> keras.layers.Layer:
        """A map like the first maps, for inputs whose share is computed separately."""
        return self._linear(filters, **arguments)

    def activated_input(self, inputs: tf.Tensor) -> tf.Tensor:
        """What the first maps see of a state or of inputs."""
        return inputs

    def _stacked_shape(self, state_shape, inputs_shape):
        extra = inputs_shape[-1] if inputs_shape is not None else 0
        return (*state_shape[:-1], extra + (state_shape[-1] if self.carry else 0))

    def compute_output_shape(self, state_shape, inputs_shape=None, projection_shape=None):
        return state_shape


@keras.saving.register_keras_serializable("matnet_tf")
class ResidualUpdate(_Update):
    """The update `act(state + conv(act(conv([state; inputs]))))` of Eqs. 7, 9 and 10.

    Layer normalization applies to the hidden units and to the sum. Without `carry` the update is
    `act(conv(act(conv(inputs))))`, the ladder special case. For the arguments see `StateLayer`.

    Call arguments:
      state: Tensor [K * B, ..., filters].
      inputs: Tensor [K * B, ..., n], concatenated to the state, or None.
      projection: Tensor [B, ..., hidden_filters] or None. It is added to the hidden units before
        their activation: the share of an input that the K samples of an image have in common.
    """

    def __init__(self, filters, dense, *settings, **kwargs):
        super().__init__(filters, dense, *settings, **kwargs)
        self.hidden = self._linear(self.hidden_filters, name="hidden")
        self.output_map = self._linear(filters, name="output")
        self.hidden_norm = self.state_norm = None
        if self.normalization == "layer":
            self.hidden_norm = keras.layers.LayerNormalization(name="hidden_norm")
            self.state_norm = keras.layers.LayerNormalization(name="state_norm")

    @property
    def hidden_filters(self) -> int:
        return self.filters

    @property
    def first_maps(self) -> list[keras.layers.Layer]:
        return [self.hidden]

    def build(self, state_shape, inputs_shape=None, projection_shape=None):
        stacked = self._stacked_shape(state_shape, inputs_shape)
        self.hidden.build(stacked)
        self.output_map.build(state_shape)
        if self.hidden_norm is not None:
            self.hidden_norm.build(state_shape)
            self.state_norm.build(state_shape)

    def call(self, state, inputs=None, projection=None):
        hidden = self.hidden(_stack(state if self.carry else None, inputs))
        if projection is not None:
            hidden = add_per_image(hidden, projection)
        if self.hidden_norm is not None:
            hidden = self.hidden_norm(hidden)
        update = self.output_map(self._act(hidden))
        update = state + update if self.carry else update
        if self.state_norm is not None:
            update = self.state_norm(update)
        return self._act(update)


@keras.saving.register_keras_serializable("matnet_tf")
class GRUUpdate(_Update):
    """The GRU-style update `u * state + (1 - u) * act(conv([r * state; inputs]))` of Sec. 2.2.

    The gates r and u are `sigmoid(conv([state; inputs]) + 1)`; the bias of 1 keeps most of the
    state at the start of training. The paper's fully connected MatNets use this update. Layer
    normalization applies to the gates and to the candidate. Without `carry` the update is the
    candidate alone.

    For the arguments see `StateLayer`, for the call arguments `ResidualUpdate`. A `projection` has
    3 * filters channels, for both gates and the candidate.
    """

    def __init__(self, filters, dense, kernel_size=3, activation="tanh", *settings, **kwargs):
        super().__init__(filters, dense, kernel_size, activation, *settings, **kwargs)
        self.candidate = self._linear(filters, name="candidate")
        self.gates = self._linear(2 * filters, name="gates") if self.carry else None
        self.gates_norm = self.candidate_norm = None
        if self.normalization == "layer":
            self.candidate_norm = keras.layers.LayerNormalization(name="candidate_norm")
            if self.carry:
                self.gates_norm = keras.layers.LayerNormalization(name="gates_norm")

    @property
    def hidden_filters(self) -> int:
        return (3 if self.carry else 1) * self.filters

    @property
    def first_maps(self) -> list[keras.layers.Layer]:
        return [self.gates, self.candidate] if self.carry else [self.candidate]

    def build(self, state_shape, inputs_shape=None, projection_shape=None):
        stacked = self._stacked_shape(state_shape, inputs_shape)
        self.candidate.build(stacked)
        if self.gates is not None:
            self.gates.build(stacked)
        if self.candidate_norm is not None:
            self.candidate_norm.build(state_shape)
        if self.gates_norm is not None:
            self.gates_norm.build((*state_shape[:-1], 2 * self.filters))

    def call(self, state, inputs=None, projection=None):
        if not self.carry:
            return self._candidate(_stack(None, inputs), projection)
        gates_part = candidate_part = None
        if projection is not None:
            sizes = [2 * self.filters, self.filters]
            gates_part, candidate_part = tf.split(projection, sizes, axis=-1)
        reset, update = self._gates(_stack(state, inputs), gates_part)
        candidate = self._candidate(_stack(reset * state, inputs), candidate_part)
        return update * state + (1 - update) * candidate

    def _gates(self, stacked, projection):
        gates = self.gates(stacked)
        if projection is not None:
            gates = add_per_image(gates, projection)
        if self.gates_norm is not None:
            gates = self.gates_norm(gates)
        return tf.split(tf.sigmoid(gates + 1), 2, axis=-1)

    def _candidate(self, stacked, projection):
        candidate = self.candidate(stacked)
        if projection is not None:
            candidate = add_per_image(candidate, projection)
        if self.candidate_norm is not None:
            candidate = self.candidate_norm(candidate)
        return self._act(candidate)


@keras.saving.register_keras_serializable("matnet_tf")
class BottleneckUpdate(_Update):
    """The update `state + f([state; inputs])`, f a bottleneck of a quarter of the filters.

    f is four convolutions, 1x1, 3x3, 3x3 and 1x1, each of the activated result of the one before;
    there is no activation after the sum. It is not in the paper: very deep models (VDVAE, Child
    2021) consist of such blocks, which cost a tenth of a `ResidualUpdate` of equal width. Without
    `carry` the update is `f(inputs)`.

    For the arguments see `StateLayer`, for the call arguments `ResidualUpdate`. `normalization`
    must be `none`.
    """

    def __init__(self, filters, dense, kernel_size=3, activation="gelu", *settings, **kwargs):
        super().__init__(filters, dense, kernel_size, activation, *settings, **kwargs)
        self.reduce = self.input_map(self.hidden_filters, name="reduce")
        self.inner = [self._linear(self.hidden_filters, name=f"inner_{i}") for i in range(2)]
        self.output_map = self.input_map(filters, name="output")

    @property
    def hidden_filters(self) -> int:
        return max(1, self.filters // 4)

    @property
    def first_maps(self) -> list[keras.layers.Layer]:
        return [self.reduce]

    def input_map(self, filters, **arguments):
        return linear(filters, 1, self.dense, **arguments)

    def activated_input(self, inputs):
        return self._act(inputs)

    def build(self, state_shape, inputs_shape=None, projection_shape=None):
        self.reduce.build(self._stacked_shape(state_shape, inputs_shape))
        hidden_shape = (*state_shape[:-1], self.hidden_filters)
        for layer in (*self.inner, self.output_map):
            layer.build(hidden_shape)

    def call(self, state, inputs=None, projection=None):
        hidden = self.reduce(self._act(_stack(state if self.carry else None, inputs)))
        if projection is not None:
            hidden = add_per_image(hidden, projection)
        for layer in (*self.inner, self.output_map):
            hidden = layer(self._act(hidden))
        return state + hidden if self.carry else hidden


def _stack(state, inputs):
    """The concatenation of a state and inputs, either of which may be None."""
    parts = [part for part in (state, inputs) if part is not None]
    return parts[0] if len(parts) == 1 else tf.concat(parts, axis=-1)


UPDATES = {"residual": ResidualUpdate, "gru": GRUUpdate, "bottleneck": BottleneckUpdate}
