# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Splits: which images, in which order, and how they become `x`."""

import dataclasses
import functools
import itertools
import time

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from matnet_tf import data
from matnet_tf.config import DataConfig
from matnet_tf.datasets import MemoryImages, reading

tfds.disable_progress_bar()
TRAIN, TEST = 23, 9
SHAPE, COLOUR = (3, 4, 1), (5, 4, 3)

# The two ways in which `x` is drawn from the stored images, and the two in which they are stored.
DRAWN = {"binary": {"binarization": "dynamic"}, "dequantized": {"dequantize": True}}
SLOW_TO_DRAW = [("memory", "dequantized"), ("streamed", "binary")]
drawn = pytest.mark.parametrize(
    ("kind", "settings"),
    [
        pytest.param(
            kind,
            DRAWN[draw],
            id=f"{kind}-{draw}",
            marks=[pytest.mark.slow] if (kind, draw) in SLOW_TO_DRAW else [],
        )
        for kind in ("memory", "streamed")
        for draw in DRAWN
    ],
    indirect=["kind"],
)


def numbered(count, first=0, shape=SHAPE):
    """Images that carry their number in the first pixel."""
    images = np.random.RandomState(1).randint(0, 256, (count, *shape)).astype(np.uint8)
    images[:, 0, 0, 0] = first + np.arange(count)
    return images


