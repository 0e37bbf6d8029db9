# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The discretized Logistic: masses, gradients, mean and samples."""

import numpy as np
import scipy.stats
import tensorflow as tf

from matnet_tf.distributions.discretized_logistic import DiscretizedLogistic

LEVELS = (np.arange(256) / 255).astype(np.float32)
LOCATIONS = [-1e6, -3.0, -0.1, 0.0, 0.3, 0.5, 77.5 / 255, 1.0, 1.2, 50.0, 1e6]
# From a ninth of a level to more than a thousand times the range.
SCALES = [np.exp(-7) / 2, 0.003, 0.02, 0.1, 1.0, np.exp(7) / 2, 1e6]
GRID = np.float32([(loc, scale) for loc in LOCATIONS for scale in SCALES]).T[..., None]


def test_masses_sum_to_1_and_the_mean_is_within_half_a_level():
    p = DiscretizedLogistic(*GRID)
    masses = np.exp(np.float64(p.log_prob(LEVELS)))
    np.testing.assert_allclose(masses.sum(1), 1.0, atol=1e-6)
    np.testing.assert_allclose(p.mean()[:, 0], (masses * LEVELS).sum(1), atol=0.5 / 255)


def test_gradients_of_every_level_are_finite():
    parameters = [tf.constant(part) for part in GRID]
    with tf.GradientTape() as tape:
        tape.watch(parameters)
        log_prob = DiscretizedLogistic(*parameters).log_prob(LEVELS)
    assert np.isfinite(log_prob).all()
    for gradient in tape.gradient(log_prob, parameters):
        assert np.isfinite(gradient).all()


def test_mass_and_gradient_are_scipys():
    def log_mass(loc, scale):
        edge = scipy.stats.logistic(loc, scale).cdf
        return np.log(edge(100.5 / 255) - edge(99.5 / 255))

    loc, scale, step = tf.constant(0.45), tf.constant(0.02), 1e-6
    with tf.GradientTape() as tape:
        tape.watch([loc, scale])
        log_prob = DiscretizedLogistic(loc, scale).log_prob(np.float32(100 / 255))
    np.testing.assert_allclose(log_prob, log_mass(0.45, 0.02), rtol=1e-4)
    by_loc = (log_mass(0.45 + step, 0.02) - log_mass(0.45 - step, 0.02)) / (2 * step)
    by_scale = (log_mass(0.45, 0.02 + step) - log_mass(0.45, 0.02 - step)) / (2 * step)
    np.testing.assert_allclose(tape.gradient(log_prob, [loc, scale]), [by_loc, by_scale], rtol=1e-3)


def test_a_value_between_two_levels_has_the_mass_of_the_nearest():
    p = DiscretizedLogistic(0.45, 0.02)
    np.testing.assert_array_equal(p.log_prob(100.4 / 255), p.log_prob(LEVELS[100]))


def test_samples_are_levels_with_their_masses():
    p = DiscretizedLogistic([0.02, 0.5], [0.01, 0.01])
    samples = p.sample(20000, seed=[1, 2]).numpy()
    np.testing.assert_allclose(samples * 255, np.rint(samples * 255), atol=1e-4)
    for level in (0, 5, 127, 130):
        chance = np.exp(p.log_prob(LEVELS[level]))
        share = (np.rint(samples * 255) == level).mean(0)
        assert (abs(share - chance) <= 4 * np.sqrt(chance * (1 - chance) / 20000) + 1e-9).all()
