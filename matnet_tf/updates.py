# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""State updates of Sec. 2.2: residual (the body of Eqs. 7, 9 and 10) and GRU.

A state is `[B, h, w, filters]`, or `[B, filters]` where the layer is `dense`. Every layer is the
same code for both: only its linear maps differ, convolutions or dense layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

__all__ = [
    "UPDATES",
    "Conv2D",
    "GRUUpdate",
    "ResidualUpdate",
    "StateLayer",
    "activation_function",
    "config_of",
    "linear",
]

LEAKY_SLOPE = 0.1  # The reference's modules; the paper gives none.


def activation_function(name: str):
    """The activation called `name`; `leaky_relu` has the reference's slope of 0.1."""
    own = {"leaky_relu": _leaky_relu, "elu": _elu}
    return own.get(name) or keras.activations.get(name)


@tf.custom_gradient
def _leaky_relu(x):
    # Not tf.nn.leaky_relu: TensorFlow 2.21 with oneDNN fuses it with a convolution and a sum
    # before it, as in Eq. 7, and then the slope is 0.2, whatever was asked. It does so in graphs
    # without a gradient only, so a model would be evaluated as another one than was trained.
    x = tf.convert_to_tensor(x)

    def gradient(upstream):
        return tf.raw_ops.LeakyReluGrad(gradients=upstream, features=x, alpha=LEAKY_SLOPE)

    return tf.maximum(x, LEAKY_SLOPE * x), gradient


def _elu(x):
    # Not tf.nn.elu: TensorFlow 2.21 with oneDNN fails to fuse it in graphs that have it in a loop,
    # such as a training function of several steps, and says so at length.
    return tf.where(x > 0, x, tf.math.expm1(tf.minimum(x, 0.0)))


class Conv2D(keras.layers.Conv2D):
    """Keras's convolution, with something behind it that TensorFlow cannot fuse with a sum.

    TensorFlow 2.21 with oneDNN fuses convolution, bias and sum into an operation that keeps its
    operands where calls at the same time overwrite each other's: a server of two requests at once
    ends by a segmentation fault, or answers one of them with what belongs to neither.

    The class has Keras's name, after which `model.save` calls the weights of layers in a list.
    """

    def call(self, inputs):
        return tf.ensure_shape(super().call(inputs), [None] * 4)


def linear(filters: int, kernel_size: int, dense: bool, **arguments) -> keras.layers.Layer:
    """A dense layer or a shape-preserving convolution."""
    if dense:
        return keras.layers.Dense(filters, **arguments)
    return Conv2D(filters, kernel_size, padding="same", **arguments)


def _widen(shape: Sequence[int | None], filters: int) -> tuple[int | None, ...]:
    """The shape of a state with `filters` more channels."""
    return (*shape[:-1], shape[-1] + filters)


