# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The metric of training, the count of evaluated batches, and callbacks that watch a run."""

from __future__ import annotations

import sys

import keras
import tensorflow as tf

__all__ = ["BatchCount", "BoundMetric", "NonFiniteImages", "SkippedSteps", "TrainingDiverged"]


class TrainingDiverged(ValueError):
    """Too many steps in a row had a gradient that was not finite or too large."""


@keras.saving.register_keras_serializable("matnet_tf")
class BoundMetric(keras.metrics.Metric):
    """Means over images of the ELBO and its parts, in nats, as one dictionary.

    `loss` is minus the ELBO, for callbacks that know Keras's names, without the settings of
    training such as the KL weight. Images whose bound is not finite enter no mean; `non_finite` is
    their number. Without any other image the means are NaN.

    Args:
      level_names: Names of the levels; their means appear as `kl/<name>`.

    """

    def __init__(self, level_names, name="bound", **kwargs):
        super().__init__(name=name, **kwargs)
        self.level_names = tuple(level_names)
        self.total = self.add_variable(
            shape=(2 + len(self.level_names),), initializer="zeros", name="total"
        )
        self.count = self.add_variable(shape=(), initializer="zeros", name="count")
        self.non_finite = self.add_variable(shape=(), initializer="zeros", name="non_finite")

    @property
    def sums(self):
        """The variables behind the means, which a checkpoint holds."""
        return [self.total, self.count]

    def update_state(self, bound, sample_weight=None):
        parts = tf.stack([bound.elbo, bound.log_likelihood, *bound.kl.values()])
        # A NaN, whose step is skipped, must not spoil the mean of an epoch.
        finite = tf.reduce_all(tf.math.is_finite(parts), axis=0)
        weights = tf.cast(finite, tf.float32)
        if sample_weight is not None:
            weights *= sample_weight
        self.total.assign_add(tf.reduce_sum(tf.where(finite, parts, 0.0) * weights, axis=1))
        self.count.assign_add(tf.reduce_sum(weights))
        self.non_finite.assign_add(tf.reduce_sum(tf.cast(~finite, tf.float32)))

    def result(self):
        elbo, log_likelihood, *kl = tf.unstack(self.total.value / self.count.value)
        return {
            "loss": -elbo,
            "elbo": elbo,
            "log_likelihood": log_likelihood,
            "kl": tf.add_n(kl),
            **{f"kl/{name}": value for name, value in zip(self.level_names, kl, strict=True)},
            "non_finite": tf.identity(self.non_finite.value),
        }

    def get_config(self):
        return super().get_config() | {"level_names": self.level_names}


class BatchCount(keras.metrics.Metric):
    """Counts the batches of an `evaluate` or `predict`, on each replica, for their noise."""

    def __init__(self, name="batches", **kwargs):
        super().__init__(name=name, **kwargs)
        self.count = self.add_variable(shape=(), initializer="zeros", dtype="int32", name="count")

    def update_state(self):
        self.count.assign_add(1)

    def result(self):
        return tf.identity(self.count.value)


class NonFiniteImages(keras.callbacks.Callback):
    """Warns after an epoch or an evaluation that left images out of its means."""

    def on_epoch_end(self, epoch, logs=None):
        self._warn("training", logs)

    def on_test_end(self, logs=None):
        self._warn("evaluation", logs)

    def _warn(self, where, logs):
        number = int((logs or {}).get("non_finite", 0))
        if number:
            print(
                f"warning: {where}, step {int(self.model.step.numpy())}: {number} images whose "
                f"bound is not finite are left out of the means",
                file=sys.stderr,
            )


class SkippedSteps(keras.callbacks.Callback):
    """Stops training, with a diagnosis, after `max_skipped` skipped steps in a row.

    Raises (from `fit`):
      TrainingDiverged: Says how many steps were skipped and what to try.
    """

    def __init__(self, max_skipped: int = 50):
        super().__init__()
        self.max_skipped = max_skipped

    def on_train_batch_end(self, batch, logs=None):
        in_a_row = int(self.model.skipped_in_a_row.numpy())
        if in_a_row >= self.max_skipped:
            raise TrainingDiverged(
                f"{in_a_row} steps in a row, up to step {int(self.model.step.numpy())}, had a "
                f"gradient that is not finite or whose norm exceeds "
                f"{self.model.elbo_loss.skip_norm:g} times the median of recent steps; their "
                f"updates were skipped. Try a lower learning rate, a longer warm-up, or look for "
                f"bad images"
            )
