# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The training step: its loss, clipping, skipping, noise, and its copies on two devices."""

import dataclasses

import keras
import numpy as np
import numpy_matnet as npm
import pytest
import tensorflow as tf
from test_matnet import equal

from matnet_tf.config import ElboLoss, ModelConfig, Scale
from matnet_tf.model.bounds import Bound
from matnet_tf.model.matnet import MatNet
from matnet_tf.model.metrics import BoundMetric, SkippedSteps, TrainingDiverged
from matnet_tf.runs.optimizer import Adam
from matnet_tf.tracing import tf_function

CONFIG = ModelConfig((3, 2, 1), (Scale(1, 5, 2, 1),), top_latents=2, top_units=4)
MIXTURE = dataclasses.replace(CONFIG, mixture_components=3, mixture_weights="trained")
SEED = tf.constant([0, 3])


def images(number=6):
    shape = (number, *CONFIG.image_shape)
    return np.random.default_rng(0).integers(0, 2, shape).astype(np.float32)


def made(optimizer="adam", seed=0, cls=MatNet, **arguments) -> MatNet:
    model = cls(CONFIG, seed=seed)
    model.compile(optimizer=optimizer, run_eagerly=True, **arguments)
    return model


def values(variables):
    return [np.array(v.numpy()) for v in variables]


def counts(model):
    return [int(v.numpy()) for v in (model.step, model.skipped, model.skipped_in_a_row)]


def gradient_of(model, x):
    """The gradient of the mean loss, straight from the tape."""
    with tf.GradientTape() as tape:
        bound_and_trace = model.hierarchy.bound_and_trace(tf.constant(x), model.step_seed())
        loss = tf.reduce_mean(model.loss_per_image(*bound_and_trace))
    return [g.numpy() for g in tape.gradient(loss, model.trainable_variables)]


# The loss.


@pytest.mark.parametrize(("squared", "weight"), [(False, 0.3), (True, 0.25)])
def test_the_loss_is_the_formula(squared, weight):
    model = npm.randomize(made(kl_schedule="squared" if squared else "constant"))
    model.kl_weight.assign(weight)
    bound, trace = model.hierarchy.bound_and_trace(tf.constant(images()), SEED)
    walk = npm.Walk(model.hierarchy, images(), trace.z)
    units = [npm.kl_per_unit(q, p) for q, p in zip(walk.posteriors, walk.priors, strict=True)]
    kl = weight * sum(npm.sum_per_image(u) for u in units)
    if squared:
        kl = kl + (1 - weight) * sum(npm.sum_per_image(u**2) for u in units)
    expected = kl - npm.bernoulli_log_prob(images(), walk.logits)
    np.testing.assert_allclose(model.loss_per_image(bound, trace), expected, rtol=1e-3)


@pytest.mark.parametrize("mixture_kl", ["approximate", "monte_carlo"])
def test_a_mixture_is_trained_on_its_kl_and_on_the_entropy_of_the_component(mixture_kl):
    model = npm.randomize(MatNet(MIXTURE))
    model.compile("sgd", mixture_kl=mixture_kl, entropy_penalty=0.4)
    model.kl_weight.assign(0.5)
    bound, trace = model.hierarchy.bound_and_trace(tf.constant(images()), SEED)
    top = trace.levels[0]
    kl = [level.analytic_kl() for level in trace.levels]
    if mixture_kl == "monte_carlo":
        kl[0] = top.posterior.log_prob(top.z) - top.prior.log_prob(top.z)
    assigned = np.exp(top.prior.assign(top.z))
    entropy = -(assigned * np.log(assigned)).sum(1)
    expected = 0.5 * (sum(kl) + 0.4 * entropy) - bound.log_likelihood
    np.testing.assert_allclose(model.loss_per_image(bound, trace), expected, rtol=1e-4)


