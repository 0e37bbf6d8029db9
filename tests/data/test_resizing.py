# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Data sets of images of any size, under the names and with the features of TFDS's sets."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from source_files import pixels

from matnet_tf.config import DataConfig
from matnet_tf.data import loading, tfds_reader
from matnet_tf.data import prepare as prepare_module
from matnet_tf.data.preprocessing import resize

tfds.disable_progress_bar()
FACE = (218, 178, 3)


def varying(count, first):
    """Colour images of several sizes that carry their number in every pixel but the corner."""
    images = []
    for i in range(count):
        image = np.full([12 + 3 * i, 30 - 2 * i, 3], first + 10 * i, np.uint8)
        image[:1, :1] = 255
        images.append(image)
    return images


def store(directory, name, features, splits, config=None):
    builder = tfds.dataset_builders.AdhocBuilder(
        name=name,
        version="3.1.0",
        config=config,
        features=tfds.features.FeaturesDict(features),
        split_datasets={split: list(enumerate(rows)) for split, rows in splits.items()},
        data_dir=str(directory),
    )
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(try_download_gcs=False)
    )


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("tfds")
    lsun = {"image": tfds.features.Image(shape=(None, None, 3)), "id": tfds.features.Text()}
    splits = {"train": varying(7, 100), "validation": varying(3, 10)}
    rows = {split: [{"image": x, "id": "a"} for x in images] for split, images in splits.items()}
    store(path, "lsun", lsun, rows, tfds.core.BuilderConfig(name="tower"))
    celeb_a = {
        "image": tfds.features.Image(shape=FACE),
        "attributes": {"Smiling": np.bool_},
        "landmarks": {"nose_x": np.int64},
    }
    rest = {"attributes": {"Smiling": True}, "landmarks": {"nose_x": 89}}
    faces = [{"image": face, **rest} for face in pixels(5, FACE)]
    store(path, "celeb_a", celeb_a, {"train": faces[:3], "test": faces[3:]})
    return path


def load(directory, name, split="train", size=(12, 16), test_split="validation", **settings):
    config = DataConfig(
        name=name, dir=str(directory), image_size=size, test_split=test_split, **settings
    )
    return loading.load(config, split)


def evaluated(split):
    return np.concatenate([x.numpy() for x in split.evaluation_dataset(4)])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["memory", "streamed"])
def test_images_of_any_size_are_brought_to_one(directory, kind, monkeypatch):
    if kind == "streamed":
        monkeypatch.setattr(tfds_reader, "MEMORY_BYTES", 100)
    split = load(directory, "lsun/tower", validation_images=2)
    assert (split.num_images, split.image_shape) == (5, (12, 16, 3))
    assert split.eight_bit and split.labels is None
    held_out = load(directory, "lsun/tower", "validation", validation_images=2)
    x = np.concatenate([evaluated(split), evaluated(held_out)])
    centres = np.rint(255 * x[:, 6, 8, 0]).astype(int)
    assert sorted(centres) == [100 + 10 * i for i in range(7)]
    (batch,) = split.training_dataset(5, seed=0).take(1)
    assert sorted(np.rint(255 * batch[:, 6, 8, 0])) == sorted(centres[:5])
    # Faces are cut square.
    split = load(directory, "celeb_a", "test", (64, 64), "test")
    assert split.image_shape == (64, 64, 3) and split.labels is None
    expected = [resize(tf.constant(face), (64, 64)).numpy() for face in pixels(5, FACE)[3:]]
    found = sorted(np.rint(255 * evaluated(split)), key=np.sum)
    np.testing.assert_array_equal(found, sorted(expected, key=np.sum))


@pytest.mark.slow
def test_images_already_read_in_another_size_are_read_again(directory):
    for size in ((12, 16), (8, 8), (12, 16)):
        assert evaluated(load(directory, "celeb_a", "test", size, "test")).shape == (2, *size, 3)
    assert load(directory, "celeb_a", "test", (), "test").image_shape == FACE
    masked = load(directory, "celeb_a", "test", (64, 64), "test", mask="occluders")
    (batch,) = masked.evaluation_dataset(2)
    assert batch["image"].shape == (2, 64, 64, 3) and batch["mask"].shape == (2, 64, 64, 1)


@pytest.mark.slow
def test_the_new_size_decides_whether_images_fit_into_memory(directory, monkeypatch):
    monkeypatch.setattr(tfds_reader, "MEMORY_BYTES", 3 * 64 * 64 * 3)
    for size, expected in (((64, 64), "MemoryImages"), ((64, 65), "StreamedImages")):
        split = load(directory, "celeb_a", "train", size, "test")
        assert type(split.images).__name__ == expected
        assert evaluated(split).shape == (3, *size, 3)


def test_varying_sizes_are_told_and_need_a_size(directory, monkeypatch):
    with pytest.raises(ValueError, match="images of lsun vary in size; add --data.image_size=HEI"):
        load(directory, "lsun/tower", size=())
    folder = directory / "lsun" / "tower" / "3.1.0"
    monkeypatch.setattr(prepare_module, "_download", lambda *_: folder)
    config = DataConfig(name="lsun/tower", dir=str(directory))
    assert str(prepare_module.prepare(config, overwrite=True)) == (
        "lsun: 7 train, 3 validation images of varying size (load them with "
        f"--data.image_size=HEIGHT,WIDTH) in {folder}"
    )
