# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The mixture of discretized Logistics: masses, gradients, mean and samples."""

import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf

from matnet_tf.distributions.discretized_logistic import DiscretizedLogistic
from matnet_tf.distributions.logistic_mixture import DiscretizedLogisticMixture

LEVELS = (np.arange(256) / 255).astype(np.float32)
EVERY_PIXEL = np.stack(np.meshgrid(LEVELS, LEVELS, indexing="ij"), axis=-1)
# Of two channels: a wide component, one at an end, and one as narrow as a level.
LOGITS = np.float32([0.5, -0.3, 0.1])
LOC = np.float32([[0.4, 0.97, 0.2], [0.6, 1.1, 0.7]])
SCALE = np.float32([[0.1, 0.03, 0.002], [0.05, 0.02, 0.002]])
COEFFICIENTS = np.float32([[-0.8, 0.3, 0.95]])


def logistic_masses(loc, scale):
    """Masses of the 256 levels, on a new last axis."""
    edges = (np.arange(1, 256) - 0.5) / 255
    below = scipy.special.expit((edges - np.asarray(loc)[..., None]) / scale)
    return np.diff(below, axis=-1, prepend=0, append=1)


def pixel_masses():
    """Masses of all pixels, [256, 256], in NumPy."""
    loc, scale, coefficients = (np.float64(part) for part in (LOC, SCALE, COEFFICIENTS))
    total = np.zeros([256, 256])
    for k, weight in enumerate(scipy.special.softmax(np.float64(LOGITS))):
        second = loc[1, k] + coefficients[0, k] * (np.arange(256) / 255 - 0.5)
        first = logistic_masses(loc[0, k], scale[0, k])
        total += weight * first[:, None] * logistic_masses(second, scale[1, k])
    return total


def test_the_65536_pixels_of_two_channels_have_numpys_masses_which_sum_to_1():
    p = DiscretizedLogisticMixture(LOGITS, LOC, SCALE, COEFFICIENTS)
    masses, expected = np.exp(np.float64(p.log_prob(EVERY_PIXEL))), pixel_masses()
    np.testing.assert_allclose(masses, expected, rtol=1e-3, atol=1e-12)
    assert masses.sum() == pytest.approx(1, abs=1e-5)
    error = 255 * abs(p.mean() - [expected.sum(1) @ LEVELS, expected.sum(0) @ LEVELS])
    np.testing.assert_array_less(error, [0.5, 1.0])


def test_masses_of_a_channel_given_those_before_sum_to_1():
    rng, shape = np.random.default_rng(0), (3, 4, 5)
    logits, coefficients = rng.normal(size=(3, 5)), rng.uniform(-1, 1, (3, 6, 5))
    loc, scale = rng.uniform(-0.5, 1.5, shape), np.exp(rng.uniform(-6, 0, shape))
    pixels = np.tile(LEVELS[rng.integers(0, 256, (3, 4))], (256, 1, 1))
    before = np.zeros(3)
    for n in range(1, 5):
        x = pixels[..., :n].copy()
        x[..., -1] = LEVELS[:, None]
        pairs = coefficients[:, : n * (n - 1) // 2]
        p = DiscretizedLogisticMixture(logits, loc[:, :n], scale[:, :n], pairs)
        np.testing.assert_allclose(scipy.special.logsumexp(p.log_prob(x), 0), before, atol=1e-4)
        before = p.log_prob(pixels[0, :, :n])


def test_one_component_of_one_channel_is_a_discretized_logistic():
    p = DiscretizedLogisticMixture([3.0], [[0.3]], [[0.02]], tf.zeros([0, 1]))
    one = DiscretizedLogistic(0.3, 0.02)
    np.testing.assert_allclose(p.log_prob(LEVELS[:, None]), one.log_prob(LEVELS), rtol=1e-6)
    np.testing.assert_allclose(p.mean(), [one.mean()], rtol=1e-6)


def test_gradients_of_extreme_parameters_are_finite():
    locs, scales = [-1e6, -0.1, 0.5, 1.0, 1e6], [np.exp(-7) / 2, 0.02, np.exp(7) / 2, 1e6]
    grid = np.float32(np.meshgrid(locs, scales, [-1e30, 0, 1e30], [-1, 1], indexing="ij"))
    loc, scale, logits, coefficients = grid.reshape(4, -1, 1)
    # Beside an extreme component, a moderate one.
    pairs = (logits, 0.0), (loc, 0.4), (scale, 0.1), (coefficients, 0.0)
    parts = [np.concatenate([a, np.full_like(a, b)], axis=-1) for a, b in pairs]
    parameters = [tf.constant(p) for p in (parts[0], *(np.stack([p, p], 1) for p in parts[1:3]))]
    parameters.append(tf.constant(parts[3][:, None]))
    with tf.GradientTape() as tape:
        tape.watch(parameters)
        p = DiscretizedLogisticMixture(*parameters)
        log_prob = p.log_prob(LEVELS[[[0, 0], [0, 255], [255, 255], [7, 250]]][:, None])
    assert log_prob.shape == (4, 120) and np.isfinite(log_prob).all()
    for gradient in tape.gradient(log_prob, parameters):
        assert np.isfinite(gradient).all()
    assert np.isfinite(p.mean()).all()


def test_samples_are_levels_with_the_masses_of_their_pixels():
    p = DiscretizedLogisticMixture(LOGITS, LOC, SCALE, COEFFICIENTS)
    levels = 255 * np.float64(p.sample(100_000, seed=[1, 2]))
    np.testing.assert_allclose(levels, np.rint(levels), atol=1e-4)
    counts = np.zeros([256, 256])
    np.add.at(counts, tuple(np.rint(levels).astype(int).T), 1)
    expected = 100_000 * pixel_masses()
    rare = expected < 5
    found, expected = (np.append(part[~rare], part[rare].sum()) for part in (counts, expected))
    assert len(found) > 1000
    assert scipy.stats.chisquare(found, expected * (found.sum() / expected.sum())).pvalue > 1e-3


def test_a_component_of_weight_0_is_never_drawn():
    logits = np.float32([-1e9, 0.0, 0.0, -1e9])
    loc = np.float32([[0.0, 0.5, 0.6, 1.0]])
    p = DiscretizedLogisticMixture(logits, loc, 0 * loc + 1e-3, tf.zeros([0, 4]))
    noise = tf.constant([[0.0, 0.5], [1 - 2**-24, 0.5]])
    np.testing.assert_allclose(p.from_noise(noise)[:, 0], [0.5, 0.6], atol=1 / 255)
