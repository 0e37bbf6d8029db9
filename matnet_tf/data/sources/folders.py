# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Reader of users' own images: a folder of picture files."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import math
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from matnet_tf.config.validation import require
from matnet_tf.data import image_files
from matnet_tf.data.sources.base import Source
from matnet_tf.files import printable

__all__ = ["read_folder"]

_TEST_SHARE, _SPLIT_SEED = 0.1, 0
# Images of one size up to this side are kept as they are; others get the size below.
_LARGEST, _SIZE = 256, (64, 64)
_SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
# Why files are left out.
_HIDDEN, _OTHER_KIND, _NO_FILE = "hidden", "of other kinds", "not files, or links to nothing"


@dataclasses.dataclass(frozen=True)
class _Files:
    """The picture files of one split.

    Attributes:
      root: Folder of the split.
      paths: Files, sorted.
    """

    root: pathlib.Path
    paths: list[pathlib.Path]

    def name_of(self, path: pathlib.Path) -> str:
        """The file's name within the split, with slashes."""
        return printable(path.relative_to(self.root).as_posix())

    def class_of(self, path: pathlib.Path) -> str:
        """The first folder on the way to the file; empty if it lies in the split's own."""
        parts = path.relative_to(self.root).parts
        return parts[0] if len(parts) > 1 else ""


def read_folder(folder: pathlib.Path, size: tuple[int, int] | None = None, crop: int = 0) -> Source:
    """Reads images from `folder/{train,[validation,]test}/[CLASS/]**`, or `folder/[CLASS/]**`.

    Names of splits are known in any case and by their usual synonyms (`Training`, `val`). Without
    folders for train and test, a fixed draw makes a tenth of the images the test split. Names that
    begin with a dot are left out. The data set is grey if every file is, else RGB; transparency is
    dropped.

    Args:
      folder: Folder of the images.
      size: Height and width to which every image is resized (Lanczos). None keeps the size if all
        images have the same, of at most 256 pixels a side; others become 64x64.
      crop: Side of the square tiles that images are cut into at their own resolution, as many as
        fit, in the middle; smaller images are left out. 0 does not cut.

    Raises:
      ValueError: If there are no images, or the header of one is damaged. Damage behind a header
        raises when the examples are iterated over.
    """
    require(folder.is_dir(), f"the source {folder} must be a folder of images")
    left_out: dict[str, list[pathlib.Path]] = collections.defaultdict(list)
    folders = _split_folders(folder, left_out)
    splits = {name: _Files(root, _images(root, left_out)) for name, root in folders.items()}
    paths = [path for files in splits.values() for path in files.paths]
    shape, sizes = _shape(paths, size, crop, left_out)
    too_small = set(left_out[_too_small(crop)])
    splits = {
        name: _Files(files.root, [p for p in files.paths if p not in too_small])
        for name, files in splits.items()
    }
    if list(splits) == [""]:
        splits = _draw_splits(folder, splits[""])
    classes, resized = _classes(splits), [] if size or crop else _resized(sizes, shape)
    return Source(
        "image_folder",
        "1.0.0",
        f"Images of {printable(folder.name)}.",
        shape,
        {"label": classes} if classes else {},
        {name: _Examples(files, shape, classes, crop) for name, files in splits.items()},
        texts=("file",),
        notes=_notes(folders, classes, left_out, folder, resized),
        tiles_of=tuple(np.median(sizes, axis=0).astype(int).tolist()) if crop else None,
    )


class _Examples:
    """Examples of one split, decoded while they are iterated over."""

    def __init__(self, files: _Files, shape: tuple[int, int, int], classes: list[str], crop: int):
        self._files, self._shape, self._classes, self._crop = files, shape, classes, crop

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for path in self._files.paths:
            name = self._files.name_of(path)
            more = {}
            if self._classes:
                more["label"] = self._classes.index(self._files.class_of(path))
            if not self._crop:
                yield {"image": _decode(path, self._shape), "file": name, **more}
                continue
            with _named(path):
                pixels = image_files.pixels(image_files.read(path), self._shape[-1])
            for top, left in _corners(pixels.shape, self._crop):
                tile = pixels[top : top + self._crop, left : left + self._crop]
                yield {"image": tile, "file": f"{name}@{top},{left}", **more}


