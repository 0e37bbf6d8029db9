# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The walk down the network against a NumPy walk with the same latents and weights."""

import functools

import numpy as np
import numpy_matnet as npm
import pytest
import tensorflow as tf

from matnet_tf.config import ModelConfig, Scale
from matnet_tf.model.matnet import MatNet

SEED = tf.constant([0, 3])
CONFIGS = {
    "dense": {"scales": (Scale(1, 6, 2, 1), Scale(1, 5, 3, 2))},
    "convolutional": {"scales": (Scale(3, 4, 2, 1), Scale(5, 3, 1, 2))},
    "dense and convolutional": {"scales": (Scale(1, 6, 2, 2), Scale(3, 4, 2, 1))},
    "tanh": {"scales": (Scale(1, 6, 2, 1), Scale(5, 4, 2, 1)), "activation": "tanh"},
    "standard prior": {"scales": (Scale(1, 6, 2, 1), Scale(5, 4, 2, 1)), "prior": "standard"},
    "shared": {"scales": (Scale(1, 6, 2, 2), Scale(5, 4, 2, 2)), "shared": True},
    "ladder": {
        "scales": (Scale(1, 6, 2, 1), Scale(5, 4, 2, 2)),
        "merge_state": False,
        "deterministic_paths": False,
    },
}
CONFIGS["z_0 everywhere"] = {
    "scales": (Scale(1, 6, 2, 1), Scale((3, 2), 4, 2, 1)),
    "image_shape": (5, 4, 1),
    "top_everywhere": True,
}
MIXTURE = {
    "scales": (Scale(1, 6, 2, 1),),
    "mixture_components": 4,
    "mixture_weights": "trained",
}
DENSE, MIXED = (Scale(1, 6, 2, 2),), (Scale(1, 6, 2, 1), Scale(3, 4, 2, 1))
LOCAL = {"autoregressive": True, "autoregressive_layers": 3, "autoregressive_filters": 5}
LIKELIHOODS = {
    "normal": {"scales": MIXED, "likelihood": "normal"},
    "normal, one scale, dense": {
        "scales": DENSE,
        "likelihood": "normal",
        "likelihood_scale": "scalar",
    },
    "normal, whitened": {
        "scales": MIXED,
        "likelihood": "normal",
        "likelihood_scale": "channel",
        "whitening": True,
    },
    "logistic": {"scales": DENSE, "likelihood": "logistic"},
    "logistic, a scale a channel": {
        "scales": MIXED,
        "likelihood": "logistic",
        "likelihood_scale": "channel",
    },
    "logistic mixture": {
        **{"scales": MIXED, "image_shape": (5, 5, 3)},
        **{"likelihood": "logistic_mixture", "likelihood_components": 4},
    },
    "local bernoulli": {"scales": MIXED, **LOCAL, "autoregressive_kernel_size": 5},
    "local logistic": {"scales": DENSE, "likelihood": "logistic", **LOCAL},
}
CONFIGS |= LIKELIHOODS


@functools.cache
def made(name="dense and convolutional", **changes) -> MatNet:
    """A model with random weights, made once for all tests, which must leave it as it is."""
    settings = {"image_shape": (5, 5, 2), "top_latents": 3, "top_units": 4, "image_filters": 3}
    model = MatNet(ModelConfig(**settings | CONFIGS.get(name, {}) | changes))
    if model.config.whitening:
        x = np.random.default_rng(1).random((80, 5, 5, 2))
        model.adapt([x])
    return npm.randomize(model)


def drawn(model, number, seed=1):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(number, *s)).astype(np.float32) for s in model.hierarchy.latent_shapes]


def images(model, number=2):
    shape = (number, *model.config.image_shape)
    levels = np.random.default_rng(0).integers(0, 256, shape)
    levels[:, 0], levels[:, 1] = 0, 255
    binary = model.config.likelihood == "bernoulli"
    return tf.constant(levels > 127 if binary else levels / 255, tf.float32)


def parameters(model, trace, x):
    """Of the pixels, `[B, H, W, C, P]`."""
    outputs = model.hierarchy.likelihood(trace.h_td)
    return (
        model.hierarchy.likelihood.parameters(x, outputs)
        if model.config.autoregressive
        else outputs
    )


def inferred(model, x, rows=None, **arguments):
    return model.hierarchy.top_down_pass(
        model.hierarchy.encode(x), rows or x.shape[0], SEED, **arguments
    )


