# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The training step: its loss, clipping, skipping, noise, and its copies on two devices."""

import dataclasses

import keras
import numpy as np
import numpy_matnet as npm
import pytest
import tensorflow as tf

from matnet_tf.bounds import Bound
from matnet_tf.config import ModelConfig, Stage
from matnet_tf.inputs import images_of
from matnet_tf.model import MatNet
from matnet_tf.monitoring import BoundMetric, SkippedSteps, TrainingDiverged
from matnet_tf.optimization import Adam

CONFIG = ModelConfig((3, 2, 1), (Stage(1, 5, 2, 1),), top_latents=2, top_units=4)
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


def gradient_of(model, x):
    """The gradient of the mean loss, straight from the tape."""
    with tf.GradientTape() as tape:
        bound, trace = model.bound_and_trace(tf.constant(x), model.step_seed())
        loss = tf.reduce_mean(model.loss_of(bound, trace))
    return [g.numpy() for g in tape.gradient(loss, model.trainable_variables)]


def equal(a, b):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


# The loss.


@pytest.mark.parametrize(("squared", "weight"), [(False, 1.0), (False, 0.3), (True, 0.25)])
def test_the_loss_is_the_formula(squared, weight):
    model = npm.randomize(made(squared_kl=squared))
    model.kl_weight.assign(weight)
    bound, trace = model.bound_and_trace(tf.constant(images()), SEED)
    walk = npm.Walk(model, images(), trace.z)
    units = [npm.kl_per_unit(q, p) for q, p in zip(walk.posteriors, walk.priors, strict=True)]
    kl = weight * sum(npm.sum_per_image(u) for u in units)
    if squared:
        kl = kl + (1 - weight) * sum(npm.sum_per_image(u**2) for u in units)
    expected = kl - npm.bernoulli_log_prob(images(), walk.logits)
    np.testing.assert_allclose(model.loss_of(bound, trace), expected, rtol=1e-3)


MIXTURE = dataclasses.replace(CONFIG, mixture_components=3, mixture_weights="trained")


@pytest.mark.parametrize("approximate", [True, False])
def test_a_mixture_is_trained_on_its_kl_and_on_the_entropy_of_the_component(approximate):
    settings = {"approximate_kl": approximate, "entropy_penalty": 0.4, "run_eagerly": True}
    model = npm.randomize(MatNet(MIXTURE))
    model.compile("sgd", **settings)
    model.kl_weight.assign(0.5)
    bound, trace = model.bound_and_trace(tf.constant(images()), SEED)
    top = trace.levels[0]
    kl = [level.analytic_kl() for level in trace.levels]
    if not approximate:
        kl[0] = top.posterior.log_prob(top.z) - top.prior.log_prob(top.z)
    assigned = np.exp(top.prior.assign(top.z))
    entropy = -(assigned * np.log(assigned)).sum(1)
    expected = 0.5 * (sum(kl) + 0.4 * entropy) - bound.log_likelihood
    np.testing.assert_allclose(model.loss_of(bound, trace), expected, rtol=1e-4)


def test_a_step_follows_the_gradient_of_the_mean_loss():
    model = made(keras.optimizers.SGD(0.5))
    gradient, before = gradient_of(model, images()), values(model.trainable_variables)
    model.train_step(images())
    for v, b, g in zip(model.trainable_variables, before, gradient, strict=True):
        np.testing.assert_allclose(v.numpy(), b - 0.5 * g, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("clip_norm", [0.0, 0.01, 1e4])
def test_clipping_is_by_the_global_norm(clip_norm):
    model = made(keras.optimizers.SGD(1.0), clip_norm=clip_norm)
    gradient, before = gradient_of(model, images()), values(model.trainable_variables)
    norm = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in gradient))
    assert 0.01 < norm < 1e4
    factor = min(1.0, clip_norm / norm) if clip_norm else 1.0
    model.train_step(images())
    for v, b, g in zip(model.trainable_variables, before, gradient, strict=True):
        np.testing.assert_allclose(v.numpy() - b, -factor * g, rtol=1e-2, atol=1e-6)


# Steps that are skipped.


class Poisoned(MatNet):
    """Its loss is NaN, or as it should be."""

    poison = False

    def loss_of(self, bound, trace):
        loss = super().loss_of(bound, trace)
        return loss * np.nan if self.poison else loss


