# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""What every measurement of a split shares: its images, its seeds, and what its result depends on.

Evaluation and scores use the same images and the same noise for the same settings, so that the
scores of the images have the mean that the evaluation reports.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import tensorflow as tf

from matnet_tf import data, experiment
from matnet_tf.config import EvaluateConfig
from matnet_tf.hierarchy import Hierarchy
from matnet_tf.noise import seed_tensor
from matnet_tf.serialization import to_dict
from matnet_tf.version import __version__

__all__ = ["batch_seeds", "check_finite", "chosen_images", "settings_of"]


def chosen_images(config: EvaluateConfig, total: int) -> np.ndarray:
    """Indices of the images to measure, rising; subsets of one seed are nested.

    Raises:
      ValueError: if the config asks for more images than the `total` of the split.
    """
    if config.images > total:
        raise ValueError(
            f"{type(config).__name__}.images must be at most {total}, the images of the "
            f"{config.split} split; got {config.images}"
        )
    # NumPy promises that RandomState gives the same numbers in every later version.
    order = np.random.RandomState(config.seed).permutation(total)
    return np.sort(order[: config.images or total])


def batch_seeds(seed: int, position: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Seeds of a batch, int32 `[2]`: of its log-weights, and of its ELBO.

    Args:
      seed: of the measurement.
      position: of the batch's first image among the measured ones.
    """
    batch_seed = tf.random.fold_in(seed_tensor(seed), position)
    return tuple(tf.unstack(tf.random.split(batch_seed, 2)))


def check_finite(values: np.ndarray, position: int) -> None:
    """Raises a ValueError that names the image unless all bounds `[B]` are finite."""
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise ValueError(
            f"the bound of image {position + bad[0]} must be finite; got {values[bad[0]]}: the "
            f"model's weights or its likelihood have gone wrong"
        )


def settings_of(
    config: EvaluateConfig, loaded: experiment.Loaded, name: str, split: data.Split, count: int
) -> dict[str, Any]:
    """Everything that a bound is a function of, under the names that records have.

    Args:
      config: what is measured.
      loaded: the model.
      name: of the data set.
      split: its images.
      count: how many of them are measured.
    """
    drawn = split.binarization == "dynamic"
    noise = "uniform" if split.dequantized else "none"
    return {
        "data": name,
        "data_digest": split.images.digest(),
        "split": config.split,
        "images": {
            "count": count,
            "of": split.num_images,
            "subset_seed": config.seed if count < split.num_images else None,
        },
        "binarization": {"method": split.binarization, "seed": split.draw_seed if drawn else None},
        **({"mask": split.mask_record} if split.mask_record else {}),
        "dequantization": {"method": noise, "seed": split.draw_seed if split.dequantized else None},
        "weights": loaded.weights,
        "checkpoint_step": loaded.step,
        "model_digest": _digest(loaded.model),
        "num_samples": config.num_samples,
        "seed": config.seed,
        "batch_size": config.batch_size,
        "chunk": config.chunk or loaded.model.samples_per_pass,
        "package_version": __version__,
        "commit": experiment.commit(),
    }


def _digest(model: Hierarchy) -> str:
    """A digest of the architecture and of every weight that a bound depends on."""
    digest = hashlib.sha256(json.dumps(to_dict(model.config), sort_keys=True).encode())
    for variable in model.bound_weights:
        digest.update(np.ascontiguousarray(variable.numpy()).tobytes())
    return digest.hexdigest()[:16]
