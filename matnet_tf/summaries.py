# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""A callback that writes numbers and pictures to TensorBoard."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from matnet_tf import pictures
from matnet_tf.completions import completion_grid
from matnet_tf.descent import Trace
from matnet_tf.inputs import images_of
from matnet_tf.noise import seed_tensor

__all__ = ["Summaries"]

_COMPLETIONS = 4  # Of each image, in the picture of a conditional model.

Row = Mapping[str, float | None]


class Summaries(keras.callbacks.Callback):
    """Writes metrics and pictures of a model to TensorBoard, when told to by `write`.

    `fit`, given this among its callbacks, tells it the model and closes its file at the end;
    whoever knows the metrics calls `write`.

    What is written at a step is a function of the weights, the rows and the seed alone, so that
    a step written again after a crash is written equal.

    Args:
      log_dir: where the event files go; it is made at the first write.
      images: examples to reconstruct, `[n, H, W, C]` float in the likelihood's range, or for a
        conditional model a dictionary of `image` and `mask`; None or n = 0 writes no pictures.
      seed: of the samples and reconstructions, the same at every step, so that the pictures of
        two steps can be compared.
      read_rows: gives the metrics rows so far, each with `step`; for the picture of the KL.

    Raises (from `fit`):
      ValueError: if the images are not as the model's config says.
    """

    def __init__(
        self,
        log_dir: str,
        images: np.ndarray | Mapping[str, np.ndarray] | None,
        seed: int,
        read_rows: Callable[[], Sequence[Row]],
    ):
        super().__init__()
        self.log_dir = str(log_dir)
        self.images = images
        self.seed = seed
        self.read_rows = read_rows
        self._writer = None

    def set_model(self, model: Any) -> None:
        super().set_model(model)
        if self._draws:
            self._inputs = model.checked_inputs(*model.inputs_of(self.images))

    def on_train_end(self, logs=None):
        """Closes the event file; a later write opens another one."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def write(self, step: int, row: Row, pictures: bool) -> None:
        """Writes a row's finite values under their names as tags, and flushes.

        With pictures, also `kl_area`, `samples` (n * n of them; of a conditional model
        `completions` instead) and `reconstructions` (keep the top k levels, for several k).

        Args:
          step: the global training step.
          row: metrics at that step; values that are None or not finite are left out.
          pictures: whether to draw, too.
        """
        if self._writer is None:
            self._writer = tf.summary.create_file_writer(self.log_dir)
        with self._writer.as_default(step=step):
            for tag, value in row.items():
                if tag != "step" and _finite(value):
                    tf.summary.scalar(tag, value)
            if pictures and self._draws:
                self._write_pictures(step, row)
        self._writer.flush()

    @property
    def _draws(self) -> bool:
        return self.images is not None and len(images_of(self.images)) > 0

    def _write_pictures(self, step: int, row: Row) -> None:
        kl_area = self._kl_area(step, row)
        if kl_area is not None:
            tf.summary.image("kl_area", kl_area[np.newaxis])
        if self.model.config.conditional_stages:
            grid = completion_grid(
                self.model, self._inputs, _COMPLETIONS, _COMPLETIONS, seed=self.seed
            )
            tf.summary.image("completions", pictures.figure_to_array(grid)[np.newaxis])
        else:
            tf.summary.image("samples", self._samples()[np.newaxis])
        tf.summary.image("reconstructions", self._reconstructions()[np.newaxis])

    def _kl_area(self, step: int, row: Row) -> np.ndarray | None:
        """The KL so far, or None if no row has it finite."""
        # Rows of later steps are left from before a crash: this step is their past.
        rows = [earlier for earlier in self.read_rows() if earlier["step"] < step]
        rows.append({**row, "step": step})
        tags = [f"kl/{name}" for name in self.model.config.level_names]
        rows = [r for r in rows if all(_finite(r.get(tag)) for tag in tags)]
        if not rows:
            return None
        kl = {tag.removeprefix("kl/"): [r[tag] for r in rows] for tag in tags}
        return pictures.figure_to_array(pictures.kl_area([r["step"] for r in rows], kl))

    # The model is walked without tf.function: tracing a graph for every k takes longer than all
    # the pictures of a short run.

    def _samples(self) -> np.ndarray:
        side = len(self._inputs[0])
        trace = self.model.walk(None, side * side, seed_tensor(self.seed))
        return pictures.image_grid(self._images(trace), columns=side)

    def _reconstructions(self) -> np.ndarray:
        x = self._inputs[0]
        view, seed = self.model.watch(*self._inputs), seed_tensor(self.seed)
        rows, levels = [], self.model.config.num_levels
        for k in pictures.depths(levels):
            trace = self.model.walk(view, len(x), seed, num_inferred=k)
            rows.append((f"keep top {k} of {levels}", self._images(trace)))
        return pictures.figure_to_array(pictures.reconstruction_grid(x.numpy(), rows))

    def _images(self, trace: Trace) -> np.ndarray:
        return self.model.images(trace, seed_tensor(self.seed)).numpy()


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
