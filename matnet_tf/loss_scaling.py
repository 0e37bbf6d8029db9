# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The scale of the loss in float16, in which small gradients would be zero."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

__all__ = ["LossScale"]

_FIRST = 2.0**15
_LARGEST = 2.0**24
_STEPS = 2000  # finite ones in a row, after which the scale doubles


class LossScale:
    """A factor on the loss that halves at a gradient that is not finite, and doubles in time.

    Keras has it within an optimizer that applies gradients; here they are clipped, and a step may
    be skipped, in between.

    Args:
      model: gets the factor and a counter as weights, so that they are saved with it.
    """

    def __init__(self, model: keras.Model):
        first = keras.initializers.Constant(_FIRST)
        settings = {"shape": (), "trainable": False, "initializer": first}
        self.scale = model.add_weight(name="loss_scale", dtype="float32", **settings)
        settings["initializer"] = "zeros"
        self.steps = model.add_weight(name="loss_scale_steps", dtype="int64", **settings)

    def scaled(self, loss: tf.Tensor) -> tf.Tensor:
        """The loss to differentiate."""
        return loss * self.scale.value

    def unscaled(self, gradients: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """The gradients of the loss itself."""
        return [gradient / tf.cast(self.scale.value, gradient.dtype) for gradient in gradients]

    def update(self, finite: tf.Tensor) -> None:
        """Takes note of whether the gradients of the global batch were finite."""
        steps = tf.where(finite, self.steps.value + 1, 0)
        doubles = steps >= _STEPS
        scale = tf.where(doubles, 2.0 * self.scale.value, self.scale.value)
        scale = tf.where(finite, scale, 0.5 * self.scale.value)
        self.scale.assign(tf.clip_by_value(scale, 1.0, _LARGEST))
        self.steps.assign(tf.where(doubles, tf.zeros_like(steps), steps))
