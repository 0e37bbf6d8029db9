# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Trained models in folders of their own: made, loaded, started from, refused; and the presets'."""

import json
import pathlib
import shutil

import numpy as np
import pytest
from numpy_matnet import randomize
from work_directories import save_checkpoint

import matnet_tf as matnet
from matnet_tf import cli, presets
from matnet_tf.config import DataConfig, EvaluateConfig, Experiment, ModelConfig, Scale, TrainConfig
from matnet_tf.data import loading
from matnet_tf.plots.figures import write_figures
from matnet_tf.runs.models import build_model, load_run
from matnet_tf.runs.workdir import create_workdir
from matnet_tf.serving.publish import publish, stored_bounds
from matnet_tf.training import train

pytestmark = pytest.mark.usefixtures("module_eagerly")
MODEL = ModelConfig((8, 8, 1), (Scale(1, 8, 3, 2),), top_latents=3, top_units=8)
DEEPER = ModelConfig((8, 8, 1), (Scale(1, 8, 3, 3),), top_latents=3, top_units=8)
CONFIG = EvaluateConfig(num_samples=2, batch_size=297)
ORIGIN = ("matnet train --flagfile=my.flags", "an abacus")


@pytest.fixture(scope="module")
def published(tmp_path_factory, module_eagerly):
    """A work directory, and the folder published from it."""
    base = tmp_path_factory.mktemp("published")
    experiment = Experiment(MODEL, DataConfig(dir=str(base)), TrainConfig(average_decay=0.9))
    model = randomize(build_model(experiment))
    create_workdir(base / "run", experiment, {"count": 5, "digest": "abc"})
    save_checkpoint(base / "run", model, 7, average_decay=0.9)
    publish(base / "run", base / "tiny", CONFIG, *ORIGIN)
    return base / "run", base / "tiny"


@pytest.fixture
def copy(published, tmp_path):
    return pathlib.Path(shutil.copytree(published[1], tmp_path / "tiny"))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name == "digits" else pytest.mark.slow)
        for name in presets.trained_names()
    ],
)
def test_presets_give_the_bounds_of_their_records(name):
    found, recorded = stored_bounds(presets.trained(name))
    np.testing.assert_allclose(found, recorded, atol=0.01)


@pytest.mark.slow
def test_a_published_model_is_the_one_of_the_run(published):
    workdir, folder = published
    names = {"config.json", "model.weights.h5", "record.json", "images.npz", "card.md"}
    assert {path.name for path in folder.iterdir()} == names
    record, run, loaded = presets.read_record(folder), load_run(workdir), load_run(folder)
    assert (loaded.step, loaded.weights) == (run.step, run.weights) == (7, "averaged")
    assert loaded.experiment.data.dir == "" and loaded.experiment.model == MODEL
    for weight, other in zip(loaded.model.bound_weights, run.model.bound_weights, strict=True):
        expected = other.numpy().astype(np.float16 if other.numpy().ndim else np.float32)
        np.testing.assert_array_equal(weight.numpy(), expected.astype(np.float32))
    assert record["weights"]["dtype"] == "float16"
    assert record["evaluation"]["images"] == {"count": 297, "of": 297, "subset_seed": None}
    assert (record["training"]["command"], record["training"]["hardware"]) == ORIGIN
    found, recorded = stored_bounds(folder)
    np.testing.assert_allclose(found, recorded, atol=1e-3)
    # The stated images, by an independent way to the same bound.
    split, single = loading.load(DataConfig(), "test"), record["per_image"]
    x = next(split.evaluation_dataset(100, single["images"]).as_numpy_iterator())
    many = loaded.model.log_likelihood(x, 500)
    below = many - single["log_likelihood"]  # A bound of ten samples is looser in the mean.
    assert len(below) == 100 and 0 < below.mean() < 3
    card = (folder / "card.md").read_text()
    assert "Licence of the data" in card and ORIGIN[0] in card and "K=2" in card


@pytest.mark.slow
def test_what_is_damaged_foreign_newer_or_complete_is_refused(published, copy):
    workdir, folder = published
    with pytest.raises(ValueError, match="holds a trained model already"):
        publish(workdir, folder, CONFIG, *ORIGIN)
    with pytest.raises(ValueError, match="images must be 0"):
        publish(workdir, copy / "new", EvaluateConfig(images=3), *ORIGIN)
    with pytest.raises(ValueError, match="holds averaged weights only; got weights 'raw'"):
        load_run(folder, "raw")
    with pytest.raises(ValueError, match="cannot be resumed. Start from it in another work"):
        train.train(load_run(folder).experiment, copy)
    weights = copy / presets.WEIGHTS
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ValueError, match="damaged or of another model: its SHA-256 begins with"):
        matnet.load(copy)
    record = presets.read_record(copy) | {"format_version": 2}
    (copy / presets.RECORD).write_text(json.dumps(record))
    with pytest.raises(ValueError, match="has format version 2; this package reads 1"):
        matnet.load(copy)
    (copy / presets.RECORD).write_text("{}")
    with pytest.raises(ValueError, match="is not the record of a trained model"):
        matnet.load(copy)


@pytest.mark.slow
def test_training_starts_from_weights_that_fit_and_names_the_others(published, tmp_path, capsys):
    settings = TrainConfig(steps=1, batch_size=8, learning_rate=1e-9, summary_images=0)
    experiment = Experiment(DEEPER, DataConfig(), settings, init=str(published[1]))
    train.train(experiment, tmp_path / "run")
    lines = capsys.readouterr().out.splitlines()
    theirs = {w.path: w.numpy() for w in load_run(published[1]).model.bound_weights}
    ours = {w.path: w.numpy() for w in load_run(tmp_path / "run").model.bound_weights}
    kept = [p for p in ours if p not in theirs or ours[p].shape != theirs[p].shape]
    assert 0 < len(kept) < len(ours) and lines[1].endswith(", ".join(kept))
    assert lines[0].startswith(f"init: {len(ours) - len(kept)} of {len(ours)} weights are those of")
    for path in set(ours) - set(kept):
        np.testing.assert_allclose(ours[path], theirs[path], atol=1e-6)
    model = matnet.MatNet(DEEPER)
    assert matnet.initialize(model, published[1]) == kept
    same = matnet.from_preset("digits")
    assert matnet.initialize(same, "preset:digits") == []
    with pytest.raises(ValueError, match="unknown trained preset 'digit'; did you mean digits"):
        matnet.initialize(model, "preset:digit")


@pytest.mark.slow
def test_programs_take_a_preset_in_place_of_a_work_directory(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["sample", "--preset=digits", "--num=5"]) == 0
    path = pathlib.Path(capsys.readouterr().out.strip())
    assert path == pathlib.Path("runs/preset_digits/figures/draws.png") and path.is_file()
    assert cli.main(["evaluate", "--preset=digits", "--num_samples=2", "--images=9"]) == 0
    assert "K=2, 9 of 297 test images of digits" in capsys.readouterr().out
    names = [pathlib.Path(p).stem for p in write_figures(path.parents[1])]
    assert names == ["samples", "samples_by_temperature", "reconstructions"]
    assert cli.main(["sample", "--workdir=runs/preset_digits", "--output=a.jpg"]) == 2
    assert "must be a file whose name ends in .png; got a.jpg" in capsys.readouterr().err
