# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Splits: which images, in which order, and how they become `x`."""

import dataclasses
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
SHAPE = (3, 4, 1)


def numbered(count, first=0):
    """Images that carry their number in the first two pixels."""
    images = np.random.RandomState(1).randint(0, 256, (count, *SHAPE)).astype(np.uint8)
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
    return path


@pytest.fixture(params=["memory", "streamed"])
def kind(request, monkeypatch):
    """Runs a test with images in memory, and streamed in blocks of eight."""
    if request.param == "streamed":
        monkeypatch.setattr(reading, "MEMORY_BYTES", 100)
        monkeypatch.setattr("matnet_tf.datasets.images.SHUFFLE_BYTES", 8 * 12)
    return request.param


def load(directory, split="train", name="plain", **settings):
    return data.load(DataConfig(name=name, dir=str(directory), **settings), split)


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


@pytest.mark.parametrize("first_step", [3, 50])
def test_training_continues_at_any_step_as_if_it_had_run_to_there(directory, kind, first_step):
    split = load(directory, binarization="dynamic")
    whole = take(split.training_dataset(7, seed=5), first_step + 3)
    later = take(split.training_dataset(7, seed=5, first_step=first_step), 3)
    np.testing.assert_array_equal(whole[first_step:], later)


def test_order_and_noise_follow_the_seed_and_no_global_one(directory, kind):
    split = load(directory, binarization="dynamic")
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


def test_dynamic_binarization_for_evaluation_is_one_draw_for_each_image(directory, kind):
    split = load(directory, "test", binarization="dynamic", binarization_seed=3)
    every = evaluated(split)
    assert set(np.unique(every)) == {0.0, 1.0}
    np.testing.assert_array_equal(every, evaluated(split, batch_size=2))
    np.testing.assert_array_equal(every[[8, 2]], evaluated(split, 2, [8, 2]))
    other = load(directory, "test", binarization="dynamic", binarization_seed=4)
    assert not np.array_equal(every, evaluated(other))


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
        ({"name": "varying"}, "images of varying vary in size; .* --size=HxW"),
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
        ("cifar10", "run: bin/prepare --data.name=cifar10 --data.dir={dir}$"),
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
    assert sorted(numbers(evaluated(load(current)))) == [0, 1, 2]
    current.rename(tmp_path / "old")
    (tmp_path / "100").rename(current)
    assert sorted(numbers(evaluated(load(current)))) == [100, 101, 102]


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
