# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Every preset is a valid experiment, and begins with what to expect of it."""

import pathlib

import pytest

from matnet_tf import flags, presets
from matnet_tf.config import Experiment
from matnet_tf.runs.workdir import read_experiment

MOST_BYTES = 40e6  # Of all weights in the wheel.
# Shape of the images and the likelihoods that suit their values.
DATA = {
    "digits": ((8, 8, 1), {"bernoulli"}),
    "mnist": ((28, 28, 1), {"bernoulli"}),
    "binarized_mnist": ((28, 28, 1), {"bernoulli"}),
    "omniglot28": ((28, 28, 1), {"bernoulli"}),
    "cifar10": ((32, 32, 3), {"normal", "logistic", "logistic_mixture"}),
    "image_folder": ((64, 64, 3), {"logistic"}),
}
PHOTOS = ((64, 64, 3), {"logistic"})  # Resized to data.image_size.


def test_presets_fit_their_data():
    for name in presets.names():
        experiment = flags.parse(Experiment, (), [f"--preset={name}"])[0][0]
        model, data = experiment.model, experiment.data
        shape, likelihoods = PHOTOS if data.image_size else DATA[data.name]
        assert model.image_shape == shape, name
        assert not data.image_size or data.image_size == shape[:2], name
        assert model.likelihood in likelihoods, name
        assert data.dequantize == (model.likelihood == "normal"), name
        if data.mask == "occluders":
            assert max(data.occluder_size) < min(shape[:2]), name


def test_presets_begin_with_their_data_their_expected_bound_and_their_time():
    assert len(presets.names()) > 10
    for name in presets.names():
        lines = pathlib.Path(presets.recipe(name)).read_text(encoding="utf-8").splitlines()
        comment = " ".join(line.removeprefix("# ") for line in lines if line.startswith("#"))
        assert lines[0].startswith("# ") and max(map(len, lines)) <= 100, name
        assert "Data" in comment and "xpected" in comment and "Time: " in comment, name
        assert "nats" in comment or "bits/dim" in comment, name


def test_trained_models_are_whole_small_and_those_of_their_recipes():
    size = 0
    for name in presets.trained_names():
        folder, record = presets.trained(name), presets.read_record(presets.trained(name))
        size += presets.checked_weights(folder).stat().st_size
        assert record["weights"]["bytes"] == presets.checked_weights(folder).stat().st_size
        recipe = flags.parse(Experiment, (), [f"--preset={name}"])[0][0]
        experiment = read_experiment(folder)
        assert (experiment.model, experiment.seed) == (recipe.model, recipe.seed), name
        assert experiment.data == recipe.data, name
        images = record["evaluation"]["images"]
        assert images["count"] == images["of"] and record["evaluation"]["nll_se"] > 0, name
        single = record["per_image"]
        assert len(single["images"]) == len(single["log_likelihood"]) == 100, name
        assert name in record["training"]["command"] and record["training"]["hardware"], name
        assert "## Limits" in (folder / presets.CARD).read_text(encoding="utf-8"), name
    assert 0 < size < MOST_BYTES


def test_a_short_name_stands_for_the_whole_one():
    assert "mnist" not in presets.names()
    for find in (presets.trained, presets.recipe):
        assert find("mnist") == find("mnist_deep_cpu_hour")


def test_a_preset_is_copied_to_a_work_directory_once(tmp_path):
    folder = pathlib.Path(presets.checkout("digits", tmp_path / "run"))
    names = {path.name for path in presets.trained("digits").iterdir()}
    assert {path.name for path in folder.iterdir()} == names
    (folder / "evaluation.json").write_text("[]")
    (folder / presets.IMAGES).unlink()
    assert presets.checkout("digits", folder) == str(folder)
    assert {path.name for path in folder.iterdir()} == names | {"evaluation.json"}
    (folder / presets.RECORD).write_text("{}")
    with pytest.raises(ValueError, match="is the work directory of another model than preset"):
        presets.checkout("digits", folder)
