# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Conditional models as they are trained, saved, measured and drawn: all at once or in parts."""

import dataclasses
import json
import os
import signal

import keras
import matplotlib.image
import numpy as np
import numpy_matnet as npm
import pytest
import tensorflow as tf
from test_conditional import ROWS, every_row, same_bits
from test_conditional import data as data_of
from test_conditional import made as model_of
from test_conformance import reached
from test_model import dataset

from matnet_tf import data, evaluation, experiment, figures, training
from matnet_tf.bounds import bits_per_dim
from matnet_tf.conditional import ConditionalMatNet, TwoStageMatNet
from matnet_tf.config import (
    DataConfig,
    EvaluateConfig,
    Experiment,
    ModelConfig,
    Stage,
    TrainConfig,
)
from matnet_tf.model import MatNet
from matnet_tf.noise import seed_tensor
from matnet_tf.optimization import Adam
from matnet_tf.schedules import stage_at
from matnet_tf.serialization import to_dict

ONE = ModelConfig((3, 2, 1), (Stage(1, 4, 2, 1),), 2, 3, conditional_stages=1)
TWO = dataclasses.replace(ONE, conditional_stages=2)
SLOW, SEED = pytest.mark.slow, seed_tensor(3)


def images(number=4):
    shape = (number, *ONE.image_shape)
    return np.random.default_rng(0).integers(0, 2, shape).astype(np.float32)


def masks(number=4):
    mask = np.ones((number, 3, 2, 1), np.float32)
    for i in range(number):
        mask[i, i % 3] = 0
    return mask


def made(config=ONE, optimizer=None, cls=ConditionalMatNet, **arguments) -> ConditionalMatNet:
    model = npm.randomize(cls(config))
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


QUICK = ("dictionaries", "pairs", "two arrays")


@pytest.mark.parametrize(
    "form", [pytest.param(form, marks=[] if form in QUICK else SLOW) for form in FORMS]
)
def test_fit_evaluate_and_predict_take_images_and_masks_in_every_form(form):
    x, mask = images(), masks()
    if form == "one mask for all":
        mask[:] = mask[:1]
    given = FORMS[form](x, mask)
    size = {} if isinstance(given, tf.data.Dataset) else {"batch_size": 2}
    model, expected = made(), made()
    model.fit(given, shuffle=False, verbose=0, **size)
    for step in (0, 2):
        expected.train_step({"image": x[step : step + 2], "mask": mask[step : step + 2]})
    same_bits(model.get_weights(), expected.get_weights())
    assert int(model.step.numpy()) == 2
    result = model.evaluate(given, verbose=0, return_dict=True, **size)
    assert {f"kl/{name}" for name in ONE.level_names} < set(result)
    completed = model.predict(given, verbose=0, **size)
    shown = np.broadcast_to(mask > 0, x.shape)
    assert completed[shown].tobytes() == x[shown].tobytes()
    assert ((completed > 0) & (completed < 1))[~shown].all()


def changed(array, value, where):
    array = array.copy()
    array[where] = value
    return array


X, MASK = images(), masks()
WRONG = {
    "images alone": (dataset(X), "needs images and masks, .* got images alone"),
    "an array": (X, "needs images and masks, .* got images alone"),
    "no mask": (dataset({"image": X}), r"the keys 'image' and 'mask'; got \['image'\]"),
    "labels": (dataset((X, np.arange(4))), r"batches of masks \(batch, 3, 2, 1\).*int64"),
    "channels": (dataset((X, np.repeat(MASK, 2, -1))), r"batch, 3, 2, 1\); got float32 .*2, 2\)"),
    "one for all": (dataset((X, MASK[..., 0])), r"masks \(batch, 3, 2, 1\); got .*3, 2\)"),
    "shapes": (dataset((X[:, :2], MASK)), r"float images \(batch, 3, 2, 1\)"),
    "half known": (
        dataset((X, changed(MASK, 0.5, (3, 0, 0)))),
        "masks must be 0 or 1 .known., and leave something to predict; got .* with 1 that are",
    ),
    "all known": (dataset({"image": X, "mask": changed(MASK, 1, 2)}), "masks must be 0 or 1"),
    "array, all known": ((X, changed(MASK, 1, 2)), "the mask of image 2 leaves nothing"),
    "hidden NaN": (
        dataset((changed(X, np.nan, (0, 0, 0)), MASK)),
        "images must be finite .* with 1 values",
    ),
    "empty": (dataset((X[:0], MASK[:0])), "the data set is empty"),
}


