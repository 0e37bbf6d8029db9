# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The local autoregressive model: order, sums over all images, sampling."""

import functools
import itertools

import numpy as np
import numpy_matnet as npm
import pytest
import tensorflow as tf

from matnet_tf.autoregression import LocalAutoregression, MaskedConvolution
from matnet_tf.config import ModelConfig, Stage

DENSE, CONVOLUTIONAL = Stage(1, 5, 2, 1), Stage((4, 3), 5, 2, 1)


@functools.cache
def made(
    image=(4, 3, 3), likelihood="logistic", stage=CONVOLUTIONAL, size=3, layers=3, scale="pixel"
):
    """A local model with random weights, built for the last state of such a MatNet."""
    stage = stage if stage.dense else Stage(image[:2], 5, 2, 1)
    config = ModelConfig(
        image,
        (stage,),
        2,
        4,
        image_filters=3,
        likelihood=likelihood,
        likelihood_scale=scale,
        autoregressive=True,
        autoregressive_layers=layers,
        autoregressive_filters=7,
        autoregressive_kernel_size=size,
    )
    layer = LocalAutoregression(config)
    layer.build((None, 5) if stage.dense else (None, *image[:2], 3))
    return npm.randomize(layer)


def context_of(layer, rows=2):
    rng = np.random.default_rng(1)
    dense = layer.config.stages[-1].dense
    shape = (5,) if dense else (*layer.config.image_shape[:2], 3)
    return layer(tf.constant(rng.normal(size=(rows, *shape)), tf.float32))


def images_of(layer, rows=2):
    shape = (rows, *layer.config.image_shape)
    levels = np.random.default_rng(2).integers(0, 256, shape)
    binary = layer.config.likelihood == "bernoulli"
    return tf.constant(levels > 127 if binary else levels / 255, tf.float32)


LAYERS = {
    "grey": functools.partial(made, (4, 3, 1), "bernoulli"),
    "grey, fully connected": functools.partial(made, (4, 3, 1), "bernoulli", DENSE),
    "colour": functools.partial(made, (4, 3, 3), "logistic"),
    "colour, kernels of 5": functools.partial(made, (5, 6, 3), "logistic", size=5),
    "colour, 5 layers": functools.partial(made, (3, 4, 3), "logistic", layers=5, scale="channel"),
    "two channels, binary": functools.partial(made, (3, 3, 2), "bernoulli", layers=2),
}
every_layer = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
# Drawing traces a graph for each layer. These two have all that there is to get wrong: a fully
# connected state, and several channels.
DRAWN_AT_ONCE = ("grey, fully connected", "colour")
every_layer_draws = pytest.mark.parametrize(
    "make",
    [
        pytest.param(make, id=name, marks=[] if name in DRAWN_AT_ONCE else [pytest.mark.slow])
        for name, make in LAYERS.items()
    ],
)


# Values against NumPy.


@every_layer
def test_parameters_are_numpys_masked_convolutions(make):
    layer = make()
    x, context = images_of(layer), context_of(layer)
    actual = layer.parameters(x, context).numpy()
    expected = numpy_parameters(layer, x.numpy(), context.numpy())
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


def numpy_parameters(layer, x, context):
    """The parallel pass with loops over positions, in float64."""
    act = npm.ACTIVATIONS[layer.config.activation]
    channels = x.shape[-1]
    hidden = np.float64(x if layer.config.likelihood == "bernoulli" else 2 * x - 1)
    start = 0
    for index, convolution in enumerate(layer.convolutions):
        kernel = convolution.kernel.numpy().astype(np.float64)
        sums = context[..., start : start + kernel.shape[-1]].astype(np.float64)
        start += kernel.shape[-1]
        if index == 0:
            width = convolution.filters
            first = numpy_masked(hidden, kernel[..., :width], channels, strict=True)
            shortcut = numpy_masked(hidden, kernel[..., width:], channels, strict=True)
            shortcut = shortcut + sums[..., width:]
            hidden = act(first + sums[..., :width])
            continue
        sums = sums + numpy_masked(hidden, kernel, channels, strict=False)
        last = index == len(layer.convolutions) - 1
        hidden = sums + shortcut if last else act(sums) + hidden
    return hidden.reshape(*x.shape, -1)