OPTIMIZERS = {
    "ours": lambda: Adam(0.01, weight_decay=0.1),
    "keras adam": lambda: keras.optimizers.Adam(0.01),
    "sgd": lambda: keras.optimizers.SGD(0.01, momentum=0.9),
}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("fault", ["not finite", "too large"])
def test_a_bad_step_changes_no_weight_or_slot_and_is_counted(make, fault):
    model = made(make(), cls=Poisoned)
    model.train_step(images())
    slots = [v for v in model.optimizer.variables if v.shape.rank or "beta" in v.path]
    watched = [*model.trainable_variables, *slots]
    before = values(watched)
    model.poison, model.skip_norm = fault == "not finite", 1e-6 if fault == "too large" else 1e6
    for _ in range(2):
        model.train_step(images())
    equal(values(watched), before)
    assert [int(v.numpy()) for v in (model.step, model.skipped, model.skipped_in_a_row)] == [
        3,
        2,
        2,
    ]
    model.poison, model.skip_norm = False, 1e6
    model.train_step(images())
    assert [int(v.numpy()) for v in (model.step, model.skipped, model.skipped_in_a_row)] == [
        4,
        2,
        0,
    ]
    assert not np.array_equal(watched[0].numpy(), before[0])


def test_training_stops_with_a_diagnosis_after_many_bad_steps():
    model = made(skip_norm=1e-9, max_skipped=3)
    with pytest.raises(TrainingDiverged) as error:
        model.fit(images(12), batch_size=2, verbose=0)
    text = str(error.value)
    assert "3 steps in a row" in text and "1e-09" in text and "lower learning rate" in text
    assert "\n" not in text
    assert int(model.step.numpy()) == 3


def test_bad_steps_that_are_not_in_a_row_do_not_stop_training():
    model = made(max_skipped=2)
    watcher = SkippedSteps(2)
    watcher.set_model(model)
    model.skipped_in_a_row.assign(1)
    watcher.on_train_batch_end(0)
    model.skipped_in_a_row.assign(2)
    with pytest.raises(TrainingDiverged):
        watcher.on_train_batch_end(1)


def test_no_parts_of_a_batch_are_refused():
    with pytest.raises(ValueError, match="micro_batches >= 1; got 0"):
        made(micro_batches=0)


@pytest.mark.parametrize("bad", [{"skip_norm": 0}, {"clip_norm": -1}, {"max_skipped": 0}])
def test_bounds_that_make_no_sense_are_refused(bad):
    with pytest.raises(ValueError, match="skip_norm > 0, clip_norm >= 0 and max_skipped >= 1"):
        MatNet(CONFIG).compile(**bad)


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


def test_two_runs_are_equal_bit_for_bit_and_another_seed_is_not():
    results = []
    for seed in (0, 0, 1):
        model = made(Adam(), seed=seed)
        for _ in range(3):
            model.train_step(images())
        results.append(values(model.weights))
    equal(results[0], results[1])
    assert not np.array_equal(results[0][-1], results[2][-1])


def test_a_step_after_a_restart_is_the_same_step():
    model = made("sgd")
    for _ in range(2):
        model.train_step(images())
    again = made("sgd", seed=0)
    again.set_weights(model.get_weights())
    for each in (model, again):
        each.train_step(images())
    equal(values(model.trainable_variables), values(again.trainable_variables))


# Metrics and data.


def test_metrics_are_means_over_images_in_nats():
    metric = BoundMetric(["00_top", "01_fc"])

    def bound(elbo, log_likelihood, top, below):
        kl = {"00_top": tf.constant(top), "01_fc": tf.constant(below)}
        return Bound(tf.constant(elbo), tf.constant(log_likelihood), kl)

    metric.update_state(bound([-3.0, -5.0], [-2.0, -3.0], [0.5, 1.0], [0.5, 1.0]))
    metric.update_state(bound([-7.0], [-4.0], [1.0], [2.0]))
    result = {name: float(value) for name, value in metric.result().items()}
    expected = {
        "elbo": -5,
        "log_likelihood": -3,
        "kl": 2,
        "kl/00_top": 2.5 / 3,
        "kl/01_fc": 3.5 / 3,
    }
    assert result == pytest.approx(expected)
    copy = BoundMetric.from_config(metric.get_config())
    assert copy.level_names == metric.level_names


def test_an_image_whose_bound_is_not_finite_is_left_out_of_the_means():
    metric = BoundMetric(["00_top"])
    elbo = tf.constant([-3.0, np.nan, -5.0])
    metric.update_state(Bound(elbo, elbo + 1.0, {"00_top": tf.constant([1.0, np.inf, 1.0])}))
    found = {name: float(value) for name, value in metric.result().items()}
    assert found == {"elbo": -4.0, "log_likelihood": -3.0, "kl": 1.0, "kl/00_top": 1.0}


