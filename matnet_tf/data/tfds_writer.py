# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The TFDS data directory: finds data sets there and adds new ones, whole or not at all."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from matnet_tf import files
from matnet_tf.data.image_files import png
from matnet_tf.data.sources.base import Source
from matnet_tf.progress import image_progress

__all__ = ["data_dir", "find", "publish", "remove_abandoned", "workspace", "write"]

# With these files TFDS reads a folder without the code that made it.
_FILES = ("dataset_info.json", "features.json")

_WORKSPACE, _REPLACED = ".preparing_", "replaced_"


def data_dir(directory: str) -> pathlib.Path:
    """Returns the TFDS data directory: the one given, or TFDS's default.

    Raises:
      ValueError: If it is below a home directory that does not exist, as in a container without
        the user's name.
    """
    try:
        return pathlib.Path(directory or tfds.core.constants.DATA_DIR).expanduser()
    except RuntimeError:
        raise ValueError(
            "there is no home directory for data sets: say where they are by DataConfig.dir"
        ) from None


def find(name: str, directory: str) -> pathlib.Path | None:
    """Returns the folder of a prepared data set, or None. Only looks at file names, so it is fast.

    Args:
      name: TFDS name, such as `mnist` or `emnist/letters`, with or without `:version`.
      directory: TFDS data directory; empty for TFDS's default.

    Raises:
      ValueError: If several configs match the name.
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
    """Returns the folder `root/1.2.3` of the given version, or of the highest one."""
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


def workspace(directory: pathlib.Path) -> contextlib.AbstractContextManager[pathlib.Path]:
    """Makes a temporary folder beside the data sets, see `files.workspace`."""
    return files.workspace(directory, _WORKSPACE)


def remove_abandoned(directory: pathlib.Path) -> None:
    """Removes the folders of killed preparations; those of running ones stay."""
    files.remove_abandoned(directory, _WORKSPACE, _put_back)


def _put_back(path: pathlib.Path) -> None:
    """Restores a data set if `publish` was killed between its two moves."""
    for aside in path.glob(f"**/{_REPLACED}*"):
        parent = aside.parent
        place = path.parent / parent.relative_to(path) / aside.name.removeprefix(_REPLACED)
        unpublished = [p for p in parent.iterdir() if p != aside]
        if unpublished and not place.exists():
            aside.rename(place)


def write(source: Source, directory: pathlib.Path) -> pathlib.Path:
    """Writes a source as a TFDS data set below `directory` and returns its folder.

    The features are those of TFDS's builder of that name, with images as PNG. TFDS's own encoder
    starts a TensorFlow operation per image, so Pillow encodes them here.

    Raises:
      OSError: If the data set cannot be written, for example because the disk is full.
    """
    builder = tfds.dataset_builders.AdhocBuilder(
        name=source.name,
        version=source.version,
        description=source.description,
        features=_features(source),
        split_datasets={name: _examples(name, split) for name, split in source.splits.items()},
        data_dir=os.fspath(directory),
    )
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    # What TFDS prints to stdout speaks of downloads and names the temporary folder; its progress
    # bars are three for each split.
    tfds.disable_progress_bar()
    try:
        with open(os.devnull, "w") as silence, contextlib.redirect_stdout(silence):
            builder.download_and_prepare(download_config=config)
    # TFDS wraps TensorFlow's error about a full disk in a RuntimeError.
    except (tf.errors.OpError, RuntimeError) as error:
        raise OSError(
            f"{source.name} could not be written to {directory.parent}: {files.reason_of(error)}"
        ) from error
    if source.tiles_of:
        tfds.core.MetadataDict(tiles_of=source.tiles_of).save_metadata(builder.data_dir)
    return pathlib.Path(builder.data_dir)


def _features(source: Source) -> tfds.features.FeaturesDict:
    features = {"image": tfds.features.Image(shape=source.image_shape)}
    for label, names in source.label_names.items():
        key = "num_classes" if isinstance(names, int) else "names"
        features[label] = tfds.features.ClassLabel(**{key: names})
    features |= {text: tfds.features.Text() for text in source.texts}
    return tfds.features.FeaturesDict(features)


def _examples(name: str, split: Iterable[dict[str, Any]]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields examples with their positions as keys, so that TFDS orders them as its builders do."""
    with image_progress(f"prepare {name}") as progress:
        for position, example in enumerate(split):
            yield position, {**example, "image": png(np.asarray(example["image"]))}
            progress.update()


def publish(made: pathlib.Path, target: pathlib.Path, old: pathlib.Path | None) -> None:
    """Moves a finished data set from its workspace to its place.

    Args:
      made: Finished folder.
      target: Its place.
      old: Data set that it replaces, or None; restored if the move fails.
    """
    # The old set moves into the workspace and is removed with it.
    aside = made.parent / f"{_REPLACED}{old.name}" if old else None
    if old:
        old.rename(aside)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        made.rename(target)
    except BaseException:  # Also for an interrupt, after which the workspace is removed.
        if old:
            aside.rename(old)
        raise
