# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Reader of users' own images: a folder of PNG and JPEG files."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from matnet_tf.config.validation import require
from matnet_tf.data import image_files
from matnet_tf.data.sources.base import Source

__all__ = ["read_folder"]

_TEST_SHARE, _SPLIT_SEED = 0.1, 0


def read_folder(folder: pathlib.Path, size: tuple[int, int] | None = None) -> Source:
    """Reads images from `folder/{train,[validation,]test}/[CLASS/]*`, or from `folder/[CLASS/]*`.

    Without folders `train` and `test`, a fixed draw makes a tenth of the images the test split.
    The data set is grey if every file is, else RGB; transparency is dropped.

    Args:
      folder: Folder of the images.
      size: Height and width to which every image is resized (Lanczos); None requires that all
        images have the same size.

    Raises:
      ValueError: If there are no images, the header of one is damaged, or their sizes differ.
        Damage behind a header raises when the examples are iterated over.
    """
    files = _split_files(folder)
    names = sorted({_class(path, root) for root, paths in files.values() for path in paths})
    shape = _shape([path for _, paths in files.values() for path in paths], size)
    # Without folders of classes, the only name is "" and there is no label.
    labels = {"label": names} if any(names) else {}
    splits = {
        split: _Examples(root, paths, shape, names if labels else [])
        for split, (root, paths) in files.items()
    }
    return Source("image_folder", "1.0.0", f"Images of {folder.name}.", shape, labels, splits)


class _Examples:
    """Examples of one split, decoded while they are iterated over."""

    def __init__(
        self,
        root: pathlib.Path,
        paths: list[pathlib.Path],
        shape: tuple[int, int, int],
        names: list[str],
    ):
        self._root, self._paths, self._shape, self._names = root, paths, shape, names

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for path in self._paths:
            example = {"image": _decode(path, self._shape)}
            if self._names:
                example["label"] = self._names.index(_class(path, self._root))
            yield example


def _split_files(folder: pathlib.Path) -> dict[str, tuple[pathlib.Path, list[pathlib.Path]]]:
    """Returns the root and the sorted files of each split."""
    require(folder.is_dir(), f"the source {folder} must be a folder of images")
    splits = [s for s in ("train", "validation", "test") if (folder / s).is_dir()]
    if splits:
        missing = {"train", "test"} - set(splits)
        require(not missing, f"{folder} has {', '.join(splits)}; it lacks {' and '.join(missing)}")
        return {split: (folder / split, _images(folder / split)) for split in splits}
    paths = _images(folder)
    require(len(paths) >= 2, f"{folder} holds one image; a train and a test split need two")
    # NumPy guarantees that RandomState draws the same numbers in every later version.
    order = np.random.RandomState(_SPLIT_SEED).permutation(len(paths))
    held_out = set(order[: max(1, round(_TEST_SHARE * len(paths)))].tolist())
    return {
        "train": (folder, [p for i, p in enumerate(paths) if i not in held_out]),
        "test": (folder, [p for i, p in enumerate(paths) if i in held_out]),
    }


def _images(root: pathlib.Path) -> list[pathlib.Path]:
    found = [p for pattern in ("*", "*/*") for p in root.glob(pattern)]
    paths = sorted(p for p in found if p.suffix.lower() in image_files.SUFFIXES and p.is_file())
    require(bool(paths), f"{root} holds no images ({', '.join(image_files.SUFFIXES)})")
    return paths


def _class(path: pathlib.Path, root: pathlib.Path) -> str:
    return "" if path.parent == root else path.parent.name


def _shape(paths: list[pathlib.Path], size: tuple[int, int] | None) -> tuple[int, int, int]:
    """Returns height, width and channels of all files."""
    first, most_channels = None, 1
    for path in paths:
        with _named(path):
            *found, channels = image_files.shape(path)
        first = first or (path, found)
        require(
            size is not None or found == first[1],
            f"{path} has {found[0]}x{found[1]} pixels, but {first[0].name} has "
            f"{first[1][0]}x{first[1][1]}; --size=HxW resizes all to one size",
        )
        most_channels = max(most_channels, channels)
    return (*(size or first[1]), most_channels)


def _decode(path: pathlib.Path, shape: tuple[int, int, int]) -> np.ndarray:
    """Returns the pixels, uint8 [H, W, C]."""
    height, width, channels = shape
    with _named(path):
        image = image_files.read(path)
    if image.size != (width, height):
        image = image.convert("L" if channels == 1 else "RGB")
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    return image_files.pixels(image, channels)


@contextlib.contextmanager
def _named(path: pathlib.Path) -> Iterator[None]:
    """Puts the file's name first in the errors of `image_files`."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
