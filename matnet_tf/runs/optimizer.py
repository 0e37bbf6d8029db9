# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Keras's Adam with a fused update and a beta_1 that may change between steps."""

from __future__ import annotations

import keras
import tensorflow as tf

__all__ = ["Adam"]


@keras.saving.register_keras_serializable("matnet_tf")
class Adam(keras.optimizers.Adam):
    """Keras's Adam, except that one fused operation updates each weight and its moments.

    The results are those of `keras.optimizers.Adam`, and so are the arguments; `amsgrad` is not
    supported. The variable `current_beta_1` starts at `beta_1` and may be assigned between steps.
    """

    _keep = _scalars = None  # Set while `apply_if` and `apply` run.

    def build(self, variables):
        if self.built:
            return
        # The moments that Keras's Adam would make are private to it.
        keras.optimizers.Optimizer.build(self, variables)
        self.moments = self.add_optimizer_variables(variables, ["momentum", "velocity"])
        start = keras.initializers.Constant(self.beta_1)
        self.current_beta_1 = self.add_variable(shape=(), initializer=start, name="beta_1")

    def apply_if(self, keep: tf.Tensor, gradients: list, variables: list) -> None:
        """Applies finite gradients where `keep` is true; otherwise nothing changes.

        The choice is in the scalars of the update, so it costs nothing. A branch, or variables put
        back afterwards, made a step that XLA compiles 9 % slower.
        """
        self._keep, decay = keep, self.weight_decay
        if decay is not None:
            self.weight_decay = tf.where(keep, decay, 0.0)
        self.apply(gradients, variables)
        self._keep, self.weight_decay = None, decay
        self.iterations.assign_sub(tf.cast(~keep, self.iterations.dtype))

    def apply(self, gradients: list, variables: list | None = None) -> None:
        """Applies gradients, as Keras's Adam does."""
        if variables is not None:
            self.build(variables)
        self._scalars = self._scalars_of_this_step()
        super().apply(gradients, variables)
        self._scalars = None

    def _scalars_of_this_step(self) -> dict[str, tf.Tensor]:
        """What all weights share: once per step, since a thousand scalars take time to trace."""
        betas = [tf.cast(beta, tf.float32) for beta in (self.current_beta_1, self.beta_2)]
        rate = tf.cast(self.learning_rate, tf.float32)
        step = tf.cast(self.iterations, tf.float32) + 1
        powers = [beta**step for beta in betas]
        if self._keep is not None:
            # With betas of exactly 1 the moments stay, with a rate of 0 the weights do.
            betas = [tf.where(self._keep, beta, 1.0) for beta in betas]
            rate = tf.where(self._keep, rate, 0.0)
        names = ("beta1", "beta2", "beta1_power", "beta2_power", "lr", "epsilon")
        values = [*betas, *powers, rate, tf.constant(self.epsilon, tf.float32)]
        return dict(zip(names, values, strict=True))

    def update_step(self, gradient, variable, learning_rate):
        # Keras documents `_get_variable_index` for subclasses, see `keras.optimizers.Optimizer`.
        index = self._get_variable_index(variable)
        momentum, velocity = (slots[index] for slots in self.moments)
        del learning_rate  # It is among the scalars.
        # One pass over memory: the passes of Keras's update took a third of a small dense step.
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=momentum.value.handle,
            v=velocity.value.handle,
            grad=gradient,
            **self._scalars,
        )
