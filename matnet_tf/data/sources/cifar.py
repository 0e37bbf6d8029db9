# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Reader of CIFAR-10's binary version."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np

from matnet_tf.config.validation import require
from matnet_tf.data.sources.base import Source, examples

__all__ = ["read_cifar10"]

_SHAPE = (32, 32, 3)
_RECORD = 3073  # The label, then 1024 bytes each of red, green and blue.
_CLASSES = [
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
]
_FILES = {
    "train": [f"data_batch_{number}.bin" for number in range(1, 6)],
    "test": ["test_batch.bin"],
}


def read_cifar10(folder: pathlib.Path) -> Source:
    """Reads `data_batch_{1..5}.bin` and `test_batch.bin` (Krizhevsky 2009).

    Args:
      folder: Folder with the files, each of any length, or the parent of `cifar-10-batches-bin`.

    Raises:
      ValueError: If a file is missing, empty or truncated, or holds a label above 9.
    """
    inner = folder / "cifar-10-batches-bin"
    root = inner if inner.is_dir() else folder
    records = {
        split: np.concatenate([_records(root / name) for name in names])
        for split, names in _FILES.items()
    }
    counts = " and ".join(f"{len(rows)} {split}" for split, rows in records.items())
    return Source(
        name="cifar10",
        version="3.0.2",
        description=f"{counts} images of CIFAR-10, from its binary version.",
        image_shape=_SHAPE,
        label_names={"label": _CLASSES},
        splits={split: _examples(split, rows) for split, rows in records.items()},
        texts=("id",),
    )


def _records(path: pathlib.Path) -> np.ndarray:
    """Returns the records of a file, uint8 [N, 3073]."""
    require(path.is_file(), f"{path.parent} lacks {path.name}")
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    require(data.size > 0, f"{path} is empty")
    require(
        data.size % _RECORD == 0,
        f"{path} must hold records of {_RECORD} bytes; its {data.size} bytes are "
        f"{data.size // _RECORD} records and {data.size % _RECORD} bytes (is it truncated?)",
    )
    records = data.reshape(-1, _RECORD)
    labels = records[:, 0]
    worst = labels.argmax()
    require(
        labels[worst] < len(_CLASSES),
        f"{path} must hold labels from 0 to {len(_CLASSES) - 1}; record {worst} has "
        f"{labels[worst]}",
    )
    return records


def _examples(split: str, records: np.ndarray) -> list[dict[str, Any]]:
    """Returns the examples of a split, with the same `id` as TFDS's builder gives them."""
    height, width, channels = _SHAPE
    planes = records[:, 1:].reshape(-1, channels, height, width)
    rows = examples(planes.transpose(0, 2, 3, 1), label=records[:, 0])
    return [{**row, "id": f"{split}_{position:05d}"} for position, row in enumerate(rows)]
