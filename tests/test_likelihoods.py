# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Likelihoods against NumPy and SciPy."""

import numpy as np
import numpy_matnet as npm
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf

from matnet_tf.bounds import bits_per_dim
from matnet_tf.config import ModelConfig, Stage
from matnet_tf.likelihoods import Likelihood
from matnet_tf.pixels import PIXELS, Bernoulli, Logistic, Normal

IMAGE = (4, 3, 2)
SCALES = {"pixel": (4, 3, 2), "channel": (2,), "scalar": ()}


def rng():
    return np.random.default_rng(0)


def normal(*shape, scale=1.0):
    return rng().normal(0, scale, shape).astype(np.float32)


def built(pixels):
    pixels.build((None, *IMAGE, pixels.num_parameters))
    return npm.randomize(pixels)


def images(pixels, rows=3):
    """Images that the kind of pixels can model."""
    levels = rng().integers(0, 256, (rows, *IMAGE))
    if isinstance(pixels, Bernoulli):
        return (levels > 127).astype(np.float32)
    if isinstance(pixels, Logistic):
        return (levels / 255).astype(np.float32)
    return ((levels + rng().random((rows, *IMAGE))) / 256).astype(np.float32)


def log_scales(pixels, parameters, first):
    """The bounded log-scales in float64, `[B, H, W, C]`."""
    raw = parameters[..., 1] + first if pixels.scale == "pixel" else pixels.log_scale.numpy()
    return np.broadcast_to(7 * np.tanh(np.float64(raw) / 7), parameters.shape[:-1])


# The parameters.


@pytest.mark.parametrize("likelihood", PIXELS)
@pytest.mark.parametrize(
    ("stage", "state_shape"), [(Stage(1, 5, 2, 1), (5,)), (Stage((4, 3), 5, 2, 1), (4, 3, 5))]
)
def test_parameters_are_a_linear_function_of_the_last_state(likelihood, stage, state_shape):
    layer = Likelihood(ModelConfig(IMAGE, (stage,), 2, 4, 5, likelihood=likelihood))
    layer.build((None, *state_shape))
    npm.randomize(layer)
    h_td = normal(2, *state_shape)
    expected = npm.linear(h_td, npm.weights(layer.head))
    per_value = 1 if likelihood == "bernoulli" else 2
    expected = expected.reshape(2, *IMAGE, per_value)
    np.testing.assert_allclose(layer(h_td), expected, rtol=1e-4, atol=1e-5)
    assert layer.distribution(layer(h_td)).batch_shape == (2,)


# The distributions.


def test_binary_pixels_are_scipys_bernoulli():
    pixels, logits = built(Bernoulli(IMAGE)), normal(5, *IMAGE, 1, scale=3.0)
    x = images(pixels, 5)
    p_x = pixels.distribution(tf.constant(logits))
    chance = scipy.special.expit(np.float64(logits[..., 0]))
    expected = scipy.stats.bernoulli.logpmf(x, chance).reshape(5, -1).sum(1)
    assert p_x.batch_shape == (5,)
    np.testing.assert_allclose(p_x.log_prob(x), expected, rtol=1e-5)
    np.testing.assert_allclose(p_x.mean(), chance, rtol=1e-5)
    assert set(np.unique(p_x.sample(seed=[0, 1]))) == {0.0, 1.0}


def test_a_grey_pixel_counts_the_expected_log_probability_of_its_binarization():
    p_x = built(Bernoulli(IMAGE)).distribution(tf.constant(normal(1, *IMAGE, 1)))
    grey = p_x.log_prob(tf.fill([1, *IMAGE], 0.3))
    mixed = 0.3 * p_x.log_prob(tf.ones([1, *IMAGE])) + 0.7 * p_x.log_prob(tf.zeros([1, *IMAGE]))
    np.testing.assert_allclose(grey, mixed, rtol=1e-5)


