# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""State updates, activations and convolutions against NumPy, and what TensorFlow must not fuse."""

import itertools

import keras
import numpy as np
import numpy_matnet as npm
import pytest
import tensorflow as tf

from matnet_tf.layers.base import activation_function, linear
from matnet_tf.layers.updates import BottleneckUpdate, GRUUpdate, ResidualUpdate, add_per_image

FILTERS, EXTRA = 8, 3
SIDES = {"dense": (), "conv": (5, 3)}
ACTIVATIONS = ["leaky_relu", "tanh", "elu", "silu"]
both = pytest.mark.parametrize("kind", SIDES)
RNG = np.random.default_rng(0)


def draw(kind, channels, rows=2):
    return RNG.normal(size=(rows, *SIDES[kind], channels)).astype(np.float32)


def made(cls, kind, state, inputs, **arguments):
    layer = cls(FILTERS, kind == "dense", **arguments)
    layer.build(state.shape, inputs.shape)
    return npm.randomize(layer)


def norm(layer):
    if layer is None:
        return npm.same
    return lambda x: npm.layer_normalization(x, layer.gamma.numpy(), layer.beta.numpy())


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


@both
def test_residual_update(kind):
    state, inputs = draw(kind, FILTERS), draw(kind, EXTRA)
    for activation, normalization in itertools.product(ACTIVATIONS, ["none", "layer"]):
        settings = {"activation": activation, "normalization": normalization}
        layer, act = made(ResidualUpdate, kind, state, inputs, **settings), npm.ACTIVATIONS
        hidden = npm.linear(npm.stack(state, inputs), npm.weights(layer.hidden))
        hidden = act[activation](norm(layer.hidden_norm)(hidden))
        total = state + npm.linear(hidden, npm.weights(layer.output_map))
        close(layer(state, inputs), act[activation](norm(layer.state_norm)(total)))


@both
def test_gru_update(kind):
    state, inputs = draw(kind, FILTERS), draw(kind, EXTRA)
    for normalization in ("none", "layer"):
        layer = made(GRUUpdate, kind, state, inputs, normalization=normalization)
        weights = npm.weights(layer.gates), npm.weights(layer.candidate)
        norms = norm(layer.gates_norm), norm(layer.candidate_norm)
        close(layer(state, inputs), npm.gru(state, [inputs], *weights, norms=norms))


@both
def test_bottleneck_update(kind):
    state, inputs = draw(kind, FILTERS), draw(kind, EXTRA)
    for carry in (True, False):
        layer = made(BottleneckUpdate, kind, state, inputs, activation="elu", carry=carry)
        assert layer.hidden_filters == 2
        h = npm.stack(state, inputs) if carry else inputs
        for part in (layer.reduce, *layer.inner, layer.output_map):
            h = npm.linear(npm.ACTIVATIONS["elu"](h), npm.weights(part))
        close(layer(state, inputs), state + h if carry else h)
        if kind == "conv":
            sizes = [p.kernel_size for p in (layer.reduce, *layer.inner, layer.output_map)]
            assert sizes == [(1, 1), (3, 3), (3, 3), (1, 1)]


@both
def test_without_carry_the_state_has_no_influence(kind):
    state, inputs = draw(kind, FILTERS), draw(kind, EXTRA)
    residual = made(ResidualUpdate, kind, state, inputs, carry=False)
    hidden = npm.lrelu(npm.linear(inputs, npm.weights(residual.hidden)))
    close(residual(None, inputs), npm.lrelu(npm.linear(hidden, npm.weights(residual.output_map))))
    gru = made(GRUUpdate, kind, state, inputs, carry=False)
    close(gru(None, inputs), np.tanh(npm.linear(inputs, npm.weights(gru.candidate))))
    for layer in (residual, gru):
        np.testing.assert_array_equal(layer(state, inputs), layer(None, inputs))


@both
@pytest.mark.parametrize("cls", [ResidualUpdate, GRUUpdate, BottleneckUpdate])
def test_a_projection_per_image_is_added_to_all_its_samples(cls, kind):
    samples, images = 3, 2
    state, inputs = draw(kind, FILTERS, samples * images), draw(kind, EXTRA, samples * images)
    layer = made(cls, kind, state, inputs)
    projection = draw(kind, layer.hidden_filters, images)
    together = layer(state, inputs, projection)
    each = layer(state, inputs, np.concatenate([projection] * samples))
    np.testing.assert_allclose(together, each, rtol=1e-5, atol=1e-6)
    assert np.abs(together - layer(state, inputs)).max() > 0.05


def test_add_per_image_takes_samples_first():
    rows, image = np.arange(6.0).reshape(6, 1), np.array([[10.0], [20.0]])
    expected = [[10], [21], [12], [23], [14], [25]]
    np.testing.assert_array_equal(add_per_image(tf.constant(rows), tf.constant(image)), expected)
    two = add_per_image(tf.constant(rows[:2]), tf.constant(image))
    np.testing.assert_array_equal(two, expected[:2])


def test_leaky_relu_has_slope_0_1():
    np.testing.assert_allclose(activation_function("leaky_relu")([-2.0, 3.0]), [-0.2, 3.0])


def test_convolutions_keep_the_shape():
    x = draw("conv", 2)
    for kernel_size in (1, 2, 3, 5):
        layer = linear(6, kernel_size, False)
        layer.build(x.shape)
        close(npm.randomize(layer)(x), npm.conv(x, *npm.weights(layer)))


# oneDNN: see `layers.base`.


def test_a_graph_keeps_the_activation_after_a_sum():
    """Also after a convolution that TensorFlow fuses with the sum and the activation."""
    layer = keras.layers.Conv2D(FILTERS, 3, padding="same")
    x, y = tf.constant(draw("conv", EXTRA)), tf.constant(draw("conv", FILTERS))
    layer.build(x.shape)

    def outputs(x, y):
        return [activation_function(name)(layer(x) + y) for name in ACTIVATIONS]

    for actual, expected in zip(tf.function(outputs)(x, y), outputs(x, y), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def test_no_convolution_can_be_fused_with_a_sum():
    """Calls of the fused operation at the same time return wrong results: see `Conv2D`."""
    state, inputs = draw("conv", FILTERS), draw("conv", EXTRA)
    for cls in (ResidualUpdate, GRUUpdate):
        layer = made(cls, "conv", state, inputs)
        projection = draw("conv", layer.hidden_filters)
        arguments = [tf.TensorSpec((None, *x.shape[1:])) for x in (state, inputs, projection)]
        graph = tf.function(lambda *x, layer=layer: layer(*x)).get_concrete_function(*arguments)
        convolutions = [op for op in graph.graph.get_operations() if op.type == "Conv2D"]
        assert len(convolutions) == 2
        for op in convolutions:
            (bias,) = op.outputs[0].consumers()
            assert bias.type == "BiasAdd"
            assert [after.type for after in bias.outputs[0].consumers()] == ["EnsureShape"]
