# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Splits: which images, in which order, and how they become `x` and masks."""

import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from matnet_tf.config import DataConfig, ModelConfig, Scale
from matnet_tf.data import batching, loading, tfds_reader
from matnet_tf.data.batching import MemoryImages

tfds.disable_progress_bar()
TRAIN, TEST = 23, 9
SHAPE, COLOUR = (3, 4, 1), (5, 4, 3)
OCCLUDERS = {"mask": "occluders", "occluders": 2, "occluder_size": (2, 1)}
DRAWN = (
    {"binarization": "dynamic"} | OCCLUDERS,
    {"dequantize": True, "mask": "pixels"},
    {"binarization": "none"},
)


def numbered(count, first=0, shape=SHAPE):
    """Images that carry their number in the first pixel."""
    images = np.random.RandomState(1).randint(0, 256, (count, *shape)).astype(np.uint8)
    images[:, 0, 0, 0] = first + np.arange(count)
    return images


def store(directory, name, images, image_feature, label=False):
    """Writes a TFDS data set with these splits; a label is the number of its image."""
    features = {"image": image_feature}
    features |= {"label": tfds.features.ClassLabel(num_classes=300)} if label else {}
    splits = {
        split: [
            (i, {"image": image} | ({"label": int(image.flat[0])} if label else {}))
            for i, image in enumerate(array)
        ]
        for split, array in images.items()
    }
    folder, features = str(directory), tfds.features.FeaturesDict(features)
    tfds.dataset_builders.store_as_tfds_dataset(
        name=name, version="1.0.0", features=features, split_datasets=splits, data_dir=folder
    )


