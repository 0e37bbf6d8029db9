# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Whole trainings: resume, budgets, stops, divergence, damaged and missing files."""

import dataclasses
import os
import pathlib
import shutil
import signal
import time

import numpy as np
import pytest
import tensorflow as tf
from work_directories import assert_same_variables, interrupt_at, saved_variables

from matnet_tf.config import DataConfig, Experiment, ModelConfig, Scale, TrainConfig
from matnet_tf.model.elbo_model import ElboModel
from matnet_tf.model.metrics import SkippedSteps, TrainingDiverged
from matnet_tf.runs.checkpoints import Checkpoints
from matnet_tf.runs.models import load_run
from matnet_tf.runs.workdir import read_experiment, read_metrics
from matnet_tf.training import train
from matnet_tf.training.callbacks import Checkpointing, PeakMemory

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("module_eagerly")]

MODEL = ModelConfig((8, 8, 1), (Scale(1, 12, 2, 1),), top_latents=2, top_units=4)


def tiny(**train) -> Experiment:
    settings = {
        **{"steps": 12, "batch_size": 16, "steps_per_execution": 2, "checkpoint_every": 4},
        **{"average_decay": 0.9, "summary_images": 0, "warmup_steps": 3, "decay_from": 0.5},
    }
    data, train = DataConfig(validation_images=20), TrainConfig(**settings | train)
    return Experiment(MODEL, data, train)


def untimed_rows(workdir):
    return [{k: v for k, v in r.items() if "second" not in k} for r in read_metrics(workdir)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, module_eagerly):
    workdir = tmp_path_factory.mktemp("undisturbed")
    return workdir, train.train(tiny(), workdir)


def test_the_memory_of_a_gpu_is_printed_once(monkeypatch, capsys):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: ["a", "b"])
    peaks = {"GPU:0": {"peak": 2**30}, "GPU:1": {"peak": 3 * 2**29}}
    monkeypatch.setattr(tf.config.experimental, "get_memory_info", peaks.get)
    callback = PeakMemory()
    callback.on_train_batch_end(0)
    callback.on_train_batch_end(1)
    line = "memory: at most 1.50 GiB on a GPU in the first step\n"
    assert capsys.readouterr().out == line
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: [])
    PeakMemory().on_train_batch_end(0)
    assert capsys.readouterr().out == ""


def test_a_run_leaves_its_config_rows_and_checkpoints(undisturbed):
    workdir, record = undisturbed
    assert record["step"] == 12 and not record["interrupted"]
    assert read_experiment(workdir) == tiny()
    rows = read_metrics(workdir)
    assert [row["step"] for row in rows] == [4, 8, 12]
    for row in rows:
        kl = sum(value for name, value in row.items() if name.startswith("kl/"))
        np.testing.assert_allclose(row["kl"], kl, rtol=1e-5)
        np.testing.assert_allclose(row["elbo"], row["log_likelihood"] - row["kl"], rtol=1e-5)
        assert np.isfinite(row["val_elbo"]) and row["val_elbo"] != row["val_elbo_averaged"]
    assert len(list((workdir / "checkpoints").glob("*.index"))) == 2


def test_a_run_stopped_by_sigterm_resumes_to_the_same_weights_and_rows(
    undisturbed, tmp_path, monkeypatch, capfd
):
    for stop, number in ((4, signal.SIGTERM), (6, signal.SIGHUP)):
        with monkeypatch.context() as patch:
            interrupt_at(patch, stop, number)
            record = train.train(tiny(), tmp_path)
        assert record["interrupted"] and record["step"] == stop
    record = train.train(tiny(), tmp_path)
    assert record["step"] == 12 and not record["interrupted"]
    lines = capfd.readouterr().err.splitlines()
    assert any(line.startswith("100%") and "step 12/12, elbo -" in line for line in lines)
    assert_same_variables(tmp_path, undisturbed[0])
    assert untimed_rows(tmp_path) == untimed_rows(undisturbed[0])


