# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Observation models and the independent likelihood against NumPy and SciPy."""

import numpy as np
import numpy_matnet as npm
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf

from matnet_tf.config import ModelConfig, Scale
from matnet_tf.likelihoods.independent import Likelihood
from matnet_tf.likelihoods.observation import (
    OBSERVATIONS,
    Bernoulli,
    Logistic,
    LogisticMixture,
    Normal,
    ObservedPixels,
)
from matnet_tf.model.bounds import bits_per_dim

IMAGE = (4, 3, 2)
SCALES = {"pixel": IMAGE, "channel": (2,), "scalar": ()}


def rng():
    return np.random.default_rng(0)


def normal(*shape, scale=1.0):
    return rng().normal(0, scale, shape).astype(np.float32)


def built(model):
    model.build((None, *model.parameters_shape))
    return npm.randomize(model)


def images(model, rows=3):
    """Images that the observation model allows."""
    levels = rng().integers(0, 256, (rows, *IMAGE))
    if isinstance(model, Bernoulli):
        return (levels > 127).astype(np.float32)
    if isinstance(model, (Logistic, LogisticMixture)):
        return (levels / 255).astype(np.float32)
    return ((levels + rng().random((rows, *IMAGE))) / 256).astype(np.float32)


def deviations(model, parameters, first):
    """The scales for images in [-1, 1] in float64, [B, H, W, C]."""
    raw = parameters[..., 1] + first if model.scale == "pixel" else model.log_scale.numpy()
    return np.broadcast_to(np.exp(7 * np.tanh(np.float64(raw) / 7)), parameters.shape[:-1])


def test_parameters_are_a_linear_function_of_the_last_state():
    for likelihood in OBSERVATIONS:
        for scale, state_shape in (
            (Scale(1, 5, 2, 1), (5,)),
            (Scale((4, 3), 5, 2, 1), (4, 3, 5)),
        ):
            layer = Likelihood(ModelConfig(IMAGE, (scale,), 2, 4, 5, likelihood=likelihood))
            layer.build((None, *state_shape))
            npm.randomize(layer)
            h_td = normal(2, *state_shape)
            shape = (4, 3, 6, 10) if likelihood == "logistic_mixture" else (*IMAGE, -1)
            expected = npm.linear(h_td, npm.weights(layer.head)).reshape(2, *shape)
            assert expected.shape[-1] == {"bernoulli": 1, "logistic_mixture": 10}.get(likelihood, 2)
            np.testing.assert_allclose(layer(h_td), expected, rtol=1e-4, atol=1e-5)
            assert layer.distribution(layer(h_td)).batch_shape == (2,)


def test_bernoulli_is_scipys():
    model, logits = built(Bernoulli(IMAGE)), normal(5, *IMAGE, 1, scale=3.0)
    x = images(model, 5)
    p_x = model.distribution(tf.constant(logits))
    chance = scipy.special.expit(np.float64(logits[..., 0]))
    expected = scipy.stats.bernoulli.logpmf(x, chance).reshape(5, -1).sum(1)
    assert p_x.batch_shape == (5,)
    np.testing.assert_allclose(p_x.log_prob(x), expected, rtol=1e-5)
    np.testing.assert_allclose(p_x.mean(), chance, rtol=1e-5)
    assert set(np.unique(p_x.sample(seed=[0, 1]))) == {0.0, 1.0}


def test_a_grey_value_scores_the_expected_log_probability_of_its_binarization():
    p_x = built(Bernoulli(IMAGE)).distribution(tf.constant(normal(1, *IMAGE, 1)))
    grey = p_x.log_prob(tf.fill([1, *IMAGE], 0.3))
    mixed = 0.3 * p_x.log_prob(tf.ones([1, *IMAGE])) + 0.7 * p_x.log_prob(tf.zeros([1, *IMAGE]))
    np.testing.assert_allclose(grey, mixed, rtol=1e-5)


