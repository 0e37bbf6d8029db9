# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Images of any size, brought to one: against Pillow, and as data sets of the paper's names."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image
from source_files import pixels

from matnet_tf import data
from matnet_tf.config import DataConfig
from matnet_tf.datasets import importer, reading
from matnet_tf.datasets.resizing import resize

tfds.disable_progress_bar()


def central(image, height, width):
    """The central part of these sides."""
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


def by_pillow(part, size):
    """What Pillow makes of a part, channel by channel in the precision of floats."""
    channels = [Image.fromarray(np.float32(part[..., c])) for c in range(part.shape[2])]
    sides = (size[1], size[0])
    return np.stack([c.resize(sides, Image.Resampling.BILINEAR) for c in channels], axis=-1)


@pytest.mark.parametrize(
    ("shape", "size", "part"),
    [
        ((218, 178, 3), (64, 64), (178, 178)),
        ((30, 47, 3), (16, 16), (30, 30)),
        ((47, 30, 1), (16, 16), (30, 30)),
        # 40 * 7 / 10 = 28, and 31 * 10 / 7 = 44.3 columns of 50.
        ((40, 33, 3), (10, 7), (40, 28)),
        ((31, 50, 3), (7, 10), (31, 44)),
        # 25 * 8 / 12 = 16.7 rows of 40.
        ((40, 25, 3), (8, 12), (17, 25)),
        ((9, 5, 3), (20, 20), (5, 5)),
        ((3, 100, 3), (1, 50), (2, 100)),
        ((100, 1, 1), (2, 9), (1, 1)),
    ],
)
def test_the_largest_central_part_of_the_shape_is_resized(shape, size, part):
    image = pixels(1, shape)[0]
    found = resize(tf.constant(image), size)
    assert found.dtype == tf.uint8 and found.shape == (*size, shape[2])
    expected = by_pillow(central(image, *part), size)
    # Rounded to a whole number.
    np.testing.assert_allclose(found, expected, atol=0.5 + 1e-3)


def test_an_image_of_that_size_stays_as_it_is():
    for shape in ((8, 5, 3), (7, 7, 1)):
        image = pixels(1, shape)[0]
        np.testing.assert_array_equal(resize(tf.constant(image), shape[:2]), image)
        wider = np.concatenate([image[:, :1], image, image[:, :1]], axis=1)
        np.testing.assert_array_equal(resize(tf.constant(wider), shape[:2]), image)


def test_a_fine_pattern_that_shrinks_becomes_grey():
    rows, columns = np.indices([33, 33])
    image = np.uint8(255 * ((rows + columns) % 2))[..., None]
    assert np.ptp(resize(tf.constant(image), (8, 8))[1:-1, 1:-1]) <= 1


def test_floats_stay_floats_within_their_range():
    for seed in range(5):
        image = np.random.RandomState(seed).uniform(size=(37, 23, 3)).astype(np.float32)
        image[image > 0.3] = 1.0
        found = resize(tf.constant(image), (9, 9)).numpy()
        assert found.dtype == np.float32 and found.min() >= 0 and found.max() <= 1
        np.testing.assert_allclose(found, by_pillow(central(image, 23, 23), (9, 9)), atol=1e-5)
    white = np.ones([37, 23, 1], np.float32)
    np.testing.assert_array_equal(resize(tf.constant(white), (11, 13)), np.ones([11, 13, 1]))


# Data sets.


def varying(count, first):
    """Colour images of several sizes that carry their number in every pixel but the corner."""
    images = []
    for i in range(count):
        image = np.full([12 + 3 * i, 30 - 2 * i, 3], first + 10 * i, np.uint8)
        image[:1, :1] = 255
        images.append(image)
    return images


def store(directory, name, features, splits, config=None):
    examples = {
        split: [(i, {**rest, "image": image}) for i, (image, rest) in enumerate(rows)]
        for split, rows in splits.items()
    }
    builder = tfds.dataset_builders.AdhocBuilder(
        name=name,
        version="3.1.0",
        config=config,
        features=tfds.features.FeaturesDict(features),
        split_datasets=examples,
        data_dir=str(directory),
    )
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(try_download_gcs=False)
    )
    return builder.data_path


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A data directory with a few images under the names, and with the features, of TFDS's sets."""
    path = tmp_path_factory.mktemp("tfds")
    lsun = {"image": tfds.features.Image(shape=(None, None, 3)), "id": tfds.features.Text()}
    splits = {"train": varying(7, 100), "validation": varying(3, 10)}
    rows = {split: [(image, {"id": "a"}) for image in images] for split, images in splits.items()}
    for category in ("church_outdoor", "tower"):
        store(path, "lsun", lsun, rows, tfds.core.BuilderConfig(name=category))
    celeb_a = {
        "image": tfds.features.Image(shape=(218, 178, 3)),
        "attributes": {"Smiling": np.bool_},
        "landmarks": {"nose_x": np.int64},
    }
    rest = {"attributes": {"Smiling": True}, "landmarks": {"nose_x": 89}}
    faces = pixels(5, (218, 178, 3))
    rows = {"train": [(face, rest) for face in faces[:3]], "test": [(f, rest) for f in faces[3:]]}
    store(path, "celeb_a", celeb_a, rows)
    floats = {"image": tfds.features.Tensor(shape=(8, 6, 1), dtype=np.float32)}
    grey = pixels(3, (8, 6, 1)) / np.float32(255)
    store(path, "floats", floats, {split: [(x, {}) for x in grey] for split in ("train", "test")})
    return path


