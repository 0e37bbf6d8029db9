# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""What `export` leaves: versions, their origin, model card and warm-up requests."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from served_models import SLOW, binary_images
from work_directories import save_checkpoint

from matnet_tf import experiment, export
from matnet_tf.config import Experiment, ModelConfig, Stage, TrainConfig
from matnet_tf.signatures import signatures_of


@pytest.fixture
def quick_save(monkeypatch):
    """Replaces the writing of a SavedModel by that of one weight."""

    def save(model, path):
        path.mkdir()
        np.save(path / "weight.npy", model.trainable_variables[0].numpy())

    monkeypatch.setattr(export, "save", save)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A work directory at step 7 whose weights and averages differ; not to be changed."""
    folder = tmp_path_factory.mktemp("trained")
    model = ModelConfig((8, 8, 1), (Stage(1, 4, 2, 1),), top_latents=2, top_units=4)
    settings = Experiment(model, train=TrainConfig(average_decay=0.9))
    experiment.create(folder, settings)
    model = experiment.build_model(settings)
    model.trainable_variables[0].assign(tf.ones_like(model.trainable_variables[0]))
    save_checkpoint(folder, model)
    return folder


@pytest.fixture
def workdir(trained, tmp_path):
    """A work directory of the test's own."""
    return shutil.copytree(trained, tmp_path / "run")


def test_an_export_has_its_config_and_its_origin_beside_it(workdir, quick_save):
    path = export.export(workdir, weights="averaged")
    assert path == str(workdir / "export" / "1")
    extra = workdir / "export" / "1" / "assets.extra"
    assert (extra / "config.json").read_bytes() == (workdir / "config.json").read_bytes()
    origin = json.loads((extra / "export.json").read_text())
    assert origin["weights"] == "averaged" and origin["checkpoint_step"] == 7


@SLOW
def test_an_export_is_a_saved_model_of_the_weights_of_the_run(workdir, tmp_path):
    path = export.export(workdir, weights="averaged")
    assert tf.saved_model.contains_saved_model(path)
    assert (workdir / "export" / "1" / "assets.extra" / "config.json").is_file()
    x = tf.constant(binary_images(2))
    answer = tf.saved_model.load(path).signatures["serving_default"](images=x)
    expected = experiment.load(workdir, "averaged").model.elbo(x, seed=[0, 0])
    np.testing.assert_allclose(answer["elbo"], expected.elbo, rtol=1e-5)
    # TensorFlow's own program for SavedModels.
    (tmp_path / "out").mkdir()
    subprocess.run(
        [
            *(Path(sys.executable).with_name("saved_model_cli"), "run", "--dir", path),
            *("--tag_set", "serve", "--signature_def", "sample", "--outdir", tmp_path / "out"),
            *("--input_exprs", "num=3;temperature=1.0;seed=5"),
        ],
        check=True,
        capture_output=True,
    )
    drawn = experiment.load(workdir, "averaged").model.sample(3, seed=[5, 6, 7])
    np.testing.assert_allclose(np.load(tmp_path / "out" / "images.npy"), drawn, rtol=1e-5)


def test_a_model_card_says_which_bounds_were_measured_with_these_weights(workdir, quick_save):
    measured = {
        "key": "a",
        "data": "digits",
        "split": "test",
        "weights": "averaged",
        "checkpoint_step": 7,
        "nll": 22.456,
        "nll_se": 0.2,
        "neg_elbo": 23.5,
        "bits_per_dim": 0.506,
        "num_samples": 100,
        "images": {"count": 200, "of": 297, "subset_seed": 4},
        "binarization": {"method": "dynamic", "seed": 0},
        "seed": 0,
        "tuned_on_test": False,
    }
    others = [{"key": "b", **measured, "nll": 99.0, "checkpoint_step": 3}, {"key": "c"}]
    (workdir / "evaluation.json").write_text(json.dumps([measured, *others]))
    card = Path(export.export(workdir, "averaged"), "assets.extra", "model_card.md").read_text()
    assert "22.46 +- 0.20 nats per image, 0.506 bits per dimension" in card
    assert "with K=100; 23.50 nats: minus the ELBO" in card and "99.0" not in card
    assert "200 (subset seed 4) of the 297 images of digits, split test, binarization dyn" in card
    assert "Step 7, averaged weights" in card and "likelihoods for binary images only" in card
    (workdir / "evaluation.json").write_text(json.dumps([measured | {"nll": "good"}]))
    with pytest.raises(ValueError, match="evaluation.json has a record that bin/evaluate did not"):
        export.export(workdir, "averaged")
    raw = Path(export.export(workdir, "raw"), "assets.extra", "model_card.md").read_text()
    assert "None was measured with these weights" in raw


def test_a_config_whose_images_are_not_a_count_and_a_digest_is_named(workdir, quick_save):
    record = json.loads((workdir / "config.json").read_text())
    for images in ({"digest": "a"}, {"count": [1], "digest": "a"}, [1]):
        text = json.dumps(record | {"training_images": images})
        (workdir / "config.json").write_text(text)
        with pytest.raises(ValueError, match="config.json is not .* training_images is"):
            export.export(workdir)
    assert list((workdir / "export").iterdir()) == []


@SLOW
def test_warm_up_requests_are_such_as_the_signatures_take(workdir, quick_save, eagerly):
    prediction_log = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    path = Path(export.export(workdir), "assets.extra", "tf_serving_warmup_requests")
    signatures = signatures_of(experiment.load(workdir).model)
    asked = []
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        request = prediction_log.PredictionLog.FromString(record).predict_log.request
        asked.append(request.model_spec.signature_name)
        inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
        assert set(inputs) == set(signatures[asked[-1]].specs)
        signatures[asked[-1]].function(**{k: tf.constant(v) for k, v in inputs.items()})
    assert asked == list(signatures)


def test_without_servings_messages_an_export_says_that_warm_up_is_missing(
    workdir, quick_save, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "tensorflow_serving", None)
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis", None)
    path = export.export(workdir)
    assert "no warm-up requests: they need tensorflow-serving-api" in capsys.readouterr().err
    assert not Path(path, "assets.extra", "tf_serving_warmup_requests").exists()


def test_raw_or_averaged_weights_are_exported_as_asked(workdir, quick_save):
    weights = {
        kind: np.load(f"{export.export(workdir, kind)}/weight.npy")
        for kind in ("raw", "averaged", "auto")
    }
    assert np.all(weights["raw"] == 1)
    assert not np.any(weights["averaged"] == 1)
    np.testing.assert_array_equal(weights["auto"], weights["averaged"])


def test_versions_increase_and_nothing_else_is_left(workdir, quick_save):
    (workdir / "export" / "9").mkdir(parents=True)
    assert export.export(workdir) == str(workdir / "export" / "10")
    assert export.export(workdir) == str(workdir / "export" / "11")
    assert {p.name for p in (workdir / "export").iterdir()} == {"9", "10", "11"}


def test_a_version_that_appears_meanwhile_is_not_touched(tmp_path, monkeypatch):
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


def test_a_failed_export_leaves_no_version(workdir, monkeypatch):
    def full(model, path):
        path.mkdir()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "save", full)
    with pytest.raises(OSError, match="No space left"):
        export.export(workdir)
    assert list((workdir / "export").iterdir()) == []


def test_a_work_directory_without_a_checkpoint_is_an_error(tmp_path, tiny_dense):
    experiment.create(tmp_path, Experiment(tiny_dense))
    with pytest.raises(ValueError, match="no checkpoint yet"):
        export.export(tmp_path)
    assert not (tmp_path / "export").exists()
