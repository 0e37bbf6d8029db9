# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Importance-weighted training: its loss, both of its gradients, and its steps."""

import dataclasses

import keras
import numpy as np
import numpy_matnet as npm
import pytest
import tensorflow as tf

from matnet_tf.config import ElboLoss, Experiment, ModelConfig, Scale, TrainConfig
from matnet_tf.model import elbo_model, importance
from matnet_tf.model.conditional import ConditionalMatNet
from matnet_tf.model.importance_loss import importance_loss
from matnet_tf.model.matnet import MatNet
from matnet_tf.runs.optimizer import Adam
from matnet_tf.tracing import tf_function

CONFIG = ModelConfig((3, 2, 1), (Scale(1, 5, 2, 2),), top_latents=2, top_units=4)
CHOICES = {
    "residual": {},
    "mixture": {"mixture_components": 3, "mixture_weights": "trained"},
    "local": {"autoregressive": True, "autoregressive_layers": 2, "autoregressive_filters": 3},
    "conditional": {"conditional_stages": 2},
}
SEED = tf.constant([0, 3])
PLAIN = ElboLoss(num_samples=4, mixture_kl="monte_carlo")
DOUBLY = dataclasses.replace(PLAIN, gradient="doubly_reparametrized")
SLOW = pytest.param("conditional", marks=pytest.mark.slow)
every_model = pytest.mark.parametrize("name", ["residual", "mixture", "local", SLOW])


def made(name="residual", cls=MatNet, **compiled):
    cls = ConditionalMatNet if name == "conditional" else cls
    model = npm.randomize(cls(dataclasses.replace(CONFIG, **CHOICES[name])), scale=0.4)
    model.compile(Adam(0.01), run_eagerly=True, mixture_kl="monte_carlo", **compiled)
    return model


def inputs_of(model, images=3):
    x, mask = np.random.default_rng(0).integers(0, 2, (2, images, *CONFIG.image_shape))
    parts = (x, mask) if model.config.conditional_stages else (x,)
    return tuple(tf.constant(part, tf.float32) for part in parts)


def gradient(layer, loss_of):
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(loss_of())
    gradients = tape.gradient(total, layer.trainable_variables)
    return tf.concat([tf.reshape(g, [-1]) for g in gradients], axis=0)


def same(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * np.abs(b).max())


# The loss and its gradients.


@every_model
def test_the_loss_is_minus_the_log_mean_exp_of_the_log_weights(name, eagerly):
    model = made(name)
    inputs, own_seed = inputs_of(model), tf.random.fold_in(SEED, 0)
    (log_weights,) = importance.log_weights(model, inputs, 4, SEED, None)
    expected = np.log(4) - npm.log_sum_exp(log_weights.T)
    for settings in (PLAIN, DOUBLY):
        loss, bound = importance_loss(model.hierarchy, inputs, own_seed, settings)
        np.testing.assert_allclose(loss, expected, rtol=1e-4)
    # The bound is the plain one, of as many copies of the images as there are samples.
    copies = [tf.tile(part, [4, 1, 1, 1]) for part in inputs]
    of_copies = model.hierarchy.elbo(*copies, own_seed)
    for part, samples in zip(tf.nest.flatten(bound), tf.nest.flatten(of_copies), strict=True):
        np.testing.assert_allclose(part, samples.numpy().reshape(4, 3).mean(0), rtol=1e-4)


@pytest.mark.slow
@every_model
def test_both_gradients_are_their_definitions(name, eagerly):
    model, weight = made(name), 0.3
    hierarchy, inputs = model.hierarchy, inputs_of(model)
    x, variables = tf.tile(inputs[0], [4, 1, 1, 1]), [v.value for v in model.trainable_variables]

    def log_densities(latents=()):
        trace = hierarchy.top_down_pass(hierarchy.encode(*inputs), 12, SEED, latents=latents)
        p = sum(level.prior.log_prob(level.z) for level in trace.levels)
        q = sum(level.posterior.log_prob(level.z) for level in trace.levels)
        p, q = hierarchy.p_x(trace).log_prob(x) + weight * p, weight * q
        return tf.reshape(p, [4, 3]), tf.reshape(q, [4, 3]), trace.z

    def naive():
        p, q, _ = log_densities()
        return -tf.math.log(tf.reduce_mean(tf.exp(tf.cast(p - q, tf.float64)), axis=0))

    arguments = hierarchy, inputs, SEED
    found = gradient(model, lambda: importance_loss(*arguments, PLAIN, weight)[0])
    same(found, gradient(model, naive))

    # Tucker et al.: densities at given z, and apart from them the way from weights to z.
    with tf.GradientTape(persistent=True) as tape:
        z = log_densities()[2]
        given = [tf.stop_gradient(latent) for latent in z]
        tape.watch(given)
        p, q, _ = log_densities(given)
        share = tf.stop_gradient(tf.nn.softmax(p - q, axis=0))
        direct = tf.reduce_sum(share * p)
        through_z = tf.reduce_sum((share - weight * (share - share**2)) * (p - q))
    slopes = tape.gradient(through_z, given)
    ways = tape.gradient(z, variables, slopes, unconnected_gradients="zero")
    rest = tape.gradient(direct, variables, unconnected_gradients="zero")
    expected = tf.concat([tf.reshape(-a - b, [-1]) for a, b in zip(ways, rest, strict=True)], 0)
    same(gradient(model, lambda: importance_loss(*arguments, DOUBLY, weight)[0]), expected)


