# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""From a prepared TFDS data set to the images and labels of one split."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from matnet_tf import files
from matnet_tf.datasets.images import MemoryImages, StreamedImages, deterministic
from matnet_tf.datasets.resizing import resize

__all__ = ["MEMORY_BYTES", "check_disjoint", "image_feature", "builder_of", "read", "split_size"]

# A split of at most this many bytes is read into memory, a larger one is streamed.
MEMORY_BYTES = 4 * 2**30

_READ_BATCH = 1000
# 16 calls at a time, on however few cores: with 2, MNIST took 3.4 s instead of 1.2 s.
_PARALLEL_CALLS = 16


@contextlib.contextmanager
def _damage_named(folder: pathlib.Path) -> Iterator[None]:
    """Makes one line of whatever TFDS, TensorFlow and protobuf say of damaged files."""
    try:
        yield
    except Exception as error:
        raise ValueError(
            f"the data set in {folder} is damaged ({files.reason_of(error)}); prepare it again, "
            f"with bin/prepare --overwrite"
        ) from error


def builder_of(folder: pathlib.Path) -> tfds.core.DatasetBuilder:
    """The builder of a prepared data set.

    Raises:
      ValueError: if what describes the set is damaged.
    """
    with _damage_named(folder):
        builder = tfds.builder_from_directory(os.fspath(folder))
        for split in builder.info.splits.values():
            if split.num_examples and not split.file_instructions:
                raise ValueError(f"the split {split.name} has no files")
        return builder


def read(
    folder: pathlib.Path,
    split: str,
    part: slice,
    white: int,
    image_size: tuple[int, int] | None = None,
) -> tuple[MemoryImages | StreamedImages, np.ndarray | None]:
    """The images of a part of a split, and their labels.

    Args:
      folder: of the prepared data set, such as `TFDS_DIR/mnist/3.0.1`.
      split: TFDS split, such as `train` or `train[:1000]`.
      part: positions `slice(start, stop)` within the split.
      white: the stored value of uint8 images that means 1.0: 255, or 1 where they are binary.
      image_size: height and width to which images are brought, as `resize` does; None keeps them.

    Returns:
      The images, uint8 with 255 for 1.0 or float32 in [0, 1], and the labels `[N]`, int64, or None
      where the set has none or is streamed.

    Raises:
      ValueError: if there is no such split, it is empty, or its images cannot be used.
    """
    builder = builder_of(folder)
    shape = _image_shape(builder.info, image_size)
    total = _size(builder.info, split)
    kind = np.dtype(builder.info.features["image"].np_dtype)
    if total * math.prod(shape) * kind.itemsize <= MEMORY_BYTES:
        stamp = (folder / "dataset_info.json").stat().st_mtime_ns
        images, labels = _read_all(folder, split, white, image_size, stamp)
        return MemoryImages(images[part]), None if labels is None else labels[part]
    factor = 255 // white if kind == np.uint8 else 1
    dataset = _dataset(builder, split, {"image"}).skip(part.start).take(part.stop - part.start)
    dataset = _resized(dataset, image_size).map(lambda example: example["image"] * factor)
    return StreamedImages(dataset, part.stop - part.start), None


def split_size(folder: pathlib.Path, split: str) -> int:
    """How many images a split of a prepared data set has.

    Raises:
      ValueError: if there is no such split, or it is empty.
    """
    return _size(builder_of(folder).info, split)


def _size(info: tfds.core.DatasetInfo, split: str) -> int:
    try:
        size = info.splits[split].num_examples
    except (KeyError, ValueError):
        raise ValueError(
            f"{info.name} has no split {split!r}; it has {', '.join(info.splits)}"
        ) from None
    if not size:
        raise ValueError(f"the split {split!r} of {info.name} is empty")
    return size


def check_disjoint(folder: pathlib.Path, train_split: str, test_split: str) -> None:
    """Refuses a train split and a test split that share an image.

    Raises:
      ValueError: if they do, or one of them does not exist.
    """
    info = builder_of(folder).info
    ranges = []
    for split in (train_split, test_split):
        _size(info, split)
        ranges.append([_range(part) for part in info.splits[split].file_instructions])
    for name, start, stop in ranges[0]:
        for other, other_start, other_stop in ranges[1]:
            if name == other and start < other_stop and other_start < stop:
                raise ValueError(
                    f"the splits {train_split!r} and {test_split!r} of {info.name} share images"
                )


