# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The trained mixture prior as a layer."""

import numpy as np
import numpy_matnet as npm
import pytest
import tensorflow as tf

from matnet_tf.layers.mixture_prior import MixturePrior


def built(**settings) -> MixturePrior:
    layer = MixturePrior(components=40, units=30, spread=0.5, **settings)
    layer.build()
    return layer


def values(layer):
    return [v.numpy() for v in (layer.loc, layer.log_var, layer.logits)]


def test_distribution_is_the_mixture_of_its_weights():
    layer = npm.randomize(built(trained_weights=True, log_var_bound=2.0), scale=3.0)
    loc, log_var, logits = values(layer)
    z = np.random.default_rng(0).normal(size=(5, 30)).astype(np.float32)
    deviation = np.exp(np.tanh(log_var.astype(np.float64) / 2))
    expected = npm.mixture_log_prob(z, logits - npm.log_sum_exp(logits), loc, deviation)
    np.testing.assert_allclose(layer.distribution().log_prob(z), expected, rtol=1e-4)


def test_components_start_apart_with_equal_weights_as_a_function_of_the_seed():
    layer = built()
    loc, log_var, logits = first = values(layer)
    for drawn in (loc, log_var):
        assert drawn.mean() == pytest.approx(0, abs=0.05)
        assert drawn.std() == pytest.approx(0.5, rel=0.05)
    assert np.abs(loc - log_var).max() > 0.1
    np.testing.assert_array_equal(logits, np.zeros(40))
    for seed, same in ((1, False), (0, True)):
        layer.initialize(seed)
        assert [np.array_equal(a, b) for a, b in zip(values(layer), first, strict=True)] == [
            *(same, same, True)
        ]


def test_only_trained_weights_have_gradients():
    for trained in (False, True):
        layer = built(trained_weights=trained)
        assert len(layer.trainable_variables) == 2 + trained
        with tf.GradientTape() as tape:
            log_prob = tf.reduce_sum(layer.distribution().log_prob(tf.ones([3, 30])))
        for gradient in tape.gradient(log_prob, layer.trainable_variables):
            assert np.isfinite(gradient).all() and np.any(gradient)


def test_extreme_weights_give_finite_densities():
    layer = built()
    layer.loc.assign(tf.fill([40, 30], 1e30))
    layer.log_var.assign(tf.fill([40, 30], -1e30))
    assert np.isfinite(layer.distribution().log_prob(tf.zeros([30])))


def test_config_makes_the_same_layer():
    config = built(trained_weights=True, log_var_bound=3.0).get_config()
    assert config["spread"] == 0.5 and config["trained_weights"]
    assert MixturePrior.from_config(config).get_config() == config
