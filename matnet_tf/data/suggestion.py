# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""What images are like, and a model for them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from matnet_tf.config import DataConfig, ModelConfig
from matnet_tf.config.suggestion import suggested_model
from matnet_tf.data import loading
from matnet_tf.data.batching import MemoryImages
from matnet_tf.data.catalog import data_set_info

__all__ = ["suggest", "suggest_for"]


def suggest(data: Any, size: str = "medium") -> ModelConfig:
    """A model for images: their shape, scales by halving, and the likelihood of their values.

    Args:
      data: Images `[N, H, W, C]` in [0, 1], a `tf.data.Dataset` of batches of them (the first one
        counts), of `(image, label)` pairs or of dictionaries with `image`, or a `DataConfig`.
      size: `small`, `medium` or `large`.

    Raises:
      ValueError: If the images are not floats `[N, H, W, C]` in [0, 1].
    """
    if isinstance(data, DataConfig):
        return suggest_for(data, size)[0]
    if isinstance(data, tf.data.Dataset):
        data = next(iter(data.as_numpy_iterator()), None)
    while isinstance(data, (tuple, list)):
        data = data[0]
    x = np.asarray(data["image"] if isinstance(data, dict) else data)
    if x.dtype.kind != "f" or x.ndim != 4 or not x.size or not (x.min() >= 0 and x.max() <= 1):
        raise ValueError(
            f"expected float images [N, H, W, C] in [0, 1]; got {x.dtype.name} {list(x.shape)}"
        )
    return suggested_model(x.shape[1:], _kind_of_values(x), size)


def suggest_for(config: DataConfig, size: str = "medium") -> tuple[ModelConfig, DataConfig, str]:
    """A model for a data set, the data set's config, and what its images are, in words.

    Images of black and white alone are binary: their config gets the binarization `threshold`.

    Raises:
      ValueError: As `loading.load`, for the training split.
    """
    split = loading.load(config, "train")
    if split.binarization != "none" or data_set_info(config.name).white == 1:
        kind = "binary"
    elif not split.eight_bit:
        kind = "real"
    elif config.binarization == "auto" and _is_black_and_white(split.images):
        kind, config = "binary", dataclasses.replace(config, binarization="threshold")
    else:
        kind = "8-bit grey" if split.image_shape[-1] == 1 else "8-bit colour"
    return suggested_model(split.image_shape, kind, size, config.mask != "none"), config, kind


def _is_black_and_white(images: Any) -> bool:
    return isinstance(images, MemoryImages) and bool(np.isin(images.array, (0, 255)).all())


def _kind_of_values(x: np.ndarray) -> str:
    if np.isin(x, (0, 1)).all():
        return "binary"
    levels = 255.0 * x
    if np.abs(levels - np.rint(levels)).max() > 1e-3:
        return "real"
    return "8-bit grey" if x.shape[-1] == 1 else "8-bit colour"