def _corners(shape: tuple[int, ...], side: int) -> Iterator[tuple[int, int]]:
    """Top and left of each tile; what does not fill a tile is cut from both ends alike."""
    height, width = shape[:2]
    for top in range((height % side) // 2, height - side + 1, side):
        for left in range((width % side) // 2, width - side + 1, side):
            yield top, left


def _split_folders(
    folder: pathlib.Path, left_out: dict[str, list[pathlib.Path]]
) -> dict[str, pathlib.Path]:
    """The folder of each split; `{"": folder}` if no folder is named after one."""
    found: dict[str, pathlib.Path] = {}
    others = []
    for path in sorted(folder.iterdir()):
        split = next((s for s, names in _SPLIT_NAMES.items() if path.name.lower() in names), None)
        if split is None or not path.is_dir():
            others.append(path)
            continue
        require(
            split not in found,
            f"{folder} has two folders for the split {split}: {found.get(split)} and {path}",
        )
        found[split] = path
    if not found:
        return {"": folder}
    missing = {"train", "test"} - set(found)
    names = ", ".join(path.name for path in found.values())
    require(not missing, f"{folder} has {names}; it lacks a folder {' and '.join(missing)}")
    left_out["beside the splits"] += others
    return {split: found[split] for split in _SPLIT_NAMES if split in found}


def _images(root: pathlib.Path, left_out: dict[str, list[pathlib.Path]]) -> list[pathlib.Path]:
    """The picture files below a folder, sorted, at any depth."""
    paths, seen = [], set()
    for parent, folders, names in os.walk(root, followlinks=True):
        if (real := os.path.realpath(parent)) in seen:  # A link to a folder above.
            folders.clear()
            continue
        seen.add(real)
        here = pathlib.Path(parent)
        left_out[_HIDDEN] += [here / name for name in (*folders, *names) if name.startswith(".")]
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in (here / name for name in names if not name.startswith(".")):
            if path.suffix.lower() not in image_files.SUFFIXES:
                left_out[_OTHER_KIND].append(path)
            elif not path.is_file():
                left_out[_NO_FILE].append(path)
            else:
                paths.append(path)
    require(bool(paths), f"{root} holds no images ({', '.join(image_files.SUFFIXES)})")
    return sorted(paths)


def _draw_splits(folder: pathlib.Path, files: _Files) -> dict[str, _Files]:
    paths = files.paths
    require(len(paths) >= 2, f"{folder} holds one image; a train and a test split need two")
    # NumPy guarantees that RandomState draws the same numbers in every later version.
    order = np.random.RandomState(_SPLIT_SEED).permutation(len(paths))
    held_out = set(order[: max(1, round(_TEST_SHARE * len(paths)))].tolist())
    return {
        "train": _Files(folder, [p for i, p in enumerate(paths) if i not in held_out]),
        "test": _Files(folder, [p for i, p in enumerate(paths) if i in held_out]),
    }


def _classes(splits: dict[str, _Files]) -> list[str]:
    """Names of the classes; none if all images lie in the folders of the splits themselves."""
    names = {files.class_of(path) for files in splits.values() for path in files.paths}
    for name in names:
        require(
            name.isprintable(),
            f"the folder {name!r} cannot be a class: its name must be printable UTF-8",
        )
    return sorted(names) if any(names) else []


def _too_small(crop: int) -> str:
    return f"smaller than {crop}x{crop}"


def _shape(
    paths: list[pathlib.Path],
    size: tuple[int, int] | None,
    crop: int,
    left_out: dict[str, list[pathlib.Path]],
) -> tuple[tuple[int, int, int], list[list[int]]]:
    """Height, width and channels of the images of the data set; the sizes of the files it takes."""
    sizes, most_channels = [], 1
    for path in paths:
        with _named(path):
            *found, channels = image_files.shape(path)
        if crop and min(found) < crop:
            left_out[_too_small(crop)].append(path)
            continue
        sizes.append(found)
        most_channels = max(most_channels, channels)
    require(bool(sizes), f"no image has {crop}x{crop} pixels or more, as --crop={crop} needs")
    kept = min(sizes) == max(sizes) and max(sizes[0]) <= _LARGEST
    size = (crop, crop) if crop else size or (sizes[0] if kept else _SIZE)
    return (*size, most_channels), sizes


def _resized(sizes: list[list[int]], shape: tuple[int, int, int]) -> list[str]:
    """A line about images that were resized though no size was given."""
    least, most = min(sizes, key=math.prod), max(sizes, key=math.prod)
    if least == most == list(shape[:2]):
        return []
    return [
        f"sizes: {least[0]}x{least[1]} to {most[0]}x{most[1]} pixels, resized to "
        f"{shape[0]}x{shape[1]}; --size=HxW gives another size, --crop=N cuts tiles instead"
    ]


def _notes(
    folders: dict[str, pathlib.Path],
    classes: list[str],
    left_out: dict[str, list[pathlib.Path]],
    folder: pathlib.Path,
    resized: list[str],
) -> tuple[str, ...]:
    """What became of the folders and files, in lines for people."""
    if "" in folders:
        notes = [f"splits: a tenth of the images, drawn with seed {_SPLIT_SEED}, is test"]
    else:
        named = ", ".join(f"{split} from {path.name}" for split, path in folders.items())
        notes = [f"splits: {named}"]
    notes.append(f"classes: {', '.join(name or '(none)' for name in classes) or 'none'}")
    for reason, paths in left_out.items():
        if paths:
            shown = ", ".join(printable(p.relative_to(folder)) for p in paths[:3])
            more = ", ..." if len(paths) > 3 else ""
            notes.append(f"left out: {len(paths)} {reason} ({shown}{more})")
    return (*notes, *resized)


def _decode(path: pathlib.Path, shape: tuple[int, int, int]) -> np.ndarray:
    """Returns the pixels, uint8 [H, W, C]."""
    with _named(path):
        return image_files.fitted(path, shape)


@contextlib.contextmanager
def _named(path: pathlib.Path) -> Iterator[None]:
    """Puts the file's name first in the errors of `image_files`."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
