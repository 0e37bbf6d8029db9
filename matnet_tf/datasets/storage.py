# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Where prepared data sets lie, and how a new one gets there: whole or not at all."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from matnet_tf import files
from matnet_tf.datasets.png import encode_png
from matnet_tf.datasets.sources import Source

__all__ = ["data_dir", "find", "publish", "remove_abandoned", "workspace", "write"]

# What a folder must hold to be a data set that TFDS reads without the code that made it.
_FILES = ("dataset_info.json", "features.json")

_WORKSPACE, _LOCK, _REPLACED = ".preparing_", "lock", "replaced_"


def data_dir(directory: str) -> pathlib.Path:
    """The TFDS data directory: the one given, else TFDS's own default."""
    return pathlib.Path(directory or tfds.core.constants.DATA_DIR).expanduser()


def find(name: str, directory: str) -> pathlib.Path | None:
    """The folder of a prepared data set, or None; looks at files only, so it answers at once.

    Args:
      name: TFDS name, such as `mnist` or `emnist/letters`, with or without `:version`.
      directory: TFDS data directory; empty is TFDS's default.

    Raises:
      ValueError: if the name leaves open which of several configs is meant.
    """
    name, _, version = name.partition(":")
    root = data_dir(directory) / name
    found = _newest(root, version)
    if found is not None or "/" in name:
        return found
    configs = {p.name: _newest(p, version) for p in _folders(root)}
    configs = {config: path for config, path in configs.items() if path is not None}
    if len(configs) > 1:
        raise ValueError(
            f"{root} holds several configs of {name}; name one of "
            f"{', '.join(f'{name}/{config}' for config in sorted(configs))}"
        )
    return next(iter(configs.values()), None)


def _newest(root: pathlib.Path, version: str) -> pathlib.Path | None:
    """The folder `root/1.2.3` of the highest version, or of the one asked for."""
    candidates = {}
    for path in _folders(root):
        numbers = path.name.split(".")
        is_version = len(numbers) == 3 and all(n.isdigit() for n in numbers)
        if is_version and all((path / name).is_file() for name in _FILES):
            candidates[tuple(map(int, numbers))] = path
    if version:
        return next((p for p in candidates.values() if p.name == version), None)
    return candidates[max(candidates)] if candidates else None


def _folders(root: pathlib.Path) -> list[pathlib.Path]:
    return sorted(p for p in root.iterdir() if p.is_dir()) if root.is_dir() else []


@contextlib.contextmanager
def workspace(directory: pathlib.Path) -> Iterator[pathlib.Path]:
    """A temporary folder beside the data sets, gone at the end whatever happens.

    So is `directory` if it did not exist and nothing was put there. A lock, which the system lets
    go of when a process ends, tells folders in use from those that `remove_abandoned` takes.
    """
    existed = directory.exists()
    directory.mkdir(parents=True, exist_ok=True)
    path, lock = _locked_folder(directory)
    try:
        yield path
    finally:
        os.close(lock)
        shutil.rmtree(path, ignore_errors=True)
        if not existed:
            with contextlib.suppress(OSError):  # it is not empty
                directory.rmdir()


def _locked_folder(directory: pathlib.Path) -> tuple[pathlib.Path, int]:
    """A new folder, and the open file by which this process holds its lock."""
    while True:
        path = pathlib.Path(tempfile.mkdtemp(prefix=_WORKSPACE, dir=directory))
        # Until the lock is held another process may take the folder for an abandoned one.
        with contextlib.suppress(FileNotFoundError):
            lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT)
            with contextlib.suppress(OSError):  # not every file system has locks
                files.lock(lock, wait=True)
            if os.fstat(lock).st_nlink:  # the lock's file has not been removed meanwhile
                return path, lock
            os.close(lock)


def remove_abandoned(directory: pathlib.Path) -> None:
    """Removes what killed preparations have left; leaves the folders of those that run."""
    for path in _folders(directory):
        if path.name.startswith(_WORKSPACE):
            _remove_unlocked(path)


def _remove_unlocked(path: pathlib.Path) -> None:
    try:
        lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT)
    except OSError:  # it is gone already, or another user's
        return
    try:
        if files.lock(lock):
            _put_back(path)
            shutil.rmtree(path, ignore_errors=True)
    except OSError:  # the file system has no locks
        return
    finally:
        os.close(lock)


def _put_back(path: pathlib.Path) -> None:
    """Returns a data set to its place if `publish` was killed between its two moves."""
    for aside in path.glob(f"**/{_REPLACED}*"):
        parent = aside.parent
        place = path.parent / parent.relative_to(path) / aside.name.removeprefix(_REPLACED)
        unpublished = [p for p in parent.iterdir() if p != aside]
        if unpublished and not place.exists():
            aside.rename(place)


def write(source: Source, directory: pathlib.Path) -> pathlib.Path:
    """Writes a source as a TFDS data set below `directory` and returns its folder.

    The features are those of TFDS's builder of that name, images as PNG. PNG made here is handed
    over as bytes: TFDS's own encoder starts a TensorFlow operation per image, six times slower.
    """
    features = {"image": tfds.features.Image(shape=source.image_shape)}
    for label, names in source.label_names.items():
        features[label] = (
            tfds.features.ClassLabel(num_classes=names)
            if isinstance(names, int)
            else tfds.features.ClassLabel(names=names)
        )
    features |= {text: tfds.features.Text() for text in source.texts}
    builder = tfds.dataset_builders.AdhocBuilder(
        name=source.name,
        version=source.version,
        description=source.description,
        features=tfds.features.FeaturesDict(features),
        split_datasets={name: _examples(split) for name, split in source.splits.items()},
        data_dir=os.fspath(directory),
    )
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    # TFDS speaks of downloads and names the temporary folder, which would mislead; its progress
    # bars go to stderr and stay.
    try:
        with open(os.devnull, "w") as silence, contextlib.redirect_stdout(silence):
            builder.download_and_prepare(download_config=config)
    # TFDS wraps what TensorFlow says of a full disk in an error of its own.
    except (tf.errors.OpError, RuntimeError) as error:
        raise OSError(
            f"{source.name} could not be written to {directory.parent}: {files.reason_of(error)}"
        ) from error
    return pathlib.Path(builder.data_dir)


def _examples(split: Iterable[dict[str, Any]]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Keys are positions, as in TFDS's builders, so TFDS puts the examples in the same order."""
    for position, example in enumerate(split):
        yield position, {**example, "image": encode_png(np.asarray(example["image"]))}


def publish(made: pathlib.Path, target: pathlib.Path, old: pathlib.Path | None) -> None:
    """Moves a finished data set from its workspace to its place.

    Args:
      made: the finished folder.
      target: where it goes.
      old: the data set that it replaces, if any; put back if the move fails.
    """
    # Within the workspace, so it goes when that goes.
    aside = made.parent / f"{_REPLACED}{old.name}" if old else None
    if old:
        old.rename(aside)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        made.rename(target)
    except BaseException:  # an interrupt as well: the workspace is cleared after it
        if old:
            aside.rename(old)
        raise
