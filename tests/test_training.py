# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Whole trainings in a temporary directory: resume, budgets, stops, damaged and missing files."""

import dataclasses
import json
import os
import pathlib
import signal
import time

import numpy as np
import pytest
import tensorflow as tf

from matnet_tf import experiment, training
from matnet_tf.callbacks import Checkpointing
from matnet_tf.config import DataConfig, Experiment, ModelConfig, Stage, TrainConfig
from matnet_tf.monitoring import SkippedSteps, TrainingDiverged

pytestmark = pytest.mark.slow


def tiny(**train) -> Experiment:
    settings = {
        "steps": 12,
        "batch_size": 16,
        "steps_per_execution": 2,
        "checkpoint_every": 4,
        "average_decay": 0.9,
        "summary_images": 0,
        "warmup_steps": 3,
        "decay_from": 0.5,
    }
    return Experiment(
        model=ModelConfig((8, 8, 1), (Stage(1, 12, 2, 1),), top_latents=2, top_units=4),
        data=DataConfig(validation_images=20),
        train=TrainConfig(**settings | train),
    )


def weights_of(workdir) -> list[np.ndarray]:
    loaded = experiment.load(workdir, "raw")
    return [np.asarray(v) for v in [*loaded.model.weights, *loaded.model.optimizer.variables]]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed")
    record = training.train(tiny(), workdir)
    return workdir, record


def test_a_run_leaves_its_config_rows_and_checkpoints(undisturbed):
    workdir, record = undisturbed
    assert record["step"] == 12 and not record["interrupted"]
    assert experiment.read(workdir) == tiny()
    rows = experiment.metrics_rows(workdir)
    assert [row["step"] for row in rows] == [4, 8, 12]
    for row in rows:
        kl = sum(value for name, value in row.items() if name.startswith("kl/"))
        np.testing.assert_allclose(row["kl"], kl, rtol=1e-5)
        np.testing.assert_allclose(row["elbo"], row["log_likelihood"] - row["kl"], rtol=1e-5)
        assert np.isfinite(row["val_elbo"]) and row["val_elbo"] != row["val_elbo_averaged"]
    assert len(list((workdir / "checkpoints").glob("*.index"))) == 2