def test_a_run_asks_for_deterministic_operations_if_told_to(tmp_path, monkeypatch):
    asked = []
    enable = lambda: asked.append("yes")  # noqa: E731
    monkeypatch.setattr(tf.config.experimental, "enable_op_determinism", enable)
    for deterministic in (False, True):
        train.train(tiny(steps=4, deterministic=deterministic), tmp_path / str(deterministic))
    assert asked == ["yes"]
    assert_same_variables(tmp_path / "False", tmp_path / "True")


def test_a_finished_run_started_again_does_nothing(undisturbed):
    workdir, record = undisturbed
    before = (workdir / "metrics.csv").read_text()
    again = train.train(tiny(), workdir)
    assert again["step"] == 12 and again["elbo"] == pytest.approx(record["elbo"])
    assert (workdir / "metrics.csv").read_text() == before


def test_another_config_is_refused_by_name_and_nothing_is_touched(undisturbed):
    workdir = undisturbed[0]
    before = {p: p.stat().st_mtime_ns for p in workdir.rglob("*")}
    other = dataclasses.replace(tiny(learning_rate=0.5), seed=3)
    with pytest.raises(ValueError, match="train.learning_rate: 0.5, not 0.001; seed: 3, not 0"):
        train.train(other, workdir)
    assert {p: p.stat().st_mtime_ns for p in workdir.rglob("*")} == before


def test_a_spent_wall_clock_budget_ends_the_run_with_a_checkpoint(tmp_path):
    config = tiny(steps=10**6, max_seconds=500.0)
    record = train.train(config, tmp_path, started=time.monotonic() - 500)
    assert record["step"] == config.train.steps_per_execution and not record["interrupted"]
    assert [row["step"] for row in read_metrics(tmp_path)] == [record["step"]]
    assert train.train(config, tmp_path)["step"] == record["step"]


def cut(checkpoints):
    data = checkpoints / "ckpt-12.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:100])


def put_a_folder_in_its_place(checkpoints):
    (checkpoints / "ckpt-12.index").unlink()
    (checkpoints / "ckpt-12.index").mkdir()
    (checkpoints / "ckpt-12.index" / "notes").write_text("mine")


def put_pipes_in_its_place(checkpoints):
    for name in ("ckpt-12.data-00000-of-00001", "checkpoint"):
        (checkpoints / name).unlink()
        os.mkfifo(checkpoints / name)


@pytest.mark.parametrize("damage", [cut, put_a_folder_in_its_place, put_pipes_in_its_place])
def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(
    undisturbed, tmp_path, capsys, damage
):
    run = shutil.copytree(undisturbed[0], tmp_path / "run")
    damage(run / "checkpoints")
    assert load_run(run, "raw").step == 8
    assert "ckpt-12 is not readable" in capsys.readouterr().err
    assert train.train(tiny(), run)["step"] == 12
    assert_same_variables(run, undisturbed[0])
    # The damaged one is set aside and does not count among those to keep.
    files = sorted(p.name for p in run.glob("checkpoints/*.index") if p.is_file())
    aside = [] if damage is put_a_folder_in_its_place else ["unreadable_ckpt_12.index"]
    assert files == ["ckpt-12.index", "ckpt-8.index", *aside]
    kept = [path.read_text() for path in run.glob("checkpoints/*/notes")]
    assert kept == (["mine"] if damage is put_a_folder_in_its_place else [])


def test_a_run_is_loaded_while_its_training_replaces_the_checkpoints(
    undisturbed, tmp_path, monkeypatch, capsys
):
    run = shutil.copytree(undisturbed[0], tmp_path / "run")
    load, moved = tf.train.load_checkpoint, []

    def replaced(path):  # Once its version has been read, the newest gives way to a newer one.
        reader = load(path)
        reader.get_tensor("format_version/.ATTRIBUTES/VARIABLE_VALUE")
        if len(moved) < 2:
            old = pathlib.Path(path).name.removeprefix("ckpt-")
            moved.append(str(int(old) + 10))
            for part in pathlib.Path(path).parent.glob(f"ckpt-{old}.*"):
                part.rename(part.with_name(part.name.replace(f"-{old}.", f"-{moved[-1]}.")))
        return reader

    monkeypatch.setattr(tf.train, "load_checkpoint", replaced)
    assert load_run(run, "raw").step == 12 and moved == ["22", "32"]
    assert "not readable" not in capsys.readouterr().err


