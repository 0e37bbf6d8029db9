# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Gradients of the global batch, in parts that fit into memory, and updates that may be skipped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from matnet_tf.layers.calls import recomputing
from matnet_tf.tracing import tf_function

__all__ = [
    "GradientNorms",
    "accumulated_gradients",
    "apply_if",
    "compiles_gradients",
    "step_or_skip",
]


def step_or_skip(
    model: Any,
    losses: Callable[[tuple[tf.Tensor, ...], tf.Tensor], tf.Tensor],
    inputs: tuple[tf.Tensor, ...],
    seed: tf.Tensor,
    variables: Sequence[keras.Variable],
    on_data: bool = False,
) -> tf.Tensor:
    """Takes a step on the mean loss of the global batch, or skips it; called on each replica.

    Args:
      model: An `ElboModel`, whose `elbo_loss` says what to clip and what to skip.
      losses: Maps inputs `[B, ...]` and a seed to losses `[B]`.
      inputs: The replica's part of the batch.
      seed: int32 `[2]`.
      variables: Variables to update.
      on_data: Whether the norm of the gradient counts among those with which later ones compare.

    Returns:
      int64: 1 for a step, 0 if it was skipped.
    """
    loss = model.elbo_loss
    with recomputing(loss.recompute):
        gradients = accumulated_gradients(
            losses, inputs, seed, variables, loss.micro_batches, compiles_gradients(model)
        )
    if loss.l2_penalty:
        pull = 2.0 * loss.l2_penalty
        gradients = [g + pull * v for g, v in zip(gradients, variables, strict=True)]
    norm = tf.linalg.global_norm(gradients)
    keep = tf.math.is_finite(norm) & (norm <= loss.skip_norm * model.gradient_norms.median())
    if on_data:
        model.gradient_norms.update(norm)
    clip = tf.minimum(1.0, loss.clip_norm / norm) if loss.clip_norm else 1.0
    factor = tf.where(keep, clip, 0.0)
    gradients = [tf.math.multiply_no_nan(g, factor) for g in gradients]
    apply_if(keep, model.optimizer, gradients, variables)
    return tf.cast(keep, tf.int64)


def compiles_gradients(model: Any) -> bool:
    """Whether XLA compiles only what leads to the gradients of a step, not the whole step.

    Whole steps are faster, but XLA compiles neither sums over replicas nor parts of unequal size.
    """
    one_part = model.distribute_strategy.num_replicas_in_sync == model.elbo_loss.micro_batches == 1
    return bool(model.jit_compile) and not one_part


def accumulated_gradients(
    losses: Callable[[tuple[tf.Tensor, ...], tf.Tensor], tf.Tensor],
    inputs: tuple[tf.Tensor, ...],
    seed: tf.Tensor,
    variables: Sequence[keras.Variable],
    micro_batches: int,
    jit_compile: bool = False,
) -> list[tf.Tensor]:
    """Gradients of the mean loss over the global batch; called on each replica.

    Args:
      losses: Maps inputs `[B, ...]` and a seed to losses `[B]`.
      inputs: The replica's part of the batch.
      seed: int32 `[2]`.
      variables: Variables to differentiate by.
      micro_batches: Number of parts that are taken one after another, their gradients summed.
      jit_compile: Whether XLA compiles what lies between a part and its gradients, once for each
        size of a part. Sums over replicas it cannot compile.
    """
    total = _global_batch_size(inputs[0])
    part_gradients = _part_gradients(losses, variables, jit_compile)
    if micro_batches == 1:
        return _summed(part_gradients(inputs, seed, total))
    rows = tf.shape(inputs[0])[0]
    parts = tf.minimum(micro_batches, rows)

    def add(index, sums):
        first, last = index * rows // parts, (index + 1) * rows // parts
        part = tuple(tensor[first:last] for tensor in inputs)
        own_seed = tf.random.fold_in(seed, index)
        gradients = part_gradients(part, own_seed, total)
        return index + 1, [s + g for s, g in zip(sums, gradients, strict=True)]

    zeros = [tf.zeros(variable.shape, variable.dtype) for variable in variables]
    # A loop, so that one part at a time is in memory.
    _, gradients = tf.while_loop(
        lambda index, sums: index < parts, add, (0, zeros), parallel_iterations=1
    )
    return _summed(gradients)


