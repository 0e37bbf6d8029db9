# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Moving averages of a model's weights, which checkpoints hold beside the weights themselves.

Keras's own (`use_ema`) cost 5 to 8 % of a small model's step, since they move at every step, and
keep most of the initial weights in a short run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf

from matnet_tf.model.elbo_model import ElboModel
from matnet_tf.tracing import tf_function

__all__ = ["Averaging", "WeightAverages"]


class WeightAverages:
    """Exponential moving averages of the trainable weights of a model.

    The decay per step is min(decay, t / (9 + t)) at step t, so the initial weights are forgotten
    early on.

    Attributes:
      variables: The averages by path of the weight; none if `decay` is 0.

    Args:
      model: The model, whose strategy the averages share.
      decay: Decay per step in [0, 1); 0 keeps no averages.
    """

    def __init__(self, model: ElboModel, decay: float):
        self._weights = model.trainable_variables if decay else []
        self._decay = decay
        with model.distribute_strategy.scope():
            self.variables = {
                weight.path: tf.Variable(weight.numpy(), trainable=False)
                for weight in self._weights
            }
        self._move = tf_function(self._move_towards_weights)

    def __bool__(self) -> bool:
        return bool(self.variables)

    def update(self, step: int, steps: int) -> None:
        """Moves the averages towards the weights.

        Args:
          step: Steps done, t.
          steps: Steps since the last update.
        """
        self._move(tf.constant(step, tf.float32), tf.constant(steps, tf.float32))

    def _move_towards_weights(self, step: tf.Tensor, steps: tf.Tensor) -> None:
        keep = tf.minimum(self._decay, step / (9 + step)) ** steps
        for weight, average in zip(self._weights, self.variables.values(), strict=True):
            average.assign(average + (1 - keep) * (tf.convert_to_tensor(weight) - average))

    def assign(self) -> None:
        """Replaces the weights with their averages, if there are any."""
        for weight, average in zip(self._weights, self.variables.values(), strict=True):
            weight.assign(average)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Replaces the weights with their averages inside a with statement."""
        raw = [tf.identity(weight) for weight in self._weights]
        self.assign()
        try:
            yield
        finally:
            for weight, value in zip(self._weights, raw, strict=True):
                weight.assign(value)


class Averaging(keras.callbacks.Callback):
    """Moves the averages of the weights after every execution of a training function.

    Args:
      averages: The averages of the model that is trained.
    """

    def __init__(self, averages: WeightAverages):
        super().__init__()
        self._averages = averages
        self._step = 0

    def on_train_begin(self, logs=None):
        self._step = int(self.model.step.numpy())

    def on_train_batch_end(self, batch, logs=None):
        before, self._step = self._step, int(self.model.step.numpy())
        if self._averages:
            self._averages.update(self._step, self._step - before)
