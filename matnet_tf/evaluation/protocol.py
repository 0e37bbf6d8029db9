# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The protocol that all measurements of a split share: images, seeds, and recorded settings.

With the same settings, evaluation and scores use the same images and the same noise, so the mean
of the images' scores is what the evaluation reports.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from matnet_tf.config import ClusterConfig, EvaluateConfig
from matnet_tf.data import loading
from matnet_tf.distributions.stateless_random import seed_tensor
from matnet_tf.model.elbo_model import ElboModel
from matnet_tf.runs.models import LoadedRun, model_digest
from matnet_tf.runs.workdir import source_commit
from matnet_tf.tracing import compiles_by_default
from matnet_tf.version import __version__

__all__ = ["batch_seeds", "bound_settings", "check_finite", "chosen_images", "less_memory"]


def chosen_images(config: EvaluateConfig | ClusterConfig, total: int) -> np.ndarray:
    """Draws the images to measure; subsets with one seed are nested.

    Args:
      config: `images` is the size of the subset, 0 for all; `seed` is its seed.
      total: Number of images in the split.

    Returns:
      Indices of the images, in rising order.

    Raises:
      ValueError: If the config asks for more images than the split has.
    """
    if config.images > total:
        raise ValueError(
            f"{type(config).__name__}.images must be at most {total}, the images of the "
            f"{config.split} split; got {config.images}"
        )
    # NumPy promises that RandomState gives the same numbers in every later version.
    order = np.random.RandomState(config.seed % 2**32).permutation(total)
    return np.sort(order[: config.images or total])


def batch_seeds(seed: int, position: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Derives the seeds of a batch, int32 `[2]`: of its log-weights, and of its ELBO.

    Args:
      seed: Integer seed of the measurement.
      position: Position of the batch's first image among the measured ones.
    """
    batch_seed = tf.random.fold_in(seed_tensor(seed), position)
    return tuple(tf.unstack(tf.random.split(batch_seed, 2)))


def check_finite(values: np.ndarray, position: int) -> None:
    """Checks that the bounds `[B]` of a batch are finite.

    Raises:
      ValueError: If one is not; the message counts its image from `position`, the batch's first.
    """
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise ValueError(
            f"the bound of image {position + bad[0]} must be finite; got {values[bad[0]]}: the "
            f"model's weights or its likelihood have gone wrong"
        )


def less_memory(config: EvaluateConfig, model: ElboModel) -> str:
    """What to say where a pass needs more memory than there is."""
    name, images = type(config).__name__, config.batch_size
    rows = max(images, (config.chunk or model.samples_per_pass) // images * images)
    smaller = f"{name}.chunk={max(images, rows // 2)}"
    if rows == images:  # One sample of each image.
        smaller = f"{name}.batch_size={images // 2}" if images > 1 else "fewer processes at once"
    return f"out of memory with {rows} image-samples in a pass, {images} images: try {smaller}"


def bound_settings(
    config: EvaluateConfig, loaded: LoadedRun, name: str, split: loading.Split, count: int
) -> dict[str, Any]:
    """Collects everything that a bound depends on, under the names that records use.

    Args:
      config: Settings of the measurement.
      loaded: The model and its run.
      name: Name of the data set.
      split: Its images.
      count: Number of images measured.
    """
    drawn = split.binarization == "dynamic"
    noise = "uniform" if split.dequantized else "none"
    return {
        "data": name,
        "data_digest": split.identity()["digest"],
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
        "model_digest": model_digest(loaded.model),
        "num_samples": config.num_samples,
        "seed": config.seed,
        "batch_size": config.batch_size,
        "chunk": config.chunk or loaded.model.samples_per_pass,
        "tf32": config.tf32 and bool(tf.config.list_physical_devices("GPU")),
        "jit_compile": compiles_by_default(),  # XLA draws other noise for the same seed.
        "package_version": __version__,
        "commit": source_commit(),
    }
