# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The test images that the page offers, and that an image is compared with."""

from __future__ import annotations

import os
import pathlib
from typing import NamedTuple

import numpy as np

from matnet_tf.config import EvaluateConfig, Experiment
from matnet_tf.data import loading
from matnet_tf.evaluation.protocol import chosen_images
from matnet_tf.presets import IMAGES, is_published

__all__ = ["Examples", "load_examples"]


class Examples(NamedTuple):
    """Test images as the model sees them."""

    x: np.ndarray  # [N, H, W, C] float32 in [0, 1]
    known: np.ndarray | None  # bool [N, H, W]: the masks of a conditional model's data
    source: str  # Such as "100 of 10,000 test images of mnist".


def load_examples(workdir: str | os.PathLike, experiment: Experiment, count: int) -> Examples:
    """Loads test images: those of `matnet score --images=COUNT`, or all if there are fewer.

    A published folder has ten of its own, for machines without the data set.

    Raises:
      ValueError: If the data set cannot be read, and there are no others.
    """
    try:
        split = loading.load_for(experiment.model, experiment.data, "test")
    except ValueError:
        if not is_published(workdir):
            raise
        return _stored(pathlib.Path(workdir), experiment.data.name)
    chosen = chosen_images(EvaluateConfig(images=min(count, split.num_images)), split.num_images)
    with split.images.reading():
        batches = list(split.evaluation_dataset(100, chosen).as_numpy_iterator())
    source = f"{len(chosen)} of {split.num_images:,} test images of {experiment.data.name}"
    if not isinstance(batches[0], dict):
        return Examples(np.concatenate(batches), None, source)
    x, mask = (np.concatenate([batch[name] for batch in batches]) for name in ("image", "mask"))
    return Examples(x, mask[..., 0] > 0, source)


def _stored(folder: pathlib.Path, name: str) -> Examples:
    with np.load(folder / IMAGES) as file:
        x = file["image"].astype(np.float32) / 255
        known = file["mask"][..., 0] > 0 if "mask" in file.files else None
    return Examples(x, known, f"{len(x)} test images of {name}, which come with the model")