def add_per_image(rows: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
    """Adds `[B, ...]` to `[K * B, ...]`, sample first: what is computed once per image.

    The sum broadcasts, so no copy for each of the K samples is made.
    """
    if rows.shape[0] is not None and rows.shape[0] == image.shape[0]:
        return rows + image
    tail = image.shape[1:]
    stacked = tf.reshape(rows, [-1, tf.shape(image)[0], *tail]) + image
    return tf.reshape(stacked, [-1, *tail])


def config_of(layer: keras.layers.Layer, *names: str) -> dict:
    """The constructor arguments called `names`, for `get_config`."""
    return {name: getattr(layer, name) for name in names}


class StateLayer(keras.layers.Layer):
    """What updates of a state, and the modules made of them, have in common: their settings.

    Args:
      filters: channels of the state.
      dense: whether states are `[B, filters]`.
      kernel_size: side of the kernels, where there are any.
      activation: name, see `activation_function`.
      normalization: `none`, or `layer` for layer normalization; the update says of what.
      carry: whether the state takes part in its update; false is the ladder special case.
    """

    def __init__(
        self,
        filters: int,
        dense: bool,
        kernel_size: int = 3,
        activation: str = "leaky_relu",
        normalization: str = "none",
        carry: bool = True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.filters = filters
        self.dense = dense
        self.kernel_size = kernel_size
        self.activation = activation
        self.normalization = normalization
        self.carry = carry
        self._act = activation_function(activation)

    def _linear(self, filters: int, **arguments) -> keras.layers.Layer:
        """A linear map of this layer's kind, see `linear`."""
        return linear(filters, self.kernel_size, self.dense, **arguments)

    def get_config(self):
        return super().get_config() | config_of(
            self, "filters", "dense", "kernel_size", "activation", "normalization", "carry"
        )


class _Update(StateLayer):
    """The shapes of an update: a state goes in with what is concatenated to it, and comes out."""

    def _stacked_shape(self, state_shape, inputs_shape):
        extra = inputs_shape[-1] if inputs_shape is not None else 0
        return _widen(state_shape, extra) if self.carry else (*state_shape[:-1], extra)

    def compute_output_shape(self, state_shape, inputs_shape=None, projection_shape=None):
        return state_shape


@keras.saving.register_keras_serializable("matnet_tf")
class ResidualUpdate(_Update):
    """`act(state + conv(act(conv([state; inputs]))))`, the body of Eqs. 7, 9 and 10.

    Arguments are those of `StateLayer`. The hidden units and the sum are what `normalization` is
    for; without `carry` the update is `act(conv(act(conv(inputs))))`, the ladder special case.

    Call arguments:
      state: `[B, ..., filters]`.
      inputs: `[B, ..., n]`, concatenated to the state, or None.
      projection: `[B, ..., hidden_filters]`, added to the hidden units before their activation:
        the part of the first convolution that reads something known per image, or None.
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
        """Channels that a `projection` must have."""
        return self.filters

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
    """GRU-style update: `u * state + (1 - u) * act(conv([r * state; inputs]))`.

    The gates `r` and `u` are `sigmoid(conv([state; inputs]) + 1)`: the bias keeps most of the
    state at the start. The paper's fully connected MatNets use it (Sec. 2.2). Arguments are those
    of `StateLayer`, with tanh as the activation by default; call arguments are those of
    `ResidualUpdate`, and a `projection` has `3 * filters` channels, for both gates and the
    candidate. These are what `normalization` is for; without `carry` only the candidate is left.
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
        """Channels that a `projection` must have."""
        return (3 if self.carry else 1) * self.filters

    def build(self, state_shape, inputs_shape=None, projection_shape=None):
        stacked = self._stacked_shape(state_shape, inputs_shape)
        self.candidate.build(stacked)
        if self.gates is not None:
            self.gates.build(stacked)
        if self.candidate_norm is not None:
            self.candidate_norm.build(state_shape)
        if self.gates_norm is not None:
            self.gates_norm.build(_widen(state_shape, self.filters))

    def call(self, state, inputs=None, projection=None):
        if not self.carry:
            return self._candidate(_stack(None, inputs), projection)
        gates_part = candidate_part = None
        if projection is not None:
            gates_part, candidate_part = tf.split(
                projection, [2 * self.filters, self.filters], axis=-1
            )
        gates = self.gates(_stack(state, inputs))
        if gates_part is not None:
            gates = add_per_image(gates, gates_part)
        if self.gates_norm is not None:
            gates = self.gates_norm(gates)
        reset, update = tf.split(tf.sigmoid(gates + 1), 2, axis=-1)
        candidate = self._candidate(_stack(reset * state, inputs), candidate_part)
        return update * state + (1 - update) * candidate

    def _candidate(self, stacked, projection):
        candidate = self.candidate(stacked)
        if projection is not None:
            candidate = add_per_image(candidate, projection)
        if self.candidate_norm is not None:
            candidate = self.candidate_norm(candidate)
        return self._act(candidate)


def _stack(state, inputs):
    parts = [part for part in (state, inputs) if part is not None]
    return parts[0] if len(parts) == 1 else tf.concat(parts, axis=-1)


UPDATES = {"residual": ResidualUpdate, "gru": GRUUpdate}
