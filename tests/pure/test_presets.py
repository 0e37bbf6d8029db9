# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Every preset is a valid experiment, and begins with what to expect of it."""

import pathlib

from matnet_tf import flags
from matnet_tf.config import Experiment

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
    for name in flags.preset_names():
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
    assert len(flags.preset_names()) > 10
    for name in flags.preset_names():
        lines = pathlib.Path(flags.preset_path(name)).read_text(encoding="utf-8").splitlines()
        comment = " ".join(line.removeprefix("# ") for line in lines if line.startswith("#"))
        assert lines[0].startswith("# ") and max(map(len, lines)) <= 100, name
        assert "Data" in comment and "xpected" in comment and "Time: " in comment, name
        assert "nats" in comment or "bits/dim" in comment, name
