# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Likelihoods against NumPy and SciPy."""

import numpy as np
import numpy_matnet as npm
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf

from matnet_tf.likelihoods import LIKELIHOODS, Bernoulli

RNG = np.random.default_rng(0)
IMAGE = (4, 3, 2)


def made(state_shape):
    layer = Bernoulli(IMAGE, dense=len(state_shape) == 1)
    layer.build((None, *state_shape))
    return npm.randomize(layer)


@pytest.mark.parametrize("state_shape", [(5,), (4, 3, 5)])
def test_logits_are_a_linear_function_of_the_last_state(state_shape):
    h_td = RNG.normal(size=(2, *state_shape)).astype(np.float32)
    layer = made(state_shape)
    expected = npm.linear(h_td, npm.weights(layer.logits)).reshape(2, *IMAGE)
    np.testing.assert_allclose(layer(h_td), expected, rtol=1e-4, atol=1e-5)


def test_pixels_are_scipys_bernoulli():
    logits = RNG.normal(0, 3, (5, *IMAGE)).astype(np.float32)
    x = RNG.integers(0, 2, (5, *IMAGE)).astype(np.float32)
    p_x = made((5,)).distribution(tf.constant(logits))
    pixels = scipy.stats.bernoulli.logpmf(x, scipy.special.expit(logits))
    assert p_x.batch_shape == (5,)
    np.testing.assert_allclose(p_x.log_prob(x), pixels.reshape(5, -1).sum(1), rtol=1e-5)
    np.testing.assert_allclose(p_x.mean(), scipy.special.expit(logits), rtol=1e-5)
    assert set(np.unique(p_x.sample(seed=[0, 1]))) == {0.0, 1.0}


def test_a_grey_pixel_counts_the_expected_log_probability_of_its_binarization():
    logits = tf.constant(RNG.normal(size=(1, *IMAGE)), tf.float32)
    p_x = made((5,)).distribution(logits)
    grey = p_x.log_prob(tf.fill([1, *IMAGE], 0.3))
    mixed = 0.3 * p_x.log_prob(tf.ones([1, *IMAGE])) + 0.7 * p_x.log_prob(tf.zeros([1, *IMAGE]))
    np.testing.assert_allclose(grey, mixed, rtol=1e-5)


def test_wild_logits_stay_finite_with_their_gradients():
    for logit in (-1e30, 1e30):
        logits = tf.fill([1, *IMAGE], logit)
        for pixel in (0.0, 1.0):
            with tf.GradientTape() as tape:
                tape.watch(logits)
                log_prob = made((5,)).distribution(logits).log_prob(tf.fill([1, *IMAGE], pixel))
            assert np.isfinite(log_prob).all()
            assert np.isfinite(tape.gradient(log_prob, logits)).all()


def test_a_bfloat16_state_still_gives_a_float32_likelihood():
    p_x = made((5,)).distribution(tf.zeros([1, *IMAGE], tf.bfloat16))
    assert p_x.log_prob(tf.ones([1, *IMAGE])).dtype == tf.float32


def test_every_likelihood_of_the_table_says_the_range_of_its_images():
    for name, likelihood in LIKELIHOODS.items():
        assert likelihood.low < likelihood.high, name