def _range(part: Any) -> tuple[str, int, int]:
    """File, first example and example after the last of one part of a split."""
    stop = part.examples_in_shard if part.take == -1 else part.skip + part.take
    return part.filename, part.skip, stop


def image_feature(info: tfds.core.DatasetInfo) -> tfds.features.FeatureConnector:
    """The feature `image` of a data set.

    Raises:
      ValueError: if there is none, or it is not uint8 or float `[H, W, C]`.
    """
    features = info.features if isinstance(info.features, tfds.features.FeaturesDict) else {}
    if "image" not in features:
        raise ValueError(f"{info.name} has no feature `image`; it has {', '.join(features) or '-'}")
    feature = features["image"]
    kind = np.dtype(feature.np_dtype)
    if len(feature.shape or ()) != 3 or not (kind == np.uint8 or kind.kind == "f"):
        raise ValueError(
            f"the feature `image` of {info.name} must be uint8 or float [H, W, C]; got "
            f"{kind.name} {list(feature.shape or ())}"
        )
    return feature


def _image_shape(
    info: tfds.core.DatasetInfo, image_size: tuple[int, int] | None
) -> tuple[int, int, int]:
    """Height, width and channels of the images as they are read.

    Raises:
      ValueError: as `image_feature`; or if they vary.
    """
    *stored, channels = image_feature(info).shape
    if channels is None:
        raise ValueError(f"the images of {info.name} vary in the number of their channels")
    if None in stored and not image_size:
        raise ValueError(
            f"the images of {info.name} vary in size; add --data.image_size=HEIGHT,WIDTH, to which "
            f"they are then brought"
        )
    return (*(image_size or stored), channels)


def _dataset(builder: tfds.core.DatasetBuilder, split: str, wanted: set[str]) -> tf.data.Dataset:
    """The examples of a split in the order in which they lie on disk."""
    config = tfds.ReadConfig(
        interleave_cycle_length=1,
        try_autocache=False,
        num_parallel_calls_for_decode=_PARALLEL_CALLS,
    )
    dataset = deterministic(builder.as_dataset(split=split, read_config=config))
    if wanted == set(builder.info.features):
        return dataset
    return dataset.map(lambda example: {name: example[name] for name in wanted})


def _resized(dataset: tf.data.Dataset, image_size: tuple[int, int] | None) -> tf.data.Dataset:
    """The same examples with images of one size; None keeps theirs."""
    if not image_size:
        return dataset
    return dataset.map(
        lambda example: example | {"image": resize(example["image"], image_size)}, _PARALLEL_CALLS
    )


@functools.lru_cache(maxsize=2)
def _read_all(
    folder: pathlib.Path,
    split: str,
    white: int,
    image_size: tuple[int, int] | None,
    stamp: int,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Every image and label of a split; kept, so that train and validation are read once.

    `stamp` tells a set that was prepared again from the one before.
    """
    del stamp
    builder = builder_of(folder)
    shape, label = _image_shape(builder.info, image_size), _label_feature(builder.info)
    total = _size(builder.info, split)
    images = np.empty((total, *shape), builder.info.features["image"].np_dtype)
    labels = np.empty(total, np.int64)
    done = 0
    wanted = {"image"} | ({label} if label else set())
    dataset = _resized(_dataset(builder, split, wanted), image_size)
    with _damage_named(folder):
        for batch in dataset.batch(_READ_BATCH).as_numpy_iterator():
            rows = slice(done, done + len(batch["image"]))
            images[rows] = batch["image"]
            if label:
                labels[rows] = batch[label]
            done = rows.stop
        if done != total:
            raise ValueError(f"it has {done} of {total} images of {split}")
    return _in_range(images, builder.info.name, white), labels if label else None


def _label_feature(info: tfds.core.DatasetInfo) -> str | None:
    """The feature `label`, or else the first class label by name."""
    classes = tfds.features.ClassLabel
    names = sorted(name for name, f in info.features.items() if isinstance(f, classes))
    return "label" if "label" in names else next(iter(names), None)


def _in_range(images: np.ndarray, name: str, white: int) -> np.ndarray:
    """uint8 images with 255 for 1.0, or float32 images, after a look at their range."""
    high = 1 if images.dtype != np.uint8 else white
    # The comparison is also false for NaN.
    if not (images.min() >= 0 and images.max() <= high):
        raise ValueError(
            f"the images of {name} must lie in [0, {high}]; they reach from {images.min()} to "
            f"{images.max()}"
        )
    if images.dtype != np.uint8:
        return images.astype(np.float32)
    return images if white == 255 else images * np.uint8(255 // white)