def numpy_masked(x, kernel, channels, strict):
    rows, height, width, reads = x.shape
    radius, writes = kernel.shape[0] - 1, kernel.shape[-1]
    out = np.zeros((rows, height, width, writes))
    for y, c in itertools.product(range(height), range(width)):
        for i, j in itertools.product(range(radius + 1), range(2 * radius + 1)):
            above, beside = y + i - radius, c + j - radius
            if above < 0 or not 0 <= beside < width or (i == radius and j > radius):
                continue
            weights = kernel[i, j].copy()
            if i == radius and j == radius:
                for a, b in itertools.product(range(reads), range(writes)):
                    first, second = a * channels // reads, b * channels // writes
                    if first > second or (strict and first == second):
                        weights[a, b] = 0
            out[:, y, c] += x[:, above, beside] @ weights
    return out


# The order.


@every_layer
def test_no_value_sees_itself_or_a_later_one(make):
    layer = make()
    x, context = images_of(layer, 1), context_of(layer, 1)
    size = int(np.prod(layer.config.image_shape))
    with tf.GradientTape() as tape:
        tape.watch(x)
        parameters = tf.reshape(layer.parameters(x, context), [size, -1])
    jacobian = tape.jacobian(parameters, x).numpy().reshape(size, -1, size)
    sees = abs(jacobian).max(1)
    assert (np.triu(sees) == 0).all(), "a value's parameters depend on it or on a later one"
    # And it sees the one before it, unless that lies in another row, out of reach of its kernels.
    channels = layer.config.image_shape[-1]
    if channels > 1:
        assert (np.diag(sees, -1)[: channels - 1] > 0).all()