@pytest.mark.parametrize("stop_at", [4, 6])
def test_a_run_stopped_by_sigterm_resumes_to_the_same_weights_and_rows(
    undisturbed, tmp_path, monkeypatch, stop_at
):
    original = training.Progress.on_train_batch_end

    def stop(self, batch, logs=None):
        original(self, batch, logs)
        if int(self.model.step.numpy()) == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(training.Progress, "on_train_batch_end", stop)
        first = training.train(tiny(), tmp_path)
    assert first["interrupted"] and first["step"] == stop_at
    second = training.train(tiny(), tmp_path)
    assert second["step"] == 12 and not second["interrupted"]
    for ours, theirs in zip(weights_of(tmp_path), weights_of(undisturbed[0]), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    timing = ("seconds", "images_per_second")
    ours, theirs = (
        [{k: v for k, v in row.items() if k not in timing} for row in experiment.metrics_rows(w)]
        for w in (tmp_path, undisturbed[0])
    )
    assert ours == theirs


def test_a_finished_run_started_again_does_nothing(undisturbed):
    workdir, record = undisturbed
    before = (workdir / "metrics.csv").read_text()
    again = training.train(tiny(), workdir)
    assert again["step"] == 12 and again["elbo"] == pytest.approx(record["elbo"])
    assert (workdir / "metrics.csv").read_text() == before


def test_another_config_is_refused_by_name_and_nothing_is_touched(undisturbed):
    workdir = undisturbed[0]
    before = {p: p.stat().st_mtime_ns for p in workdir.rglob("*")}
    other = dataclasses.replace(tiny(learning_rate=0.5), seed=3)
    with pytest.raises(ValueError, match="train.learning_rate: 0.5, not 0.001; seed: 3, not 0"):
        training.train(other, workdir)
    assert {p: p.stat().st_mtime_ns for p in workdir.rglob("*")} == before


def test_a_spent_wall_clock_budget_ends_the_run_with_a_checkpoint(tmp_path):
    config = tiny(steps=10**6, max_seconds=500.0)
    record = training.train(config, tmp_path, started=time.monotonic() - 500)
    assert record["step"] == config.train.steps_per_execution and not record["interrupted"]
    assert [row["step"] for row in experiment.metrics_rows(tmp_path)] == [record["step"]]
    assert experiment.load(tmp_path).step == record["step"]
    assert training.train(config, tmp_path)["step"] == record["step"]


def cut(checkpoints):
    data = checkpoints / "ckpt-12.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:100])


def put_a_folder_in_its_place(checkpoints):
    (checkpoints / "ckpt-12.index").unlink()
    (checkpoints / "ckpt-12.index").mkdir()
    (checkpoints / "ckpt-12.index" / "notes").write_text("mine")


@pytest.mark.parametrize("damage", [cut, put_a_folder_in_its_place])
def test_a_corrupt_newest_checkpoint_gives_way_to_the_one_before(
    undisturbed, tmp_path, capsys, damage
):
    training.train(tiny(), tmp_path)
    damage(tmp_path / "checkpoints")
    assert experiment.load(tmp_path, "raw").step == 8
    assert "ckpt-12 is not readable" in capsys.readouterr().err
    assert training.train(tiny(), tmp_path)["step"] == 12
    for ours, theirs in zip(weights_of(tmp_path), weights_of(undisturbed[0]), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    # The damaged one is set aside, and takes no good one's place.
    assert sorted(p.name for p in tmp_path.glob("checkpoints/*.index") if p.is_file()) == (
        ["ckpt-12.index", "ckpt-8.index"] + (["unreadable_ckpt_12.index"] if damage is cut else [])
    )
    cut(tmp_path / "checkpoints")
    assert experiment.load(tmp_path, "raw").step == 8
    kept = [path.read_text() for path in tmp_path.glob("checkpoints/*/notes")]
    assert kept == (["mine"] if damage is put_a_folder_in_its_place else [])


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_ones(tmp_path, monkeypatch):
    def full(self, checkpoint_number):
        pathlib.Path(self.directory, f"ckpt-{checkpoint_number}.data-00000-of-00001").touch()
        pathlib.Path(self.directory, f"ckpt-{checkpoint_number}_temp").mkdir()
        raise tf.errors.ResourceExhaustedError(None, None, "/a/long/path; No space left on device")

    training.train(tiny(steps=4), tmp_path)
    (tmp_path / "config.json").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(tf.train.CheckpointManager, "save", full)
        with pytest.raises(OSError, match="step 8 could not be written: No space left"):
            training.train(tiny(), tmp_path)
    assert not list((tmp_path / "checkpoints").glob("ckpt-8*"))
    assert experiment.load(tmp_path).step == 4


@pytest.fixture
def diverging_above(monkeypatch):
    """Makes training diverge from step 10 on while the learning rate is above a limit."""

    def start(limit):
        def watch(self, batch, logs=None):
            rate = float(self.model.optimizer.learning_rate.numpy())
            if int(self.model.step.numpy()) >= 10 and rate > limit:
                raise TrainingDiverged("2 steps in a row were skipped")

        monkeypatch.setattr(SkippedSteps, "on_train_batch_end", watch)

    return start


def steady(**train) -> Experiment:
    return tiny(warmup_steps=0, decay_from=1.0, **train)


def test_a_run_that_diverges_goes_back_to_its_checkpoint_at_half_the_rate(
    diverging_above, tmp_path, capsys
):
    diverging_above(0.6e-3)
    record = training.train(steady(), tmp_path)
    assert record["step"] == 12 and record["rollbacks"] == 1
    assert "Going back to step 8, at 0.5 of the learning rate" in capsys.readouterr().out
    rows = experiment.metrics_rows(tmp_path)
    assert [row["step"] for row in rows] == [4, 8, 12]
    np.testing.assert_allclose([row["learning_rate"] for row in rows], [1e-3, 1e-3, 0.5e-3])
    assert training.train(steady(), tmp_path)["rollbacks"] == 1  # The checkpoint knows of it.


def test_where_half_the_rate_does_not_help_it_goes_back_further(diverging_above, tmp_path, capsys):
    diverging_above(0.3e-3)
    record = training.train(steady(), tmp_path)
    assert record["step"] == 12 and record["rollbacks"] == 2
    printed = capsys.readouterr().out
    assert "Going back to step 8, at 0.5" in printed and "Going back to step 4, at 0.25" in printed
    rates = [row["learning_rate"] for row in experiment.metrics_rows(tmp_path)]
    np.testing.assert_allclose(rates, [1e-3, 0.25e-3, 0.25e-3])


def test_a_run_that_went_back_and_was_stopped_resumes_to_the_same_weights(
    diverging_above, tmp_path, monkeypatch
):
    diverging_above(0.6e-3)
    training.train(steady(steps=16), tmp_path / "whole")
    write = Checkpointing.on_epoch_end

    def killed(self, epoch, logs=None):
        write(self, epoch, logs)
        if int(self.model.step.numpy()) == 12:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpointing, "on_epoch_end", killed)
        with pytest.raises(KeyboardInterrupt):
            training.train(steady(steps=16), tmp_path / "parts")
    record = training.train(steady(steps=16), tmp_path / "parts")
    assert record["rollbacks"] == 1
    parts, whole = weights_of(tmp_path / "parts"), weights_of(tmp_path / "whole")
    for ours, theirs in zip(parts, whole, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_run_that_diverges_at_every_rate_ends_with_its_checkpoints_kept(
    diverging_above, tmp_path
):
    diverging_above(0.0)
    with pytest.raises(ValueError, match="steps in a row"):
        training.train(steady(rollbacks=2), tmp_path)
    assert experiment.load(tmp_path).step == 8


def test_a_run_that_diverges_before_its_first_interval_begins_anew(tmp_path, monkeypatch):
    seen = []

    def watch(self, batch, logs=None):
        seen.append(int(self.model.step.numpy()))
        if len(seen) == 1:
            raise TrainingDiverged("2 steps in a row were skipped")

    monkeypatch.setattr(SkippedSteps, "on_train_batch_end", watch)
    assert training.train(steady(), tmp_path)["rollbacks"] == 1
    assert seen == [2, 2, 4, 6, 8, 10, 12]


def test_images_of_another_shape_are_refused(tmp_path):
    wrong = dataclasses.replace(tiny(), model=ModelConfig((9, 8, 1), (Stage(1, 8, 2, 1),)))
    with pytest.raises(ValueError, match=r"digits have shape \(8, 8, 1\).*\(9, 8, 1\)"):
        training.train(wrong, tmp_path)


def test_averaged_weights_differ_from_raw_ones_and_are_swapped_back(undisturbed):
    model = experiment.load(undisturbed[0], "raw").model
    raw = [v.numpy() for v in model.trainable_variables]
    with experiment.averaged_weights(model):
        for variable, average in zip(
            model.trainable_variables, model.optimizer.averages, strict=True
        ):
            np.testing.assert_array_equal(variable.numpy(), average.numpy())
        assert any(
            (v.numpy() != r).any() for v, r in zip(model.trainable_variables, raw, strict=True)
        )
    for variable, value in zip(model.trainable_variables, raw, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_a_directory_that_is_no_work_directory_is_named(tmp_path):
    with pytest.raises(ValueError, match="is not a work directory: it has no config.json"):
        experiment.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"format_version": 1}))
    with pytest.raises(ValueError, match="is not a config written by bin/train"):
        experiment.load(tmp_path)
    (tmp_path / "config.json").unlink()
    experiment.create(tmp_path, tiny())
    with pytest.raises(ValueError, match="has no checkpoint yet"):
        experiment.load(tmp_path)


def test_segments_meet_every_multiple_of_the_interval():
    assert training.segments(0, 12, 4) == [(4, 3)]
    assert training.segments(6, 13, 4) == [(2, 1), (4, 1), (1, 1)]
    assert training.segments(0, 3, 4) == [(3, 1)]
    assert training.segments(5, 7, 4) == [(2, 1)]
