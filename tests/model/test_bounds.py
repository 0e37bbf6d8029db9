# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Bounds against exact likelihoods: a tiny model whose log p(x) quadrature gives."""

import functools

import numpy as np
import numpy_matnet as npm
import pytest
import scipy.special
import tensorflow as tf

from matnet_tf.config import ModelConfig, Scale
from matnet_tf.model.bounds import StreamingLogMeanExp, bits_per_dim, nested_bounds, nested_counts
from matnet_tf.model.matnet import MatNet

NODES = 48
# Every image of 2 x 2 pixels.
IMAGES = np.array(np.meshgrid(*[[0, 1]] * 4)).reshape(4, 16).T.reshape(16, 2, 2, 1)
X = tf.constant(IMAGES, tf.float32)
SEED = tf.constant([0, 7])


def made(**choices) -> MatNet:
    """Two latents of one unit each, with everything smooth and far from its start."""
    config = ModelConfig((2, 2, 1), (Scale(1, 6, 1, 1),), 1, 4, activation="tanh", **choices)
    model = npm.randomize(MatNet(config), seed=3, scale=1.0)
    model.hierarchy.top_down.latent_scale.assign(0.5)
    # Posteriors near the prior but wider, so that importance weights have a small variance.
    for head in (model.hierarchy.guide.top.head, model.hierarchy.guide.modules[0].head):
        head.kernel.assign(0.3 * head.kernel.value)
        head.bias.assign([0.0, 2.0])
    return model


@pytest.fixture(scope="module")
def model() -> MatNet:
    return made()


@pytest.fixture(scope="module")
def exact(model) -> np.ndarray:
    return quadrature(model)


def quadrature(model: MatNet) -> np.ndarray:
    """log p(x) of all 16 images: Gauss-Hermite quadrature over both latents."""
    t, w = np.polynomial.hermite_e.hermegauss(NODES)
    log_w = np.log(w / w.sum())
    z_0 = np.repeat(t, NODES)[:, None].astype(np.float32)
    prior = model.hierarchy.top_down_pass(None, NODES**2, SEED, latents=[z_0]).levels[1].prior
    z_1 = prior.mean() + prior.stddev() * np.tile(t, NODES)[:, None].astype(np.float32)
    trace = model.hierarchy.top_down_pass(None, NODES**2, SEED, latents=[z_0, z_1])
    p_x = model.hierarchy.p_x(trace)
    tiled = [tf.tile(X[i : i + 1], [NODES**2, 1, 1, 1]) for i in range(16)]
    log_p = np.stack([p_x.log_prob(x).numpy().astype(np.float64) for x in tiled], axis=1)
    weights = np.repeat(log_w, NODES) + np.tile(log_w, NODES)
    return scipy.special.logsumexp(log_p + weights[:, None], axis=0)


def log_weights(model, num_samples, seed):
    """`[K, 16]` importance log-weights, without a graph."""
    encoding = model.hierarchy.encode(X)
    return (
        model.hierarchy.log_weight(X, encoding, num_samples, tf.constant([1, seed]))
        .numpy()
        .astype(np.float64)
    )


def log_mean_exp(log_weight):
    return scipy.special.logsumexp(log_weight, axis=0) - np.log(len(log_weight))


def test_the_probabilities_of_all_images_sum_to_one(exact):
    np.testing.assert_allclose(np.exp(exact).sum(), 1.0, atol=1e-5)
    assert exact.max() - exact.min() > 1.0, "the model should tell images apart"


@pytest.mark.slow
def test_with_the_local_model_they_sum_to_one_too_and_the_bound_meets_them():
    model = made(autoregressive=True, autoregressive_layers=2, autoregressive_filters=3)
    exact = quadrature(model)
    np.testing.assert_allclose(np.exp(exact).sum(), 1.0, atol=1e-5)
    assert exact.max() - exact.min() > 1.0, "the model should tell images apart"
    meets(log_weights(model, 20000, 0), exact)


def test_the_quadrature_has_converged(model, exact):
    logits = model.hierarchy.likelihood(
        model.hierarchy.top_down_pass(None, 20000, SEED).h_td
    ).numpy()[..., 0]
    prior = np.stack([npm.bernoulli_log_prob(x, logits) for x in IMAGES[:4]], axis=1)
    error = np.exp(prior).std(0) / np.exp(prior).mean(0) / np.sqrt(len(prior))
    assert (np.abs(log_mean_exp(prior) - exact[:4]) < 4 * error).all()


def meets(log_weight, exact):
    """Checks the bound of samples `[K, 16]` against log p(x) by its standard error."""
    ratio = np.exp(log_weight - log_weight.max(0))
    error = ratio.std(0) / ratio.mean(0) / np.sqrt(len(ratio))
    assert (error < 0.05).all()
    assert (np.abs(log_mean_exp(log_weight) - exact) < 4 * error + 1e-5).all()