def test_a_step_follows_the_gradient_clipped_by_its_global_norm():
    for clip_norm, l2_penalty in ((0.0, 0.0), (0.01, 0.0), (1e4, 0.0), (0.0, 0.3), (0.01, 0.3)):
        model = made(keras.optimizers.SGD(0.5), clip_norm=clip_norm, l2_penalty=l2_penalty)
        gradient, before = gradient_of(model, images()), values(model.trainable_variables)
        gradient = [g + 2 * l2_penalty * b for g, b in zip(gradient, before, strict=True)]
        norm = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in gradient))
        assert 0.01 < norm < 1e4
        factor = min(1.0, clip_norm / norm) if clip_norm else 1.0
        model.train_step(images())
        for v, b, g in zip(model.trainable_variables, before, gradient, strict=True):
            np.testing.assert_allclose(v.numpy() - b, -0.5 * factor * g, rtol=1e-2, atol=1e-6)


# Skipped steps.


class Poisoned(MatNet):
    """Its loss is NaN while `poison` is set."""

    poison = False

    def loss_per_image(self, bound, trace):
        loss = super().loss_per_image(bound, trace)
        return loss * np.nan if self.poison else loss


OPTIMIZERS = {
    "ours": lambda: Adam(0.01),
    "keras adam": lambda: keras.optimizers.Adam(0.01),
    "sgd": lambda: keras.optimizers.SGD(0.01, momentum=0.9),
}


def expect_norms(model, norm):
    """Makes `norm` the gradient norm of the last 100 steps."""
    model.gradient_norms.norms.assign(np.full(100, norm))
    model.gradient_norms.count.assign(100)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["not finite", "too large"])
def test_a_bad_step_changes_no_weight_or_slot_and_is_counted(fault):
    for make in OPTIMIZERS.values():
        model = made(make(), cls=Poisoned)
        model.train_step(images())
        watched = [*model.trainable_variables, *model.optimizer.variables]
        before = values(watched)
        if fault == "too large":
            expect_norms(model, 1e-3)
        model.poison = fault == "not finite"
        for _ in range(2):
            model.train_step(images())
        equal(values(watched), before)
        assert counts(model) == [3, 2, 2]
        model.poison = False
        expect_norms(model, 100.0)
        model.train_step(images())
        assert counts(model) == [4, 2, 0]
        assert not np.array_equal(watched[0].numpy(), before[0])


@pytest.mark.slow
@pytest.mark.parametrize("regularizer", ["none", "sleep"])
def test_skipped_steps_leave_the_first_real_one_that_of_a_fresh_optimizer(regularizer):
    for name in ("ours", "keras adam"):
        fresh, late = (
            made(OPTIMIZERS[name](), cls=Poisoned, regularizer=regularizer) for _ in range(2)
        )
        late.poison = True
        expect_norms(late, 1e-9)
        for _ in range(10):
            late.train_step(images())
            if regularizer != "none":
                late.regularizer_step(images())
        late.gradient_norms.count.assign(0)
        assert int(late.optimizer.iterations.numpy()) == 0
        late.poison = False
        fresh.step.assign(late.step.value)  # The noise depends on it.
        for model in (fresh, late):
            model.train_step(images())
            if regularizer != "none":
                model.regularizer_step(images())
        equal(values(late.trainable_variables), values(fresh.trainable_variables))
        equal(values(late.optimizer.variables), values(fresh.optimizer.variables))


def test_training_stops_with_a_diagnosis_after_many_bad_steps():
    model = made(skip_norm=5.0, max_skipped=3)
    expect_norms(model, 1e-3)
    with pytest.raises(TrainingDiverged) as error:
        model.fit(images(12), batch_size=2, verbose=0)
    text = str(error.value)
    assert (
        "3 steps in a row" in text
        and "5 times the median" in text
        and "lower learning rate" in text
    )
    assert "\n" not in text and int(model.step.numpy()) == 3
    watcher = SkippedSteps(2)
    watcher.set_model(model)
    model.skipped_in_a_row.assign(1)  # The one before was good.
    watcher.on_train_batch_end(0)


