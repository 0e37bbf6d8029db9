# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""What images are, found in arrays and data sets."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from matnet_tf.config import DataConfig
from matnet_tf.data.prepare import prepare
from matnet_tf.data.suggestion import suggest, suggest_for

LEVELS = np.random.default_rng(0).integers(0, 256, (6, 12, 10, 3), np.uint8)
GREY = (LEVELS / 255).astype(np.float32)


def test_arrays_and_data_sets_of_every_kind():
    for x, expected in (
        (GREY, "logistic"),
        (GREY[..., :1], "logistic"),
        (np.round(GREY), "bernoulli"),
        ((LEVELS + np.float32(0.3)) / 256, "normal"),
    ):
        labels = np.arange(6)
        data = tf.data.Dataset.from_tensor_slices((x, labels)).batch(4)
        named = tf.data.Dataset.from_tensor_slices({"image": x, "label": labels}).batch(4)
        for given in (x, data, named, data.repeat()):
            config = suggest(given)
            assert (config.likelihood, config.image_shape) == (expected, x.shape[1:])
    for bad in (LEVELS, GREY[0], GREY * 2, GREY[:0]):
        with pytest.raises(ValueError, match=r"expected float images \[N, H, W, C\] in \[0, 1\]"):
            suggest(bad)


def test_stored_data_sets(tmp_path):
    drawings = np.where(LEVELS[..., 0] > 127, 255, 0).astype(np.uint8)
    for name, arrays in (("photos", LEVELS), ("grey", LEVELS[..., 0]), ("drawings", drawings)):
        (tmp_path / name).mkdir()
        for number, array in enumerate(arrays):
            Image.fromarray(array).save(tmp_path / name / f"{number}.png")
    for name, kind, likelihood, binarization in (
        ("photos", "8-bit colour", "logistic", "auto"),
        ("grey", "8-bit grey", "logistic", "auto"),
        ("drawings", "binary", "bernoulli", "threshold"),
    ):
        config = DataConfig("image_folder", dir=str(tmp_path / "tfds"))
        prepare(config, str(tmp_path / name), overwrite=True)
        model, config, found = suggest_for(config)
        assert (found, model.likelihood, config.binarization) == (kind, likelihood, binarization)
        assert suggest(config) == model
    assert suggest_for(DataConfig("digits"))[2] == "binary"
    assert suggest_for(DataConfig("digits", mask="half"))[0].conditional_stages == 1
    assert suggest_for(DataConfig("digits", binarization="none", dequantize=True))[2] == "real"
