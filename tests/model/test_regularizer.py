# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Updates of the guide alone, on images drawn from the model: Eq. 13 and its sibling."""

import dataclasses

import numpy as np
import numpy_matnet as npm
import pytest
import tensorflow as tf
from test_training_step import CONFIG, MIXTURE, SEED, images

from matnet_tf.model.matnet import MatNet
from matnet_tf.runs.optimizer import Adam


def bits(variables):
    return [v.numpy().tobytes() for v in variables]


def generator(model):
    return [*model.hierarchy.top_down.weights, *model.hierarchy.likelihood.weights]


@pytest.mark.parametrize("kind", ["free_energy", "sleep"])
def test_a_step_on_drawn_images_moves_the_whole_guide_and_nothing_else(kind):
    model, optimizer = MatNet(MIXTURE), Adam(0.01)
    model.compile(optimizer, regularizer=kind, run_eagerly=True)
    model.train_step(images())
    guide, rest = bits(model.hierarchy.guide_variables), bits(generator(model))
    model.regularizer_step(images())
    assert bits(generator(model)) == rest
    moved = zip(bits(model.hierarchy.guide_variables), guide, strict=True)
    assert all(a != b for a, b in moved)
    assert int(model.step.numpy()) == int(optimizer.iterations.numpy()) == 1


def test_the_free_energy_is_the_bound_of_images_drawn_from_the_model(eagerly):
    for likelihood in ("bernoulli", "logistic"):
        model = npm.randomize(MatNet(dataclasses.replace(CONFIG, likelihood=likelihood)))
        model.compile("sgd", regularizer="free_energy")
        x = model.sample(6, seed=SEED, draw=True)
        model.input_form.check(x)
        own_seed = tf.random.fold_in(SEED, model.config.num_levels + 1)
        expected = -model.hierarchy.elbo(x, own_seed).elbo
        np.testing.assert_allclose(model.regularizer_loss((images(),), SEED), expected, rtol=1e-4)


@pytest.mark.parametrize("whitening", [False, True])
def test_images_drawn_from_a_gaussian_are_not_clipped(whitening, monkeypatch):
    config = dataclasses.replace(CONFIG, likelihood="normal", whitening=whitening)
    model, seen = npm.randomize(MatNet(config)), []
    model.adapt([images()])
    model.compile("sgd", regularizer="free_energy")
    bound_and_trace = model.hierarchy.bound_and_trace

    def recorded(x, seed):
        seen.append(x.numpy())
        return bound_and_trace(x, seed)

    monkeypatch.setattr(model.hierarchy, "bound_and_trace", recorded)
    assert np.isfinite(model.regularizer_loss((images(200),), SEED)).all()
    p_x = model.hierarchy.p_x(model.hierarchy.top_down_pass(None, 200, SEED))
    loc, scale = p_x.distribution.distribution.loc, p_x.distribution.distribution.scale
    z = (p_x.bijector.inverse(seen[0]) - loc) / scale
    assert abs(np.mean(z)) < 4 / np.sqrt(np.size(z)) and np.std(z) == pytest.approx(1, abs=0.1)
    users = model.sample(200, seed=SEED, draw=True).numpy()
    np.testing.assert_allclose(users, seen[0].clip(0, 1), rtol=1e-4, atol=1e-5)
    assert (users != seen[0]).any()


def test_the_sleep_loss_is_that_of_the_latents_that_an_image_was_drawn_from():
    model = npm.randomize(MatNet(CONFIG))
    model.compile("sgd", regularizer="sleep")
    trace = model.hierarchy.top_down_pass(None, 6, SEED)
    x = model.hierarchy.images(trace, SEED, draw=True).numpy()
    posteriors = npm.Walk(model.hierarchy, x, trace.z).posteriors
    expected = sum(
        npm.normal_log_prob(z.numpy(), mean, np.exp(log_var / 2))
        for z, (mean, log_var) in zip(trace.z, posteriors, strict=True)
    )
    np.testing.assert_allclose(model.regularizer_loss((images(),), SEED), -expected, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["free_energy", "sleep"])
def test_many_steps_bring_the_guide_nearer_to_the_models_posterior(kind):
    model = npm.randomize(MatNet(CONFIG))
    model.compile(Adam(0.02), regularizer=kind)
    loss = model.functions.get(model.regularizer_loss)
    step = model.functions.get(model.regularizer_step)
    seeds, x = [tf.constant([7, i]) for i in range(20)], tf.zeros([64, *CONFIG.image_shape])
    before = np.mean([loss((x,), seed) for seed in seeds])
    for _ in range(100):
        model.step.assign_add(1)
        step(x)
    assert np.mean([loss((x,), seed) for seed in seeds]) < before - 0.05


@pytest.mark.slow
@pytest.mark.parametrize(
    ("start", "every", "due", "steps"),
    [(0, 3, 2, 1), (2, 2, 2, 1), pytest.param(2, 1, 4, 3, marks=pytest.mark.slow)],
)
def test_updates_begin_and_return_as_configured(start, every, due, steps):
    model = MatNet(CONFIG)
    model.compile(
        Adam(0.01),
        steps_per_execution=steps,
        regularizer="sleep",
        regularizer_start=start,
        regularizer_every=every,
        run_eagerly=steps == 1,
    )
    calls, step = tf.Variable(0), model.regularizer_step
    model.regularizer_step = lambda data: calls.assign_add(1) is not None and step(data)
    model.fit(images(12), batch_size=2, verbose=0)
    assert int(model.step.numpy()) == 6 and int(calls.numpy()) == due


@pytest.mark.slow
def test_two_devices_draw_images_too(two_devices):
    with two_devices.scope():
        model = MatNet(CONFIG)
        model.compile(Adam(0.01), regularizer="free_energy", regularizer_start=1)
    rest, guide = bits(generator(model)), bits(model.hierarchy.guide_variables)
    for optimizer_steps in (1, 2):
        model.fit(images(6), batch_size=6, verbose=0)
        assert int(model.optimizer.iterations.numpy()) == optimizer_steps
    assert bits(generator(model)) != rest and bits(model.hierarchy.guide_variables) != guide
    assert np.isfinite(model.log_likelihood(images(), 2)).all()