@pytest.mark.parametrize("name", CONFIGS)
def test_every_distribution_and_the_image_are_the_numpy_walks(name):
    model = made(name)
    x, latents = images(model), drawn(model, 2)
    trace = inferred(model, x, latents=latents)
    walk = npm.Walk(model.hierarchy, x.numpy(), latents)
    assert len(trace.levels) == len(walk.priors) == model.config.num_levels
    for level, p, q in zip(trace.levels, walk.priors, walk.posteriors, strict=True):
        for ours, (mean, log_var) in ((level.prior, p), (level.posterior, q)):
            shape = level.z.shape
            mean, deviation = np.broadcast_to(mean, shape), np.exp(log_var / 2)
            actual = tf.broadcast_to(ours.mean(), shape), tf.broadcast_to(ours.stddev(), shape)
            np.testing.assert_allclose(actual[0], mean, rtol=2e-4, atol=2e-5)
            np.testing.assert_allclose(actual[1], deviation, rtol=2e-4)
        kl = npm.sum_per_image(npm.kl_per_unit(q, p))
        np.testing.assert_allclose(level.kl(), kl, rtol=1e-3, atol=1e-4)
    ours = parameters(model, trace, x)
    assert ours.shape == walk.parameters.shape
    np.testing.assert_allclose(ours, walk.parameters, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["dense and convolutional", *LIKELIHOODS])
def test_the_bound_is_the_numpy_walks_at_the_same_latents(name):
    model = made(name)
    x = images(model)
    bound, trace = model.hierarchy.bound_and_trace(x, SEED)
    walk = npm.Walk(model.hierarchy, x.numpy(), trace.z)
    log_likelihood = walk.log_likelihood
    kl = [
        npm.sum_per_image(npm.kl_per_unit(q, p))
        for q, p in zip(walk.posteriors, walk.priors, strict=True)
    ]
    np.testing.assert_allclose(bound.log_likelihood, log_likelihood, rtol=1e-4)
    np.testing.assert_allclose(bound.elbo, log_likelihood - sum(kl), rtol=1e-4)
    for name, expected in zip(model.config.level_names, kl, strict=True):
        np.testing.assert_allclose(bound.kl[name], expected, rtol=1e-3, atol=1e-4)