@pytest.mark.parametrize("scale", SCALES)
def test_8_bit_pixels_have_the_mass_of_scipys_logistic_between_two_levels(scale):
    pixels = built(Logistic(IMAGE, scale))
    parameters = normal(3, *IMAGE, pixels.num_parameters, scale=0.5)
    x = images(pixels)
    x[0, 0, 0] = 0.0, 1.0  # Edges, whose bins are open.
    loc = np.float64(parameters[..., 0])
    deviation = np.exp(log_scales(pixels, parameters, -2.0))
    level = np.rint(255 * np.float64(x))
    upper = np.where(level == 255, np.inf, 2 * (level + 0.5) / 255 - 1)
    lower = np.where(level == 0, -np.inf, 2 * (level - 0.5) / 255 - 1)
    logistic = scipy.stats.logistic(loc, deviation)
    # The survival function keeps its precision above the location.
    mass = np.where(lower > loc, logistic.sf(lower) - logistic.sf(upper), 0)
    mass = np.where(lower > loc, mass, logistic.cdf(upper) - logistic.cdf(lower))
    p_x = pixels.distribution(tf.constant(parameters))
    expected = np.log(mass).reshape(3, -1).sum(1)
    np.testing.assert_allclose(p_x.log_prob(x), expected, rtol=1e-4)