def rises_towards(exact, log_weights):
    """Checks that the bound rises with K towards log p(x); `log_weights(num_samples, seed)`."""
    means, errors = [], []
    for seed, k in enumerate((1, 8, 64)):
        bounds = log_mean_exp(log_weights(200 * k, seed).reshape(k, 200, 16)).mean(1)
        means.append(bounds.mean())
        errors.append(bounds.std() / np.sqrt(200))
    assert means[0] + 3 * errors[0] < means[1] - 3 * errors[1] < means[1] + 3 * errors[1]
    assert means[1] + 3 * errors[1] < means[2] + 3 * errors[2] < exact.mean() + 6 * errors[2]
    assert exact.mean() - means[2] < 0.1 * (exact.mean() - means[0])


def test_the_importance_weighted_bound_meets_log_p_within_its_standard_error(model, exact):
    meets(log_weights(model, 20000, 0), exact)


def test_the_bound_rises_with_the_number_of_samples_towards_log_p(model, exact):
    rises_towards(exact, functools.partial(log_weights, model))


def test_the_closed_form_elbo_is_the_mean_of_the_log_weights(model, exact):
    draws = 4000
    tiled = tf.tile(X, [draws, 1, 1, 1])
    elbo = model.hierarchy.bound_and_trace(tiled, SEED)[0].elbo.numpy().reshape(draws, 16)
    log_weight = log_weights(model, draws, 1)
    error = np.hypot(elbo.std(0), log_weight.std(0)) / np.sqrt(draws)
    assert (np.abs(elbo.mean(0) - log_weight.mean(0)) < 4 * error).all()
    assert (elbo.mean(0) < exact).all()


def test_a_log_weight_is_the_joint_minus_the_posterior_at_the_same_draw(model):
    bound, trace = model.hierarchy.bound_and_trace(X, SEED)
    expected = bound.log_likelihood + sum(
        level.prior.log_prob(level.z) - level.posterior.log_prob(level.z) for level in trace.levels
    )
    actual = model.hierarchy.log_weight(X, model.hierarchy.encode(X), 1, SEED)
    np.testing.assert_allclose(actual, expected[None], rtol=1e-5)


def test_log_likelihood_is_the_bound_of_its_chunks(model, exact, eagerly):
    ours = model.log_likelihood(X, num_samples=4000, chunk=16 * 2000)
    pieces = np.concatenate(list(model.log_weights(X, 4000, chunk=16 * 2000)))
    assert pieces.shape == (4000, 16)
    np.testing.assert_allclose(ours, log_mean_exp(pieces.astype(np.float64)), rtol=1e-9)
    np.testing.assert_allclose(ours, exact, atol=0.3)
    assert not np.array_equal(pieces[:2000], pieces[2000:]), "chunks must draw other noise"


def test_the_stream_is_scipys_log_sum_exp_whatever_the_chunks():
    rng = np.random.default_rng(0)
    log_weight = rng.normal(-500, 60, (37, 5))
    stream = StreamingLogMeanExp(5)
    np.testing.assert_array_equal(stream.result(), np.full(5, -np.inf))
    for first, last in ((0, 1), (1, 20), (20, 37)):
        stream.update(log_weight[first:last])
        np.testing.assert_allclose(stream.result(), log_mean_exp(log_weight[:last]), rtol=1e-12)
    assert stream.num_samples == 37


def test_the_stream_survives_weights_of_zero():
    stream = StreamingLogMeanExp(2)
    stream.update(np.array([[-np.inf, -np.inf]]))
    np.testing.assert_array_equal(stream.result(), [-np.inf, -np.inf])
    stream.update(np.array([[-3.0, -np.inf]]))
    np.testing.assert_allclose(stream.result(), [-3 - np.log(2), -np.inf])


def test_nested_bounds_are_those_of_the_first_samples():
    log_weight = np.random.default_rng(1).normal(-90, 5, (230, 3))
    counts = nested_counts(230)
    assert counts == (1, 10, 100, 230)
    assert nested_counts(100) == (1, 10, 100)
    assert nested_counts(1) == (1,)
    pieces = np.split(log_weight, [5, 60, 100, 101])
    bounds = nested_bounds(pieces, counts)
    assert sorted(bounds) == list(counts)
    for k, bound in bounds.items():
        np.testing.assert_allclose(bound, log_mean_exp(log_weight[:k]), rtol=1e-12)


def test_bits_per_dimension_of_a_uniform_byte_are_eight():
    assert bits_per_dim(12 * np.log(256), (2, 2, 3)) == pytest.approx(8.0)
    # Dequantized, it is uniform on [0, 1): its density is 1, its logarithm 0.
    assert bits_per_dim(0.0, (2, 2, 3), bins=256) == pytest.approx(8.0)


def test_bits_per_dimension_of_a_density_are_those_of_the_integers_it_was_made_of():
    # A density of values v + u with bins of width 1: -1000 nats over 48 values, so 30.05 bits each.
    integers = 1000 / 48 / np.log(2)
    # Divided by 256 it is 256 times as dense in each of the 48 directions.
    fractions = 1000 - 48 * np.log(256)
    assert bits_per_dim(fractions, (4, 4, 3), bins=256) == pytest.approx(integers)
