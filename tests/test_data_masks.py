# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Splits for conditional models: images with their masks, and the images as they were without."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from test_data import numbered, numbers, store

from matnet_tf import data
from matnet_tf.config import DataConfig
from matnet_tf.datasets import reading

tfds.disable_progress_bar()
COUNT, SHAPE = 23, (3, 4, 1)
OCCLUDERS = {"mask": "occluders", "occluders": 2, "occluder_size": (2, 1)}
# One kind that is drawn, with images that are drawn as well, and one kind that is not.
KINDS = {
    "occluders": OCCLUDERS | {"binarization": "dynamic"},
    "dequantized": {"mask": "pixels", "dequantize": True},
    "quadrants": {"mask": "quadrants"},
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("tfds")
    grey = tfds.features.Tensor(shape=SHAPE, dtype=np.uint8)
    store(path, "plain", {"train": numbered(COUNT), "test": numbered(9, 100)}, grey)
    return path


@pytest.fixture(params=["memory", pytest.param("streamed", marks=pytest.mark.slow)])
def load(request, directory, monkeypatch):
    """Loads a split of the set, in memory or streamed in blocks of eight."""
    if request.param == "streamed":
        monkeypatch.setattr(reading, "MEMORY_BYTES", 100)
        monkeypatch.setattr("matnet_tf.datasets.images.SHUFFLE_BYTES", 8 * 12)
    return lambda split="train", **settings: data.load(
        DataConfig(name="plain", dir=str(directory), **settings), split
    )


def take(dataset, count):
    """Images and masks of the first batches, each `[count, B, ...]`."""
    return [np.stack(parts) for parts in zip(*map(parts_of, dataset.take(count)), strict=True)]


def evaluated(split, batch_size=4, indices=None):
    parts = map(parts_of, split.evaluation_dataset(batch_size, indices))
    return [np.concatenate(part) for part in zip(*parts, strict=True)]


def parts_of(batch):
    assert list(batch) == ["image", "mask"]
    return batch["image"].numpy(), batch["mask"].numpy()


kinds = pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)


@kinds
def test_a_batch_has_images_and_masks_of_static_shape(load, settings):
    dataset = load(**settings).training_dataset(7, seed=5)
    for name, channels in (("image", SHAPE[2]), ("mask", 1)):
        expected = tf.TensorSpec([7, *SHAPE[:2], channels], tf.float32)
        assert dataset.element_spec[name] == expected
    element = load(**settings).evaluation_dataset(7).element_spec
    assert element["mask"] == tf.TensorSpec([None, *SHAPE[:2], 1], tf.float32)


@kinds
def test_the_images_are_those_of_a_split_without_masks(load, settings):
    plain = {name: settings[name] for name in ("binarization", "dequantize") if name in settings}
    masked, whole = load(**settings), load(**plain)
    images, _ = take(masked.training_dataset(7, seed=5, first_step=2), 5)
    expected = [x.numpy() for x in whole.training_dataset(7, seed=5, first_step=2).take(5)]
    np.testing.assert_array_equal(images, expected)
    expected = np.concatenate([x.numpy() for x in whole.evaluation_dataset(4)])
    np.testing.assert_array_equal(evaluated(masked)[0], expected)


def test_a_split_without_masks_gives_images_alone(load):
    split = load()
    assert split.masking is None and split.mask_record is None
    for dataset in (split.training_dataset(7, seed=5), split.evaluation_dataset(4)):
        assert isinstance(dataset.element_spec, tf.TensorSpec)


@kinds
def test_training_continues_at_any_step_as_if_it_had_run_to_there(load, settings):
    split = load(**settings)
    whole = take(split.training_dataset(7, seed=5), 8)
    later = take(split.training_dataset(7, seed=5, first_step=5), 3)
    for one, other in zip(whole, later, strict=True):
        np.testing.assert_array_equal(one[5:], other)


@kinds
def test_training_masks_are_drawn_anew_each_time_an_image_is_seen(load, settings):
    _, found = take(load(**settings).training_dataset(COUNT, seed=5), 40)
    drawn = settings["mask"] != "quadrants"
    assert len(np.unique(found.reshape(40, -1), axis=0)) == (40 if drawn else 1)
    assert (found == 0).any((2, 3, 4)).all()
    if drawn:
        _, other = take(load(**settings).training_dataset(COUNT, seed=6), 40)
        assert (found != other).any((1, 2, 3, 4)).all()


def test_masks_have_no_trace_of_the_draws_of_binarization(load):
    # With the noise of the pixels' own binarization a known pixel would always be on.
    split = load(mask="pixels", binarization="dynamic")
    images, known = take(split.training_dataset(COUNT, seed=5), 100)
    grey = (numbered(COUNT) / 255.0)[..., 0]
    expected, error = grey.mean(), 0.5 / np.sqrt(images.size / 2)
    assert images[known == 1].mean() == pytest.approx(expected, abs=4 * error)
    assert images[known == 0].mean() == pytest.approx(expected, abs=4 * error)
    images, known = evaluated(split)
    assert abs(np.corrcoef(images.ravel(), known.ravel())[0, 1]) < 4 / np.sqrt(images.size)


@kinds
def test_the_masks_of_an_evaluation_are_one_for_each_image(load, settings):
    split = load(**settings, draw_seed=3)
    every = evaluated(split)
    for size, indices in ((2, None), (2, [8, 2, 2]), (5, [22, 0, 13, 4, 5])):
        for one, other in zip(every, evaluated(split, size, indices), strict=True):
            np.testing.assert_array_equal(one if indices is None else one[indices], other)
    if settings["mask"] != "quadrants":
        assert len(np.unique(every[1].reshape(COUNT, -1), axis=0)) > 5
        assert (every[1] != evaluated(load(**settings, draw_seed=4))[1]).any()


def test_images_keep_their_order_beside_their_masks(load):
    images, _ = evaluated(load(mask="half"), 4, [7, 3, 20])
    np.testing.assert_array_equal(
        numbers(images), numbers(evaluated(load(mask="half"))[0][[7, 3, 20]])
    )


def test_a_split_says_what_is_hidden(load):
    expected = {"kind": "occluders", "occluders": 2, "size": [2, 1], "seed": 4}
    assert load("test", **OCCLUDERS, draw_seed=4).mask_record == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mask": "occluders"}, "occluder_size must fit into the images' 3x4 pixels; got 20x20"),
        ({"mask": "file", "mask_file": "/no/mask.png"}, "mask_file /no/mask.png: it cannot be"),
    ],
)
def test_masks_that_are_not_for_the_images_are_refused_when_they_are_loaded(
    directory, settings, message
):
    with pytest.raises(ValueError, match=message) as caught:
        data.load(DataConfig(name="plain", dir=str(directory), **settings), "train")
    assert "\n" not in str(caught.value)
