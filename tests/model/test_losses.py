# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""What keeps levels alive, free bits and KL balancing, and the median that tells bad steps."""

import numpy as np
import numpy_matnet as npm
import pytest
import tensorflow as tf

from matnet_tf.config import ModelConfig, Scale
from matnet_tf.model.gradients import GradientNorms
from matnet_tf.model.matnet import MatNet

CONFIG = ModelConfig((3, 2, 1), (Scale(1, 5, 2, 2),), top_latents=3, top_units=4)
SEED = tf.constant([0, 3])


def images(number=6):
    shape = (number, *CONFIG.image_shape)
    return tf.constant(np.random.default_rng(0).integers(0, 2, shape), tf.float32)


def made(**settings):
    model = npm.randomize(MatNet(CONFIG))
    model.compile("sgd", run_eagerly=True, **settings)
    return model


def losses_and_kl(model):
    bound, trace = model.hierarchy.bound_and_trace(images(), SEED)
    kl = np.stack([value.numpy() for value in bound.kl.values()])
    return model.loss_per_image(bound, trace) + bound.log_likelihood, kl


def test_a_level_below_its_free_bits_costs_them_and_has_no_gradient():
    _, kl = losses_and_kl(made())
    order = np.argsort(kl.mean(1))
    floor = float(kl.mean(1)[order[:2]].mean())  # Above the smallest mean, below the others.
    model = made(free_bits=2 * floor)
    model.free_bits_weight.assign(0.5)
    model.kl_weight.assign(0.25)
    cost, _ = losses_and_kl(model)
    above = np.delete(kl, order[0], axis=0)
    np.testing.assert_allclose(cost, 0.25 * (above.sum(0) + floor), rtol=1e-4)
    name = model.config.level_names[order[0]]
    with tf.GradientTape() as tape:
        bound, trace = model.hierarchy.bound_and_trace(images(), SEED)
        tape.watch(bound.kl)
        loss = model.loss_per_image(bound, trace)
    gradients = tape.gradient(loss, bound.kl)
    for level, gradient in gradients.items():
        expected = 0.0 if level == name else 0.25
        np.testing.assert_allclose(gradient, np.full(6, expected), rtol=1e-5)


def test_kl_balancing_weighs_a_level_by_what_a_unit_of_it_carries():
    _, kl = losses_and_kl(made())
    per_unit = (kl.mean(1) + 0.01) / [3, 2, 2]
    model = made(kl_balancing=1.0)
    for share in (1.0, 0.4, 0.0):
        model.kl_balance.assign(share)
        coefficients = 1 + share * (per_unit / per_unit.mean() - 1)
        cost, _ = losses_and_kl(model)
        np.testing.assert_allclose(cost, coefficients @ kl, rtol=1e-4)


@pytest.mark.slow
def test_the_median_of_recent_norms_follows_the_run():
    norms, recent = GradientNorms(), []
    for step, norm in enumerate(np.random.default_rng(0).lognormal(size=230)):
        assert np.isinf(norms.median()) == (len(recent) < 20)
        if len(recent) >= 20:
            low, high = np.percentile(recent[-100:], [40, 60])
            assert low <= norms.median() <= high
        norms.update(tf.constant(np.inf if step % 50 == 7 else norm, tf.float32))
        recent += [] if step % 50 == 7 else [norm]
    for _ in range(60):  # Gradients that have grown for good become the rule.
        norms.update(tf.constant(1e6))
    assert norms.median() == 1e6