@pytest.mark.slow
def test_both_gradients_are_equal_in_expectation():
    model, draws, weight = made(), 100, 0.6
    inputs = tuple(tf.repeat(part, 300, axis=0) for part in inputs_of(model, 1))
    means, errors = [], []
    for stream, settings in enumerate((PLAIN, DOUBLY)):

        @tf_function
        def drawn(index, settings=settings, stream=stream):
            arguments = inputs, tf.stack([stream, index]), settings, weight
            return gradient(model, lambda: importance_loss(model.hierarchy, *arguments)[0])

        samples = np.array([drawn(tf.constant(index)) for index in range(draws)])
        means.append(samples.mean(0))
        errors.append(samples.var(0) / draws)
    error = np.sqrt(sum(errors))
    # Without the squares, or without log q at fixed z, some are off by 40 errors and more.
    assert np.all(np.abs(means[0] - means[1]) < 6 * error + 1e-3)
    assert np.linalg.norm(error) < 0.1 * np.linalg.norm(means[0])


def test_the_gradient_of_an_exact_guide_has_no_noise(eagerly):
    model = made()
    top_down, guide = model.hierarchy.top_down, model.hierarchy.guide
    # Every prior and posterior is N(0, I), and the image does not depend on the latents.
    flat = [module.prior_head for module in top_down.modules] + [guide.top.head]
    for layer in [*flat, *(module.head for module in guide.modules)]:
        layer.kernel.assign(0 * layer.kernel), layer.bias.assign(0 * layer.bias)
    kernel = model.hierarchy.likelihood.head.kernel
    kernel.assign(0 * kernel)
    noise = {}
    for kind in ("reparametrized", "doubly_reparametrized"):
        settings = dataclasses.replace(PLAIN, gradient=kind, num_samples=1)
        arguments = model.hierarchy, inputs_of(model), SEED, settings
        found = gradient(guide, lambda a=arguments: importance_loss(*a)[0])
        noise[kind] = np.abs(found).max()
    assert noise["doubly_reparametrized"] < 1e-5 < 0.1 < noise["reparametrized"]


# Steps.


@pytest.mark.slow
def test_one_sample_takes_the_step_of_the_elbo(monkeypatch):
    models = made(), made(num_samples=1)
    monkeypatch.delattr(elbo_model, "importance_loss")
    for model in models:
        for _ in range(2):
            model.train_step(inputs_of(model)[0])
    for a, b in zip(*(model.get_weights() for model in models), strict=True):
        assert a.tobytes() == b.tobytes()


@every_model
def test_a_step_encodes_every_image_once_and_moves_every_weight(name, monkeypatch):
    model = made(name, num_samples=5, gradient="doubly_reparametrized")
    encode, seen = model.hierarchy.encode, []
    monkeypatch.setattr(
        model.hierarchy, "encode", lambda *inputs: seen.append(inputs[0].shape) or encode(*inputs)
    )
    before = [v.numpy() for v in model.trainable_variables]
    model.train_step(inputs_of(model))
    assert seen == [(3, *CONFIG.image_shape)]
    for variable, value in zip(model.trainable_variables, before, strict=True):
        assert np.any(variable.numpy() != value), variable.path


@pytest.mark.slow
def test_a_stage_trains_alone_on_the_weights_of_its_own_latents():
    model = made("conditional", num_samples=3, gradient="doubly_reparametrized")
    model.training_stage = 1
    later = model.hierarchy.stages[1].trainable_variables
    before = [v.numpy().tobytes() for v in later]
    metrics = model.train_step(inputs_of(model))
    assert [v.numpy().tobytes() for v in later] == before
    assert all((metrics[f"kl/{n}"] == 0) == (i > 2) for i, n in enumerate(model.config.level_names))


@pytest.mark.slow
def test_losses_in_mixed_bfloat16_are_float32_and_near_the_exact_ones(eagerly):
    exact = made()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = made()
        inputs = inputs_of(model)
        loss, _ = importance_loss(model.hierarchy, inputs, SEED, DOUBLY)
    finally:
        keras.config.set_dtype_policy("float32")
    assert loss.dtype == tf.float32
    expected, _ = importance_loss(exact.hierarchy, inputs, SEED, PLAIN)
    np.testing.assert_allclose(loss, expected, rtol=0.02)


@pytest.mark.slow
def test_training_raises_the_bound_of_as_many_samples():
    model = MatNet(CONFIG)
    model.compile(Adam(0.02), num_samples=5)
    x = np.repeat(inputs_of(model, 4)[0], 8, axis=0)
    before = model.log_likelihood(x, 5, seed=1).mean()
    model.fit(x, batch_size=32, epochs=60, verbose=0)
    assert model.log_likelihood(x, 5, seed=1).mean() > before + 0.5


def test_losses_that_have_no_weights_are_refused():
    doubly = {"gradient": "doubly_reparametrized"}
    for more in ({"kl_schedule": "squared"}, {"entropy_penalty": 0.4}):
        for few in (doubly, {"num_samples": 2}):
            with pytest.raises(ValueError, match="TrainConfig.num_samples above 1 .* do not go"):
                TrainConfig(**few, **more)
    mixture = dataclasses.replace(CONFIG, **CHOICES["mixture"])
    model, fault = MatNet(mixture), "need mixture_kl 'monte_carlo' .*; got 'approximate'"
    with pytest.raises(ValueError, match=fault):
        model.compile("sgd", **doubly)
    with pytest.raises(ValueError, match=fault):
        Experiment(mixture, train=TrainConfig(num_samples=2))
    Experiment(mixture, train=TrainConfig(num_samples=2, mixture_kl="monte_carlo"))