@pytest.mark.parametrize(
    "call", ["fit", *(pytest.param(call, marks=SLOW) for call in ("evaluate", "predict"))]
)
@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_elements_end_in_one_clear_line(wrong, call):
    given, message = WRONG[wrong]
    with pytest.raises(ValueError, match=message) as error:
        getattr(made(), call)(given, verbose=0)
    assert "\n" not in str(error.value)


def test_wrong_elements_of_validation_are_refused_too():
    good, bad = dataset((X, MASK)), dataset((X, changed(MASK, 1, 3)))
    with pytest.raises(ValueError, match="masks must be 0 or 1 .*leave something to predict"):
        made().fit(good, validation_data=bad, verbose=0)


# What a step moves.


@every_row
def test_the_gradient_of_the_bound_reaches_every_weight(row, eagerly):
    model, (x, mask) = model_of(row), data_of(row)
    with tf.GradientTape() as tape:
        bound, _ = model.bound_and_trace(tf.constant(x), tf.constant(mask), SEED)
        total = tf.reduce_sum(bound.elbo)
    assert len(model.trainable_variables) > 50
    reached(tape.gradient(total, model.trainable_variables), model.trainable_variables)


def groups(model):
    parts = {stage.name: stage for stage in model.stages} | {"likelihood": model.likelihood}
    return {name: part.trainable_variables for name, part in parts.items()}


@pytest.mark.parametrize("stage", [0, 1, 2])
@pytest.mark.parametrize("local", [False, pytest.param(True, marks=SLOW)])
def test_a_step_moves_the_stage_that_trains_and_the_likelihood_and_nothing_else(stage, local):
    local = {"autoregressive": local, "autoregressive_layers": 2, "autoregressive_filters": 3}
    config = dataclasses.replace(TWO, **local)
    model = made(config, Adam(0.01, weight_decay=0.1, average_decay=0.9))
    model.training_stage, x, mask = stage, tf.constant(images()), tf.constant(masks())
    expected, _ = model.bound_and_trace(x, mask, model.step_seed(), stage or None)
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


@pytest.mark.parametrize("steps_per_execution", [1, pytest.param(2, marks=SLOW)])
def test_fit_trains_the_stage_that_is_set_anew_before_every_execution(steps_per_execution):
    model = npm.randomize(ConditionalMatNet(TWO))
    eagerly = steps_per_execution == 1
    model.compile(Adam(0.01), run_eagerly=eagerly, steps_per_execution=steps_per_execution)
    turns = [1, 2, 0, 1]
    watch, number = Switching(turns), 2 * steps_per_execution * len(turns)
    model.fit((images(number), masks(number)), batch_size=2, verbose=0, callbacks=[watch])
    assert int(model.step.numpy()) == number // 2
    watch.kept.append({name: bits(part) for name, part in groups(model).items()})
    for stage, before, after in zip(turns, watch.kept[:-1], watch.kept[1:], strict=True):
        for other in (1, 2):
            moved = before[f"stage_{other}"] != after[f"stage_{other}"]
            assert moved == (stage in (0, other))


# The regularizer, Eq. 13.


@pytest.mark.parametrize("kind", ["free_energy", "sleep"])
@pytest.mark.parametrize("config", [ONE, TWO], ids=["one stage", "two stages"])
def test_a_step_on_fantasies_moves_the_inference_guides_and_nothing_else(config, kind):
    model = made(config, Adam(0.01, weight_decay=0.1), regularizer=kind)
    model.train_step((images(), masks()))
    guides = [v for stage in model.stages for v in stage.guide.trainable_variables]
    rest = [v for v in model.trainable_variables if v.path not in {v.path for v in guides}]
    assert len(guides) + len(rest) == len(model.trainable_variables) and len(rest) > 20
    before, others = bits(guides), bits(rest)
    model.regularizer_step({"image": images(), "mask": masks()})
    assert bits(rest) == others
    assert all(a != b for a, b in zip(bits(guides), before, strict=True))
    assert (int(model.step.numpy()), int(model.optimizer.iterations.numpy())) == (1, 1)


def walks(model, monkeypatch):
    """The traces of all walks, as they come."""
    traces, walk = [], model.walk
    monkeypatch.setattr(model, "walk", lambda *a, **k: traces.append(walk(*a, **k)) or traces[-1])
    return traces


