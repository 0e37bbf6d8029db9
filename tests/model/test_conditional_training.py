# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Conditional models as they are fitted and saved: all stages at once, or one by one."""

import dataclasses

import keras
import numpy as np
import numpy_matnet as npm
import pytest
import tensorflow as tf
from test_conditional import data as data_of
from test_conditional import every_row, same_bits
from test_conditional import made as model_of
from test_inputs import dataset, masks

from matnet_tf.config import ModelConfig, Scale, TrainConfig
from matnet_tf.distributions.stateless_random import seed_tensor
from matnet_tf.model import step_functions
from matnet_tf.model.conditional import ConditionalMatNet
from matnet_tf.runs.optimizer import Adam
from matnet_tf.training.schedules import stage_at

ONE = ModelConfig((3, 2, 1), (Scale(1, 4, 2, 1),), 2, 3, conditional_stages=1)
TWO = dataclasses.replace(ONE, conditional_stages=2)
LOCAL = {"autoregressive": True, "autoregressive_layers": 2, "autoregressive_filters": 3}
SEED = seed_tensor(3)
both = pytest.mark.parametrize("config", [ONE, TWO], ids=["one stage", "two stages"])


def images(number=4):
    shape = (number, *ONE.image_shape)
    return np.random.default_rng(0).integers(0, 2, shape).astype(np.float32)


def made(config=ONE, optimizer=None, **arguments) -> ConditionalMatNet:
    model = npm.randomize(ConditionalMatNet(config))
    model.compile(optimizer or Adam(0.01), run_eagerly=True, **arguments)
    return model


def bits(variables):
    return [variable.numpy().tobytes() for variable in variables]


# What `fit` takes.

FORMS = {
    "dictionaries": lambda x, m: dataset({"image": x, "mask": m}),
    "dictionaries with labels": lambda x, m: dataset({"image": x, "mask": m > 0, "label": m}),
    "pairs": lambda x, m: dataset((x, m)),
    "dictionaries and labels": lambda x, m: dataset(({"image": x, "mask": m}, np.arange(len(x)))),
    "two arrays": lambda x, m: (x, m),
    "a dictionary of arrays": lambda x, m: {"image": x, "mask": m},
    "one mask for all": lambda x, m: (x, m[0]),
}


@pytest.mark.slow
def test_fit_evaluate_and_predict_take_images_and_masks_in_every_form():
    x, mask = images(), np.repeat(masks(1), 4, axis=0)
    expected = made()
    for step in (0, 2):
        expected.train_step({"image": x[step : step + 2], "mask": mask[step : step + 2]})
    shown = np.broadcast_to(mask > 0, x.shape)
    for make in FORMS.values():
        given, model = make(x, mask), made()
        size = {} if isinstance(given, tf.data.Dataset) else {"batch_size": 2}
        model.fit(given, shuffle=False, verbose=0, **size)
        same_bits(model.get_weights(), expected.get_weights())
        result = model.evaluate(given, verbose=0, return_dict=True, **size)
        assert {f"kl/{name}" for name in ONE.level_names} < set(result)
        completed = model.predict(given, verbose=0, **size)
        assert completed[shown].tobytes() == x[shown].tobytes()
        assert ((completed > 0) & (completed < 1))[~shown].all()


# What a step moves.


@pytest.mark.slow
@every_row
def test_the_gradient_of_the_bound_reaches_every_weight(row, eagerly):
    model, (x, mask) = model_of(row), data_of(row)
    with tf.GradientTape() as tape:
        bound = model.hierarchy.elbo(tf.constant(x), tf.constant(mask), SEED)
        total = tf.reduce_sum(bound.elbo)
    assert len(model.trainable_variables) > 50
    gradients = tape.gradient(total, model.trainable_variables)
    for gradient, variable in zip(gradients, model.trainable_variables, strict=True):
        assert gradient is not None and np.any(gradient.numpy()), variable.path


def groups(model):
    parts = {stage.name: stage for stage in model.hierarchy.stages}
    parts["likelihood"] = model.hierarchy.likelihood
    return {name: part.trainable_variables for name, part in parts.items()}


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 1, 2])
def test_a_step_moves_the_stage_that_trains_and_the_likelihood_and_nothing_else(stage):
    for config in (TWO, dataclasses.replace(TWO, **LOCAL)):
        model = made(config, Adam(0.01))
        model.training_stage, x, mask = stage, tf.constant(images()), tf.constant(masks(4))
        expected, _ = model.hierarchy.bound_and_trace(x, mask, model.step_seed(), stage or None)
        before = {name: bits(variables) for name, variables in groups(model).items()}
        metrics = model.train_step((x, mask))
        moving = {"likelihood", *([f"stage_{stage}"] if stage else ["stage_1", "stage_2"])}
        for name, variables in groups(model).items():
            moved = [a != b for a, b in zip(bits(variables), before[name], strict=True)]
            assert len(moved) > 0 and all(m == (name in moving) for m in moved), name
        # The first stage trains on its own bound, the later ones on that of all up to them.
        later = float(sum(metrics[f"kl/{name}"] for name in config.level_names[2:]))
        assert (later == 0) == (stage == 1)
        np.testing.assert_allclose(metrics["elbo"], np.mean(expected.elbo), rtol=1e-5)