def test_a_crash_between_row_and_checkpoint_loses_nothing(undisturbed, tmp_path, monkeypatch):
    save = tf.train.CheckpointManager.save

    def full(self, checkpoint_number):
        if checkpoint_number < 8:
            return save(self, checkpoint_number=checkpoint_number)
        pathlib.Path(self.directory, f"ckpt-{checkpoint_number}.data-00000-of-00001").touch()
        pathlib.Path(self.directory, f"ckpt-{checkpoint_number}_temp").mkdir()
        raise tf.errors.ResourceExhaustedError(None, None, "/a/long/path; No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(tf.train.CheckpointManager, "save", full)
        with pytest.raises(OSError, match="step 8 could not be written: No space left"):
            train.train(tiny(), tmp_path)
    assert not list((tmp_path / "checkpoints").glob("ckpt-8*"))
    assert [row["step"] for row in read_metrics(tmp_path)] == [4, 8]
    assert train.train(tiny(), tmp_path)["step"] == 12
    assert_same_variables(tmp_path, undisturbed[0])
    assert untimed_rows(tmp_path) == untimed_rows(undisturbed[0])


@pytest.fixture
def diverging_above(monkeypatch):
    """Makes training diverge from step 10 on while the learning rate is above a limit."""

    def start(limit):
        def on_train_batch_end(self, batch, logs=None):
            rate = float(self.model.optimizer.learning_rate.numpy())
            if int(self.model.step.numpy()) >= 10 and rate > limit:
                raise TrainingDiverged("2 steps in a row were skipped")

        monkeypatch.setattr(SkippedSteps, "on_train_batch_end", on_train_batch_end)

    return start


def steady(**train) -> Experiment:
    experiment = tiny(warmup_steps=0, decay_from=1.0, average_decay=0.0, **train)
    return dataclasses.replace(experiment, data=DataConfig())


def test_a_run_that_diverges_returns_to_its_checkpoint_at_half_the_rate_also_if_killed(
    diverging_above, tmp_path, monkeypatch, capsys
):
    diverging_above(0.6e-3)
    record = train.train(steady(steps=16), tmp_path / "whole")
    assert record["step"] == 16 and record["rollbacks"] == 1
    assert "Going back to step 8, at 0.5 of the learning rate" in capsys.readouterr().out
    rows = read_metrics(tmp_path / "whole")
    assert [row["step"] for row in rows] == [4, 8, 12, 16]
    rates = [row["learning_rate"] for row in rows]
    np.testing.assert_allclose(rates, [1e-3, 1e-3, 0.5e-3, 0.5e-3])

    write = Checkpointing.on_epoch_end

    def killed(self, epoch, logs=None):
        write(self, epoch, logs)
        if int(self.model.step.numpy()) == 12:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpointing, "on_epoch_end", killed)
        with pytest.raises(KeyboardInterrupt):
            train.train(steady(steps=16), tmp_path / "parts")
    assert train.train(steady(steps=16), tmp_path / "parts")["rollbacks"] == 1
    assert_same_variables(tmp_path / "parts", tmp_path / "whole")


def test_checkpoints_of_ruined_weights_push_out_none_from_before(tmp_path, monkeypatch, capsys):
    step = ElboModel.train_step

    def train_step(self, data):
        result = step(self, data)
        if int(self.step.numpy()) == 7 and float(self.optimizer.learning_rate.numpy()) > 0.6e-3:
            weights = self.trainable_variables[0]
            weights.assign(tf.fill(weights.shape, np.nan))
        return result

    monkeypatch.setattr(ElboModel, "train_step", train_step)
    experiment = steady(steps=16, checkpoint_every=2, max_skipped=8)
    record = train.train(experiment, tmp_path / "whole")
    assert record["step"] == 16 and record["rollbacks"] == 1
    assert "Going back to step 6, at 0.5 of the learning rate" in capsys.readouterr().out
    with monkeypatch.context() as patch:
        interrupt_at(patch, 12)
        train.train(experiment, tmp_path / "parts")
    files = (tmp_path / "parts/checkpoints").glob("*.index")
    assert {path.name for path in files} == {f"ckpt-{step}.index" for step in (4, 6, 12)}
    assert train.train(experiment, tmp_path / "parts")["rollbacks"] == 1
    assert_same_variables(tmp_path / "parts", tmp_path / "whole")
    with pytest.raises(TrainingDiverged):
        train.train(
            steady(steps=16, checkpoint_every=2, max_skipped=8, rollbacks=0), tmp_path / "c"
        )
    assert load_run(tmp_path / "c").step == 6