def _part_gradients(losses, variables, jit_compile) -> Callable:
    """A function of inputs, a seed and the global batch size, of the gradients of their share."""

    def gradients(inputs, seed, total):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(losses(inputs, seed)) / total
        return tape.gradient(loss, variables)

    return tf_function(gradients, jit_compile=True) if jit_compile else gradients


def _replicas() -> int:
    return tf.distribute.get_strategy().num_replicas_in_sync


def _global_batch_size(x: tf.Tensor) -> tf.Tensor:
    size = tf.cast(tf.shape(x)[0], tf.float32)
    return _summed([size])[0]


def _summed(tensors: list[tf.Tensor]) -> list[tf.Tensor]:
    """The sums over replicas of each replica's tensors."""
    if _replicas() == 1:
        return tensors
    context = tf.distribute.get_replica_context()
    return context.all_reduce(tf.distribute.ReduceOp.SUM, tensors)


class GradientNorms(keras.layers.Layer):
    """The gradient norms of the last 100 steps, whose median tells a step that is out of line.

    A norm that was too large counts as well: if gradients grow for good, the median follows them.
    """

    size, fewest = 100, 20  # Norms that are kept, and how many it takes for a median.

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        # A norm of 0 stands for none.
        self.norms = self.add_weight(
            shape=(self.size,), initializer="zeros", trainable=False, name="norms"
        )
        self.count = self.add_weight(
            shape=(), dtype="int64", initializer="zeros", trainable=False, name="count"
        )
        self.built = True  # Else Keras would call the whole model before `fit`, to build it.

    def median(self) -> tf.Tensor:
        """The median; infinity before the first 20 steps."""
        known = tf.minimum(tf.cast(self.count.value, tf.int32), self.size)
        # Ranks by comparison of all pairs: XLA takes half a minute to compile tf.sort for a CPU.
        norms, place = self.norms.value, tf.range(self.size)
        first = (norms[None] == norms[:, None]) & (place[None] < place[:, None])
        ranks = tf.reduce_sum(tf.cast((norms[None] < norms[:, None]) | first, tf.int32), axis=1)
        middle = tf.where(ranks == self.size - 1 - known // 2, norms, 0.0)
        return tf.where(known < self.fewest, float("inf"), tf.reduce_sum(middle))

    def update(self, norm: tf.Tensor) -> None:
        """Adds the norm of a step, if it is finite."""
        finite = tf.math.is_finite(norm)
        place = tf.cast(self.count.value % self.size, tf.int32)
        here = (tf.range(self.size) == place) & finite
        self.norms.assign(tf.where(here, norm, self.norms.value))
        self.count.assign_add(tf.cast(finite, tf.int64))


def apply_if(
    keep: tf.Tensor,
    optimizer: keras.optimizers.Optimizer,
    gradients: Sequence[tf.Tensor],
    variables: Sequence[keras.Variable],
) -> None:
    """Applies gradients where `keep` is true; otherwise no weight and no moment changes.

    An optimizer that has a method `apply_if(keep, gradients, variables)` is left to do so itself,
    as `runs.optimizer.Adam` does without a branch or a copy.

    Args:
      keep: bool, the same on every replica.
      optimizer: Any Keras optimizer.
      gradients: Finite gradients of the global batch, the same on every replica.
      variables: Variables to update.
    """
    # The optimizer sums over replicas once more, hence the division.
    gradients = [gradient / _replicas() for gradient in gradients] if _replicas() > 1 else gradients
    # At the end of a data set a graph would otherwise count an update that has no batch.
    with tf.control_dependencies([keep]):
        if hasattr(optimizer, "apply_if"):
            optimizer.apply_if(keep, gradients, variables)
        elif _replicas() == 1:
            tf.cond(keep, lambda: _apply(optimizer, gradients, variables), lambda: False)
        else:
            _apply_or_restore(keep, optimizer, gradients, variables)


def _apply_or_restore(keep, optimizer, gradients, variables) -> None:
    # Under a strategy an optimizer cannot run in a branch: what it changed is put back instead.
    state = [*variables, *optimizer.variables]
    before = [tf.identity(variable.value) for variable in state]
    _apply(optimizer, gradients, variables)
    for variable, value in zip(state, before, strict=True):
        variable.assign(tf.where(keep, variable.value, value))


def _apply(optimizer, gradients, variables) -> bool:
    optimizer.apply(gradients, variables)
    return True
