# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""What every reader of source files returns.

A reader checks all images and raises a ValueError of one line that names the file, what was
expected and what was found.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

__all__ = ["Source", "examples"]


@dataclasses.dataclass(frozen=True)
class Source:
    """Images and labels from source files, ready to be written as a TFDS data set.

    Attributes:
      name: TFDS name.
      version: TFDS version; equal to that of TFDS's own builder if there is one.
      description: Text for the data set's info.
      image_shape: Height, width and channels.
      label_names: Class names, or the number of classes, for each label feature.
      splits: Examples of each split: dictionaries with `image`, uint8 [H, W, C], one integer per
        label and one string per text.
      texts: Names of text features.
      notes: What a person should know of the reading, in lines.
      tiles_of: Median height and width of the pictures that the images are tiles of; None if they
        are whole pictures.
    """

    name: str
    version: str
    description: str
    image_shape: tuple[int, int, int]
    label_names: Mapping[str, int | list[str]]
    splits: Mapping[str, Iterable[dict[str, Any]]]
    texts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    tiles_of: tuple[int, int] | None = None


def examples(images: np.ndarray, **labels: np.ndarray) -> list[dict[str, Any]]:
    """Returns one dictionary per image, with the image and its labels."""
    return [
        {"image": image, **{name: int(values[i]) for name, values in labels.items()}}
        for i, image in enumerate(images)
    ]
