# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The local autoregressive likelihood: order, sums over all images, sampling."""

import functools
import itertools

import numpy as np
import numpy_matnet as npm
import pytest
import tensorflow as tf
from local_models import log_prob_in_order

from matnet_tf.config import ModelConfig, Scale
from matnet_tf.likelihoods.autoregressive import LocalAutoregression
from matnet_tf.likelihoods.masked_convolution import MaskedConvolution

pytestmark = pytest.mark.usefixtures("eagerly")


@functools.cache
def made(image=(4, 3, 3), likelihood="logistic", dense=False, size=3, layers=3, scale="pixel"):
    """A local model with random weights, built for the last state of a MatNet."""
    config = ModelConfig(
        image,
        (Scale(1 if dense else image[:2], 5, 2, 1),),
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
    layer.build((None, 5) if dense else (None, *image[:2], 3))
    return npm.randomize(layer)


LAYERS = {
    "grey, dense": functools.partial(made, (4, 3, 1), "bernoulli", True),
    "colour": made,
    "colour, kernels of 5": functools.partial(made, (3, 4, 3), size=5),
    "colour, 5 layers": functools.partial(made, (3, 4, 3), layers=5, scale="channel"),
    "colour, mixture": functools.partial(made, (3, 4, 3), "logistic_mixture"),
    "two channels, binary": functools.partial(made, (3, 3, 2), "bernoulli", layers=2),
}
every_layer = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)


def context_of(layer, rows=2):
    rng = np.random.default_rng(1)
    dense = layer.config.scales[-1].dense
    shape = (5,) if dense else (*layer.config.image_shape[:2], 3)
    return layer(tf.constant(rng.normal(size=(rows, *shape)), tf.float32))


def images_of(layer, rows=2):
    shape = (rows, *layer.config.image_shape)
    levels = np.random.default_rng(2).integers(0, 256, shape)
    binary = layer.config.likelihood == "bernoulli"
    return tf.constant(levels > 127 if binary else levels / 255, tf.float32)


# Values against NumPy.


@every_layer
def test_parameters_are_numpys_masked_convolutions(make):
    layer = make()
    x, context = images_of(layer), context_of(layer)
    expected = numpy_parameters(layer, x.numpy(), context.numpy())
    np.testing.assert_allclose(layer.parameters(x, context), expected, rtol=1e-4, atol=1e-4)


def numpy_parameters(layer, x, context):
    """The parallel pass with loops over positions, in float64."""
    act, channels, start = npm.ACTIVATIONS[layer.config.activation], layer.steps, 0
    hidden = np.float64(x if layer.config.likelihood == "bernoulli" else 2 * x - 1)
    for index, convolution in enumerate(layer.convolutions):
        kernel = np.float64(convolution.kernel.numpy())
        share = np.float64(context[..., start : start + kernel.shape[-1]])
        start += kernel.shape[-1]
        if index == 0:
            width = convolution.filters
            first = numpy_masked(hidden, kernel[..., :width], channels, strict=True)
            shortcut = numpy_masked(hidden, kernel[..., width:], channels, strict=True)
            shortcut = shortcut + share[..., width:]
            hidden = act(first + share[..., :width])
            continue
        sums = share + numpy_masked(hidden, kernel, channels, strict=False)
        last = index == len(layer.convolutions) - 1
        hidden = sums + shortcut if last else act(sums) + hidden
    return hidden.reshape(len(x), *layer.observation.parameters_shape)


def numpy_masked(x, kernel, channels, strict):
    rows, height, width, reads = x.shape
    radius, writes = kernel.shape[0] - 1, kernel.shape[-1]
    here = kernel[radius, radius].copy()
    for a, b in np.ndindex(reads, writes):
        first, second = a * channels // reads, b * channels // writes
        if first > second or (strict and first == second):
            here[a, b] = 0
    out = np.zeros((rows, height, width, writes))
    for y, c, i, j in np.ndindex(height, width, radius + 1, 2 * radius + 1):
        above, beside = y + i - radius, c + j - radius
        if above < 0 or not 0 <= beside < width or (i == radius and j > radius):
            continue
        weights = here if (i, j) == (radius, radius) else kernel[i, j]
        out[:, y, c] += x[:, above, beside] @ weights
    return out


def test_kernel_has_no_weights_below_its_row():
    layer = MaskedConvolution(6, 5, 3, "B")
    layer.build((None, 4, 4, 3))
    assert tuple(layer.kernel.shape) == (3, 5, 3, 6)
    kernel = npm.randomize(layer).masked_kernel().numpy()
    assert (kernel[-1, 3:] == 0).all()
    assert (kernel[:-1] != 0).all()
    # Filters 0-1 belong to channel 0, 2-3 to channel 1, 4-5 to channel 2.
    visible = np.repeat(np.tri(3).T, 2, axis=1) > 0
    np.testing.assert_array_equal(kernel[-1, 2] != 0, visible)


# The order.