def test_a_test_step_changes_nothing_but_the_metric():
    model = made(Adam())
    before = values(model.weights)
    result = model.test_step(images())
    equal(values(model.weights), before)
    bound = model.bound_and_trace(tf.constant(images()), model.step_seed())[0]
    np.testing.assert_allclose(result["elbo"], np.mean(bound.elbo), rtol=1e-5)
    assert set(result) >= {f"kl/{name}" for name in CONFIG.level_names}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda x: x,
        lambda x: (x, 1),
        lambda x: [x, 1],
        lambda x: {"image": x, "label": 1},
        lambda x: ({"image": x}, 1),
        lambda x: (x,),
    ],
)
def test_images_are_found_in_every_form_of_element(wrap):
    x = images()
    assert images_of(wrap(x)) is x


def test_a_dictionary_without_images_is_refused():
    with pytest.raises(ValueError, match=r"needs the key 'image'; got \['label', 'pixels'\]"):
        images_of({"pixels": 1, "label": 2})


# Graphs.


def test_compiled_models_have_all_their_variables_before_the_first_step():
    model = MatNet(CONFIG)
    model.compile(optimizer="adam")
    assert len(model.optimizer.variables) == 2 + 2 * len(model.trainable_variables)


@pytest.mark.slow
@pytest.mark.parametrize("steps_per_execution", [1, 2])
def test_fit_in_a_graph_is_fit_without_one(steps_per_execution):
    models = [made(Adam(average_decay=0.9)) for _ in range(2)]
    models[1].compile(
        optimizer=Adam(average_decay=0.9),
        run_eagerly=False,
        steps_per_execution=steps_per_execution,
    )
    for model in models:
        model.fit(images(16), batch_size=4, epochs=1, shuffle=False, verbose=0)
    for a, b in zip(*(m.trainable_variables for m in models), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=1e-5)


class Noiseless(MatNet):
    """Its latents are all one half, so that devices can be compared."""

    def walk(self, view, rows, seed, **arguments):
        latents = [tf.fill((rows, *shape), 0.5) for shape in self.latent_shapes]
        return super().walk(view, rows, seed, latents=latents, **arguments)


@pytest.mark.parametrize("micro_batches", [2, 3, 50])
def test_a_batch_in_parts_makes_the_step_of_the_whole(micro_batches):
    results = []
    for parts in (1, micro_batches):
        model = Noiseless(CONFIG)
        model.compile(optimizer=OPTIMIZERS["sgd"](), micro_batches=parts)
        history = model.fit(images(7), batch_size=7, epochs=2, shuffle=False, verbose=0).history
        results.append((values(model.trainable_variables), history))
    (whole, history), (summed, other) = results
    for a, b in zip(whole, summed, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    for name, numbers in history.items():
        np.testing.assert_allclose(other[name], numbers, rtol=1e-5)


def test_the_parts_of_a_batch_have_noise_of_their_own():
    model, same = MatNet(CONFIG), np.tile(images(1), (4, 1, 1, 1))
    seen = []
    model.compile(optimizer="sgd", micro_batches=2, run_eagerly=True)
    model.training_bound = lambda inputs, seed: (
        seen.append(seed.numpy().tolist()) or MatNet.training_bound(model, inputs, seed)
    )
    model.train_step(same)
    assert len(seen) == 2 and seen[0] != seen[1]


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["ours", "sgd"])
def test_two_devices_make_the_step_of_one(optimizer, two_devices):
    # Nine images in batches of six: the last batch is shared unevenly, two and one.
    data = tf.data.Dataset.from_tensor_slices(images(9)).batch(6)
    options = tf.data.Options()
    options.autotune.enabled = False
    data = data.with_options(options)
    strategies = [tf.distribute.get_strategy(), two_devices]
    results = []
    for strategy in strategies:
        with strategy.scope():
            model = Noiseless(CONFIG)
            model.compile(optimizer=OPTIMIZERS[optimizer](), clip_norm=0.5)
        history = model.fit(data, epochs=2, validation_data=data, verbose=0).history
        results.append((values(model.trainable_variables), history, int(model.step.numpy())))
    (one, history, steps), (two, mirrored, mirrored_steps) = results
    assert steps == mirrored_steps == 4
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    for name, numbers in history.items():
        np.testing.assert_allclose(mirrored[name], numbers, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_replicas_draw_different_noise(two_devices):
    with two_devices.scope():
        model = MatNet(CONFIG)
    seeds = two_devices.run(tf.function(model.step_seed))
    seeds = two_devices.experimental_local_results(seeds)
    assert not np.array_equal(seeds[0], seeds[1])


def test_any_optimizer_of_keras_will_do():
    model = MatNet(dataclasses.replace(CONFIG, stages=(Stage(1, 4, 1, 1),)))
    model.compile(optimizer=keras.optimizers.Adamax(0.01), run_eagerly=True)
    before = values(model.trainable_variables)
    model.train_step(images())
    assert not np.array_equal(model.trainable_variables[0].numpy(), before[0])
