# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Updates of the guide alone, on images drawn from the model: Eq. 13 and its sibling."""

import dataclasses

import numpy as np
import numpy_matnet as npm
import pytest
import tensorflow as tf

from matnet_tf.config import ModelConfig, Stage
from matnet_tf.model import MatNet
from matnet_tf.optimization import Adam

CONFIG = ModelConfig((3, 2, 1), (Stage(1, 5, 2, 1),), top_latents=2, top_units=4)
MIXTURE = dataclasses.replace(CONFIG, mixture_components=3, mixture_weights="trained")
SEED = tf.constant([0, 3])
REGULARIZERS = ["free_energy", "sleep"]


def images(number=6):
    shape = (number, *CONFIG.image_shape)
    return np.random.default_rng(0).integers(0, 2, shape).astype(np.float32)


def bits(variables):
    return [v.numpy().tobytes() for v in variables]


def generator(model):
    return [*model.top_down.weights, *model.likelihood.weights]


@pytest.mark.parametrize(("config", "weight_decay"), [(CONFIG, 0.0), (MIXTURE, 0.1)])
@pytest.mark.parametrize("kind", REGULARIZERS)
def test_a_step_on_fantasies_moves_the_whole_guide_and_nothing_else(config, kind, weight_decay):
    model = MatNet(config)
    optimizer = Adam(0.01, weight_decay=weight_decay)
    model.compile(optimizer, regularizer=kind, run_eagerly=True)
    model.train_step(images())
    guide, rest = bits(model.guide_variables), bits(generator(model))
    counts = int(model.step.numpy()), int(optimizer.iterations.numpy())
    model.regularizer_step(images())
    assert bits(generator(model)) == rest
    assert all(a != b for a, b in zip(bits(model.guide_variables), guide, strict=True))
    assert (int(model.step.numpy()), int(optimizer.iterations.numpy())) == counts == (1, 1)


@pytest.mark.parametrize("likelihood", ["bernoulli", "logistic"])
def test_the_free_energy_of_fantasies_is_the_bound_of_images_drawn_from_the_model(
    likelihood, eagerly
):
    model = npm.randomize(MatNet(dataclasses.replace(CONFIG, likelihood=likelihood)))
    model.compile("sgd", regularizer="free_energy")
    x = model.sample(6, seed=SEED, draw=True)
    model.likelihood.pixels.checked(x)
    own_seed = tf.random.fold_in(SEED, model.config.num_levels + 1)
    expected = -model.bound_and_trace(x, own_seed)[0].elbo
    np.testing.assert_allclose(model.regularizer_loss((images(),), SEED), expected, rtol=1e-4)


def test_the_sleep_loss_is_that_of_the_latents_that_an_image_was_drawn_from():
    model = npm.randomize(MatNet(CONFIG))
    model.compile("sgd", regularizer="sleep")
    dream = model.walk(None, 6, SEED)
    x = model.images(dream, SEED, draw=True).numpy()
    posteriors = npm.Walk(model, x, dream.z).posteriors
    expected = sum(
        npm.normal_log_prob(z.numpy(), mean, np.exp(log_var / 2))
        for z, (mean, log_var) in zip(dream.z, posteriors, strict=True)
    )
    np.testing.assert_allclose(model.regularizer_loss((images(),), SEED), -expected, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", REGULARIZERS)
def test_many_steps_on_fantasies_bring_the_guide_nearer_to_the_models_posterior(kind):
    model = npm.randomize(MatNet(CONFIG))
    model.compile(Adam(0.02), regularizer=kind)
    loss, step = model._graphs.of(model.regularizer_loss), model._graphs.of(model.regularizer_step)
    seeds, x = [tf.constant([7, i]) for i in range(20)], tf.zeros([64, *CONFIG.image_shape])
    before = np.mean([loss((x,), seed) for seed in seeds])
    rest = bits(generator(model))
    for _ in range(100):
        model.step.assign_add(1)
        step(x)
    assert np.mean([loss((x,), seed) for seed in seeds]) < before - 0.05
    assert bits(generator(model)) == rest


@pytest.mark.parametrize(
    ("start", "every", "due"),
    [
        (0, 3, 2),
        (2, 2, 2),
        pytest.param(0, 1, 6, marks=pytest.mark.slow),
        pytest.param(2, 1, 4, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("steps_per_execution", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_steps_on_fantasies_begin_and_return_as_configured(start, every, due, steps_per_execution):
    model = MatNet(CONFIG)
    model.compile(
        Adam(0.01),
        steps_per_execution=steps_per_execution,
        regularizer="sleep",
        regularizer_start=start,
        regularizer_every=every,
        run_eagerly=steps_per_execution == 1,
    )
    calls = tf.Variable(0)
    step = model.regularizer_step
    model.regularizer_step = lambda data: calls.assign_add(1) is not None and step(data)
    model.fit(images(12), batch_size=2, verbose=0)
    assert int(model.step.numpy()) == 6 and int(calls.numpy()) == due


@pytest.mark.slow
def test_two_devices_draw_fantasies_too(two_devices):
    with two_devices.scope():
        model = MatNet(CONFIG)
        model.compile(Adam(0.01), regularizer="free_energy", regularizer_start=1)
    rest, guide = bits(generator(model)), bits(model.guide_variables)
    for optimizer_steps in (1, 2):
        model.fit(images(6), batch_size=6, verbose=0)
        assert int(model.optimizer.iterations.numpy()) == optimizer_steps
    assert bits(generator(model)) != rest and bits(model.guide_variables) != guide
    assert np.isfinite(model.log_likelihood(images(), 2)).all()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"entropy_penalty": -1.0}, "entropy_penalty >= 0; got -1.0"),
        ({"regularizer": "wake"}, "a regularizer of none, free_energy, sleep, .* got 'wake'"),
        ({"regularizer_start": -1}, "regularizer_start >= 0 .* and -1|got 'none', -1 and 1"),
        ({"regularizer_every": 0}, "regularizer_every >= 1; got 'none', 0 and 0"),
    ],
)
def test_regularizers_that_make_no_sense_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        MatNet(CONFIG).compile("sgd", **bad)
