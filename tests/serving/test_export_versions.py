# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""What `export` leaves in a work directory: versions, their origin, model cards."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from matnet_tf import files
from matnet_tf.config import Experiment, ModelConfig, Scale, TrainConfig
from matnet_tf.runs.checkpoints import Checkpoints
from matnet_tf.runs.models import build_model
from matnet_tf.runs.workdir import create_workdir
from matnet_tf.serving import export


@pytest.fixture
def quick_save(monkeypatch):
    """Writes one weight instead of a SavedModel."""

    def save(model, path, most):
        path.mkdir()
        np.save(path / "weight.npy", model.trainable_variables[0].numpy())

    monkeypatch.setattr(export, "save", save)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A work directory at step 7 whose weights and averages differ; not to be changed."""
    folder = tmp_path_factory.mktemp("trained")
    model = ModelConfig((8, 8, 1), (Scale(1, 4, 2, 1),), top_latents=2, top_units=4)
    experiment = Experiment(model, train=TrainConfig(average_decay=0.9))
    create_workdir(folder, experiment)
    model = build_model(experiment)
    checkpoints = Checkpoints(model, folder, average_decay=0.9)
    model.trainable_variables[0].assign(tf.ones_like(model.trainable_variables[0]))
    model.step.assign(7)
    checkpoints.save()
    return folder


@pytest.fixture
def workdir(trained, tmp_path):
    """A copy of `trained`."""
    return shutil.copytree(trained, tmp_path / "run")


def extra(path, name):
    return Path(path, "assets.extra", name).read_text()


@pytest.mark.slow
def test_raw_or_averaged_weights_are_exported_with_their_origin(workdir, quick_save):
    found = {}
    for weights in ("raw", "averaged", "auto"):
        path = export.export(workdir, weights)
        found[weights] = np.load(f"{path}/weight.npy")
        origin = json.loads(extra(path, "export.json"))
        assert origin["weights"] == weights.replace("auto", "averaged")
        assert (origin["checkpoint_step"], origin["max_image_samples"]) == (7, 10_000)
        assert extra(path, "config.json") == (workdir / "config.json").read_text()
    assert np.all(found["raw"] == 1) and not np.any(found["averaged"] == 1)
    np.testing.assert_array_equal(found["auto"], found["averaged"])


@pytest.mark.slow
def test_a_model_card_has_the_bounds_that_were_measured_with_these_weights(workdir, quick_save):
    measured = json.loads(MEASURED)
    others = [measured | {"key": "b", "nll": 99.0, "checkpoint_step": 3}, {"key": "c"}]
    (workdir / "evaluation.json").write_text(json.dumps([measured, *others]))
    card = extra(export.export(workdir, "averaged"), "model_card.md")
    for text in (
        "22.46 +- 0.20 nats per image, 0.506 bits per dimension",
        "K=100. Minus the ELBO: 23.50 nats.",
        "200 (subset seed 4) of the 297 images of digits, split test, binarization dynamic",
        "Step 7, averaged weights",
        "images are binary, 0 and 1",
        "at most 10,000 images times samples",
    ):
        assert text in card
    assert "99.0" not in card
    card = extra(export.export(workdir, "raw"), "model_card.md")
    assert "None was measured with these weights" in card
    (workdir / "evaluation.json").write_text(json.dumps([measured | {"nll": "good"}]))
    message = "evaluation.json has a record that `matnet evaluate` did not write"
    with pytest.raises(ValueError, match=message):
        export.export(workdir, "averaged")


MEASURED = """
{"key": "a", "data": "digits", "split": "test", "weights": "averaged", "checkpoint_step": 7,
 "nll": 22.456, "nll_se": 0.2, "neg_elbo": 23.5, "bits_per_dim": 0.506, "num_samples": 100,
 "images": {"count": 200, "of": 297, "subset_seed": 4}, "seed": 0, "tuned_on_test": false,
 "binarization": {"method": "dynamic", "seed": 0}}
"""


def test_without_servings_messages_an_export_says_that_warm_up_is_missing(
    workdir, quick_save, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "tensorflow_serving", None)
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis", None)
    path = export.export(workdir)
    assert "no warm-up requests: they need tensorflow-serving-api" in capsys.readouterr().err
    assert not Path(path, "assets.extra", "tf_serving_warmup_requests").exists()


@pytest.mark.slow
def test_versions_increase_and_nothing_else_is_left(workdir, quick_save):
    (workdir / "export" / "9").mkdir(parents=True)
    assert export.export(workdir) == str(workdir / "export" / "10")
    assert export.export(workdir) == str(workdir / "export" / "11")
    # What a killed export leaves goes with the next; what a running one writes stays.
    (workdir / "export" / ".writing_killed" / "version").mkdir(parents=True)
    (workdir / "export" / ".writing_killed.lock").touch()
    with files.workspace(workdir / "export", ".writing_") as running:
        assert export.export(workdir) == str(workdir / "export" / "12")
        assert running.exists()
    assert {p.name for p in (workdir / "export").iterdir()} == {"9", "10", "11", "12"}


def test_a_version_of_another_process_is_not_touched(tmp_path, monkeypatch):
    temporary = tmp_path / ".writing.1"
    temporary.mkdir()
    rename = type(temporary).rename

    def late(self, target):
        if target.name == "1":
            target.mkdir()
            (target / "theirs").touch()
        return rename(self, target)

    monkeypatch.setattr(type(temporary), "rename", late)
    assert export._publish(temporary, tmp_path).name == "2"
    assert (tmp_path / "1" / "theirs").exists()


def test_a_failed_export_leaves_nothing(workdir, monkeypatch):
    def full(model, path, most):
        path.mkdir()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "save", full)
    with pytest.raises(OSError, match="No space left"):
        export.export(workdir)
    assert not (workdir / "export").exists()


def test_a_work_directory_without_a_checkpoint_is_an_error(workdir):
    shutil.rmtree(workdir / "checkpoints")
    with pytest.raises(ValueError, match="no checkpoint of a trained model yet"):
        export.export(workdir)
    assert not (workdir / "export").exists()
