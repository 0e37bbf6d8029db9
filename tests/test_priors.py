# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The trained mixture prior as a layer."""

import numpy as np
import numpy_matnet as npm
import pytest
import tensorflow as tf

from matnet_tf.priors import MixturePrior


def made(**settings) -> MixturePrior:
    layer = MixturePrior(components=40, units=30, spread=0.5, **settings)
    layer.build()
    return layer


def values(layer):
    return [v.numpy() for v in (layer.loc, layer.log_var, layer.logits)]


def test_its_distribution_is_the_mixture_of_its_weights():
    layer = npm.randomize(made(trained_weights=True, log_var_bound=2.0), scale=3.0)
    loc, log_var, logits = values(layer)
    z = np.random.default_rng(0).normal(size=(5, 30)).astype(np.float32)
    deviation = np.exp(np.tanh(log_var.astype(np.float64) / 2))
    expected = npm.mixture_log_prob(z, logits - npm.log_sum_exp(logits), loc, deviation)
    np.testing.assert_allclose(layer.distribution().log_prob(z), expected, rtol=1e-4)


def test_components_start_apart_by_the_spread_with_equal_weights():
    loc, log_var, logits = values(made())
    for drawn in (loc, log_var):
        assert drawn.mean() == pytest.approx(0, abs=0.05)
        assert drawn.std() == pytest.approx(0.5, rel=0.05)
    assert np.abs(loc - log_var).max() > 0.1
    np.testing.assert_array_equal(logits, np.zeros(40))


def test_the_start_is_a_function_of_the_seed():
    layer = made()
    first = values(layer)
    for seed, same in ((1, False), (0, True)):
        layer.initialize(seed)
        assert np.array_equal(values(layer)[0], first[0]) == same
        assert np.array_equal(values(layer)[1], first[1]) == same


@pytest.mark.parametrize("trained_weights", [False, True])
def test_the_gradient_reaches_the_weights_that_are_trained(trained_weights):
    layer = made(trained_weights=trained_weights)
    assert len(layer.trainable_variables) == 2 + trained_weights
    with tf.GradientTape() as tape:
        log_prob = tf.reduce_sum(layer.distribution().log_prob(tf.ones([3, 30])))
    for gradient in tape.gradient(log_prob, layer.trainable_variables):
        assert np.isfinite(gradient).all() and np.any(gradient)


def test_wild_weights_give_finite_densities():
    layer = made()
    layer.loc.assign(tf.fill([40, 30], 1e30))
    layer.log_var.assign(tf.fill([40, 30], -1e30))
    assert np.isfinite(layer.distribution().log_prob(tf.zeros([30])))


def test_it_comes_back_from_its_config():
    layer = made(trained_weights=True, log_var_bound=3.0)
    config = MixturePrior.from_config(layer.get_config()).get_config()
    assert config == layer.get_config()
    assert config["spread"] == 0.5 and config["trained_weights"]