def test_settings_out_of_range_are_refused_by_name():
    model = MatNet(CONFIG)
    for name, bad in {
        "skip_norm": 0.0,
        "clip_norm": -1.0,
        "max_skipped": 0,
        "micro_batches": 0,
        "entropy_penalty": -1.0,
        "l2_penalty": -1.0,
        "regularizer": "wake",
        "regularizer_start": -1,
        "regularizer_every": 0,
    }.items():
        with pytest.raises(ValueError, match=f"ElboLoss.{name} must be .*; got {bad!r}"):
            model.compile("sgd", **{name: bad})
    with pytest.raises(ValueError, match="elbo_loss must be an ElboLoss; got 'mse'"):
        model.compile("sgd", "mse")
    model.compile("sgd", elbo_loss=ElboLoss(clip_norm=3.0), max_skipped=7)
    assert model.elbo_loss == ElboLoss(clip_norm=3.0, max_skipped=7)


# The noise.


def test_the_noise_of_a_step_is_a_function_of_seed_and_step():
    seeds = {}
    for seed in (0, 1, 2**32):
        model = made(seed=seed)
        for step in (0, 1, 2**33):
            model.step.assign(step)
            first = tuple(model.step_seed().numpy())
            assert first == tuple(model.step_seed().numpy())
            seeds[seed, step] = first
    assert len(set(seeds.values())) == len(seeds)


@pytest.mark.slow
def test_two_runs_are_equal_bit_for_bit_and_another_seed_is_not():
    results = []
    for seed in (0, 0, 1):
        model = made(Adam(), seed=seed)
        for _ in range(3):
            model.train_step(images())
        results.append(values(model.weights))
    equal(results[0], results[1])
    kernels = [(a, b) for a, b in zip(results[0], results[2], strict=True) if a.ndim == 2]
    assert kernels and not any(np.array_equal(a, b) for a, b in kernels)


# Metrics.


def test_metrics_are_means_over_images_whose_bound_is_finite():
    metric = BoundMetric(["00_top", "01_fc"])

    def update(elbo, log_likelihood, top, below):
        kl = {"00_top": tf.constant(top), "01_fc": tf.constant(below)}
        metric.update_state(Bound(tf.constant(elbo), tf.constant(log_likelihood), kl))

    update([-3.0, -5.0], [-2.0, -3.0], [0.5, 1.0], [0.5, 1.0])
    update([-7.0, np.nan], [-4.0, 1.0], [1.0, 1.0], [2.0, np.inf])
    result = {name: float(value) for name, value in metric.result().items()}
    expected = {"loss": 5, "elbo": -5, "log_likelihood": -3, "kl": 2, "kl/00_top": 2.5 / 3}
    assert result == pytest.approx(expected | {"kl/01_fc": 3.5 / 3, "non_finite": 1})
    assert BoundMetric.from_config(metric.get_config()).level_names == metric.level_names


def test_a_test_step_changes_nothing_but_the_metric():
    model = made(Adam())
    before = values(model.weights)
    result = model.test_step(images())
    equal(values(model.weights), before)
    bound = model.hierarchy.elbo(tf.constant(images()), model.step_seed())
    np.testing.assert_allclose(result["elbo"], np.mean(bound.elbo), rtol=1e-5)
    assert set(result) >= {f"kl/{name}" for name in CONFIG.level_names}


# Graphs, parts of a batch, and devices.


def test_compiled_models_have_all_their_variables_before_the_first_step():
    model = MatNet(CONFIG)
    model.compile(optimizer="adam")
    assert len(model.optimizer.variables) == 2 + 2 * len(model.trainable_variables)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize("steps_per_execution", [1, 2])
def test_fit_in_a_graph_is_fit_without_one(steps_per_execution):
    models = [made(OPTIMIZERS["ours"]()) for _ in range(2)]
    models[1].compile(OPTIMIZERS["ours"](), steps_per_execution=steps_per_execution)
    # Of unknown size: the end of the data, which the graph finds by itself, is not a step.
    data = tf.data.Dataset.from_tensor_slices(images(16)).batch(4).filter(lambda x: tf.size(x) > 0)
    for model in models:
        model.fit(data, epochs=2, verbose=0)
        assert int(model.step.numpy()) == 8
    for a, b in zip(*([*m.weights, *m.optimizer.variables] for m in models), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=1e-5)


