# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Readers of the files that users have: IDX, `.amat` and `chardata.mat`.

Each returns a `Source` whose every image has been checked, or raises a ValueError of one line
that names the file, what was expected and what was found.
"""

from __future__ import annotations

import dataclasses
import gzip
import pathlib
import struct
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from matnet_tf.files import reason_of

__all__ = ["Source", "examples", "read_amat", "read_chardata", "read_mnist", "require"]

_IDX_IMAGES, _IDX_LABELS = 0x803, 0x801


@dataclasses.dataclass(frozen=True)
class Source:
    """Images on their way into a TFDS data directory.

    Attributes:
      name: TFDS name.
      version: TFDS version, the one of TFDS's own builder where it has one.
      description: for the data set's info.
      image_shape: height, width and channels.
      label_names: for each label feature, its class names or how many there are.
      splits: for each split, its examples: dictionaries of `image`, uint8 `[H, W, C]`, one
        integer for each label and one string for each text.
      texts: names of features that are text.
    """

    name: str
    version: str
    description: str
    image_shape: tuple[int, int, int]
    label_names: Mapping[str, int | list[str]]
    splits: Mapping[str, Iterable[dict[str, Any]]]
    texts: tuple[str, ...] = ()


def require(condition: bool, message: str) -> None:
    """Raises a ValueError with the message unless the condition holds."""
    if not condition:
        raise ValueError(message)


def examples(images: np.ndarray, **labels: np.ndarray) -> list[dict[str, Any]]:
    """One dictionary for each image, with its value of each label."""
    return [
        {"image": image, **{name: int(values[i]) for name, values in labels.items()}}
        for i, image in enumerate(images)
    ]


def read_mnist(folder: pathlib.Path, name: str, version: str, classes: int | list[str]) -> Source:
    """Reads the four IDX files of MNIST or of a set in its format, packed with gzip or not.

    Args:
      folder: holds `{train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz]`.
      name: TFDS name of the set.
      version: TFDS version of the set.
      classes: class names, or how many there are.

    Raises:
      ValueError: if a file is missing, truncated, of another kind, or images and labels differ in
        number.
    """
    count = classes if isinstance(classes, int) else len(classes)
    splits, shapes = {}, {}
    for split, prefix in (("train", "train"), ("test", "t10k")):
        image_path = _first(folder, f"{prefix}-images-idx3-ubyte", f"{prefix}-images.idx3-ubyte")
        label_path = _first(folder, f"{prefix}-labels-idx1-ubyte", f"{prefix}-labels.idx1-ubyte")
        images, labels = _idx(image_path, _IDX_IMAGES), _idx(label_path, _IDX_LABELS)
        require(
            len(images) == len(labels),
            f"{label_path} has {len(labels)} labels for the {len(images)} images of "
            f"{image_path.name}",
        )
        require(
            len(labels) > 0 and labels.max() < count,
            f"{label_path} must hold labels from 0 to {count - 1}; got "
            f"{f'a {labels.max()}' if len(labels) else 'none'}",
        )
        shapes[image_path] = images.shape[1:]
        splits[split] = examples(images[..., None], label=labels)
    for path, shape in shapes.items():
        require(shape == (28, 28), f"{path} must hold images of 28x28; got {shape[0]}x{shape[1]}")
    return Source(name, version, f"{name} from IDX files.", (28, 28, 1), {"label": classes}, splits)


def _first(folder: pathlib.Path, *stems: str) -> pathlib.Path:
    for stem in stems:
        for path in (folder / f"{stem}.gz", folder / stem):
            if path.is_file():
                return path
    raise ValueError(f"{folder} lacks {stems[0]}[.gz]")


def _idx(path: pathlib.Path, magic: int) -> np.ndarray:
    """The array of an IDX file of bytes: magic number, sizes, then the values."""
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" else data
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    rank = magic & 0xFF
    require(len(data) >= 4 + 4 * rank, f"{path} is truncated: {len(data)} bytes hold no header")
    found, *sizes = struct.unpack(f">{1 + rank}I", data[: 4 + 4 * rank])
    kind = {_IDX_IMAGES: "images", _IDX_LABELS: "labels"}
    require(
        found == magic,
        f"{path} must hold {kind[magic]} (IDX magic {magic}); its magic is {found}"
        + (f", that of {kind[found]}" if found in kind else ""),
    )
    size = len(data) - 4 - 4 * rank
    expected = int(np.prod(sizes, dtype=np.int64))
    require(
        size == expected,
        f"{path} {'is truncated' if size < expected else 'is too long'}: its header announces "
        f"{'x'.join(map(str, sizes))} = {expected} bytes; got {size}",
    )
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(sizes)


def read_amat(folder: pathlib.Path) -> Source:
    """Reads MNIST's fixed binarization: `binarized_mnist_{train,valid,test}.amat`.

    Each line is an image of 784 zeros and ones, separated by spaces (Larochelle & Murray 2011).
    As with TFDS's builder the stored intensities are 0 and 1.

    Raises:
      ValueError: if a file is missing, or a line is not 784 zeros and ones.
    """
    splits = {}
    for split, stem in (("train", "train"), ("validation", "valid"), ("test", "test")):
        path = folder / f"binarized_mnist_{stem}.amat"
        require(path.is_file(), f"{folder} lacks {path.name}")
        splits[split] = examples(_amat(path).reshape(-1, 28, 28, 1))
    description = "A fixed binarization of MNIST, from .amat files."
    return Source("binarized_mnist", "1.0.0", description, (28, 28, 1), {}, splits)


def _amat(path: pathlib.Path) -> np.ndarray:
    """The zeros and ones of a file, `[N, 784]`."""
    lines = path.read_bytes().splitlines()
    require(bool(lines), f"{path} is empty")
    rows = np.empty((len(lines), 784), np.uint8)
    for number, line in enumerate(lines, 1):
        values = line.split()
        require(
            len(values) == 784,
            f"{path}, line {number}: expected 784 values; got {len(values)} (is it truncated?)",
        )
        digits = np.frombuffer(b"".join(values), np.uint8) - ord("0")
        # Below "0" the subtraction wraps round, so one comparison finds every other byte.
        require(
            digits.size == 784 and digits.max() <= 1,
            f"{path}, line {number}: every value must be 0 or 1",
        )
        rows[number - 1] = digits
    return rows


def read_chardata(folder: pathlib.Path) -> Source:
    """Reads Omniglot at 28x28 from `chardata.mat`, as distributed with IWAE (Burda et al. 2015).

    The file holds one image a column, pixels in column-major order, intensities in [0, 1];
    `target` is the alphabet, one-hot, and `targetchar` the character within its alphabet.

    Raises:
      ValueError: if the file or a key is missing, or an array has another shape or range.
    """
    path = folder / "chardata.mat" if folder.is_dir() else folder
    arrays = _mat(path)
    splits = {
        split: _characters(path, arrays, prefix)
        for split, prefix in (("train", ""), ("test", "test"))
    }
    # Characters are numbered from 1 within their alphabet, up to 55.
    labels = {"alphabet": 50, "character": 56}
    description = "Omniglot at 28x28 from chardata.mat; intensities are 255 times the file's."
    return Source("omniglot28", "1.0.0", description, (28, 28, 1), labels, splits)


def _mat(path: pathlib.Path) -> dict[str, np.ndarray]:
    # SciPy takes its time to import, and only this reader needs it.
    import scipy.io

    require(path.is_file(), f"{path.parent} lacks {path.name}")
    try:
        return scipy.io.loadmat(path)
    except Exception as error:  # SciPy raises whatever the damage happens to trigger.
        raise ValueError(f"{path} is damaged or not a MATLAB file: {reason_of(error)}") from None


def _characters(
    path: pathlib.Path, arrays: dict[str, np.ndarray], prefix: str
) -> list[dict[str, Any]]:
    """The examples of one split, whose keys open with `prefix`."""
    names = {kind: prefix + kind for kind in ("data", "target", "targetchar")}
    missing = [name for name in names.values() if name not in arrays]
    found = ", ".join(sorted(name for name in arrays if not name.startswith("__")))
    require(not missing, f"{path} lacks the key {', '.join(missing)}; it has {found or 'none'}")
    data, target, character = (arrays[names[kind]] for kind in names)
    count = data.shape[-1]
    for name, array, shape in (
        (names["data"], data, (784, count)),
        (names["target"], target, (50, count)),
        (names["targetchar"], character, (1, count)),
    ):
        require(
            array.shape == shape and count > 0,
            f"{path}: {name} must have shape {list(shape)}; got {list(array.shape)}",
        )
    low, high = float(data.min()), float(data.max())
    require(
        low >= 0 and high <= 1, f"{path}: {names['data']} must lie in [0, 1]; got {low} to {high}"
    )
    # Transposing the last two axes undoes MATLAB's column-major order of the pixels.
    images = np.rint(255 * data.T.reshape(count, 28, 28).transpose(0, 2, 1)).astype(np.uint8)
    low, high = float(character.min()), float(character.max())
    require(
        low >= 0 and high <= 55,
        f"{path}: {names['targetchar']} must lie in [0, 55]; got {low} to {high}",
    )
    alphabet, character = target.argmax(0), character[0].astype(np.int64)
    return examples(images[..., None], alphabet=alphabet, character=character)
