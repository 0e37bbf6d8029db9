# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Readers of MNIST's formats: IDX files, and `.amat` files of its fixed binarization."""

from __future__ import annotations

import gzip
import math
import pathlib
import struct
import zlib
from typing import Any, BinaryIO

import numpy as np

from matnet_tf.config.validation import require
from matnet_tf.data.sources.base import Source, examples

__all__ = ["read_amat", "read_mnist"]

_IMAGES, _LABELS = 0x803, 0x801  # Magic numbers.
_KINDS = {_IMAGES: "images", _LABELS: "labels"}
_FASHION = [
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
]
_PART = 2**24  # Bytes that are read at a time.
_CLASSES = {"mnist": 10, "fashion_mnist": _FASHION}


def read_mnist(folder: pathlib.Path, name: str) -> Source:
    """Reads the four IDX files of MNIST or Fashion-MNIST, gzipped or not.

    Args:
      folder: Folder with `{train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz]`.
      name: mnist or fashion_mnist.

    Raises:
      ValueError: If a file is missing, truncated or of another kind, or the numbers of images and
        labels differ.
    """
    splits = {"train": _idx_examples(folder, "train"), "test": _idx_examples(folder, "t10k")}
    labels = {"label": _CLASSES[name]}
    return Source(name, "3.0.1", f"{name} from IDX files.", (28, 28, 1), labels, splits)


def _idx_examples(folder: pathlib.Path, prefix: str) -> list[dict[str, Any]]:
    """Reads the images and labels of one split."""
    image_path = _first(folder, f"{prefix}-images-idx3-ubyte", f"{prefix}-images.idx3-ubyte")
    label_path = _first(folder, f"{prefix}-labels-idx1-ubyte", f"{prefix}-labels.idx1-ubyte")
    images, labels = _idx(image_path, _IMAGES), _idx(label_path, _LABELS)
    require(
        len(images) == len(labels),
        f"{label_path} has {len(labels)} labels for the {len(images)} images of {image_path.name}",
    )
    require(
        len(labels) > 0 and labels.max() < 10,
        f"{label_path} must hold labels from 0 to 9; got "
        f"{f'a {labels.max()}' if len(labels) else 'none'}",
    )
    height, width = images.shape[1:]
    require(
        (height, width) == (28, 28), f"{image_path} must hold images of 28x28; got {height}x{width}"
    )
    return examples(images[..., None], label=labels)


def _first(folder: pathlib.Path, *stems: str) -> pathlib.Path:
    for stem in stems:
        for path in (folder / f"{stem}.gz", folder / stem):
            if path.is_file():
                return path
    raise ValueError(f"{folder} lacks {stems[0]}[.gz]")


def _idx(path: pathlib.Path, magic: int) -> np.ndarray:
    """Reads an IDX file of bytes: magic number, sizes, then the values."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            sizes = _idx_sizes(path, file.read(4 + 4 * (magic & 0xFF)), magic)
            # No more than the header announces: a file can unpack to a thousand times its size.
            expected = math.prod(sizes)
            data = _read(file, expected)
            more = len(file.read(1))
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    announced = f"its header announces {'x'.join(map(str, sizes))} = {expected} bytes"
    require(len(data) == expected, f"{path} is truncated: {announced}; got {len(data)}")
    require(not more, f"{path} is too long: {announced}; there are more")
    return np.frombuffer(data, np.uint8).reshape(sizes)


def _read(file: BinaryIO, count: int) -> bytes:
    """Reads at most `count` bytes, in parts: the count may be far beyond the memory."""
    parts = []
    while count and (part := file.read(min(count, _PART))):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _idx_sizes(path: pathlib.Path, header: bytes, magic: int) -> list[int]:
    """Returns the sizes in the header of an IDX file."""
    rank = magic & 0xFF
    require(len(header) == 4 + 4 * rank, f"{path} is truncated: {len(header)} bytes hold no header")
    found, *sizes = struct.unpack(f">{1 + rank}I", header)
    require(
        found == magic,
        f"{path} must hold {_KINDS[magic]} (IDX magic {magic}); its magic is {found}"
        + (f", that of {_KINDS[found]}" if found in _KINDS else ""),
    )
    return sizes


def read_amat(folder: pathlib.Path) -> Source:
    """Reads MNIST's fixed binarization: `binarized_mnist_{train,valid,test}.amat`.

    Each line is an image of 784 zeros and ones, separated by spaces (Larochelle & Murray 2011). The
    stored intensities are 0 and 1, as in TFDS's builder.

    Raises:
      ValueError: If a file is missing, or a line is not 784 zeros and ones.
    """
    splits = {}
    for split, stem in (("train", "train"), ("validation", "valid"), ("test", "test")):
        path = folder / f"binarized_mnist_{stem}.amat"
        require(path.is_file(), f"{folder} lacks {path.name}")
        splits[split] = examples(_amat(path).reshape(-1, 28, 28, 1))
    description = "A fixed binarization of MNIST, from .amat files."
    return Source("binarized_mnist", "1.0.0", description, (28, 28, 1), {}, splits)


def _amat(path: pathlib.Path) -> np.ndarray:
    """Returns the zeros and ones of a file, uint8 [N, 784]."""
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
        # Below "0" the subtraction wraps around, so one comparison finds every other byte.
        require(
            digits.size == 784 and digits.max() <= 1,
            f"{path}, line {number}: every value must be 0 or 1",
        )
        rows[number - 1] = digits
    return rows