def test_the_kl_of_a_mixture_is_reported_as_a_log_ratio_and_trained_on_eq_12():
    model = made("mixture", **MIXTURE)
    x = images(model)
    bound, trace = model.hierarchy.bound_and_trace(x, SEED)
    top, (q, *_) = trace.levels[0], npm.Walk(model.hierarchy, x.numpy(), trace.z).posteriors
    layer = model.hierarchy.top_down.mixture
    logits, loc, log_var = (np.float64(v) for v in (layer.logits, layer.loc, layer.log_var))
    parts = logits - npm.log_sum_exp(logits), loc, np.exp(4 * np.tanh(log_var / 8))
    log_q = npm.normal_log_prob(top.z.numpy(), q[0], np.exp(q[1] / 2))
    ratio = log_q - npm.mixture_log_prob(top.z.numpy(), *parts)
    np.testing.assert_allclose(bound.kl["00_top"], ratio, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(top.log_weight(), -ratio, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(top.analytic_kl(), npm.eq_12(q, *parts), rtol=1e-3, atol=1e-4)
    total = bound.log_likelihood - sum(bound.kl.values())
    np.testing.assert_allclose(bound.elbo, total, rtol=1e-5)


def test_samples_of_an_image_are_rows_sample_first_and_bottom_up_runs_once():
    model = made(update="gru")
    x, samples = images(model, 3), 4
    latents = drawn(model, samples * 3)
    together = inferred(model, x, samples * 3, latents=latents)
    each = inferred(model, tf.tile(x, [samples, 1, 1, 1]), latents=latents)
    for a, b in zip(together.levels, each.levels, strict=True):
        np.testing.assert_allclose(a.posterior.mean(), b.posterior.mean(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(together.h_td, each.h_td, rtol=1e-4, atol=1e-5)
    assert together.h_td.shape[0] == samples * 3
    assert model.hierarchy.encode(x).top.shape[0] == 3


@pytest.mark.slow
def test_levels_below_the_inferred_ones_come_from_the_prior():
    model = made()
    x = images(model)
    whole = inferred(model, x)
    for count in (0, 1, 2, 4):
        trace = inferred(model, x, num_inferred=count)
        for i, (level, full) in enumerate(zip(trace.levels, whole.levels, strict=True)):
            assert (level.posterior is not None) == (i < count)
            if i < count:
                np.testing.assert_array_equal(level.z, full.z)
            elif i == count:
                # The same noise, but with the prior's mean and scale.
                noise = (full.z - full.posterior.mean()) / full.posterior.stddev()
                expected = level.prior.mean() + level.prior.stddev() * noise
                np.testing.assert_allclose(level.z, expected, rtol=1e-3, atol=1e-4)
        by_tensor = inferred(model, x, num_inferred=tf.constant(count))
        for a, b in zip(trace.z, by_tensor.z, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_given_latents_are_taken_and_none_is_drawn():
    model = made()
    latents = drawn(model, 2)
    latents[1] = None
    trace = model.hierarchy.top_down_pass(None, 2, SEED, latents=latents[:3])
    np.testing.assert_array_equal(trace.z[0], latents[0])
    np.testing.assert_array_equal(trace.z[2], latents[2])
    assert np.abs(trace.z[1]).max() > 0


def test_temperature_may_differ_per_level():
    model = made()
    trace = model.hierarchy.top_down_pass(None, 2, SEED, temperature=[0.0, 1.0, 0.0, 2.0])
    usual = model.hierarchy.top_down_pass(None, 2, SEED, latents=[trace.z[0]], temperature=1.0)
    np.testing.assert_array_equal(trace.z[0], np.zeros((2, 3)))
    np.testing.assert_array_equal(trace.z[1], usual.z[1])
    np.testing.assert_array_equal(trace.z[2], trace.levels[2].prior.mean())
    spread = (trace.z[3] - trace.levels[3].prior.mean()) / trace.levels[3].prior.stddev()
    warm = model.hierarchy.top_down_pass(None, 2, SEED, latents=trace.z[:3])
    usual = (warm.z[3] - warm.levels[3].prior.mean()) / warm.levels[3].prior.stddev()
    np.testing.assert_allclose(spread, 2 * usual, rtol=1e-4, atol=1e-5)


def test_levels_draw_different_noise():
    levels = made("dense").hierarchy.top_down_pass(None, 500, SEED).levels
    noise = [((v.z - v.prior.mean()) / v.prior.stddev()).numpy()[:, 0] for v in levels]
    correlations = np.corrcoef(noise) - np.eye(len(levels))
    assert np.abs(correlations).max() < 0.2


def changed(model, level, **settings):
    """Walks with the same latents but one level's."""
    x, latents = images(model), drawn(model, 2)
    other = list(latents)
    other[level] = latents[level] + 1
    return [inferred(model, x, latents=z, **settings) for z in (latents, other)]


def same(a, b):
    return np.array_equal(a, b)


def test_without_top_down_carry_a_level_speaks_to_the_next_alone():
    first, second = changed(made("ladder"), 1)
    assert not same(first.levels[2].prior.mean(), second.levels[2].prior.mean())
    assert same(first.levels[3].prior.mean(), second.levels[3].prior.mean())
    assert same(first.h_td, second.h_td)
    first, second = changed(made("ladder"), 3)
    assert not same(first.h_td, second.h_td)


def test_without_a_merge_state_the_past_reaches_a_posterior_through_h_td_alone():
    # z_1 changes the top-down state that level 2 sees, and no more than that: level 3's is equal.
    first, second = changed(made("ladder"), 1)
    assert not same(first.levels[2].posterior.mean(), second.levels[2].posterior.mean())
    assert same(first.levels[3].posterior.mean(), second.levels[3].posterior.mean())
    # With a merge state the same change is carried further.
    first, second = changed(made("ladder", merge_state=True), 1)
    assert not same(first.levels[3].posterior.mean(), second.levels[3].posterior.mean())


def test_a_whole_matnet_carries_every_latent_to_the_end():
    for level in range(4):
        first, second = changed(made(), level)
        assert not same(first.h_td, second.h_td)
        for later in range(level + 1, 4):
            a, b = first.levels[later], second.levels[later]
            assert not same(a.prior.mean(), b.prior.mean())
            assert not same(a.posterior.mean(), b.posterior.mean())


def test_a_posterior_reads_the_image_and_a_prior_does_not():
    model = made()
    latents, x = drawn(model, 2), images(model)
    first, second = (inferred(model, image, latents=latents) for image in (x, 1 - x))
    for a, b in zip(first.levels, second.levels, strict=True):
        assert same(a.prior.mean(), b.prior.mean())
        assert not same(a.posterior.mean(), b.posterior.mean())


@pytest.mark.parametrize("name", ["dense", "convolutional", *LIKELIHOODS])
def test_wild_latents_give_finite_bounds_and_gradients(name):
    model = made(name)
    latents = [1e6 * z for z in drawn(model, 2)]
    with tf.GradientTape() as tape:
        trace = inferred(model, images(model), latents=latents)
        parts = [
            model.hierarchy.p_x(trace).log_prob(images(model)),
            *(level.kl() for level in trace.levels),
        ]
        parts += [level.log_weight() for level in trace.levels]
        total = tf.add_n(parts)
    gradients = tape.gradient(total, model.trainable_variables)
    for value in (*parts, *gradients):
        assert np.isfinite(value).all()
