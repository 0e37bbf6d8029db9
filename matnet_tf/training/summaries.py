# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes numbers and pictures of a training run to TensorBoard."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from matnet_tf.distributions.stateless_random import seed_tensor
from matnet_tf.files import reason_of
from matnet_tf.model.descent import Trace
from matnet_tf.plots import curves, drawing
from matnet_tf.plots.completions import completion_grid

__all__ = ["Summaries"]

_COMPLETIONS = 4  # Completions of each image in the picture of a conditional model.

Row = Mapping[str, float | None]

_DESCRIPTIONS = {
    "seconds": "Wall-clock seconds of all sessions.",
    "images_per_second": "Mean training speed of this session, without its first execution.",
    "elbo": "Bound on log p(x) in nats per image: means of the last checkpoint interval, and of "
    "the validation images.",
    "elbo_averaged": "The bound of the validation images under the averaged weights, in nats.",
    "log_likelihood": "E[log p(x | z)] in nats per image, the first part of the ELBO.",
    "kl": "KL of all levels in nats per image, the second part of the ELBO.",
    "non_finite": "Images of the interval whose bound was not finite; no mean counts them.",
    "learning_rate": "Adam's learning rate.",
    "kl_weight": "Factor on the KL in the loss. Reported bounds do not have it.",
    "skipped": "Steps skipped so far, as their gradient was not finite or out of line.",
    "kl_area": "KL of each level over the steps, stacked, the top level at the bottom.",
    "kl_levels": "KL of each level at this step.",
    "samples": "Images drawn from the model.",
    "completions": "Images, what is known of them, completions and their mean.",
    "reconstructions": "Images, and what is left of them if only the top k levels are kept.",
}
_KL_OF_A_LEVEL = "KL of one level of latents in nats per image."


class Summaries(keras.callbacks.Callback):
    """Writes metrics and pictures of a model to TensorBoard when `write` is called.

    As a callback of `fit` it learns of the model and closes its file at the end. What it writes at
    a step depends only on the weights, the rows and the seed: a step written again after a crash is
    written with the same values.

    Args:
      log_dir: Folder of the event files; the first write creates it.
      images: Images to reconstruct, `[n, H, W, C]`, float32 in the range of the likelihood; for a
        conditional model a dictionary of `image` and `mask`. None or n = 0 writes no pictures.
      seed: Integer seed of samples and reconstructions, the same at every step, so that pictures
        of different steps can be compared.
      read_rows: Returns the metrics rows so far, each with `step`, for the picture of the KL.

    Raises (from `fit`):
      ValueError: If the images do not have the shape or the values that the model's config says.
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
        self._writer = self._validation = None

    def set_model(self, model: Any) -> None:
        super().set_model(model)
        if self._draws:
            form = model.input_form
            self._inputs = form.check(*form.unpack(self.images))

    def on_train_end(self, logs=None):
        """Closes the event file; a later write opens a new one."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self._validation is not None:
            self._validation.close()
            self._validation = None

    def write(self, step: int, row: Row, pictures: bool) -> None:
        """Writes the finite values of a row, with their names as tags, and flushes.

        Values of validation images, `val_elbo`, are the run `validation` below the other, with the
        tag `elbo`, so that one chart shows both.

        Pictures are `kl_area`, `kl_levels`, `samples` (n * n of them; for a conditional model
        `completions` instead) and `reconstructions` (keeping the top k levels, for several k).

        Args:
          step: The global training step.
          row: Metrics at that step; values that are None or not finite are left out.
          pictures: Whether to write pictures, too.

        Raises:
          OSError: If they cannot be written, for example because the disk is full.
        """
        try:
            if self._writer is None:
                self._writer = tf.summary.create_file_writer(self.log_dir)
            finite = {tag: value for tag, value in row.items() if tag != "step" and _finite(value)}
            held_out = {tag: finite.pop(tag) for tag in list(finite) if tag.startswith("val_")}
            if held_out:
                self._write_validation(step, held_out)
            with self._writer.as_default(step=step):
                for tag, value in finite.items():
                    _scalar(tag, value)
                if pictures and self._draws:
                    self._write_pictures(step, row)
            self._writer.flush()
        except tf.errors.OpError as error:
            raise OSError(
                f"the summaries in {self.log_dir} could not be written: {reason_of(error)}"
            ) from None

    def _write_validation(self, step: int, row: Row) -> None:
        if self._validation is None:
            self._validation = tf.summary.create_file_writer(f"{self.log_dir}/validation")
        with self._validation.as_default(step=step):
            for tag, value in row.items():
                _scalar(tag.removeprefix("val_"), value)
        self._validation.flush()

    @property
    def _draws(self) -> bool:
        return self.images is not None and len(self.model.input_form.unpack(self.images)[0]) > 0

    def _write_pictures(self, step: int, row: Row) -> None:
        kl_area = self._kl_area(step, row)
        if kl_area is not None:
            _image("kl_area", kl_area)
            kl = {name: row[f"kl/{name}"] for name in self.model.config.level_names}
            bars = drawing.figure_to_array(curves.kl_bars(kl))
            _image("kl_levels", bars)
        if self.model.config.conditional_stages:
            grid = completion_grid(
                self.model, self._inputs, _COMPLETIONS, _COMPLETIONS, seed=self.seed
            )
            _image("completions", drawing.figure_to_array(grid))
        else:
            _image("samples", self._samples())
        _image("reconstructions", self._reconstructions())

    def _kl_area(self, step: int, row: Row) -> np.ndarray | None:
        """Draws the KL of all steps so far; None if no row has a finite one."""
        # Rows of this step and later ones are left over from before a crash.
        rows = [earlier for earlier in self.read_rows() if earlier["step"] < step]
        rows.append({**row, "step": step})
        tags = [f"kl/{name}" for name in self.model.config.level_names]
        rows = [r for r in rows if all(_finite(r.get(tag)) for tag in tags)]
        if not rows:
            return None
        kl = {tag.removeprefix("kl/"): [r[tag] for r in rows] for tag in tags}
        return drawing.figure_to_array(curves.kl_area([r["step"] for r in rows], kl))

    # Pictures are drawn eagerly: tracing a graph for every k would take longer than all pictures of
    # a short run.

    def _samples(self) -> np.ndarray:
        side = len(self._inputs[0])
        trace = self.model.hierarchy.top_down_pass(None, side * side, seed_tensor(self.seed))
        return drawing.image_grid(self._images(trace), columns=side)

    def _reconstructions(self) -> np.ndarray:
        x = self._inputs[0]
        encoding, seed = self.model.hierarchy.encode(*self._inputs), seed_tensor(self.seed)
        rows, levels = [], self.model.config.num_levels
        for k in drawing.depths(levels):
            trace = self.model.hierarchy.top_down_pass(encoding, len(x), seed, num_inferred=k)
            rows.append((f"keep top {k} of {levels}", self._images(trace)))
        return drawing.figure_to_array(drawing.reconstruction_grid(x.numpy(), rows))

    def _images(self, trace: Trace) -> np.ndarray:
        return self.model.hierarchy.images(trace, seed_tensor(self.seed)).numpy()


def _scalar(tag: str, value: float) -> None:
    description = _DESCRIPTIONS.get(tag, _KL_OF_A_LEVEL if tag.startswith("kl/") else None)
    tf.summary.scalar(tag, value, description=description)


def _image(tag: str, picture: np.ndarray) -> None:
    tf.summary.image(tag, picture[np.newaxis], description=_DESCRIPTIONS[tag])


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
