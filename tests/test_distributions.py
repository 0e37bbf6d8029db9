# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Distributions of latents and of 8-bit values against SciPy."""

import numpy as np
import numpy_matnet as npm
import pytest
import scipy.integrate
import scipy.stats
import tensorflow as tf
import tensorflow_probability as tfp

from matnet_tf.distributions import (
    GaussianMixture,
    IntegratedLogistic,
    diagonal_normal,
    kl_per_unit,
    tempered,
)

RNG = np.random.default_rng(0)
SHAPES = [(3, 6), (3, 2, 4, 6)]


def draw(*shape, scale=2.0):
    return RNG.normal(0, scale, shape).astype(np.float32)


@pytest.mark.parametrize("shape", SHAPES)
def test_parameters_become_a_normal_whose_density_is_scipys(shape):
    parameters, z = draw(*shape), draw(*shape[:-1], 3)
    q = diagonal_normal(parameters, 0.5, 4.0)
    mean, log_var = 0.5 * parameters[..., :3], 0.5 * parameters[..., 3:]
    deviation = np.exp(4 * np.tanh(log_var / 4) / 2)
    expected = scipy.stats.norm.logpdf(z, mean, deviation).reshape(3, -1).sum(1)
    assert q.batch_shape == (3,)
    assert q.event_shape == (*shape[1:-1], 3)
    np.testing.assert_allclose(q.log_prob(z), expected, rtol=1e-5)