def test_if_half_the_rate_does_not_help_it_goes_back_further(diverging_above, tmp_path, capsys):
    diverging_above(0.3e-3)
    record = train.train(steady(), tmp_path)
    assert record["step"] == 12 and record["rollbacks"] == 2
    printed = capsys.readouterr().out
    assert "Going back to step 8, at 0.5" in printed and "Going back to step 4, at 0.25" in printed
    rates = [row["learning_rate"] for row in read_metrics(tmp_path)]
    np.testing.assert_allclose(rates, [1e-3, 0.25e-3, 0.25e-3])


def test_a_run_that_diverges_once_too_often_ends_with_its_checkpoints_kept(
    diverging_above, tmp_path
):
    diverging_above(0.0)
    with pytest.raises(ValueError, match="steps in a row"):
        train.train(steady(rollbacks=0), tmp_path)
    assert load_run(tmp_path).step == 8


def test_a_run_that_diverges_before_its_first_interval_begins_anew(tmp_path, monkeypatch):
    seen = []

    def on_train_batch_end(self, batch, logs=None):
        seen.append(int(self.model.step.numpy()))
        if len(seen) == 1:
            raise TrainingDiverged("2 steps in a row were skipped")

    monkeypatch.setattr(SkippedSteps, "on_train_batch_end", on_train_batch_end)
    assert train.train(steady(steps=6), tmp_path)["rollbacks"] == 1
    assert seen == [2, 2, 4, 6]


def test_images_of_another_shape_are_refused(tmp_path):
    wrong = dataclasses.replace(tiny(), model=ModelConfig((9, 8, 1), (Scale(1, 8, 2, 1),)))
    with pytest.raises(ValueError, match=r"digits have shape \(8, 8, 1\).*\(9, 8, 1\)"):
        train.train(wrong, tmp_path)


def test_a_trained_model_computes_in_float32_whatever_its_training_did(undisturbed, tmp_path):
    workdir = shutil.copytree(undisturbed[0], tmp_path / "copy")
    config = (workdir / "config.json").read_text()
    assert '"precision": "float32"' in config
    (workdir / "config.json").write_text(config.replace('"float32"', '"mixed_bfloat16"'))
    assert load_run(workdir).model.hierarchy.compute_dtype == "float32"


def test_averaged_weights_are_those_of_the_checkpoint_and_are_swapped_back(undisturbed):
    saved = saved_variables(undisturbed[0])
    averages = [value for name, value in sorted(saved.items()) if name.startswith("averages/")]
    loaded = load_run(undisturbed[0])
    assert loaded.weights == "averaged"
    sums = sorted(float(np.sum(v.numpy())) for v in loaded.model.trainable_variables)
    np.testing.assert_allclose(sums, sorted(float(np.sum(v)) for v in averages), rtol=1e-5)
    model = load_run(undisturbed[0], "raw").model
    raw = [v.numpy() for v in model.trainable_variables]
    checkpoints = Checkpoints(model, undisturbed[0], average_decay=0.9)
    checkpoints.restore()
    with checkpoints.averages.in_place():
        inside = [v.numpy() for v in model.trainable_variables]
    for ours, theirs in zip(inside, loaded.model.trainable_variables, strict=True):
        np.testing.assert_array_equal(ours, theirs.numpy())
    assert any((a != b).any() for a, b in zip(inside, raw, strict=True))
    for variable, value in zip(model.trainable_variables, raw, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_segments_meet_every_multiple_of_the_interval():
    assert train.segments(0, 12, 4) == [(4, 3)]
    assert train.segments(6, 13, 4) == [(2, 1), (4, 1), (1, 1)]
    assert train.segments(0, 3, 4) == [(3, 1)]
    assert train.segments(5, 7, 4) == [(2, 1)]
