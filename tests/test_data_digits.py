# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The embedded digits, and what a split refuses whatever its images are."""

import numpy as np
import pytest

from matnet_tf import data
from matnet_tf.config import DataConfig


def test_digits_need_no_directory_and_keep_their_split():
    train = data.load(DataConfig(name="digits"), "train")
    test = data.load(DataConfig(name="digits"), "test")
    assert (train.num_images, test.num_images) == (1500, 297)
    assert train.image_shape == (8, 8, 1) and train.binarization == "dynamic"
    images = np.concatenate([train.images.array, test.images.array])
    from sklearn.datasets import load_digits

    loaded = load_digits()
    assert images.max() == 255 and images.dtype == np.uint8
    as_rows = (images.reshape(-1, 64) * (16 / 255)).round()
    labels = np.concatenate([train.labels, test.labels])
    found = sorted(zip(map(tuple, as_rows), labels, strict=True))
    assert found == sorted(zip(map(tuple, loaded.data), loaded.target, strict=True))
    # The first test digits of the stated draw, so that the split cannot change unnoticed.
    order = np.random.RandomState(0).permutation(1797)
    np.testing.assert_array_equal(test.labels, loaded.target[order[1500:]])


def test_digits_have_no_other_splits():
    with pytest.raises(ValueError, match="digits has the splits train and test only"):
        data.load(DataConfig(name="digits", train_split="train[:10]"), "train")


@pytest.mark.parametrize(
    ("split", "message"),
    [("tset", "split must be one of"), ("validation", "validation_images is 0")],
)
def test_a_split_that_is_not_there_is_refused(split, message):
    with pytest.raises(ValueError, match=message):
        data.load(DataConfig(), split)


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("training_dataset", (0, 0), "batch_size must be at least 1; got 0"),
        ("training_dataset", (4, 0, -1), "first_step must be at least 0; got -1"),
        ("training_dataset", (4, -1), "seed must be at least 0; got -1"),
        ("evaluation_dataset", (0,), "batch_size must be at least 1; got 0"),
        ("evaluation_dataset", (4, []), "at least one integer"),
        ("evaluation_dataset", (4, [0.5]), "at least one integer; got float64"),
        ("evaluation_dataset", (4, [0, 297]), r"must lie in \[0, 296\].* to 297"),
    ],
)
def test_arguments_out_of_range_are_refused(method, arguments, message):
    split = data.load(DataConfig(), "test")
    with pytest.raises(ValueError, match=message):
        getattr(split, method)(*arguments)