@pytest.mark.parametrize("scale", SCALES)
def test_logistic_has_the_mass_of_scipys_between_two_levels(scale):
    model = built(Logistic(IMAGE, scale))
    parameters = normal(3, *IMAGE, model.num_parameters, scale=0.5)
    x = images(model)
    x[0, 0, 0] = 0.0, 1.0  # The outer levels are open.
    loc, deviation = np.float64(parameters[..., 0]), deviations(model, parameters, -2.0)
    level = np.rint(255 * np.float64(x))
    upper = np.where(level == 255, np.inf, 2 * (level + 0.5) / 255 - 1)
    lower = np.where(level == 0, -np.inf, 2 * (level - 0.5) / 255 - 1)
    logistic = scipy.stats.logistic(loc, deviation)
    # The survival function keeps its precision above the location.
    mass = np.where(lower > loc, logistic.sf(lower) - logistic.sf(upper), 0)
    mass = np.where(lower > loc, mass, logistic.cdf(upper) - logistic.cdf(lower))
    p_x = model.distribution(tf.constant(parameters))
    expected = np.log(mass).reshape(3, -1).sum(1)
    np.testing.assert_allclose(p_x.log_prob(x), expected, rtol=1e-4)


@pytest.mark.parametrize("scale", SCALES)
def test_normal_has_scipys_density_in_the_unit_of_the_image(scale):
    model = built(Normal(IMAGE, scale))
    parameters = normal(3, *IMAGE, model.num_parameters, scale=0.5)
    x = images(model)
    loc, deviation = 0.5 + 0.5 * parameters[..., 0], 0.5 * deviations(model, parameters, -1.0)
    p_x = model.distribution(tf.constant(parameters))
    expected = scipy.stats.norm.logpdf(x, loc, deviation).reshape(3, -1).sum(1)
    np.testing.assert_allclose(p_x.log_prob(x), expected, rtol=1e-5)
    np.testing.assert_allclose(p_x.mean(), loc, rtol=1e-5, atol=1e-6)
    named = model.named_parameters(tf.constant(parameters))
    np.testing.assert_allclose(named["loc"], loc, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(named["scale"], deviation, rtol=1e-5)


def test_only_scale_decides_what_has_a_scale_of_its_own():
    for kind in (Normal, Logistic):
        for scale, shape in SCALES.items():
            model = built(kind(IMAGE, scale))
            learned = [] if scale == "pixel" else [shape]
            assert [tuple(w.shape) for w in model.trainable_weights] == learned
            assert model.num_parameters == (2 if scale == "pixel" else 1)


def whitened():
    model = Normal(IMAGE, "scalar", whitening=True)
    with pytest.raises(ValueError, match="needs the training images first: call adapt"):
        model.checked(images(model))
    model.adapt([images(model, 40)])
    model.checked(images(model))
    return built(model)


def test_bits_per_dim_with_and_without_whitening_are_numpys():
    for model in (built(Normal(IMAGE, "channel")), whitened()):
        parameters, x = normal(3, *IMAGE, 1, scale=0.5), images(model)
        nats = -np.mean(model.distribution(tf.constant(parameters)).log_prob(x))
        mean, size = np.full(24, 0.5), 24
        matrix = 2 * np.eye(size)
        if model.whitening:
            layer = model.whitening_layer
            mean, matrix = np.float64(layer.location.numpy()), np.float64(layer.matrix.numpy())
        y = (x.reshape(3, -1) - mean) @ matrix.T
        loc = np.float64(parameters[..., 0]).reshape(3, -1)
        deviation = deviations(model, parameters, 0.0).reshape(3, -1)
        density = scipy.stats.norm.logpdf(y, loc, deviation).sum(1) + np.linalg.slogdet(matrix)[1]
        # The density of (v + u) / 256 is 256 times that of v + u, whose bins have width 1.
        expected = (-density.mean() / size + np.log(256)) / np.log(2)
        assert bits_per_dim(nats, IMAGE, model.bins) == pytest.approx(expected, abs=1e-4)


def test_whitened_samples_have_minus_the_entropy_as_mean_log_density():
    model, parameters = whitened(), tf.zeros([1, *IMAGE, 1])
    p_x = model.distribution(parameters)
    log_prob = p_x.log_prob(p_x.sample(4000, seed=[1, 2])).numpy()
    deviation = deviations(model, parameters.numpy(), 0.0).ravel()
    entropy = scipy.stats.norm(0, deviation).entropy().sum() - model.whitening_layer.log_det.numpy()
    assert log_prob.mean() == pytest.approx(-entropy, abs=4 * log_prob.std() / np.sqrt(4000))


@pytest.mark.parametrize("kind", OBSERVATIONS)
def test_extreme_parameters_give_finite_values_and_gradients(kind):
    model = built(OBSERVATIONS[kind](IMAGE))
    for value in (-1e30, -1e4, 1e4, 1e30):
        parameters = tf.fill([1, *model.parameters_shape], value)
        for x in (tf.zeros([1, *IMAGE]), tf.ones([1, *IMAGE])):
            with tf.GradientTape() as tape:
                tape.watch(parameters)
                log_prob = model.distribution(parameters).log_prob(x)
            assert np.isfinite(log_prob).all()
            assert np.isfinite(tape.gradient(log_prob, parameters)).all()


def test_quantiles_of_uniform_noise_have_the_distribution():
    uniform = (np.arange(4000) + 0.5) / 4000
    noise = tf.constant(np.broadcast_to(uniform[:, None, None, None], (4000, *IMAGE)), tf.float32)
    for kind, values in ((Bernoulli, [0, 1]), (Logistic, [0, 100 / 255, 128 / 255, 1])):
        model = built(kind(IMAGE))
        parameters = tf.constant(normal(1, *IMAGE, model.num_parameters))
        drawn = model.quantile(tf.repeat(parameters, 4000, 0), noise).numpy()
        assert not model.invalid(tf.constant(drawn)).numpy().any()
        for value in values:
            mass = np.exp(model.values(parameters).log_prob(tf.fill(IMAGE, np.float32(value))))[0]
            np.testing.assert_allclose((abs(drawn - value) < 1e-4).mean(0), mass, atol=1e-3)


def test_a_mixture_starts_where_no_level_is_rare():
    for components in (1, 10):
        model = LogisticMixture((1, 1, 3), components=components)
        named = model.named_parameters(tf.zeros([1, *model.parameters_shape]))
        assert list(named) == ["logits", "loc", "scale", "coefficients"]
        np.testing.assert_array_equal(named["loc"], np.full([1, 1, 1, 3, components], 0.5))
        assert not named["coefficients"].numpy().any()
    grey = LogisticMixture((1, 1, 1))
    levels = tf.reshape(tf.range(256.0) / 255, [256, 1, 1, 1])
    parameters = tf.zeros([1, *grey.parameters_shape])
    bits = -grey.distribution(parameters).log_prob(levels).numpy() / np.log(2)
    assert bits.min() > 4 and bits.mean() < 10 and bits.max() < 15
    assert list(grey.named_parameters(parameters)) == ["logits", "loc", "scale"]


def test_invalid_values_are_found():
    bad = [-0.01, 1.01, np.nan, np.inf, -np.inf]
    for name, kind in OBSERVATIONS.items():
        model, wrong = kind(IMAGE), bad if name == "normal" else [*bad, 0.3, 100.5 / 256]
        good = {"normal": [0, 0.3, 1], "bernoulli": [0, 1]}.get(name, [0, 1 / 255, 77 / 255, 1])
        assert not model.invalid(tf.constant(good, tf.float32)).numpy().any(), name
        assert model.invalid(tf.constant(wrong, tf.float32)).numpy().all(), name


def test_8_bit_images_become_values_that_networks_read_around_zero():
    levels = tf.constant([[0, 51, 255]], tf.uint8)
    for kind, x, standardized in (
        (Bernoulli, [[0, 0.2, 1]], [[0, 0.2, 1]]),
        (Logistic, [[0, 0.2, 1]], [[-1, -0.6, 1]]),
        (Normal, [[0.5 / 256, 51.5 / 256, 255.5 / 256]], [[1 / 256 - 1, 103 / 256 - 1, 255 / 256]]),
    ):
        model = kind(IMAGE)
        np.testing.assert_allclose(model.from_bytes(levels), x, rtol=1e-6)
        np.testing.assert_allclose(model.standardize(np.float32(x)), standardized, rtol=1e-6)


def test_hidden_pixels_never_pass_and_known_ones_are_pasted():
    x = tf.constant([[[[1.0], [np.nan]]], [[[np.nan], [2.0]]]])
    mask = tf.constant([[[[1.0], [0.0]]], [[[0.0], [1.0]]]])
    observed = ObservedPixels.of(x, mask)
    np.testing.assert_array_equal(observed.x, [[[[1], [0]]], [[[0], [2]]]])
    np.testing.assert_array_equal(
        observed.paste(5 + tf.zeros_like(x)), [[[[1], [5]]], [[[5], [2]]]]
    )
    np.testing.assert_array_equal(
        observed.sum_hidden(tf.constant([[[[1.0], [2]]], [[[3], [4]]]])), [2, 3]
    )