def store(directory, name, images, image_feature, **labels):
    """Writes a TFDS data set of the given splits."""
    features = {"image": image_feature}
    features |= {key: tfds.features.ClassLabel(num_classes=300) for key in labels}
    splits = {
        split: [
            (i, {"image": image, **{key: int(image.flat[0]) for key in labels}})
            for i, image in enumerate(array)
        ]
        for split, array in images.items()
    }
    tfds.dataset_builders.store_as_tfds_dataset(
        name=name,
        version="1.0.0",
        features=tfds.features.FeaturesDict(features),
        split_datasets=splits,
        data_dir=str(directory),
    )


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A data directory with small sets under several names."""
    path = tmp_path_factory.mktemp("tfds")
    images = {"train": numbered(TRAIN), "test": numbered(TEST, 100)}
    grey = tfds.features.Tensor(shape=SHAPE, dtype=np.uint8)
    store(path, "mnist", images, grey, label=True)
    store(path, "plain", images, grey)
    binary = {split: array // 128 for split, array in images.items()}
    store(path, "binarized_mnist", binary, grey)
    floats = tfds.features.Tensor(shape=SHAPE, dtype=np.float32)
    store(path, "floats", {s: a / np.float32(255) for s, a in images.items()}, floats)
    store(path, "wide", {s: a.astype(np.float32) for s, a in images.items()}, floats)
    flat = tfds.features.Tensor(shape=SHAPE[:2], dtype=np.uint8)
    store(path, "flat", {s: a[..., 0] for s, a in images.items()}, flat)
    whole = tfds.features.Tensor(shape=SHAPE, dtype=np.int32)
    store(path, "whole", {s: a.astype(np.int32) for s, a in images.items()}, whole)
    varying = tfds.features.Image(shape=(None, None, 1))
    store(path, "varying", images, varying)
    colour = tfds.features.Image(shape=COLOUR)
    coloured = {"train": numbered(TRAIN, 0, COLOUR), "test": numbered(TEST, 100, COLOUR)}
    for name in ("svhn_cropped", "no_name_of_tfds"):
        store(path, name, coloured | {"extra": numbered(5, 50, COLOUR)}, colour, label=True)
    return path


# Where it is another test's business that streamed images are those in memory.
mostly_in_memory = pytest.mark.parametrize(
    "kind", ["memory", pytest.param("streamed", marks=pytest.mark.slow)], indirect=True
)


@pytest.fixture(params=["memory", "streamed"])
def kind(request, monkeypatch):
    """Runs a test with images in memory, and streamed in blocks of eight."""
    if request.param == "streamed":
        monkeypatch.setattr(reading, "MEMORY_BYTES", 100)
        monkeypatch.setattr("matnet_tf.datasets.images.SHUFFLE_BYTES", 8 * 12)
    return request.param


@functools.cache
def loaded(config, split, _memory_bytes):
    return data.load(config, split)


def load(directory, split="train", name="plain", **settings):
    """The split, which is read once for all tests that have it in memory, or streamed."""
    config = DataConfig(name=name, dir=str(directory), **settings)
    return loaded(config, split, reading.MEMORY_BYTES)


def numbers(x):
    """The number that each image of a batch carries."""
    return np.rint(np.asarray(x)[:, 0, 0, 0] * 255).astype(int)


def take(dataset, count):
    return [x.numpy() for x in dataset.take(count)]


def evaluated(split, batch_size=4, indices=None):
    return np.concatenate([x.numpy() for x in split.evaluation_dataset(batch_size, indices)])


def test_a_split_knows_its_images(directory, kind):
    split = load(directory, name="mnist")
    assert (split.name, split.num_images, split.image_shape) == ("train", TRAIN, SHAPE)
    assert split.binarization == "dynamic"
    if kind == "memory":
        np.testing.assert_array_equal(split.labels, split.images.array[:, 0, 0, 0])
    else:
        assert split.labels is None


def test_evaluation_gives_every_image_once_as_it_was_stored(directory, kind):
    x = evaluated(load(directory))
    assert x.dtype == np.float32
    order = np.argsort(numbers(x))
    np.testing.assert_allclose(x[order], numbered(TRAIN) / 255.0, rtol=1e-6)


def test_the_last_evaluation_batch_is_smaller(directory):
    sizes = [len(x) for x in load(directory, "test").evaluation_dataset(4)]
    assert sizes == [4, 4, 1]


def test_evaluation_takes_given_indices_in_their_order(directory, kind):
    split = load(directory)
    every, indices = evaluated(split), [20, 3, 3, 0, 22]
    np.testing.assert_array_equal(evaluated(split, 2, indices), every[indices])


def test_every_epoch_shows_every_image_once_and_batches_run_on(directory, kind):
    batches = take(load(directory).training_dataset(7, seed=5), 23)
    assert {x.shape for x in batches} == {(7, *SHAPE)}
    epochs = numbers(np.concatenate(batches)).reshape(7, TRAIN)
    for epoch in epochs:
        assert sorted(epoch) == list(range(TRAIN))
    assert len({tuple(epoch) for epoch in epochs}) == 7


def test_a_batch_may_be_larger_than_the_split(directory):
    (batch,) = take(load(directory, "test").training_dataset(20, seed=5), 1)
    counts = np.bincount(numbers(batch) - 100)
    assert counts.sum() == 20 and set(counts) == {2, 3}


@drawn
@pytest.mark.parametrize("first_step", [3, 50])
def test_training_continues_at_any_step_as_if_it_had_run_to_there(
    directory, kind, first_step, settings
):
    split = load(directory, **settings)
    whole = take(split.training_dataset(7, seed=5), first_step + 3)
    later = take(split.training_dataset(7, seed=5, first_step=first_step), 3)
    np.testing.assert_array_equal(whole[first_step:], later)


@drawn
def test_order_and_noise_follow_the_seed_and_no_global_one(directory, kind, settings):
    split = load(directory, **settings)
    tf.random.set_seed(1)
    first = take(split.training_dataset(7, seed=5), 4)
    tf.random.set_seed(2)
    np.testing.assert_array_equal(first, take(split.training_dataset(7, seed=5), 4))
    assert not np.array_equal(first, take(split.training_dataset(7, seed=6), 4))
    assert not np.array_equal(first, take(split.training_dataset(7, seed=5 + 2**31), 4))


def test_starting_late_costs_nothing_in_memory(directory):
    start = time.monotonic()
    (x,) = take(load(directory).training_dataset(7, seed=5, first_step=10**9), 1)
    assert x.shape == (7, *SHAPE) and time.monotonic() - start < 5


def test_dynamic_binarization_is_drawn_anew_each_time_an_image_is_seen(directory):
    split = load(directory, binarization="dynamic")
    x = np.concatenate(take(split.training_dataset(TRAIN, seed=5), 200))
    assert set(np.unique(x)) == {0.0, 1.0}
    mean = numbered(TRAIN).mean(0) / 255.0
    # Every image is seen 200 times: the mean of the draws approaches the intensities.
    np.testing.assert_allclose(x.mean(0), mean, atol=5 * 0.5 / np.sqrt(len(x)))


@mostly_in_memory
def test_the_noise_of_dequantization_is_drawn_anew_each_time_an_image_is_seen(directory, kind):
    split = load(directory, dequantize=True)
    assert split.dequantized and not split.eight_bit
    x = np.concatenate(take(split.training_dataset(TRAIN, seed=5), 100))
    values = np.floor(256 * x)
    stored = numbered(TRAIN)
    # Every image is seen 100 times, and every time its 8-bit values are those that are stored.
    np.testing.assert_array_equal(values, stored[values[:, 0, 0, 0].astype(int)])
    noise = 256 * x - values
    assert len(np.unique(noise[:, 1, 1, 0])) > 0.95 * len(x)
    np.testing.assert_allclose(noise.mean(0), 0.5, atol=5 * np.sqrt(1 / 12 / len(x)))


@drawn
def test_the_draw_for_evaluation_is_one_for_each_image(directory, kind, settings):
    split = load(directory, "test", draw_seed=3, **settings)
    every = evaluated(split)
    if split.dequantized:
        order = np.argsort(every[:, 0, 0, 0])
        np.testing.assert_array_equal(np.floor(256 * every[order]), numbered(TEST, 100))
    else:
        assert set(np.unique(every)) == {0.0, 1.0}
    np.testing.assert_array_equal(every, evaluated(split, batch_size=2))
    np.testing.assert_array_equal(every[[8, 2]], evaluated(split, 2, [8, 2]))
    other = load(directory, "test", draw_seed=4, **settings)
    assert not np.array_equal(every, evaluated(other))


@mostly_in_memory
@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("plain", {}, True),
        ("svhn_cropped", {}, True),
        ("mnist", {"binarization": "none"}, True),
        ("mnist", {}, False),
        ("plain", {"binarization": "threshold"}, False),
        ("plain", {"dequantize": True}, False),
        ("binarized_mnist", {}, False),
        ("floats", {}, False),
    ],
)
def test_a_split_knows_whether_its_images_are_8_bit(directory, kind, name, settings, expected):
    split = load(directory, name=name, **settings)
    assert split.eight_bit == expected
    assert split.dequantized == ("dequantize" in settings)
    if expected:
        x = evaluated(split)
        np.testing.assert_array_equal(x, np.rint(x * 255).astype(np.float32) / np.float32(255))


@mostly_in_memory
@pytest.mark.parametrize("name", ["svhn_cropped", "no_name_of_tfds"])
def test_any_colour_set_is_loaded_by_its_name(directory, kind, name):
    split = load(directory, name=name, train_split="train+extra")
    assert (split.num_images, split.image_shape) == (TRAIN + 5, COLOUR)
    x = evaluated(load(directory, name=name))
    expected = numbered(TRAIN, 0, COLOUR) / np.float32(255)
    np.testing.assert_array_equal(x[np.argsort(numbers(x))], expected)
    (batch,) = take(split.training_dataset(TRAIN + 5, seed=0), 1)
    assert sorted(numbers(batch)) == [*range(TRAIN), *range(50, 55)]
    if kind == "memory":
        np.testing.assert_array_equal(split.labels, split.images.array[:, 0, 0, 0])


def test_threshold_is_one_above_one_half(directory):
    plain = evaluated(load(directory))
    x = evaluated(load(directory, binarization="threshold"))
    np.testing.assert_array_equal(x, plain > 0.5)


def test_zeros_and_ones_of_the_fixed_binarization_stay_so(directory, kind):
    split = load(directory, name="binarized_mnist")
    assert split.binarization == "none"
    (x,) = take(split.training_dataset(TRAIN, seed=0), 1)
    for images in (evaluated(split), x):
        assert set(np.unique(images)) == {0.0, 1.0}
        assert images.sum() == (numbered(TRAIN) // 128).sum()


def test_float_images_in_0_to_1_are_taken_as_they_are(directory):
    x = evaluated(load(directory, name="floats"))
    np.testing.assert_allclose(x[np.argsort(numbers(x))], numbered(TRAIN) / 255.0, rtol=1e-6)


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


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train_split": "tain"}, "plain has no split 'tain'; it has train, test"),
        ({"test_split": "train[20:]"}, r"'train' and 'train\[20:\]' of plain share images"),
        ({"train_split": "train[10:10]"}, r"the split 'train\[10:10\]' of plain is empty"),
        ({"train_split": "train[30:]"}, r"plain has no split 'train\[30:\]'; it has train, test"),
        ({"validation_images": 23}, "must be below the 23 images of plain train; got 23"),
        ({"name": "flat"}, r"`image` of flat must be uint8 or float \[H, W, C\].*uint8 \[3, 4\]"),
        ({"name": "whole"}, "`image` of whole must be uint8 or float .* got int32"),
        ({"name": "wide"}, r"images of wide must lie in \[0, 1\].* to 255"),
        ({"name": "varying"}, "images of varying vary in size; add --data.image_size="),
        ({"name": "floats", "dequantize": True}, "8-bit images; .* floats are stored as float32"),
        ({"name": "binarized_mnist", "dequantize": True}, "binarized_mnist have the values 0 to 1"),
        ({"name": "mnist", "dequantize": True}, "mnist is dynamic .* --data.binarization=none"),
    ],
)
def test_what_cannot_be_trained_on_is_refused_in_one_line(directory, settings, message):
    with pytest.raises(ValueError, match=message) as caught:
        load(directory, **settings)
    assert "\n" not in str(caught.value)


def test_a_binarized_set_with_other_values_is_refused(tmp_path):
    grey = tfds.features.Tensor(shape=SHAPE, dtype=np.uint8)
    images = {"train": numbered(3), "test": numbered(3)}
    store(tmp_path, "binarized_mnist", images, grey)
    with pytest.raises(ValueError, match=r"images of binarized_mnist must lie in \[0, 1\]"):
        load(tmp_path, name="binarized_mnist")


def test_a_set_without_images_is_refused(tmp_path):
    tfds.dataset_builders.store_as_tfds_dataset(
        name="letters",
        version="1.0.0",
        features=tfds.features.FeaturesDict({"letter": tfds.features.Scalar(np.int64)}),
        split_datasets={s: [(0, {"letter": 1})] for s in ("train", "test")},
        data_dir=str(tmp_path),
    )
    with pytest.raises(ValueError, match="letters has no feature `image`; it has letter"):
        load(tmp_path, name="letters")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mnist", "run: bin/prepare --data.name=mnist --source=DIR --data.dir={dir}$"),
        ("image_folder", "--data.name=image_folder --source=DIR --data.dir={dir}$"),
        ("cifar10", "run: bin/prepare --data.name=cifar10 --source=DIR --data.dir={dir}$"),
        ("svhn_cropped", "run: bin/prepare --data.name=svhn_cropped --data.dir={dir}$"),
        ("mnits", "neither is it a name of TFDS; did you mean mnist\\?$"),
    ],
)
def test_missing_data_is_an_error_at_once_that_says_what_to_run(tmp_path, name, message):
    start = time.monotonic()
    with pytest.raises(ValueError, match=message.format(dir=tmp_path)) as caught:
        load(tmp_path, name=name)
    assert time.monotonic() - start < 3 and "\n" not in str(caught.value)


def test_a_set_that_is_prepared_again_is_read_again(tmp_path):
    grey = tfds.features.Tensor(shape=SHAPE, dtype=np.uint8)
    for first in (0, 100):
        images = {"train": numbered(3, first), "test": numbered(3, 50)}
        store(tmp_path / str(first), "plain", images, grey)
    current = tmp_path / "current"
    (tmp_path / "0").rename(current)
    config = DataConfig(name="plain", dir=str(current))
    assert sorted(numbers(evaluated(data.load(config, "train")))) == [0, 1, 2]
    current.rename(tmp_path / "old")
    (tmp_path / "100").rename(current)
    assert sorted(numbers(evaluated(data.load(config, "train")))) == [100, 101, 102]


def test_the_order_has_no_trace_of_the_stored_one():
    split = data.load(DataConfig(binarization="none"), "train")
    split = dataclasses.replace(split, images=MemoryImages(np.arange(1000.0).reshape(-1, 1, 1, 1)))
    epochs = np.concatenate(take(split.training_dataset(100, seed=0), 40)).reshape(4, 1000)
    # A random permutation's correlation with another is about 1 / sqrt(1000) = 0.03.
    for one, other in itertools.combinations([np.arange(1000.0), *epochs], 2):
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.13
        assert abs(np.corrcoef(one[1:], other[:-1])[0, 1]) < 0.13
    for epoch in epochs:
        assert abs(np.corrcoef(epoch[1:], epoch[:-1])[0, 1]) < 0.13