@pytest.mark.parametrize("config", [ONE, TWO], ids=["one stage", "two stages"])
@pytest.mark.parametrize("kind", ["free_energy", "sleep"])
def test_the_loss_on_fantasies_is_that_of_images_with_the_same_known_pixels(
    config, kind, monkeypatch, eagerly
):
    model, x, mask = made(config, regularizer=kind), tf.constant(images()), tf.constant(masks())
    traces = walks(model, monkeypatch)
    loss = model.regularizer_loss((x, mask), SEED)
    dream, other = traces
    fantasies = model.images(dream, SEED, draw=True)
    shown = np.broadcast_to(masks() > 0, x.shape)
    assert fantasies.numpy()[shown].tobytes() == images()[shown].tobytes()
    assert not np.array_equal(fantasies, images())
    if kind == "free_energy":
        expected = -model.bound_of(other, fantasies).elbo
    else:
        same_bits(other.z, dream.z)
        expected = -sum(level.posterior.log_prob(level.z) for level in other.levels)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    again = model.walk(model.watch(fantasies, mask), 4, SEED, latents=other.z)
    for a, b in zip(other.levels, again.levels, strict=True):
        np.testing.assert_allclose(a.posterior.mean(), b.posterior.mean(), rtol=1e-4, atol=1e-6)


def noise(level, distribution):
    return ((level.z - distribution.mean()) / distribution.stddev()).numpy()


@pytest.mark.parametrize("config", [ONE, TWO], ids=["one stage", "two stages"])
def test_what_is_inferred_from_fantasies_shares_no_noise_with_them(config, monkeypatch, eagerly):
    model = made(config, regularizer="free_energy")
    traces = walks(model, monkeypatch)
    model.regularizer_loss((tf.constant(images()), tf.constant(masks())), SEED)
    drawn = [noise(level, level.prior) for level in traces[0].levels]
    drawn += [noise(level, level.posterior) for level in traces[1].levels]
    for i, one in enumerate(drawn):
        for other in drawn[:i]:
            assert not np.allclose(one, other, atol=1e-3)


# Saving.


@pytest.mark.parametrize(
    ("cls", "config"),
    [(TwoStageMatNet, ONE), pytest.param(ConditionalMatNet, ONE, marks=SLOW)],
    ids=["two stages", "one stage"],
)
def test_a_saved_model_loads_equal(cls, config, tmp_path, eagerly):
    model = made(config, cls=cls, regularizer="sleep")
    model.train_step((images(), masks()))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded) is cls and loaded.config == model.config and loaded.regularizer == "sleep"
    same_bits(loaded.get_weights(), model.get_weights())
    same_bits(*[[v.numpy() for v in m.optimizer.variables] for m in (loaded, model)])
    same_bits(*[tf.nest.flatten(m.elbo(images(), masks(), 3)) for m in (loaded, model)])
    same_bits(*[m.impute(images(), masks(), 2) for m in (loaded, model)])


@pytest.mark.slow
def test_a_model_of_two_stages_is_one_with_two_conditional_stages(eagerly):
    model, same = TwoStageMatNet(ONE, seed=3), ConditionalMatNet(TWO, seed=3)
    assert model.config == TWO
    assert [v.path for v in model.weights] == [v.path for v in same.weights]
    same_bits(model.get_weights(), same.get_weights())
    same_bits(*[tf.nest.flatten(m.elbo(images(), masks())) for m in (model, same)])
    assert TwoStageMatNet(dataclasses.replace(ONE, conditional_stages=0)).config == TWO
    three = dataclasses.replace(ONE, conditional_stages=3)
    assert TwoStageMatNet(three).config == three
    assert TwoStageMatNet(to_dict(ONE)).config == TWO


@pytest.mark.parametrize("stage", [-1, 3, 1.5, True])
def test_a_stage_that_there_is_not_cannot_train(stage):
    model = TwoStageMatNet(ONE)
    with pytest.raises(ValueError, match=r"0, for all, or one of the 2 stages; got"):
        model.training_stage = stage
    assert model.training_stage == 0


def test_stages_that_train_one_by_one_are_left_alone_by_the_regularizer():
    model = TwoStageMatNet(ONE)
    model.compile(optimizer="adam", regularizer="sleep")
    due = []
    for stage in (1, 2, 0):
        model.training_stage = stage
        due.append(model._regularizer_is_due())
    assert due == [False, False, True]


def test_every_kind_of_model_refuses_the_config_of_the_other():
    with pytest.raises(ValueError, match="of at least 1; got 0, which MatNet takes"):
        ConditionalMatNet(ModelConfig())
    with pytest.raises(ValueError, match="takes conditional_stages 0; got 2, which Conditional"):
        MatNet(TWO)


# Whole runs.


def test_within_its_part_of_a_run_there_is_always_a_stage_that_trains():
    for part in np.arange(1, 101) / 100:
        config = TrainConfig(stage_by_stage=float(part))
        for stages in (2, 3, 5):
            last = stage_at(config, float(np.nextafter(part, 0)), stages)
            assert last == stages, "no such stage"


