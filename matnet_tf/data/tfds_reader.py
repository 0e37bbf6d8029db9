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
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from matnet_tf import files
from matnet_tf.data.batching import MemoryImages, StreamedImages, deterministic
from matnet_tf.data.preprocessing import resize

__all__ = ["builder_of", "check_disjoint", "image_feature", "in_tfds", "read", "split_size"]

# A split of at most this many bytes is read into memory; a larger one is streamed.
MEMORY_BYTES = 4 * 2**30

_OWN = "tensorflow_datasets.core.features."  # Where TFDS's own features are.
_READ_BATCH = 1000
_FILE_FEATURES = ("file", "filename", "file_name", "image/filename", "id")
# Parallel calls, whatever the number of cores: with 2, MNIST took 3.4 s instead of 1.2 s.
_PARALLEL_CALLS = 16
# What a data set is not to blame for.
_OF_THE_MACHINE = (
    *(MemoryError, PermissionError),
    *(tf.errors.ResourceExhaustedError, tf.errors.PermissionDeniedError),
)
# What TensorFlow raises in the middle of a torn file, and at the end of one that lacks images.
_TORN = (tf.errors.DataLossError, tf.errors.FailedPreconditionError)


class Stored(NamedTuple):
    """What a split of a data set holds.

    Attributes:
      images: Images, uint8 where 255 stands for 1.0 or float32 in [0, 1].
      labels: Class of each image, int64 [N], or None.
      classes: Names of the classes, or None.
      files: Name of the file of each image, or None.
      tiles_of: Median height and width, at the images' scale, of the pictures that the images are
        tiles of; None if they are whole pictures.
    """

    images: MemoryImages | StreamedImages
    labels: np.ndarray | None = None
    classes: list[str] | None = None
    files: np.ndarray | None = None
    tiles_of: tuple[int, int] | None = None


def in_tfds(name: str) -> bool:
    """Returns whether TFDS has a builder for the name, `set[/config][:version]`."""
    try:
        tfds.builder_cls(name.partition("/")[0].partition(":")[0])
    except Exception:  # For malformed names TFDS raises errors of several kinds.
        return False
    return True


@contextlib.contextmanager
def _damage_named(
    folder: pathlib.Path, kinds: tuple[type[Exception], ...] = (Exception,)
) -> Iterator[None]:
    """Turns the errors of TFDS, TensorFlow and protobuf about damaged files into one line."""
    try:
        yield
    except _OF_THE_MACHINE:
        raise
    except kinds as error:
        raise ValueError(
            f"the data set in {folder} is damaged ({files.reason_of(error)}); prepare it again, "
            f"with matnet prepare --overwrite"
        ) from error


def builder_of(folder: pathlib.Path) -> tfds.core.DatasetBuilder:
    """Returns the builder of a prepared data set.

    Raises:
      ValueError: If the files that describe the set are damaged, or name classes to import that
        are not TFDS's own.
    """
    with _damage_named(folder):
        for path in folder.iterdir():
            if not (path.is_file() or path.is_dir()):
                raise ValueError(f"{path.name} is not a file")
        description = files.read_json(folder / "features.json")
        foreign = {name for name in _feature_classes(description) if not name.startswith(_OWN)}
    if foreign:
        raise ValueError(
            f"the data set in {folder} has features of the class {min(foreign)}: only those of "
            f"TFDS are loaded, since others may run any code"
        )
    with _damage_named(folder):
        builder = tfds.builder_from_directory(os.fspath(folder))
        for split in builder.info.splits.values():
            if split.num_examples and not split.file_instructions:
                raise ValueError(f"the split {split.name} has no files")
            for name in sorted(split.filenames):
                if not (folder / name).is_file():
                    raise ValueError(f"it lacks the file {name}")
        return builder


def _feature_classes(description: Any) -> Iterator[str]:
    """The names of the classes in a description of features, at any depth."""
    if isinstance(description, dict):
        if "pythonClassName" in description:
            yield str(description["pythonClassName"])
        description = list(description.values())
    if isinstance(description, list):
        for part in description:
            yield from _feature_classes(part)


def read(
    folder: pathlib.Path,
    split: str,
    part: slice,
    white: int,
    image_size: tuple[int, int] | None = None,
) -> Stored:
    """Reads a part of a split.

    Args:
      folder: Folder of the prepared data set, such as `TFDS_DIR/mnist/3.0.1`.
      split: TFDS split, such as `train` or `train[:1000]`.
      part: Positions `slice(start, stop)` within the split.
      white: Stored uint8 value that stands for 1.0: 255, or 1 for binary images.
      image_size: Height and width for `preprocessing.resize`; None keeps the stored size.

    Returns:
      What is stored; images alone if the set is streamed.

    Raises:
      ValueError: If there is no such split, it is empty, or its images cannot be used.
    """
    builder = builder_of(folder)
    shape = _image_shape(builder.info, image_size)
    total = _size(builder.info, split)
    dtype = np.dtype(builder.info.features["image"].np_dtype)
    if total * math.prod(shape) * dtype.itemsize <= MEMORY_BYTES:
        stamp = (folder / "dataset_info.json").stat().st_mtime_ns
        images, columns = _read_all(folder, split, white, image_size, stamp)
        label, file = _label_feature(builder.info), _file_feature(builder.info)
        return Stored(
            MemoryImages(images[part]),
            columns[label][part] if label else None,
            list(builder.info.features[label].names) if label else None,
            columns[file][part] if file else None,
            _tiles_of(folder, builder.info, shape),
        )
    factor = 255 // white if dtype == np.uint8 else 1
    dataset = _dataset(builder, split, {"image"}).skip(part.start).take(part.stop - part.start)
    dataset = _resized(dataset, image_size).map(lambda example: example["image"] * factor)
    reading = functools.partial(_damage_named, folder, _TORN)
    images = StreamedImages(dataset, part.stop - part.start, reading)
    return Stored(images, tiles_of=_tiles_of(folder, builder.info, shape))


