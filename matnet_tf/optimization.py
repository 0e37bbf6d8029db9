# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Adam with the reference's moving beta_1, and a moving average of the weights beside them."""

from __future__ import annotations

import keras
import tensorflow as tf

__all__ = ["Adam"]


@keras.saving.register_keras_serializable("matnet_tf")
class Adam(keras.optimizers.Optimizer):
    """Adam whose `beta_1` is a variable, with decoupled weight decay and averaged weights.

    The epsilon stands outside the square root, as in the reference and in Keras.

    Args:
      learning_rate: a float or a Keras schedule.
      beta_1: initial value; the variable `beta_1` may be assigned between steps.
      beta_2, epsilon: as Adam's.
      weight_decay: weights of rank 2 and more shrink by `learning_rate * weight_decay` a step.
      average_decay: per step, of the exponential moving average that `update_averages` keeps;
        early on `t / (9 + t)` is used where it is smaller, so that the first weights are
        forgotten. 0 keeps no average.
    """

    def __init__(
        self,
        learning_rate=1e-3,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-7,
        weight_decay=0.0,
        average_decay=0.0,
        name="adam",
        **kwargs,
    ):
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.initial_beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.decoupled_weight_decay = weight_decay
        self.average_decay = average_decay
        self._keep = None

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self.beta_1 = self.add_variable(shape=(), name="beta_1")
        self.beta_1.assign(self.initial_beta_1)
        self.means = [self.add_variable_from_reference(v, name="mean") for v in variables]
        self.squares = [self.add_variable_from_reference(v, name="square") for v in variables]
        self.averages = []
        if self.average_decay:
            for variable in variables:
                average = self.add_variable_from_reference(variable, name="average")
                average.assign(variable)
                self.averages.append(average)

    def apply_if(self, keep: tf.Tensor, gradients, variables) -> None:
        """Applies finite gradients where `keep` is true; else no weight or moment changes.

        The choice is in the step's scalars, so it costs nothing and holds under every strategy.
        """
        self._keep = keep
        self.apply(gradients, variables)
        self._keep = None

    def update_step(self, gradient, variable, learning_rate):
        # Keras hands over the bare tf.Variable here; this is its only way back to an index.
        index = self._get_variable_index(variable)
        dtype = variable.dtype
        beta_1, beta_2 = tf.cast(self.beta_1, dtype), tf.cast(self.beta_2, dtype)
        rate = tf.cast(learning_rate, dtype)
        step = tf.cast(self.iterations, dtype) + 1
        powers = beta_1**step, beta_2**step
        if self._keep is not None:
            # A beta of exactly 1 leaves the moments, and a rate of 0 the weights, bit for bit.
            one = tf.ones([], dtype)
            beta_1 = tf.where(self._keep, beta_1, one)
            beta_2 = tf.where(self._keep, beta_2, one)
            rate = tf.where(self._keep, rate, 0.0)
        if self.decoupled_weight_decay and variable.shape.rank > 1:
            variable.assign_sub(variable * rate * self.decoupled_weight_decay)
        # One pass over memory; Adam bound by memory was a third of a small dense model's step.
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self.means[index].value.handle,
            v=self.squares[index].value.handle,
            beta1_power=powers[0],
            beta2_power=powers[1],
            lr=rate,
            beta1=beta_1,
            beta2=beta_2,
            epsilon=tf.cast(self.epsilon, dtype),
            grad=tf.cast(gradient, dtype),
        )

    def update_averages(self, variables, steps: int | tf.Tensor) -> None:
        """Moves the averages towards the weights after `steps` steps since the last time."""
        if not self.averages:
            return
        done = tf.cast(self.iterations, tf.float32)
        keep = tf.minimum(self.average_decay, done / (9 + done)) ** tf.cast(steps, tf.float32)
        for average, variable in zip(self.averages, variables, strict=True):
            value = tf.convert_to_tensor(average)
            average.assign(value + (1 - keep) * (tf.convert_to_tensor(variable) - value))

    def get_config(self):
        return super().get_config() | {
            "beta_1": self.initial_beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
            "weight_decay": self.decoupled_weight_decay,
            "average_decay": self.average_decay,
        }
