# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Every preset is a valid experiment, and opens by saying what to expect of it."""

import pathlib

import pytest

from matnet_tf import data, flags, masks
from matnet_tf.config import Experiment

ROOT = pathlib.Path(__file__).resolve().parent.parent
PRESETS = sorted((ROOT / "configs").glob("*.flags"))
SHAPES = {
    "digits": (8, 8, 1),
    "mnist": (28, 28, 1),
    "binarized_mnist": (28, 28, 1),
    "omniglot28": (28, 28, 1),
    "cifar10": (32, 32, 3),
    "image_folder": (64, 64, 3),  # The photos that its preset is for.
}
each = pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)


def experiment_of(path) -> Experiment:
    return flags.parse(Experiment, (), [f"--flagfile={path}"])[0][0]


def test_there_are_presets():
    assert len(PRESETS) > 10


@each
def test_a_preset_is_an_experiment_whose_model_fits_its_data(path):
    experiment = experiment_of(path)
    assert experiment != Experiment()
    *size, channels = experiment.model.image_shape
    if experiment.data.image_size:
        assert list(experiment.data.image_size) == size and channels == 3
    else:
        assert experiment.model.image_shape == SHAPES[experiment.data.name]
    if experiment.data.mask != "none":
        masks.check(experiment.data, experiment.model.image_shape)


@each
def test_a_presets_likelihood_is_for_what_its_data_are(path):
    experiment = experiment_of(path)
    known = data.DATA_SETS.get(experiment.data.name, data.DataSet())
    asked = experiment.data.binarization
    binary = (known.binarization if asked == "auto" else asked) != "none" or known.white == 1
    expected = {True: {"bernoulli"}, False: {"normal", "logistic"}}[binary]
    assert experiment.model.likelihood in expected
    assert experiment.data.dequantize == (experiment.model.likelihood == "normal")


@each
def test_a_preset_opens_with_its_data_its_expected_bound_and_its_time(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    comment = " ".join(line for line in lines if line.startswith("#"))
    assert lines[0].startswith("# ")
    assert "xpected" in comment
    assert any(unit in comment for unit in ("nats", "bits/dim", "as mnist_fc.flags"))
    assert "Time:" in comment or "minutes" in comment
