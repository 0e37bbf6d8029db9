# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Diagonal Gaussians against SciPy and closed forms."""

import numpy as np
import numpy_matnet as npm
import scipy.integrate
import scipy.stats
import tensorflow as tf

from matnet_tf.distributions.gaussian import diagonal_normal, slowed_mean
from matnet_tf.distributions.mixture import kl_per_unit, tempered

RNG = np.random.default_rng(0)
SHAPES = [(3, 6), (3, 2, 4, 6)]


def draw(*shape):
    return RNG.normal(0, 2.0, shape).astype(np.float32)


def test_density_is_scipys():
    for shape in SHAPES:
        parameters, z = draw(*shape), draw(*shape[:-1], 3)
        q = diagonal_normal(parameters, 0.5, 4.0)
        mean, log_var = 0.5 * parameters[..., :3], 0.5 * parameters[..., 3:]
        deviation = np.exp(4 * np.tanh(log_var / 4) / 2)
        expected = scipy.stats.norm.logpdf(z, mean, deviation).reshape(3, -1).sum(1)
        assert q.batch_shape == (3,)
        assert q.event_shape == (*shape[1:-1], 3)
        np.testing.assert_allclose(q.log_prob(z), expected, rtol=1e-5)


def test_small_log_variances_are_not_changed_by_the_bound():
    q = diagonal_normal(tf.constant([[0.0, 0.01]]))
    np.testing.assert_allclose(q.distribution.scale, [[np.exp(0.005)]], rtol=1e-6)


def test_means_beyond_a_hundred_grow_slowly_and_their_gradient_leads_back():
    loc = tf.Variable([-1e6, -100.0, -99.0, 3.0, 100.0, 101.0, 1e30])
    with tf.GradientTape() as tape:
        mean = slowed_mean(loc)
    expected = [
        -100 * (1 + np.log(1e4)),
        -100,
        -99,
        3,
        100,
        100 * (1 + np.log(1.01)),
        100 * (1 + np.log(1e28)),
    ]
    np.testing.assert_allclose(mean, expected, rtol=1e-5)
    gradient = tape.gradient(mean, loc).numpy()
    np.testing.assert_allclose(gradient, 100 / np.maximum(100, np.abs(loc.numpy())), rtol=1e-5)


def test_samples_have_the_mean_and_scale_of_the_parameters():
    parameters = tf.tile([[1.5, -3.0, -1.0, 2.0]], [20000, 1])
    z = diagonal_normal(parameters).sample(seed=[1, 2]).numpy()
    mean, log_var = npm.gaussian(parameters[0].numpy())
    deviation = np.exp(log_var / 2)
    assert (np.abs(z.mean(0) - mean) < 5 * deviation / np.sqrt(20000)).all()
    np.testing.assert_allclose(z.std(0), deviation, rtol=0.03)


def test_kl_is_the_closed_form_and_the_integral():
    for shape in SHAPES:
        a, b = draw(*shape), draw(*shape)
        units = kl_per_unit(diagonal_normal(a), diagonal_normal(b))
        expected = npm.kl_per_unit(npm.gaussian(a), npm.gaussian(b))
        assert units.shape == (*shape[:-1], 3)
        np.testing.assert_allclose(units, expected, rtol=1e-3, atol=1e-5)
    q, p = diagonal_normal([[0.3, -0.7]]), diagonal_normal([[-0.5, 0.4]])
    a = scipy.stats.norm(0.3, float(q.distribution.scale[0, 0]))
    b = scipy.stats.norm(-0.5, float(p.distribution.scale[0, 0]))
    integral, _ = scipy.integrate.quad(lambda z: a.pdf(z) * (a.logpdf(z) - b.logpdf(z)), -9, 9)
    np.testing.assert_allclose(kl_per_unit(q, p)[0, 0], integral, rtol=1e-5)


def test_extreme_parameters_give_finite_values_and_gradients():
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


def test_distributions_of_bfloat16_parameters_are_float32():
    q = diagonal_normal(tf.zeros([2, 4], tf.bfloat16), tf.constant(0.2))
    assert q.dtype == q.distribution.scale.dtype == tf.float32


def test_temperature_multiplies_the_scale_alone():
    p = diagonal_normal(draw(3, 6))
    for temperature in (0.0, 0.5, 2.0):
        warmed = tempered(p, temperature)
        np.testing.assert_array_equal(warmed.distribution.loc, p.distribution.loc)
        np.testing.assert_allclose(warmed.stddev(), temperature * p.stddev(), rtol=1e-6)
        assert warmed.event_shape == p.event_shape