def tensor(dtype, shape=SHAPE):
    return tfds.features.Tensor(shape=shape, dtype=dtype)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A data directory with small sets of several names and kinds."""
    path = tmp_path_factory.mktemp("tfds")
    images = {"train": numbered(TRAIN), "test": numbered(TEST, 100)}
    store(path, "mnist", images, tensor(np.uint8), label=True)
    store(path, "plain", images, tensor(np.uint8))
    for name, feature, change in (
        ("binarized_mnist", tensor(np.uint8), lambda a: a // 128),
        ("floats", tensor(np.float32), lambda a: a / np.float32(255)),
        ("wide", tensor(np.float32), lambda a: a.astype(np.float32)),
        ("flat", tensor(np.uint8, SHAPE[:2]), lambda a: a[..., 0]),
        ("whole", tensor(np.int32), lambda a: a.astype(np.int32)),
        ("varying", tfds.features.Image(shape=(None, None, 1)), lambda a: a),
    ):
        store(path, name, {split: change(array) for split, array in images.items()}, feature)
    coloured = {"train": numbered(TRAIN, 0, COLOUR), "test": numbered(TEST, 100, COLOUR)}
    coloured["extra"] = numbered(5, 50, COLOUR)
    store(path, "no_name_of_tfds", coloured, tfds.features.Image(shape=COLOUR), label=True)
    return path


@pytest.fixture(params=["memory", pytest.param("streamed", marks=pytest.mark.slow)])
def kind(request, monkeypatch):
    """Runs a test with images in memory, and streamed in blocks of eight."""
    if request.param == "streamed":
        monkeypatch.setattr(tfds_reader, "MEMORY_BYTES", 100)
        monkeypatch.setattr(batching, "SHUFFLE_BYTES", 8 * 12)
    return request.param


@functools.cache
def loaded(config, split, _memory_bytes):
    return loading.load(config, split)


def load(directory, split="train", name="plain", **settings):
    """The split, read once for all tests, in memory or streamed."""
    config = DataConfig(name=name, dir=str(directory), **settings)
    return loaded(config, split, tfds_reader.MEMORY_BYTES)


def numbers(x):
    """The number that each image of a batch carries."""
    return np.rint(np.asarray(x)[:, 0, 0, 0] * 255).astype(int)


def take(dataset, count):
    """The first batches as nested arrays, one entry per batch."""
    return [tf.nest.map_structure(lambda t: t.numpy(), batch) for batch in dataset.take(count)]


def evaluated(split, batch_size=4, indices=None):
    """One pass of `x` as one array."""
    batches = take(split.evaluation_dataset(batch_size, indices), -1)
    return np.concatenate([b["image"] if isinstance(b, dict) else b for b in batches])


def evaluated_pairs(split, batch_size=4, indices=None):
    """One pass of images and masks as two arrays."""
    batches = take(split.evaluation_dataset(batch_size, indices), -1)
    return [np.concatenate([batch[key] for batch in batches]) for key in ("image", "mask")]


def assert_equal(one, other):
    tf.nest.map_structure(np.testing.assert_array_equal, one, other)


# Order.


def test_every_image_is_seen_once_per_epoch_in_another_order(directory, kind):
    batches = take(load(directory).training_dataset(7, seed=5), 23)
    assert {batch.shape for batch in batches} == {(7, *SHAPE)}
    order = numbers(np.concatenate(batches)).reshape(7, TRAIN)
    assert all(sorted(epoch) == list(range(TRAIN)) for epoch in order.tolist())
    assert len(np.unique(order, axis=0)) == 7
    stored = numbered(TRAIN)[order.ravel()] / np.float32(255)
    np.testing.assert_array_equal(np.concatenate(batches), stored)
    if kind == "memory":  # Starting late costs nothing.
        assert len(take(load(directory).training_dataset(7, seed=5, first_step=10**9), 1)) == 1


@pytest.mark.slow
def test_a_batch_is_a_function_of_seed_and_step_alone(directory, kind):
    for settings in DRAWN:
        split = load(directory, **settings)
        tf.random.set_seed(1)
        whole = take(split.training_dataset(7, seed=5), 7)
        tf.random.set_seed(2)
        assert_equal(take(split.training_dataset(7, seed=5, first_step=4), 3), whole[4:])
        (other,) = take(split.training_dataset(7, seed=5 + 2**31), 1)
        for one, two in zip(tf.nest.flatten(whole[0]), tf.nest.flatten(other), strict=True):
            assert not np.array_equal(one, two)


def test_evaluation_keeps_the_order_asked_for(directory, kind):
    split = load(directory, "test")
    every = evaluated(split)
    assert sorted(numbers(every)) == list(range(100, 100 + TEST))
    assert [len(x) for x in split.evaluation_dataset(4)] == [4, 4, 1]
    np.testing.assert_array_equal(evaluated(split, 2, [8, 2, 2, 0]), every[[8, 2, 2, 0]])


# Draws.


@pytest.mark.slow
def test_draws_are_made_anew_each_time_training_sees_an_image(directory):
    grey = numbered(TRAIN) / 255.0
    dataset = load(directory, binarization="dynamic").training_dataset(TRAIN, seed=5)
    x = np.concatenate(take(dataset, 100))
    assert set(np.unique(x)) == {0.0, 1.0}
    # Every image is seen 100 times: the mean of the draws approaches the intensities.
    np.testing.assert_allclose(x.mean(0), grey.mean(0), atol=5 * 0.5 / np.sqrt(len(x)))
    split = load(directory, dequantize=True)
    x = np.concatenate(take(split.training_dataset(TRAIN, seed=5), 100))
    values = np.floor(256 * x)
    np.testing.assert_array_equal(values, numbered(TRAIN)[values[:, 0, 0, 0].astype(int)])
    noise = 256 * x - values
    assert len(np.unique(noise[:, 1, 1, 0])) > 0.95 * len(x)
    np.testing.assert_allclose(noise.mean(0), 0.5, atol=5 * np.sqrt(1 / 12 / len(x)))


@pytest.mark.slow
def test_the_draw_for_evaluation_is_one_for_each_image(directory, kind):
    for settings in DRAWN[:2]:
        split = load(directory, "test", draw_seed=3, **settings)
        every, masks = evaluated_pairs(split)
        if split.dequantized:
            order = np.argsort(every[:, 0, 0, 0])
            np.testing.assert_array_equal(np.floor(256 * every[order]), numbered(TEST, 100))
        else:
            assert set(np.unique(every)) == {0.0, 1.0}
        assert len(np.unique(masks.reshape(TEST, -1), axis=0)) > 3
        for size, indices in ((2, np.arange(TEST)), (5, [8, 2, 2, 0, 7, 3])):
            assert_equal(evaluated_pairs(split, size, indices), [every[indices], masks[indices]])
        other = evaluated_pairs(load(directory, "test", draw_seed=4, **settings))
        assert not np.array_equal(every, other[0]) and not np.array_equal(masks, other[1])


@pytest.mark.slow
def test_the_draws_of_validation_are_not_those_of_the_test_split(directory):
    grey = MemoryImages(np.full((50, *SHAPE), 128, np.uint8))
    for settings in DRAWN[:2]:
        names = ("validation", "test")
        splits = [load(directory, name, validation_images=9, **settings) for name in names]
        draws = [evaluated_pairs(dataclasses.replace(split, images=grey)) for split in splits]
        for one, other in zip(*draws, strict=True):
            assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.3


def test_threshold_floats_and_fixed_binarization_have_no_draws(directory, kind):
    plain = evaluated(load(directory))
    x = evaluated(load(directory, binarization="threshold"))
    np.testing.assert_array_equal(x, plain > 0.5)
    x = evaluated(load(directory, name="floats"))
    np.testing.assert_allclose(x[np.argsort(numbers(x))], numbered(TRAIN) / 255.0, rtol=1e-6)
    split = load(directory, name="binarized_mnist")
    (x,) = take(split.training_dataset(TRAIN, seed=0), 1)
    for images in (evaluated(split), x):
        assert set(np.unique(images)) == {0.0, 1.0}
        assert images.sum() == (numbered(TRAIN) // 128).sum()


# Masks.


def test_masks_leave_the_images_as_they_are_without(directory, kind):
    for settings in DRAWN[:2]:
        plain = {key: settings[key] for key in ("binarization", "dequantize") if key in settings}
        masked, whole = load(directory, **settings), load(directory, **plain)
        assert whole.mask_record is None and masked.mask_record["kind"] == settings["mask"]
        dataset = masked.training_dataset(7, seed=5, first_step=2)
        assert dataset.element_spec == {
            "image": tf.TensorSpec([7, *SHAPE], tf.float32),
            "mask": tf.TensorSpec([7, *SHAPE[:2], 1], tf.float32),
        }
        images = [batch["image"] for batch in take(dataset, 3)]
        assert_equal(images, take(whole.training_dataset(7, seed=5, first_step=2), 3))
        np.testing.assert_array_equal(evaluated(masked), evaluated(whole))


@pytest.mark.slow
def test_training_masks_are_drawn_anew_each_time_an_image_is_seen(directory):
    for settings, count in ((OCCLUDERS, 40), ({"mask": "pixels"}, 40), ({"mask": "quadrants"}, 1)):
        batches = take(load(directory, **settings).training_dataset(TRAIN, seed=5), 40)
        masks = np.stack([batch["mask"] for batch in batches])
        assert len(np.unique(masks.reshape(40, -1), axis=0)) == count
        assert (masks == 0).any((2, 3, 4)).all()


def test_masks_have_no_trace_of_the_draws_of_binarization(directory):
    # With the noise of the binarization itself, every known pixel would be on.
    split = load(directory, mask="pixels", binarization="dynamic")
    batches = take(split.training_dataset(TRAIN, seed=5), 100)
    images, known = (np.stack([batch[key] for batch in batches]) for key in ("image", "mask"))
    expected, error = (numbered(TRAIN) / 255.0).mean(), 0.5 / np.sqrt(images.size / 2)
    assert images[known == 1].mean() == pytest.approx(expected, abs=4 * error)
    assert images[known == 0].mean() == pytest.approx(expected, abs=4 * error)
    images, known = evaluated_pairs(split)
    assert abs(np.corrcoef(images.ravel(), known.ravel())[0, 1]) < 4 / np.sqrt(images.size)


# Splits and sets.


def test_validation_is_cut_from_the_end_of_train(directory, kind):
    every = evaluated(load(directory))
    train = evaluated(load(directory, validation_images=5))
    validation = evaluated(load(directory, "validation", validation_images=5))
    np.testing.assert_array_equal(np.concatenate([train, validation]), every)
    assert len(validation) == 5
    (x,) = take(load(directory, validation_images=5).training_dataset(18, seed=0), 1)
    assert sorted(numbers(x)) == sorted(numbers(train))
    test = evaluated(load(directory, "test", validation_images=5))
    assert sorted(numbers(test)) == list(range(100, 100 + TEST))


def test_splits_can_be_any_that_tfds_understands(directory):
    split = load(directory, train_split="train[:10]+test[:50%]", test_split="train[10:]")
    assert split.num_images == 10 + TEST // 2
    assert load(directory, "test", test_split="test[5:]").num_images == TEST - 5


def test_any_colour_set_is_loaded_by_its_name(directory, kind):
    split = load(directory, name="no_name_of_tfds", train_split="train+extra")
    assert (split.num_images, split.image_shape) == (TRAIN + 5, COLOUR)
    x = evaluated(load(directory, name="no_name_of_tfds"))
    expected = numbered(TRAIN, 0, COLOUR) / np.float32(255)
    np.testing.assert_array_equal(x[np.argsort(numbers(x))], expected)
    (batch,) = take(split.training_dataset(TRAIN + 5, seed=0), 1)
    assert sorted(numbers(batch)) == [*range(TRAIN), *range(50, 55)]
    if kind == "memory":
        np.testing.assert_array_equal(split.labels, split.images.array[:, 0, 0, 0])


def test_a_split_knows_whether_its_images_are_8_bit(directory):
    for name, settings, expected in (
        ("plain", {}, True),
        ("no_name_of_tfds", {}, True),
        ("mnist", {"binarization": "none"}, True),
        ("mnist", {}, False),
        ("plain", {"binarization": "threshold"}, False),
        ("plain", {"dequantize": True}, False),
        ("binarized_mnist", {}, False),
        ("floats", {}, False),
    ):
        split = load(directory, name=name, **settings)
        assert split.eight_bit == expected and split.dequantized == ("dequantize" in settings)
        if expected:
            x = evaluated(split)
            np.testing.assert_array_equal(x, np.rint(x * 255).astype(np.float32) / np.float32(255))


def test_a_set_that_is_prepared_again_is_read_again(tmp_path):
    for first in (0, 100):
        images = {"train": numbered(3, first), "test": numbered(3, 50)}
        store(tmp_path / str(first), "plain", images, tensor(np.uint8))
    current = tmp_path / "current"
    (tmp_path / "0").rename(current)
    config = DataConfig(name="plain", dir=str(current))
    assert sorted(numbers(evaluated(loading.load(config, "train")))) == [0, 1, 2]
    current.rename(tmp_path / "old")
    (tmp_path / "100").rename(current)
    assert sorted(numbers(evaluated(loading.load(config, "train")))) == [100, 101, 102]


# Errors.


def refused(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_data_sets_that_cannot_be_used_are_refused(directory, tmp_path):
    grey = {"train": numbered(3), "test": numbered(3)}
    store(tmp_path, "binarized_mnist", grey, tensor(np.uint8))
    for settings, message in (
        ({"train_split": "tain"}, "plain has no split 'tain'; it has train, test"),
        ({"test_split": "train[20:]"}, r"'train' and 'train\[20:\]' of plain share images"),
        ({"train_split": "train[10:10]"}, r"the split 'train\[10:10\]' of plain is empty"),
        ({"train_split": "train[30:]"}, r"plain has no split 'train\[30:\]'; it has train, test"),
        ({"validation_images": 23}, "must be below the 23 images of plain train; got 23"),
        ({"name": "flat"}, r"`image` of flat must be uint8 or float \[H, W, C\].*uint8 \[3, 4\]"),
        ({"name": "whole"}, "`image` of whole must be uint8 or float .* got int32"),
        ({"name": "wide"}, r"images of wide must lie in \[0, 1\]; got 0.0 to 255"),
        ({"name": "binarized_mnist", "dir": str(tmp_path)}, r"must lie in \[0, 1\]; got 0 to"),
        ({"name": "varying"}, "images of varying vary in size; add --data.image_size=HEIGHT,WIDTH"),
        ({"name": "floats", "dequantize": True}, "8-bit images; .* floats are stored as float32"),
        ({"name": "binarized_mnist", "dequantize": True}, "binarized_mnist have the values 0 to 1"),
        ({"name": "mnist", "dequantize": True}, "mnist has .* dynamic .* --data.binarization=none"),
        ({"name": "digits", "image_size": (8, 8)}, "stored as intensities; digits is embedded at"),
        ({"name": "binarized_mnist", "image_size": (8, 8)}, "binarized_mnist has binary images"),
        ({"name": "digits", "train_split": "train[:9]"}, "digits has the splits train and test on"),
        ({"mask": "occluders"}, "occluder_size must fit into the images' 3x4 pixels; got 20x20"),
        ({"mask": "file", "mask_file": "/no/mask.png"}, "mask_file /no/mask.png: it cannot be"),
    ):
        config = DataConfig(**({"name": "plain", "dir": str(directory)} | settings))
        refused(lambda config=config: loading.load(config, "train"), message)


def test_missing_data_is_an_error_that_says_what_to_run(tmp_path):
    for name, message in (
        ("mnist", "run: matnet prepare --data.name=mnist --source=DIR --data.dir={dir}$"),
        ("image_folder", "--data.name=image_folder --source=DIR --data.dir={dir}$"),
        ("svhn_cropped", "run: matnet prepare --data.name=svhn_cropped --data.dir={dir}$"),
        ("mnits", "TFDS has no data set of that name; did you mean mnist\\?$"),
    ):
        refused(lambda name=name: load(tmp_path, name=name), message.format(dir=tmp_path))


def test_images_that_do_not_suit_the_model_are_refused():
    plain = {"binarization": "none"}
    for settings, model, message in (
        ({}, {"image_shape": (4, 8, 1)}, r"digits have shape \(8, 8, 1\), but .* is \(4, 8, 1\)"),
        ({}, {"likelihood": "logistic"}, "requires 8-bit images .* digits are binary or real$"),
        (plain | {"dequantize": True}, {"likelihood": "logistic_mixture"}, "are dequantized$"),
        (plain, {"likelihood": "normal"}, "8-bit images of digits: add --data.dequantize$"),
        ({}, {"likelihood": "normal"}, "digits: add --model.likelihood=bernoulli$"),
        (plain, {}, "bernoulli requires images of 0 and 1; those of digits are 8-bit: add"),
    ):
        config = ModelConfig(**{"image_shape": (8, 8, 1), "scales": (Scale(1, 4, 1, 1),)} | model)
        refused(lambda m=config, d=settings: loading.load_for(m, DataConfig(**d), "train"), message)


def test_arguments_out_of_range_are_refused():
    split = loading.load(DataConfig(), "test")
    for call, message in (
        (lambda: loading.load(DataConfig(), "tset"), "split must be one of .*; got 'tset'"),
        (lambda: loading.load(DataConfig(), "validation"), "validation_images is 0"),
        (lambda: split.training_dataset(0, 0), "batch_size must be at least 1; got 0"),
        (lambda: split.training_dataset(4, 0, -1), "first_step must be at least 0; got -1"),
        (lambda: split.training_dataset(4, -1), "seed must be at least 0; got -1"),
        (lambda: split.evaluation_dataset(0), "batch_size must be at least 1; got 0"),
        (lambda: split.evaluation_dataset(4, []), "at least one integer; got float64"),
        (lambda: split.evaluation_dataset(4, [0.5]), "at least one integer; got float64"),
        (lambda: split.evaluation_dataset(4, [0, 297]), r"must lie in \[0, 296\]; got 0 to 297"),
    ):
        refused(call, message)
