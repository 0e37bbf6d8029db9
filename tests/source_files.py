# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Small source files in the formats that users have, and a look at what was made of them."""

import gzip
import struct

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from matnet_tf.config import DataConfig

COUNTS = {"train": 13, "validation": 6, "test": 7}


def pixels(count, shape=(28, 28, 1), high=256):
    return np.random.RandomState(count).randint(0, high, (count, *shape)).astype(np.uint8)


def write_idx(path, array):
    header = struct.pack(f">{1 + array.ndim}I", 0x800 | array.ndim, *array.shape)
    data = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def mnist_files(folder):
    """A source folder in MNIST's format, one pair of files packed and the other not."""
    folder.mkdir()
    for split, prefix, suffix in (("train", "train", ".gz"), ("test", "t10k", "")):
        count = COUNTS[split]
        write_idx(folder / f"{prefix}-images-idx3-ubyte{suffix}", pixels(count)[..., 0])
        write_idx(folder / f"{prefix}-labels-idx1-ubyte{suffix}", np.arange(count) % 10)
    return folder


def save_images(folder, images):
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(folder / f"{i}.png")


def cut(path, count):
    path.write_bytes(path.read_bytes()[:count])


def config(name, tmp_path):
    return DataConfig(name=name, dir=str(tmp_path / "tfds"))


def stored(name, tmp_path, split):
    """Examples in the way any user of TFDS reads them."""
    builder = tfds.builder(name, data_dir=str(tmp_path / "tfds"))
    return list(tfds.as_numpy(builder.as_dataset(split=split)))


def as_set(images, *labels):
    """What was stored, whatever its order."""
    return sorted((i.tobytes(), *map(int, row)) for i, *row in zip(images, *labels, strict=True))


def assert_nothing_written(tmp_path):
    assert not (tmp_path / "tfds").exists()