def test_the_dimensions_of_a_bound_are_the_hidden_values(eagerly, monkeypatch):
    monkeypatch.setattr(evaluation, "ELBO_SAMPLES", 1)
    row = ROWS["dense, two stages, 8 bits"]
    x, mask = data_of(row)
    assert x.shape[-1] == 2
    bounds = evaluation.importance_weighted_bound(model_of(row), [{"image": x, "mask": mask}], 2)
    np.testing.assert_array_equal(bounds.dims, 2 * (1 - mask).sum((1, 2, 3)))
    assert list(bounds.kl) == list(row.config.level_names)


def setup(stages=1, mask=None, **train) -> Experiment:
    settings = {"steps": 4, "batch_size": 16, "checkpoint_every": 2, "summary_images": 0}
    return Experiment(
        ModelConfig((8, 8, 1), (Stage(1, 8, 2, 1),), 2, 4, conditional_stages=stages),
        DataConfig(mask="quadrants", validation_images=20, **mask or {}),
        TrainConfig(**settings | train),
    )


@SLOW
@pytest.mark.parametrize(
    ("mask", "hidden"), [({}, 48), ({"visible": 3, "quadrant_order": "random"}, 16)]
)
def test_a_run_is_trained_measured_and_drawn(mask, hidden, tmp_path, reused_models):
    config = setup(mask=mask, summary_images=2)
    assert training.train(config, tmp_path)["step"] == 4
    rows = experiment.metrics_rows(tmp_path)
    assert [row["step"] for row in rows] == [2, 4]
    assert all(np.isfinite(row["val_elbo"]) and row["kl/01_fc"] > 0 for row in rows)
    quick = EvaluateConfig(num_samples=12, images=24, batch_size=12)
    record = evaluation.evaluate(tmp_path, quick)
    assert json.loads((tmp_path / "evaluation.json").read_text()) == [record]
    kind = {"kind": "quadrants", "visible": 1, "order": "fixed"}
    if mask:
        kind |= {"visible": 3, "order": "random", "seed": 0}
    assert (record["mask"], record["dims"]) == (kind, hidden)
    assert record["bits_per_dim"] == pytest.approx(record["nll"] / (hidden * np.log(2)))
    parts = record["elbo_bits_per_dim"]
    assert sum(parts.values()) == pytest.approx(bits_per_dim(record["neg_elbo"], (hidden,)))
    model = experiment.load(tmp_path).model
    batch = next(iter(data.load(config.data, "test").evaluation_dataset(297)))
    by_hand = -model.log_likelihood(batch["image"], batch["mask"], 12).mean()
    assert record["nll"] == pytest.approx(by_hand, rel=0.1)
    paths = figures.write_figures(tmp_path)
    names = ["completions", "reconstructions", "kl_area", "curves"]
    assert paths == [str(tmp_path / "figures" / f"{name}.png") for name in names]
    assert all(np.ptp(matplotlib.image.imread(path)) > 0.5 for path in paths)
    with pytest.raises(
        ValueError, match="bits.png needs a model of whole images; .* is conditional"
    ):
        figures.write_figures(tmp_path, compare=[tmp_path])


@SLOW
def test_a_run_stage_by_stage_resumes_in_its_stage_to_the_same_weights(
    tmp_path, monkeypatch, reused_models
):
    config, seen, stops = setup(2, stage_by_stage=0.5, steps=8, average_decay=0.9), [], {None}
    original = training.Progress.on_train_batch_end

    def watch(self, batch, logs=None):
        original(self, batch, logs)
        seen.append(self.model.training_stage)
        if int(self.model.step.numpy()) in stops:
            os.kill(os.getpid(), signal.SIGTERM)

    def after(name, step):
        record = training.train(config, tmp_path / name)
        assert (record["step"], record["interrupted"]) == (step, step < 8)
        model = experiment.load(tmp_path / name, "raw").model
        model.training_stage = 0  # That of a new process.
        return [v.numpy() for v in [*model.weights, *model.optimizer.variables]]

    monkeypatch.setattr(training.Progress, "on_train_batch_end", watch)
    undisturbed = after("undisturbed", 8)
    assert seen == [1, 1, 2, 2, 0, 0, 0, 0]
    stops |= {3, 5}
    for step in (3, 5):
        assert len(undisturbed) == len(after("stopped", step))
    same_bits(after("stopped", 8), undisturbed)
    assert seen[8:] == seen[:8]