def load(directory, name, split="train", size=(12, 16), test_split="validation", **settings):
    config = DataConfig(
        name=name, dir=str(directory), image_size=size, test_split=test_split, **settings
    )
    return data.load(config, split)


@pytest.fixture(params=["memory", "streamed"])
def kind(request, monkeypatch):
    if request.param == "streamed":
        monkeypatch.setattr(reading, "MEMORY_BYTES", 100)
    return request.param


def evaluated(split):
    return np.concatenate([x.numpy() for x in split.evaluation_dataset(4)])


@pytest.mark.parametrize("name", ["lsun/church_outdoor", "lsun/tower"])
def test_images_of_varying_size_are_brought_to_one(directory, kind, name):
    split = load(directory, name, validation_images=2)
    assert (split.num_images, split.image_shape) == (5, (12, 16, 3))
    assert split.eight_bit and split.labels is None
    held_out = load(directory, name, "validation", validation_images=2)
    x = np.concatenate([evaluated(split), evaluated(held_out)])
    centres = np.rint(255 * x[:, 6, 8, 0]).astype(int)
    assert sorted(centres) == [100 + 10 * i for i in range(7)]
    (batch,) = split.training_dataset(5, seed=0).take(1)
    assert sorted(np.rint(255 * batch[:, 6, 8, 0])) == sorted(centres[:5])
    assert load(directory, name, "test").num_images == 3


def test_faces_are_cut_square_and_made_smaller(directory, kind):
    split = load(directory, "celeb_a", "test", (64, 64), "test")
    assert split.image_shape == (64, 64, 3) and split.labels is None
    faces = [by_pillow(central(face, 178, 178), (64, 64)) for face in pixels(5, (218, 178, 3))[3:]]
    by_sum = sorted(255 * evaluated(split), key=np.sum)
    np.testing.assert_allclose(by_sum, sorted(faces, key=np.sum), atol=0.5 + 1e-3)


def test_images_already_read_in_another_size_are_read_again(directory):
    for size in ((12, 16), (8, 8), (12, 16)):
        assert evaluated(load(directory, "celeb_a", "test", size, "test")).shape == (2, *size, 3)
    assert load(directory, "celeb_a", "test", (), "test").image_shape == (218, 178, 3)


def test_whether_images_fit_into_memory_is_a_question_of_their_new_size(directory, monkeypatch):
    monkeypatch.setattr(reading, "MEMORY_BYTES", 3 * 64 * 64 * 3)
    for size, expected in (((64, 64), "MemoryImages"), ((64, 65), "StreamedImages")):
        split = load(directory, "celeb_a", "train", size, "test")
        assert type(split.images).__name__ == expected
        assert evaluated(split).shape == (3, *size, 3)


def test_float_images_are_resized_too(directory):
    x = evaluated(load(directory, "floats", size=(4, 3), test_split="test"))
    assert x.shape == (3, 4, 3, 1)
    expected = [by_pillow(image / np.float32(255), (4, 3)) for image in pixels(3, (8, 6, 1))]
    ordered = sorted(x, key=np.sum), sorted(expected, key=np.sum)
    np.testing.assert_allclose(*ordered, atol=1e-6)


def test_images_of_varying_size_are_refused_without_a_size(directory):
    with pytest.raises(
        ValueError, match="images of lsun vary in size; add --data.image_size=HEIGHT,WIDTH"
    ):
        load(directory, "lsun/tower", size=())


@pytest.mark.parametrize(
    ("name", "reason"),
    [("digits", "digits is embedded at 8x8"), ("binarized_mnist", "binarized_mnist has binary")],
)
def test_images_that_resizing_would_spoil_are_refused(name, reason):
    with pytest.raises(ValueError, match=f"for sets that are stored with intensities; {reason}"):
        data.load(DataConfig(name=name, image_size=(8, 8)), "train")


def test_what_was_prepared_says_that_sizes_vary(directory, monkeypatch):
    folder = directory / "lsun" / "tower" / "3.1.0"
    monkeypatch.setattr(importer, "_download", lambda *_: folder)
    made = importer.prepare(DataConfig(name="lsun/tower", dir=str(directory)), overwrite=True)
    assert str(made) == (
        "lsun: 7 train, 3 validation images of varying size (load them with "
        f"--data.image_size=HEIGHT,WIDTH) in {folder}"
    )


def test_masks_and_a_size_go_together(directory):
    split = load(directory, "celeb_a", "test", (64, 64), "test", mask="occluders")
    (batch,) = split.evaluation_dataset(2)
    assert batch["image"].shape == (2, 64, 64, 3) and batch["mask"].shape == (2, 64, 64, 1)