class Switching(keras.callbacks.Callback):
    """Trains the stages in turn, and keeps the weights before every execution."""

    def __init__(self, stages):
        super().__init__()
        self.stages, self.kept = iter(stages), []

    def on_train_batch_begin(self, batch, logs=None):
        self.model.training_stage = next(self.stages)
        self.kept.append({name: bits(part) for name, part in groups(self.model).items()})


@pytest.mark.slow
@pytest.mark.parametrize("steps_per_execution", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_fit_trains_the_stage_that_is_set_anew_before_every_execution(steps_per_execution):
    model = npm.randomize(ConditionalMatNet(TWO))
    eagerly = steps_per_execution == 1
    model.compile(Adam(0.01), run_eagerly=eagerly, steps_per_execution=steps_per_execution)
    turns = [1, 2, 0, 1]
    switching, number = Switching(turns), 2 * steps_per_execution * len(turns)
    model.fit((images(number), masks(number)), batch_size=2, verbose=0, callbacks=[switching])
    assert int(model.step.numpy()) == number // 2
    kept = [*switching.kept, {name: bits(part) for name, part in groups(model).items()}]
    for stage, before, after in zip(turns, kept[:-1], kept[1:], strict=True):
        for other in (1, 2):
            moved = before[f"stage_{other}"] != after[f"stage_{other}"]
            assert moved == (stage in (0, other))


def test_a_stage_that_there_is_not_cannot_train_and_a_stage_alone_is_not_regularized():
    model = made(TWO, regularizer="sleep")
    for stage in (-1, 3, 1.5, True):
        with pytest.raises(ValueError, match="0, for all, or one of the 2 stages; got"):
            model.training_stage = stage
    assert model.training_stage == 0
    due = []
    for stage in (1, 2, 0):
        model.training_stage = stage
        due.append(step_functions._regularizer_is_due(model))
    assert due == [False, False, True]
    for part in np.arange(1, 101) / 100:  # There is a stage to train up to the end of a part.
        config = TrainConfig(stage_by_stage=float(part))
        for stages in (2, 3, 5):
            assert stage_at(config, float(np.nextafter(part, 0)), stages) == stages


# The regularizer, Eq. 13.


@pytest.mark.slow
@both
@pytest.mark.parametrize("kind", ["free_energy", "sleep"])
def test_a_step_on_drawn_images_moves_the_inference_guides_and_nothing_else(config, kind):
    model = made(config, regularizer=kind)
    model.train_step((images(), masks(4)))
    guides = model.hierarchy.guide_variables
    rest = [v for v in model.trainable_variables if v.path not in {v.path for v in guides}]
    assert len(guides) + len(rest) == len(model.trainable_variables) and len(rest) > 20
    before, others = bits(guides), bits(rest)
    model.regularizer_step({"image": images(), "mask": masks(4)})
    assert bits(rest) == others
    assert all(a != b for a, b in zip(bits(guides), before, strict=True))
    assert (int(model.step.numpy()), int(model.optimizer.iterations.numpy())) == (1, 1)


def noise(level, distribution):
    return ((level.z - distribution.mean()) / distribution.stddev()).numpy()


@pytest.mark.slow
@both
@pytest.mark.parametrize("kind", ["free_energy", "sleep"])
def test_the_loss_is_that_of_drawn_images_with_the_same_known_pixels(
    config, kind, monkeypatch, eagerly
):
    model = made(config, regularizer=kind)
    layer, x, mask = model.hierarchy, tf.constant(images()), tf.constant(masks(4))
    traces, walk = [], layer.top_down_pass
    monkeypatch.setattr(
        layer, "top_down_pass", lambda *a, **k: traces.append(walk(*a, **k)) or traces[-1]
    )
    loss = model.regularizer_loss((x, mask), SEED)
    drawn_from, inferred = traces
    drawn = layer.images(drawn_from, SEED, draw=True)
    shown = np.broadcast_to(masks(4) > 0, x.shape)
    assert drawn.numpy()[shown].tobytes() == images()[shown].tobytes()
    assert not np.array_equal(drawn, images())
    if kind == "free_energy":
        expected = -layer.bound(inferred, drawn).elbo
        # Inference shares no noise with the draw.
        used = [noise(level, level.prior) for level in drawn_from.levels]
        used += [noise(level, level.posterior) for level in inferred.levels]
        for i, one in enumerate(used):
            assert not any(np.allclose(one, other, atol=1e-3) for other in used[:i])
    else:
        same_bits(inferred.z, drawn_from.z)
        expected = -sum(level.posterior.log_prob(level.z) for level in inferred.levels)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


# Saving.


@pytest.mark.slow
def test_a_saved_model_loads_equal(tmp_path, eagerly):
    model = made(TWO, regularizer="sleep")
    model.train_step((images(), masks(4)))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded) is ConditionalMatNet and loaded.config == model.config
    assert loaded.elbo_loss.regularizer == "sleep"
    same_bits(loaded.get_weights(), model.get_weights())
    same_bits(*[[v.numpy() for v in m.optimizer.variables] for m in (loaded, model)])
    same_bits(*[tf.nest.flatten(m.elbo(images(), masks(4), 3)) for m in (loaded, model)])
    same_bits(*[m.impute(images(), masks(4), 2) for m in (loaded, model)])