@every_layer
def test_values_depend_on_all_earlier_ones_in_reach_and_on_no_later_one(make):
    layer = make()
    height, width, _ = layer.config.image_shape
    x, context, steps = images_of(layer, 1), context_of(layer, 1), layer.steps
    size = height * width * steps  # A mixture draws the channels of a pixel at once.
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        parameters = tf.reduce_sum(tf.reshape(layer.parameters(x, context), [size, -1]) ** 2, 1)
    jacobian = tape.jacobian(parameters, x, experimental_use_pfor=False).numpy()
    reads = (abs(jacobian) > 0).reshape(size, size, -1).any(-1)
    assert not np.triu(reads).any(), "a value depends on it or a later one"
    row, column, radius = height - 1, width // 2, layer.convolutions[0].radius
    last = reads.reshape(height, width, steps, height, width, steps)[row, column, -1]
    assert last[row, column - 1].all()
    assert last[row - 1, column].all()
    assert last[row, column, : steps - 1].all()
    assert last[row - 1, min(width - 1, column + radius)].all()


def test_every_part_of_the_state_reaches_the_likelihood():
    layer = made()
    h_td = tf.constant(np.random.default_rng(0).normal(size=(1, 4, 3, 3)), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(h_td)
        log_prob = layer.distribution(layer(h_td)).log_prob(images_of(layer, 1))
    assert (abs(tape.gradient(log_prob, h_td).numpy()) > 0).all()


# Probabilities.


def log_probs_of(layer, images):
    context = tf.repeat(context_of(layer, 1), len(images), 0)
    return np.float64(layer.distribution(context).log_prob(images))


@pytest.mark.parametrize("dense", [False, True])
def test_probabilities_of_all_binary_images_sum_to_1(dense):
    for channels in (1, 2):
        layer = made((2, 2, channels), "bernoulli", dense)
        images = np.float32(list(itertools.product([0, 1], repeat=4 * channels)))
        log_prob = log_probs_of(layer, images.reshape(-1, 2, 2, channels))
        assert np.exp(log_prob).sum() == pytest.approx(1.0, abs=1e-5)
        assert log_prob.max() - log_prob.min() > 0.5, "the images should differ in probability"


@pytest.mark.parametrize("likelihood", ["logistic", "logistic_mixture"])
def test_probabilities_of_all_8_bit_values_of_two_pixels_sum_to_1(likelihood):
    levels = np.float32(np.arange(256) / 255)
    images = np.stack(np.meshgrid(levels, levels, indexing="ij"), -1).reshape(-1, 1, 2, 1)
    log_prob = log_probs_of(made((1, 2, 1), likelihood), images)
    assert np.exp(log_prob).sum() == pytest.approx(1.0, abs=1e-5)


# Sampling.


@every_layer
def test_incremental_sampling_equals_whole_passes_with_the_same_noise(make):
    layer = make()
    height, width, channels = layer.config.image_shape
    context, seed = context_of(layer, 5), tf.constant([5, 6])
    images = layer.sample(context, seed)
    shape = [height, width, 5, layer.observation.num_uniforms]
    noise = tf.transpose(tf.random.stateless_uniform(shape, seed), [2, 0, 1, 3])
    x = np.zeros(images.shape, np.float32)
    for y, c, step in np.ndindex(height, width, layer.steps):
        drawn = layer.observation.quantile(layer.parameters(tf.constant(x), context), noise)
        values = slice(None) if layer.steps == 1 else step
        x[:, y, c, values] = drawn[:, y, c, values]
    np.testing.assert_allclose(images, x, atol=1e-6)
    log_prob = log_prob_in_order(layer, context, images.numpy())
    np.testing.assert_allclose(layer.distribution(context).log_prob(images), log_prob, rtol=1e-4)


@pytest.mark.slow
def test_a_graph_samples_the_same_images():
    layer, seed = made(), tf.constant([5, 6])
    context = context_of(layer, 5)
    eager = layer.sample(context, seed)
    tf.config.run_functions_eagerly(False)
    graph = layer.sample(context, seed)
    np.testing.assert_allclose(graph, eager, atol=1e-6)


def test_sampled_frequencies_are_the_probabilities():
    layer = made((1, 2, 1), "bernoulli", True)
    context = tf.repeat(context_of(layer, 1), 8000, 0)
    drawn = layer.distribution(context).sample(seed=[1, 2]).numpy().reshape(-1, 2)
    for image in itertools.product([0.0, 1.0], repeat=2):
        x = np.float32(image).reshape(1, 1, 2, 1)
        chance = float(np.exp(layer.distribution(context[:1]).log_prob(x))[0])
        share = (drawn == image).all(1).mean()
        assert share == pytest.approx(chance, abs=4 * np.sqrt(chance * (1 - chance) / 8000))


def test_several_samples_differ_and_have_their_shape():
    layer = made((3, 3, 2), "bernoulli", layers=2)
    p_x = layer.distribution(context_of(layer, 2))
    samples = p_x.sample(3, seed=[0, 1])
    assert samples.shape == (3, 2, 3, 3, 2)
    assert len({s.numpy().tobytes() for s in tf.reshape(samples, [6, -1])}) == 6
    np.testing.assert_array_equal(samples, p_x.sample(3, seed=[0, 1]))


def test_there_is_no_mean():
    layer = made()
    assert not layer.has_mean
    with pytest.raises(TypeError, match="has no mean in closed form: average samples"):
        layer.distribution(context_of(layer)).mean()
