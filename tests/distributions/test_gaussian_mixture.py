# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The mixture of Gaussians and Eq. 12 against SciPy and NumPy."""

import numpy as np
import numpy_matnet as npm
import pytest
import scipy.stats
import tensorflow as tf
import tensorflow_probability as tfp

from matnet_tf.distributions.gaussian import diagonal_normal
from matnet_tf.distributions.mixture import GaussianMixture, kl_per_unit, tempered

RNG = np.random.default_rng(0)
kl_divergence = tfp.distributions.kl_divergence


def draw(*shape, scale=1.0):
    return RNG.normal(0, scale, shape).astype(np.float32)


def made(components=3, units=4):
    """A mixture, and its log-weights, means and deviations in NumPy."""
    rng = np.random.default_rng(0)
    logits, loc = rng.normal(size=components), 2 * rng.normal(size=(components, units))
    scale = rng.uniform(0.3, 1.5, (components, units))
    mixture = GaussianMixture(logits, loc, scale)
    return mixture, (logits - npm.log_sum_exp(logits), loc, scale)


def test_density_is_the_weighted_sum_of_scipys():
    mixture, (log_weights, loc, scale) = made()
    z = draw(6, 4, scale=2.0)
    densities = [scipy.stats.norm.pdf(z, m, s).prod(-1) for m, s in zip(loc, scale, strict=True)]
    joint = np.exp(log_weights) * np.stack(densities, axis=-1)
    assert mixture.event_shape == (4,) and mixture.batch_shape == ()
    np.testing.assert_allclose(mixture.log_prob(z), np.log(joint.sum(-1)), rtol=1e-4)
    assigned = joint / joint.sum(-1, keepdims=True)
    np.testing.assert_allclose(np.exp(mixture.assign(z)), assigned, rtol=1e-3, atol=1e-6)
    cold = npm.mixture_log_prob(z, log_weights, loc, 0.5 * scale)
    np.testing.assert_allclose(tempered(mixture, 0.5).log_prob(z), cold, rtol=1e-4)


def test_samples_have_the_distribution():
    mixture, (log_weights, loc, scale) = made()
    z = mixture.sample(20_000, seed=[0, 1]).numpy()
    weights = np.exp(log_weights)
    for unit in range(4):

        def cdf(value, unit=unit):
            return scipy.stats.norm.cdf(value[:, None], loc[:, unit], scale[:, unit]) @ weights

        assert scipy.stats.kstest(z[:, unit], cdf).pvalue > 1e-3
    np.testing.assert_allclose(mixture.mean(), weights @ loc, rtol=1e-5)


def test_component_takes_one_index_per_row():
    mixture, (_, loc, scale) = made()
    component = mixture.component(tf.constant([2, 0, 2]))
    np.testing.assert_allclose(component.mean(), loc[[2, 0, 2]], rtol=1e-6)
    np.testing.assert_allclose(component.stddev(), scale[[2, 0, 2]], rtol=1e-6)


def test_kl_is_eq_12_and_exact_for_one_component():
    parameters = draw(5, 8)
    q = diagonal_normal(parameters)
    mixture, parts = made()
    expected = npm.eq_12(npm.gaussian(parameters), *parts)
    np.testing.assert_allclose(kl_divergence(q, mixture), expected, rtol=1e-4)
    shares = np.repeat(expected[:, None] / 4, 4, 1)
    np.testing.assert_allclose(kl_per_unit(q, mixture), shares, rtol=1e-4)
    mixture, (_, loc, scale) = made(components=1)
    exact = npm.kl_per_unit(npm.gaussian(parameters), (loc, 2 * np.log(scale))).sum(-1)
    np.testing.assert_allclose(kl_divergence(q, mixture), exact, rtol=1e-4)


@pytest.mark.parametrize(("shift", "width", "gap"), [(0.0, 1.0, 0.133), (0.7, 0.9, 1.90)])
def test_eq_12_is_above_the_sampled_kl(shift, width, gap):
    """By little for a posterior within one component, and by more for one between components."""
    mixture, (log_weights, loc, scale) = made(components=10)
    deviation = width * (scale[3] if shift == 0 else np.ones(4))
    parameters = np.concatenate([loc[3] + shift, 2 * np.log(deviation)])
    q = diagonal_normal(parameters[None].astype(np.float32), log_var_bound=1e3)
    mean, deviation = np.float64(q.mean()[0]), np.float64(q.stddev()[0])
    z = mean + deviation * np.random.default_rng(1).normal(size=(100_000, 4))
    log_q = scipy.stats.norm.logpdf(z, mean, deviation).sum(-1)
    ratio = log_q - npm.mixture_log_prob(z, log_weights, loc, scale)
    error = ratio.std() / np.sqrt(len(z))
    assert float(kl_divergence(q, mixture)[0]) - ratio.mean() == pytest.approx(
        gap, abs=4 * error + 0.01
    )


def test_a_far_mixture_gives_finite_kl_and_gradients():
    loc = tf.Variable(np.full((2, 4), 1e6, np.float32))
    with tf.GradientTape() as tape:
        mixture = GaussianMixture([0.0, -50.0], loc, tf.fill([2, 4], 0.02))
        kl = kl_divergence(diagonal_normal(tf.zeros([1, 8])), mixture)
    assert np.isfinite(kl).all() and np.isfinite(tape.gradient(kl, loc)).all()