class Noiseless(MatNet):
    """Its latents are all one half, so that devices can be compared."""

    def __init__(self, *arguments, **keywords):
        super().__init__(*arguments, **keywords)
        layer, walk = self.hierarchy, self.hierarchy.top_down_pass

        def top_down_pass(encoding, rows, seed, **arguments):
            latents = [tf.fill((rows, *shape), 0.5) for shape in layer.latent_shapes]
            return walk(encoding, rows, seed, **arguments | {"latents": latents})

        layer.top_down_pass = top_down_pass


THREE = {"num_samples": 3, "gradient": "doubly_reparametrized"}
XLA = {"jit_compile": True, "run_eagerly": False}


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, THREE, XLA], ids=["", "three samples", "compiled"])
def test_a_batch_in_parts_makes_the_step_of_the_whole(settings):
    results = []
    for parts in (1, 2, 3, 50):
        model = Noiseless(CONFIG)
        model.compile(OPTIMIZERS["sgd"](), micro_batches=parts, **{"run_eagerly": True} | settings)
        history = model.fit(images(7), batch_size=7, epochs=2, shuffle=False, verbose=0).history
        results.append((values(model.trainable_variables), history))
    whole, history = results[0]
    for summed, other in results[1:]:
        for a, b in zip(whole, summed, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
        for name, numbers in history.items():
            np.testing.assert_allclose(other[name], numbers, rtol=1e-5, atol=1e-7)


def test_the_parts_of_a_batch_have_noise_of_their_own(monkeypatch):
    model, same, seeds = MatNet(CONFIG), np.tile(images(1), (4, 1, 1, 1)), []
    model.compile(optimizer="sgd", micro_batches=2, run_eagerly=True)
    bound_and_trace = model.hierarchy.bound_and_trace

    def recorded(x, seed, stages=None):
        seeds.append(seed.numpy().tolist())
        return bound_and_trace(x, seed, stages)

    monkeypatch.setattr(model.hierarchy, "bound_and_trace", recorded)
    model.train_step(same)
    assert len(seeds) == 2 and seeds[0] != seeds[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("optimizer", "steps", "settings"),
    [("ours", 1, {}), ("sgd", 2, THREE), ("ours", 2, XLA)],
)
def test_two_devices_make_the_step_of_one(optimizer, steps, settings, two_devices):
    # Nine images in batches of six: the last batch is shared unevenly, two and one.
    options = tf.data.Options()
    options.autotune.enabled = False
    data = tf.data.Dataset.from_tensor_slices(images(9)).batch(6).with_options(options)
    results = []
    plain = settings | {"jit_compile": False}
    for strategy, own in ((tf.distribute.get_strategy(), plain), (two_devices, settings)):
        with strategy.scope():
            model = Noiseless(CONFIG)
            model.compile(OPTIMIZERS[optimizer](), clip_norm=0.5, steps_per_execution=steps, **own)
        history = model.fit(data, epochs=2, validation_data=data, verbose=0).history
        results.append((values([*model.weights, *model.optimizer.variables]), history))
    (one, history), (two, mirrored) = results
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    for name, numbers in history.items():
        np.testing.assert_allclose(mirrored[name], numbers, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_on_two_devices_a_bad_step_changes_nothing_and_replicas_draw_other_noise(two_devices):
    with two_devices.scope():
        model = MatNet(CONFIG)
        model.compile(OPTIMIZERS["keras adam"]())
    model.fit(images(4), batch_size=4, verbose=0)
    watched = [*model.trainable_variables, *model.optimizer.variables]
    before = values(watched)
    expect_norms(model, 1e-3)
    model.fit(images(4), batch_size=4, verbose=0)
    equal(values(watched), before)
    assert counts(model) == [2, 1, 1]
    seeds = two_devices.experimental_local_results(two_devices.run(tf_function(model.step_seed)))
    assert not np.array_equal(*seeds)
