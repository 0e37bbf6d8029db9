# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Linear maps, activations and base classes of the layers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import keras
import tensorflow as tf

from matnet_tf.config import ModelConfig
from matnet_tf.config.serialization import from_dict, to_dict

__all__ = [
    "Configured",
    "Conv2D",
    "LEAKY_SLOPE",
    "StateLayer",
    "activation_function",
    "config_of",
    "linear",
    "own_keras_settings",
]

LEAKY_SLOPE = 0.1  # From the reference code; the paper gives no slope.


def activation_function(name: str) -> Callable[[tf.Tensor], tf.Tensor]:
    """The activation with this name; `leaky_relu` has the reference code's slope of 0.1."""
    own = {"leaky_relu": _leaky_relu, "elu": _elu}
    return own.get(name) or keras.activations.get(name)


@tf.custom_gradient
def _leaky_relu(x):
    # TensorFlow 2.21 with oneDNN fuses tf.nn.leaky_relu with a preceding convolution and sum, as in
    # Eq. 7, and the fused kernel always has slope 0.2. It does so only in graphs without gradients,
    # so the model that is evaluated would differ from the one that was trained.
    x = tf.convert_to_tensor(x)

    def gradient(upstream):
        return tf.raw_ops.LeakyReluGrad(gradients=upstream, features=x, alpha=LEAKY_SLOPE)

    return tf.maximum(x, LEAKY_SLOPE * x), gradient


def _elu(x):
    # TensorFlow 2.21 with oneDNN fails to fuse tf.nn.elu inside a loop, such as a training function
    # of several steps, and logs long errors.
    return tf.where(x > 0, x, tf.math.expm1(tf.minimum(x, 0.0)))


@contextlib.contextmanager
def own_keras_settings() -> Iterator[None]:
    """Lets layers be made for float32 weights and channels last, whatever Keras's settings are.

    The dtype policies `float32` and `mixed_bfloat16` are the user's choice.

    Raises:
      ValueError: If Keras's dtype policy is another one than these and `float64`.
    """
    image_format, floatx = keras.config.image_data_format(), keras.config.floatx()
    policy = keras.config.dtype_policy()
    if policy.name not in ("float32", "float64", "mixed_bfloat16"):
        raise ValueError(f"models compute in float32 or mixed_bfloat16; got {policy.name}")
    keras.config.set_image_data_format("channels_last")
    keras.config.set_floatx("float32")
    if policy.name == "float64":
        keras.config.set_dtype_policy("float32")
    try:
        yield
    finally:
        keras.config.set_image_data_format(image_format)
        keras.config.set_floatx(floatx)
        if policy.name == "float64":
            keras.config.set_dtype_policy(policy)


class Conv2D(keras.layers.Conv2D):
    """Keras's convolution, which TensorFlow cannot fuse with a sum that follows it.

    TensorFlow 2.21 with oneDNN fuses convolution, bias and sum into an operation that is not
    thread-safe: concurrent calls overwrite each other's operands. A server with two requests at a
    time crashes or returns wrong results.

    The class keeps Keras's name because `model.save` names the weights of layers in a list by it.
    """

    def call(self, inputs):
        return tf.ensure_shape(super().call(inputs), [None] * 4)


def linear(filters: int, kernel_size: int, dense: bool, **arguments) -> keras.layers.Layer:
    """A dense layer, or a convolution that keeps the height and width."""
    if dense:
        return keras.layers.Dense(filters, **arguments)
    return Conv2D(filters, kernel_size, padding="same", **arguments)


def config_of(layer: keras.layers.Layer, *names: str) -> dict:
    """The layer's attributes with these names, for `get_config`."""
    return {name: getattr(layer, name) for name in names}


class StateLayer(keras.layers.Layer):
    """Base class of state updates and modules, with the settings that they share.

    Args:
      filters: Channels of the state.
      dense: Whether states are vectors [B, filters] and not maps [B, h, w, filters].
      kernel_size: Height and width of the kernels; unused if `dense`.
      activation: Name of the activation, see `activation_function`.
      normalization: `none`, or `layer` for layer normalization where the update applies it.
      carry: Whether the update reads the previous state; False is the ladder special case.
      **kwargs: Arguments of `keras.layers.Layer`.
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
        """A linear map between states of this layer, see `linear`."""
        return linear(filters, self.kernel_size, self.dense, **arguments)

    def get_config(self):
        return super().get_config() | config_of(
            self, "filters", "dense", "kernel_size", "activation", "normalization", "carry"
        )


class Configured(keras.layers.Layer):
    """Base class of layers that are made from a `ModelConfig`.

    Args:
      config: A `ModelConfig`, or its dictionary, which Keras passes when it loads a layer.
      **kwargs: Arguments of `keras.layers.Layer`.
    """

    def __init__(self, config: ModelConfig | dict, **kwargs):
        super().__init__(**kwargs)
        self.config = from_dict(ModelConfig, config) if isinstance(config, dict) else config

    def get_config(self):
        return super().get_config() | {"config": to_dict(self.config)}
