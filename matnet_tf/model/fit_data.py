# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""What `fit`, `evaluate`, `predict` and their `_on_batch` forms take, and its checks.

Data come as arrays, a `tf.data.Dataset`, a `keras.utils.PyDataset` or a generator. All leave here
as elements `inputs`, or `(inputs, weights, weights)` with one weight per image: that is Keras's
order, whose place for targets may not be empty everywhere.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from matnet_tf.config import ElboLoss, ModelConfig
from matnet_tf.model.input_checks import (
    EMPTY,
    ImageInputs,
    MaskedImageInputs,
    check_specs,
    parts_of,
)

__all__ = ["check_unused", "checked_data", "compiled_loss", "monitor_directions"]

_TAKEN = "an array of images, a tf.data.Dataset, a keras.utils.PyDataset or a generator"
# A data set of more batches than this has no end that anyone will see.
_ENDLESS = 2**48
_HIGHER_IS_BETTER = ("elbo", "log_likelihood")


def checked_data(form: ImageInputs | MaskedImageInputs, x: Any, steps: int | None = 1) -> Any:
    """Arrays, checked now, or data whose every batch is checked as it comes.

    Args:
      form: The form of the model's inputs.
      x: The data.
      steps: Number of batches that are asked for, which an endless data set needs; None for all.

    Raises:
      ValueError: If the data are not what the model takes, are empty, or have no end.
    """
    if x is None:
        raise ValueError(f"data must be {_TAKEN}; got None")
    if isinstance(x, tf.data.Dataset):
        return _checked_dataset(form, x, steps)
    if isinstance(x, keras.utils.PyDataset):
        return _CheckedPyDataset(form, x)
    if isinstance(x, Iterator):
        return (_as_tuple(_checked_batch(form, element)) for element in x)
    return _checked_batch(form, x)


def check_unused(y: Any = None, class_weight: Any = None) -> None:
    """Refuses targets and class weights, which a model of images has no use for.

    Raises:
      ValueError: If there are any.
    """
    if y is not None:
        raise ValueError(
            "a MatNet learns from images alone: leave out y (a mask goes with its images, as "
            "{'image': x, 'mask': mask})"
        )
    if class_weight is not None:
        raise ValueError("a MatNet knows no classes: use sample_weight in place of class_weight")


def compiled_loss(
    config: ModelConfig, elbo_loss: ElboLoss | None, arguments: dict[str, Any]
) -> ElboLoss:
    """The settings of the loss from what `compile` is given.

    Args:
      config: The model's config.
      elbo_loss: Settings, or None for the defaults.
      arguments: Keywords of `compile`. They lose those that are fields of the settings, and those
        of Keras that are None and have no use here.

    Raises:
      ValueError: If a setting is out of range or does not go with the model, or there is an
        argument of `keras.Model.compile` for what these models have of their own.
    """
    for name in ("loss", "loss_weights", "metrics", "weighted_metrics"):
        if arguments.pop(name, None):
            raise ValueError(
                f"compile takes no {name}: the loss is the negative ELBO, and its parts are the "
                f"metrics"
            )
    if not isinstance(elbo_loss, ElboLoss | None):
        raise ValueError(f"elbo_loss must be an ElboLoss; got {elbo_loss!r}")
    names = [field.name for field in dataclasses.fields(ElboLoss)]
    settings = {name: getattr(elbo_loss or ElboLoss(), name) for name in names}
    settings |= {name: arguments.pop(name) for name in names if name in arguments}
    elbo_loss = ElboLoss(**settings)
    elbo_loss.check_model(config)
    return elbo_loss


def monitor_directions(callbacks: Any) -> None:
    """Tells callbacks such as `EarlyStopping` which way their metric improves, if they ask.

    Keras infers it for `loss` and the metrics of `compile` only.
    """
    for callback in callbacks or []:
        monitor = getattr(callback, "monitor", None)
        if isinstance(monitor, str) and getattr(callback, "mode", None) == "auto":
            up = monitor.removeprefix("val_") in _HIGHER_IS_BETTER
            callback.mode = "max" if up else "min"


def _checked_batch(form, element):
    inputs, weights = parts_of(element)
    packed = form.pack(*(part.numpy() for part in form.check(*form.unpack(inputs))))
    return packed if weights is None else (packed, weights, weights)


def _as_tuple(element):
    """The element as Keras wants it from generators and from a `PyDataset`."""
    return element if isinstance(element, tuple) else (element,)


def _checked_dataset(form, dataset, steps):
    inputs, _ = parts_of(dataset.element_spec)
    check_specs(form.unpack(inputs), form.image_shape)
    cardinality = int(dataset.cardinality())
    if cardinality == 0:
        raise ValueError(EMPTY)
    if steps is None and (cardinality == tf.data.INFINITE_CARDINALITY or cardinality > _ENDLESS):
        raise ValueError(
            "the data set has no end: say how many batches to take by steps_per_epoch in fit, "
            "validation_steps for validation data, or steps in evaluate and predict"
        )
    form.check_ready()

    def prepare(*element):
        inputs, weights = parts_of(element[0] if len(element) == 1 else element)
        packed = form.pack(*form.assert_valid(*form.unpack(inputs)))
        return packed if weights is None else (packed, weights, weights)

    return dataset.map(prepare)


class _CheckedPyDataset(keras.utils.PyDataset):
    """A `PyDataset` whose batches are checked as they come."""

    def __init__(self, form, dataset):
        super().__init__(dataset.workers, dataset.use_multiprocessing, dataset.max_queue_size)
        self._form, self._dataset = form, dataset

    def __getitem__(self, index):
        return _as_tuple(_checked_batch(self._form, self._dataset[index]))

    @property
    def num_batches(self):
        return self._dataset.num_batches

    def on_epoch_begin(self):
        self._dataset.on_epoch_begin()

    def on_epoch_end(self):
        self._dataset.on_epoch_end()