@pytest.mark.parametrize("scale", SCALES)
def test_real_pixels_have_the_density_of_scipys_normal_on_the_scale_of_the_image(scale):
    pixels = built(Normal(IMAGE, scale))
    parameters = normal(3, *IMAGE, pixels.num_parameters, scale=0.5)
    x = images(pixels)
    deviation = np.exp(log_scales(pixels, parameters, -1.0))
    expected = scipy.stats.norm.logpdf(x, 0.5 + 0.5 * parameters[..., 0], 0.5 * deviation)
    p_x = pixels.distribution(tf.constant(parameters))
    np.testing.assert_allclose(p_x.log_prob(x), expected.reshape(3, -1).sum(1), rtol=1e-5)
    np.testing.assert_allclose(p_x.mean(), 0.5 + 0.5 * parameters[..., 0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scale", SCALES)
def test_only_what_should_has_a_scale_of_its_own(scale):
    for kind in (Normal, Logistic):
        pixels = built(kind(IMAGE, scale))
        learned = [] if scale == "pixel" else [SCALES[scale]]
        assert [tuple(w.shape) for w in pixels.trainable_weights] == learned
        assert pixels.num_parameters == (2 if scale == "pixel" else 1)


def whitened(scale="scalar"):
    pixels = Normal(IMAGE, scale, whitening=True)
    pixels.adapt([images(pixels, 40)])
    return built(pixels)


def test_bits_per_dim_of_plain_and_whitened_models_are_numpys_on_the_same_draws():
    for pixels in (built(Normal(IMAGE, "channel")), whitened()):
        parameters = normal(3, *IMAGE, 1, scale=0.5)
        x = images(pixels)
        nats = -np.mean(pixels.distribution(tf.constant(parameters)).log_prob(x))
        mean, size = np.full(24, 0.5), 24
        matrix = 2 * np.eye(size)
        if pixels.whitening:
            layer = pixels.whitening_layer
            mean = layer.location.numpy().astype(np.float64)
            matrix = layer.matrix.numpy().astype(np.float64)
        y = (x.reshape(3, -1) - mean) @ matrix.T
        loc = np.float64(parameters[..., 0]).reshape(3, -1)
        deviation = np.exp(log_scales(pixels, parameters, 0.0)).reshape(3, -1)
        density = scipy.stats.norm.logpdf(y, loc, deviation).sum(1)
        density += np.linalg.slogdet(matrix)[1]
        # The density of (v + u) / 256 is 256 times that of v + u, whose bins have width 1.
        expected = (-density.mean() / size + np.log(256)) / np.log(2)
        actual = bits_per_dim(nats, IMAGE, pixels.bins)
        assert actual == pytest.approx(expected, abs=1e-4)


def test_samples_of_a_whitened_model_have_minus_its_entropy_as_their_mean_log_density():
    # The entropy is known: that of the Gaussian, and the log-determinant of the way back.
    pixels = whitened()
    parameters = tf.zeros([1, *IMAGE, 1])
    p_x = pixels.distribution(parameters)
    log_prob = p_x.log_prob(p_x.sample(4000, seed=[1, 2])).numpy()
    deviation = np.exp(log_scales(pixels, parameters.numpy(), 0.0)).ravel()
    entropy = scipy.stats.norm(0, deviation).entropy().sum()
    entropy -= pixels.whitening_layer.log_det.numpy()
    assert log_prob.mean() == pytest.approx(-entropy, abs=4 * log_prob.std() / np.sqrt(4000))


# What every kind promises.


@pytest.mark.parametrize("pixels", [Bernoulli, Logistic, Normal])
def test_wild_parameters_stay_finite_with_their_gradients(pixels):
    layer = built(pixels(IMAGE))
    for value in (-1e30, -1e4, 1e4, 1e30):
        parameters = tf.fill([1, *IMAGE, layer.num_parameters], value)
        for x in (tf.zeros([1, *IMAGE]), tf.ones([1, *IMAGE])):
            with tf.GradientTape() as tape:
                tape.watch(parameters)
                log_prob = layer.distribution(parameters).log_prob(x)
            assert np.isfinite(log_prob).all()
            assert np.isfinite(tape.gradient(log_prob, parameters)).all()


@pytest.mark.parametrize("pixels", [Bernoulli, Logistic, Normal])
def test_a_bfloat16_state_still_gives_a_float32_likelihood(pixels):
    layer = built(pixels(IMAGE))
    p_x = layer.distribution(tf.zeros([1, *IMAGE, layer.num_parameters], tf.bfloat16))
    assert p_x.log_prob(tf.ones([1, *IMAGE])).dtype == tf.float32


@pytest.mark.parametrize("pixels", [Bernoulli, Logistic])
def test_quantiles_of_uniform_noise_follow_the_distribution(pixels):
    layer = built(pixels(IMAGE))
    parameters = tf.constant(normal(1, *IMAGE, layer.num_parameters))
    uniform = (np.arange(4000) + 0.5) / 4000
    noise = tf.constant(np.broadcast_to(uniform[:, None, None, None], (4000, *IMAGE)), tf.float32)
    drawn = layer.quantile(tf.repeat(parameters, 4000, 0), noise).numpy()
    assert not layer.invalid(tf.constant(drawn)).numpy().any()
    for value in (0.0, 100 / 255, 128 / 255, 1.0):
        value = np.float32(value)
        if pixels is Bernoulli and 0 < value < 1:
            continue
        mass = np.exp(layer.values(parameters).log_prob(tf.fill(IMAGE, value)))[0]
        np.testing.assert_allclose((abs(drawn - value) < 1e-4).mean(0), mass, atol=1e-3)


def test_each_kind_finds_the_values_that_it_cannot_model():
    good = {"bernoulli": [0, 0.3, 1], "logistic": [0, 1 / 255, 77 / 255, 1], "normal": [0, 0.3, 1]}
    bad = [-0.01, 1.01, np.nan, np.inf, -np.inf]
    for name, kind in PIXELS.items():
        pixels = kind(IMAGE)
        wrong = [*bad, 0.3, 100.5 / 256] if name == "logistic" else bad
        assert not pixels.invalid(tf.constant(good[name], tf.float32)).numpy().any(), name
        assert pixels.invalid(tf.constant(wrong, tf.float32)).numpy().all(), name


def test_networks_read_real_images_around_zero_and_binary_ones_as_they_are():
    x = np.float32([[0, 0.5, 1]])
    np.testing.assert_array_equal(Bernoulli(IMAGE).standardize(x), x)
    np.testing.assert_array_equal(Logistic(IMAGE).standardize(x), [[-1, 0, 1]])
    np.testing.assert_array_equal(Normal(IMAGE).standardize(x), [[-1, 0, 1]])
