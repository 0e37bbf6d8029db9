# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Gradients of the global batch, in parts that fit into memory, and updates that may be skipped."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

__all__ = ["accumulated_gradients", "apply_if"]


def accumulated_gradients(
    losses: Callable[[tuple[tf.Tensor, ...], tf.Tensor], tf.Tensor],
    inputs: tuple[tf.Tensor, ...],
    seed: tf.Tensor,
    variables: Sequence[keras.Variable],
    micro_batches: int,
) -> list[tf.Tensor]:
    """Gradients of the mean loss over the global batch; called on each replica.

    Args:
      losses: Maps inputs `[B, ...]` and a seed to losses `[B]`.
      inputs: The replica's part of the batch.
      seed: int32 `[2]`.
      variables: Variables to differentiate by.
      micro_batches: Number of parts that are taken one after another, their gradients summed.
    """
    total = _global_batch_size(inputs[0])
    if micro_batches == 1:
        return _summed(_part_gradients(losses, inputs, seed, variables, total))
    rows = tf.shape(inputs[0])[0]
    parts = tf.minimum(micro_batches, rows)

    def add(index, sums):
        first, last = index * rows // parts, (index + 1) * rows // parts
        part = tuple(tensor[first:last] for tensor in inputs)
        own_seed = tf.random.fold_in(seed, index)
        gradients = _part_gradients(losses, part, own_seed, variables, total)
        return index + 1, [s + g for s, g in zip(sums, gradients, strict=True)]

    zeros = [tf.zeros(variable.shape, variable.dtype) for variable in variables]
    # A loop, so that one part at a time is in memory.
    _, gradients = tf.while_loop(
        lambda index, sums: index < parts, add, (0, zeros), parallel_iterations=1
    )
    return _summed(gradients)


def _part_gradients(losses, inputs, seed, variables, total) -> list[tf.Tensor]:
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(losses(inputs, seed)) / total
    return tape.gradient(loss, variables)


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