def _tiles_of(
    folder: pathlib.Path, info: tfds.core.DatasetInfo, shape: tuple[int, int, int]
) -> tuple[int, int] | None:
    """Returns what `Stored` says of the pictures behind images of a shape."""
    with _damage_named(folder):
        pictures, tile = info.metadata.get("tiles_of"), info.features["image"].shape
        return pictures and tuple(round(pictures[i] * shape[i] / tile[i]) for i in range(2))


def split_size(folder: pathlib.Path, split: str) -> int:
    """Returns the number of images in a split of a prepared data set.

    Raises:
      ValueError: If there is no such split, or it is empty.
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
    """Checks that a train split and a test split share no image.

    Raises:
      ValueError: If they do, or one of them does not exist.
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
    """Returns file, first example and end of one file instruction of TFDS."""
    stop = part.examples_in_shard if part.take == -1 else part.skip + part.take
    return part.filename, part.skip, stop


def image_feature(info: tfds.core.DatasetInfo) -> tfds.features.FeatureConnector:
    """Returns the feature `image` of a data set.

    Raises:
      ValueError: If there is none, or it is not uint8 or float [H, W, C].
    """
    features = info.features if isinstance(info.features, tfds.features.FeaturesDict) else {}
    if "image" not in features:
        raise ValueError(f"{info.name} has no feature `image`; it has {', '.join(features) or '-'}")
    feature = features["image"]
    dtype = np.dtype(feature.np_dtype)
    if len(feature.shape or ()) != 3 or not (dtype == np.uint8 or dtype.kind == "f"):
        raise ValueError(
            f"the feature `image` of {info.name} must be uint8 or float [H, W, C]; got "
            f"{dtype.name} {list(feature.shape or ())}"
        )
    return feature


def _image_shape(
    info: tfds.core.DatasetInfo, image_size: tuple[int, int] | None
) -> tuple[int, int, int]:
    """Returns height, width and channels of the images after resizing.

    Raises:
      ValueError: As for `image_feature`, or if the shape varies.
    """
    *stored, channels = image_feature(info).shape
    if channels is None:
        raise ValueError(f"the images of {info.name} vary in the number of their channels")
    if None in stored and not image_size:
        raise ValueError(
            f"the images of {info.name} vary in size; add --data.image_size=HEIGHT,WIDTH to crop "
            f"and resize them"
        )
    return (*(image_size or stored), channels)


def _dataset(builder: tfds.core.DatasetBuilder, split: str, wanted: set[str]) -> tf.data.Dataset:
    """Returns the examples of a split in the order in which they lie on disk."""
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
    """Resizes the images of examples; None keeps them."""
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
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Reads a whole split: images, and labels and file names by the name of their feature.

    The cache lets train and validation share one reading. `stamp`, the time of preparation, only
    serves as a key of the cache.
    """
    del stamp
    builder = builder_of(folder)
    info, shape = builder.info, _image_shape(builder.info, image_size)
    total = _size(info, split)
    images = np.empty((total, *shape), info.features["image"].np_dtype)
    label, file = _label_feature(info), _file_feature(info)
    types = {label: np.int64, file: object}
    columns = {name: np.empty(total, dtype) for name, dtype in types.items() if name}
    done = 0
    dataset = _resized(_dataset(builder, split, {"image", *columns}), image_size)
    with _damage_named(folder):
        for batch in dataset.batch(_READ_BATCH).as_numpy_iterator():
            rows = slice(done, done + len(batch["image"]))
            images[rows] = batch["image"]
            for name, column in columns.items():
                column[rows] = batch[name]
            done = rows.stop
        if done != total:
            raise ValueError(f"it has {done} of {total} images of {split}")
    if file:
        columns[file] = np.array([name.decode("utf-8", "replace") for name in columns[file]])
    return _in_range(images, info.name, white), columns


def _label_feature(info: tfds.core.DatasetInfo) -> str | None:
    """Returns the feature `label`, or else the first class label in alphabetical order."""
    classes = tfds.features.ClassLabel
    names = sorted(name for name, f in info.features.items() if isinstance(f, classes))
    return "label" if "label" in names else next(iter(names), None)


def _file_feature(info: tfds.core.DatasetInfo) -> str | None:
    """Returns the feature with the names of files, if there is one."""
    texts = {name for name, f in info.features.items() if isinstance(f, tfds.features.Text)}
    return next((name for name in _FILE_FEATURES if name in texts), None)


def _in_range(images: np.ndarray, name: str, white: int) -> np.ndarray:
    """Checks the range of images and returns them as uint8 with 255 for 1.0, or as float32."""
    high = 1 if images.dtype != np.uint8 else white
    # The comparison is also false for NaN.
    if not (images.min() >= 0 and images.max() <= high):
        raise ValueError(
            f"the images of {name} must lie in [0, {high}]; got {images.min()} to {images.max()}"
        )
    if images.dtype != np.uint8:
        return images.astype(np.float32)
    return images if white == 255 else images * np.uint8(255 // white)