@every_layer
def test_every_earlier_value_within_reach_is_seen(make):
    layer = make()
    height, width, channels = layer.config.image_shape
    x, context = images_of(layer, 1), context_of(layer, 1)
    with tf.GradientTape() as tape:
        tape.watch(x)
        last = layer.parameters(x, context)[0, height - 1, width // 2, channels - 1]
        last = tf.reduce_sum(last**2)
    sees = abs(tape.gradient(last, x).numpy()[0]) > 0
    radius = layer.convolutions[0].radius
    assert sees[height - 1, width // 2 - 1].all()
    assert sees[height - 2, width // 2].all()
    assert sees[height - 1, width // 2, : channels - 1].all()
    assert sees[height - 2, min(width - 1, width // 2 + radius)].all()


def test_the_state_reaches_every_parameter_of_every_layer():
    layer = made()
    rng = np.random.default_rng(0)
    h_td = tf.constant(rng.normal(size=(1, 4, 3, 3)), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(h_td)
        log_prob = layer.distribution(layer(h_td)).log_prob(images_of(layer, 1))
    assert (abs(tape.gradient(log_prob, h_td).numpy()) > 0).all()
    kernel = layer.context.kernel.numpy()[0, 0]
    assert kernel.shape == (3, sum(c.width for c in layer.convolutions))


# Probabilities.


@pytest.mark.parametrize("stage", [DENSE, Stage(2, 5, 2, 1)])
@pytest.mark.parametrize("channels", [1, 2])
def test_the_probabilities_of_all_binary_images_sum_to_1(stage, channels):
    layer = made((2, 2, channels), "bernoulli", stage)
    size = 4 * channels
    images = np.float32(list(itertools.product([0, 1], repeat=size))).reshape(-1, 2, 2, channels)
    context = tf.repeat(context_of(layer, 1), len(images), 0)
    log_prob = layer.distribution(context).log_prob(images).numpy().astype(np.float64)
    assert log_prob.shape == (2**size,)
    assert np.exp(log_prob).sum() == pytest.approx(1.0, abs=1e-5)
    assert log_prob.max() - log_prob.min() > 0.5, "the images should differ in probability"


def test_the_probabilities_of_all_8_bit_values_of_two_pixels_sum_to_1():
    layer = made((1, 2, 1), "logistic")
    levels = np.float32(np.arange(256) / 255)
    images = np.stack(np.meshgrid(levels, levels, indexing="ij"), -1).reshape(-1, 1, 2, 1)
    context = tf.repeat(context_of(layer, 1), len(images), 0)
    log_prob = layer.distribution(context).log_prob(images).numpy().astype(np.float64)
    assert np.exp(log_prob).sum() == pytest.approx(1.0, abs=1e-5)


# Sampling.


@every_layer_draws
def test_a_sample_scores_as_sampling_reported(make):
    layer = make()
    context = context_of(layer, 5)
    images, log_prob = layer.sample(context, tf.constant([3, 4]))
    assert images.shape == (5, *layer.config.image_shape)
    assert not layer.pixels.invalid(images).numpy().any()
    np.testing.assert_allclose(layer.distribution(context).log_prob(images), log_prob, rtol=1e-4)


@every_layer_draws
def test_incremental_sampling_is_that_by_whole_passes_with_the_same_noise(make):
    layer = make()
    height, width, channels = layer.config.image_shape
    context, seed = context_of(layer, 5), tf.constant([5, 6])
    actual, _ = layer.sample(context, seed)
    noise = tf.random.stateless_uniform([height, width, 5, channels], seed)
    noise = tf.transpose(noise, [2, 0, 1, 3])
    x = np.zeros(actual.shape, np.float32)
    for y, c, channel in np.ndindex(height, width, channels):
        drawn = layer.pixels.quantile(layer.parameters(tf.constant(x), context), noise)
        x[:, y, c, channel] = drawn[:, y, c, channel]
    np.testing.assert_allclose(actual, x, atol=1e-6)


def test_sampled_frequencies_are_the_probabilities():
    layer = made((1, 2, 1), "bernoulli", DENSE)
    context = tf.repeat(context_of(layer, 1), 8000, 0)
    drawn = layer.distribution(context).sample(seed=[1, 2]).numpy().reshape(-1, 2)
    for image in itertools.product([0.0, 1.0], repeat=2):
        x = np.float32(image).reshape(1, 1, 2, 1)
        chance = float(np.exp(layer.distribution(context[:1]).log_prob(x))[0])
        share = (drawn == image).all(1).mean()
        assert share == pytest.approx(chance, abs=4 * np.sqrt(chance * (1 - chance) / 8000))


def test_many_samples_of_one_distribution_differ_and_have_their_shape():
    layer = made()
    p_x = layer.distribution(context_of(layer, 2))
    samples = p_x.sample(3, seed=[0, 1])
    assert samples.shape == (3, 2, 4, 3, 3)
    assert len({s.numpy().tobytes() for s in tf.reshape(samples, [6, -1])}) == 6
    np.testing.assert_array_equal(samples, p_x.sample(3, seed=[0, 1]))


def test_a_distribution_says_that_it_has_no_mean():
    layer = made()
    assert not layer.has_mean
    with pytest.raises(TypeError, match="has no mean in closed form: average samples"):
        layer.distribution(context_of(layer)).mean()


def test_the_kernel_has_no_weights_below_its_row():
    layer = MaskedConvolution(6, 5, 3, "B")
    layer.build((None, 4, 4, 3))
    assert tuple(layer.kernel.shape) == (3, 5, 3, 6)
    kernel = npm.randomize(layer).masked_kernel().numpy()
    assert (kernel[-1, 3:] == 0).all()
    assert (kernel[:-1] != 0).all()
    # Filters 0-1 belong to channel 0, 2-3 to channel 1, 4-5 to channel 2.
    visible = np.repeat(np.tri(3).T, 2, axis=1) > 0
    np.testing.assert_array_equal(kernel[-1, 2] != 0, visible)