def test_small_log_variances_pass_the_bound_as_they_are():
    q = diagonal_normal(tf.constant([[0.0, 0.01]]))
    np.testing.assert_allclose(q.distribution.scale, [[np.exp(0.005)]], rtol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_kl_is_the_closed_form(shape):
    a, b = draw(*shape), draw(*shape)
    units = kl_per_unit(diagonal_normal(a), diagonal_normal(b))
    expected = npm.kl_per_unit(npm.gaussian(a), npm.gaussian(b))
    assert units.shape == (*shape[:-1], 3)
    np.testing.assert_allclose(units, expected, rtol=1e-3, atol=1e-5)


def test_the_kl_is_the_integral():
    q, p = diagonal_normal([[0.3, -0.7]]), diagonal_normal([[-0.5, 0.4]])
    a = scipy.stats.norm(0.3, float(q.distribution.scale[0, 0]))
    b = scipy.stats.norm(-0.5, float(p.distribution.scale[0, 0]))
    integral, _ = scipy.integrate.quad(lambda z: a.pdf(z) * (a.logpdf(z) - b.logpdf(z)), -9, 9)
    np.testing.assert_allclose(kl_per_unit(q, p)[0, 0], integral, rtol=1e-5)


def test_no_finite_parameter_gives_a_number_that_is_not():
    corners = np.array([[m, v] for m in (-1e30, 0, 1e30) for v in (-1e30, 0, 1e30)], np.float32)
    a, b = np.repeat(corners, 9, 0), np.tile(corners, (9, 1))
    a, b = tf.Variable(a), tf.Variable(b)
    with tf.GradientTape() as tape:
        q, p = diagonal_normal(a), diagonal_normal(b)
        z = q.sample(seed=[0, 1])
        squared = tf.square(kl_per_unit(q, p))
        log_weight = p.log_prob(z) - q.log_prob(z)
        total = tf.reduce_sum(squared) * 1e-6 + tf.reduce_sum(log_weight)
    values = [q.distribution.scale, z, squared, log_weight, *tape.gradient(total, [a, b])]
    for value in values:
        assert np.isfinite(value).all()
    assert (q.distribution.scale.numpy() > 0.01).all()


def test_a_distribution_is_float32_whatever_the_parameters():
    q = diagonal_normal(tf.zeros([2, 4], tf.bfloat16), tf.constant(0.2))
    assert q.dtype == tf.float32
    assert q.distribution.scale.dtype == tf.float32


@pytest.mark.parametrize("temperature", [0.0, 0.5, 2.0])
def test_temperature_multiplies_the_scale_and_nothing_else(temperature):
    p = diagonal_normal(draw(3, 6))
    warmed = tempered(p, temperature)
    np.testing.assert_array_equal(warmed.distribution.loc, p.distribution.loc)
    np.testing.assert_allclose(warmed.stddev(), temperature * p.stddev(), rtol=1e-6)
    assert warmed.event_shape == p.event_shape


def test_samples_have_the_mean_and_scale_of_the_parameters():
    parameters = tf.tile([[1.5, -3.0, -1.0, 2.0]], [20000, 1])
    z = diagonal_normal(parameters).sample(seed=[1, 2]).numpy()
    mean, log_var = npm.gaussian(parameters[0].numpy())
    deviation = np.exp(log_var / 2)
    assert (np.abs(z.mean(0) - mean) < 5 * deviation / np.sqrt(20000)).all()
    np.testing.assert_allclose(z.std(0), deviation, rtol=0.03)


# The mixture of Gaussians.


def mixture_of(components=3, units=4, seed=0):
    """A mixture, and its log-weights, means and deviations in NumPy."""
    rng = np.random.default_rng(seed)
    logits, loc = rng.normal(size=components), 2 * rng.normal(size=(components, units))
    scale = rng.uniform(0.3, 1.5, (components, units))
    mixture = GaussianMixture(logits, loc, scale)
    return mixture, (logits - npm.log_sum_exp(logits), loc, scale)


def test_the_density_of_a_mixture_is_the_weighted_sum_of_scipys():
    mixture, (log_weights, loc, scale) = mixture_of()
    z = draw(6, 4)
    densities = [scipy.stats.norm.pdf(z, m, s).prod(-1) for m, s in zip(loc, scale, strict=True)]
    joint = np.exp(log_weights) * np.stack(densities, axis=-1)
    assert mixture.event_shape == (4,) and mixture.batch_shape == ()
    np.testing.assert_allclose(mixture.log_prob(z), np.log(joint.sum(-1)), rtol=1e-4)
    assigned = joint / joint.sum(-1, keepdims=True)
    np.testing.assert_allclose(np.exp(mixture.assign(z)), assigned, rtol=1e-3, atol=1e-6)


def test_draws_of_a_mixture_have_its_distribution():
    mixture, (log_weights, loc, scale) = mixture_of()
    z = mixture.sample(20_000, seed=[0, 1]).numpy()
    weights = np.exp(log_weights)
    for unit in range(4):

        def cdf(value, unit=unit):
            return scipy.stats.norm.cdf(value[:, None], loc[:, unit], scale[:, unit]) @ weights

        assert scipy.stats.kstest(z[:, unit], cdf).pvalue > 1e-3
    np.testing.assert_allclose(mixture.mean(), weights @ loc, rtol=1e-5)
    np.testing.assert_allclose(mixture.mean(), z.mean(0), atol=0.05)


def test_a_component_is_drawn_from_for_each_index():
    mixture, (_, loc, scale) = mixture_of()
    component = mixture.component(tf.constant([2, 0, 2]))
    np.testing.assert_allclose(component.mean(), loc[[2, 0, 2]], rtol=1e-6)
    np.testing.assert_allclose(component.stddev(), scale[[2, 0, 2]], rtol=1e-6)


def test_a_tempered_mixture_has_narrower_components():
    mixture, (log_weights, loc, scale) = mixture_of()
    cold, z = tempered(mixture, 0.5), draw(6, 4)
    expected = npm.mixture_log_prob(z, log_weights, loc, 0.5 * scale)
    np.testing.assert_allclose(cold.log_prob(z), expected, rtol=1e-4)


def test_the_kl_from_a_mixture_is_eq_12():
    mixture, parts = mixture_of()
    parameters = draw(5, 8, scale=1.0)
    q, pair = diagonal_normal(parameters), npm.gaussian(parameters)
    expected = npm.eq_12(pair, *parts)
    np.testing.assert_allclose(tfp.distributions.kl_divergence(q, mixture), expected, rtol=1e-4)
    shares = kl_per_unit(q, mixture)
    np.testing.assert_allclose(shares, np.repeat(expected[:, None] / 4, 4, 1), rtol=1e-4)


def test_the_kl_from_a_mixture_of_one_is_the_closed_form():
    mixture, (_, loc, scale) = mixture_of(components=1)
    q = diagonal_normal(draw(5, 8, scale=1.0))
    one = tfp.distributions.MultivariateNormalDiag(*np.float32([loc[0], scale[0]]))
    whole = tfp.distributions.MultivariateNormalDiag(q.mean(), q.stddev())
    expected = tfp.distributions.kl_divergence(whole, one)
    np.testing.assert_allclose(tfp.distributions.kl_divergence(q, mixture), expected, rtol=1e-4)


@pytest.mark.parametrize(("shift", "width", "gap"), [(0.0, 1.0, 0.133), (0.7, 0.9, 1.90)])
def test_eq_12_is_above_the_kl_from_a_mixture_of_ten_that_samples_give(shift, width, gap):
    """A posterior within a component costs little more than it should; one between them does."""
    mixture, (log_weights, loc, scale) = mixture_of(components=10)
    deviation = width * (scale[3] if shift == 0 else np.ones(4))
    parameters = np.concatenate([loc[3] + shift, 2 * np.log(deviation)])
    q = diagonal_normal(parameters[None].astype(np.float32), log_var_bound=1e3)
    mean, deviation = np.float64(q.mean()[0]), np.float64(q.stddev()[0])
    z = mean + deviation * np.random.default_rng(1).normal(size=(100_000, 4))
    log_q = scipy.stats.norm.logpdf(z, mean, deviation).sum(-1)
    ratio = log_q - npm.mixture_log_prob(z, log_weights, loc, scale)
    error = ratio.std() / np.sqrt(len(z))
    approximation = float(tfp.distributions.kl_divergence(q, mixture)[0])
    assert approximation - ratio.mean() == pytest.approx(gap, abs=4 * error + 0.01)
    ours = (q.log_prob(np.float32(z)[:, None]) - mixture.log_prob(np.float32(z)[:, None]))[:, 0]
    np.testing.assert_allclose(ours, ratio, rtol=1e-3, atol=1e-3)


def test_a_far_mixture_gives_finite_kl_and_gradients():
    loc = tf.Variable(np.full((2, 4), 1e6, np.float32))
    with tf.GradientTape() as tape:
        mixture = GaussianMixture([0.0, -50.0], loc, tf.fill([2, 4], 0.02))
        kl = tfp.distributions.kl_divergence(diagonal_normal(tf.zeros([1, 8])), mixture)
    assert np.isfinite(kl).all() and np.isfinite(tape.gradient(kl, loc)).all()


# The integrated Logistic.

LEVELS = (np.arange(256) / 255).astype(np.float32)
LOCATIONS = [-1e6, -3.0, -0.1, 0.0, 0.3, 0.5, 77.5 / 255, 1.0, 1.2, 50.0, 1e6]
# From a ninth of a level to more than a thousand times the range.
SCALES = [np.exp(-7) / 2, 0.003, 0.02, 0.1, 1.0, np.exp(7) / 2, 1e6]
GRID = [(loc, scale) for loc in LOCATIONS for scale in SCALES]


def over_the_grid():
    loc, scale = np.float32(GRID).T
    return IntegratedLogistic(loc[:, None], scale[:, None]), loc, scale


def test_the_256_masses_sum_to_1_for_every_parameter():
    p, _, _ = over_the_grid()
    masses = np.exp(np.float64(p.log_prob(LEVELS)))
    assert masses.shape == (len(GRID), 256)
    np.testing.assert_allclose(masses.sum(1), 1.0, atol=1e-6)


def test_gradients_of_every_level_stay_finite_for_every_parameter():
    _, loc, scale = over_the_grid()
    parameters = tf.constant(loc[:, None]), tf.constant(scale[:, None])
    with tf.GradientTape() as tape:
        tape.watch(parameters)
        log_prob = IntegratedLogistic(*parameters).log_prob(LEVELS)
    assert np.isfinite(log_prob).all()
    for gradient in tape.gradient(log_prob, parameters):
        assert np.isfinite(gradient).all()


def test_the_gradient_of_a_level_is_that_of_its_mass():
    def log_mass(loc, scale):
        edge = scipy.stats.logistic(loc, scale).cdf
        return np.log(edge(100.5 / 255) - edge(99.5 / 255))

    loc, scale, step = tf.constant(0.45), tf.constant(0.02), 1e-6
    with tf.GradientTape() as tape:
        tape.watch([loc, scale])
        log_prob = IntegratedLogistic(loc, scale).log_prob(np.float32(100 / 255))
    by_loc = (log_mass(0.45 + step, 0.02) - log_mass(0.45 - step, 0.02)) / (2 * step)
    by_scale = (log_mass(0.45, 0.02 + step) - log_mass(0.45, 0.02 - step)) / (2 * step)
    np.testing.assert_allclose(tape.gradient(log_prob, [loc, scale]), [by_loc, by_scale], rtol=1e-3)


def test_the_mean_is_within_half_a_level_of_the_masses():
    p, _, _ = over_the_grid()
    mean = (np.exp(np.float64(p.log_prob(LEVELS))) * LEVELS).sum(1)
    np.testing.assert_allclose(p.mean()[:, 0], mean, atol=0.5 / 255)


def test_samples_of_the_integrated_logistic_are_levels_with_its_masses():
    p = IntegratedLogistic([0.02, 0.5], [0.01, 0.01])
    samples = p.sample(20000, seed=[1, 2]).numpy()
    np.testing.assert_allclose(samples * 255, np.rint(samples * 255), atol=1e-4)
    for level in (0, 5, 127, 130):
        chance = np.exp(p.log_prob(np.float32(level / 255)))
        share = (np.rint(samples * 255) == level).mean(0)
        assert (abs(share - chance) <= 4 * np.sqrt(chance * (1 - chance) / 20000) + 1e-9).all()
