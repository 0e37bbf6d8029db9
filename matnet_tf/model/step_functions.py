# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Train and test functions for `fit` and `evaluate`, in place of Keras's own.

Keras's own fail under MultiWorkerMirroredStrategy, and under MirroredStrategy with several steps
per execution (Keras 3.15). They compile whole steps or nothing, and run one kind of step, while
training may alternate between kinds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from matnet_tf.tracing import tf_function

__all__ = ["compiles_gradients", "make_steps", "make_varying_steps"]


def compiles_gradients(model: keras.Model) -> bool:
    """Whether XLA compiles only what leads to the gradients of a step, not the whole step.

    Whole steps are faster, but XLA compiles neither sums over replicas nor parts of unequal size.
    """
    one_part = model.distribute_strategy.num_replicas_in_sync == model.elbo_loss.micro_batches == 1
    return bool(model.jit_compile) and not one_part


def make_steps(model: keras.Model, *parts: Callable, count: int | None = None) -> Callable:
    """A function that runs steps on the next batches of an iterator and returns the metrics.

    Args:
      model: The model.
      *parts: Steps that all run on the same batch, one after another.
      count: Number of batches; None for `steps_per_execution`.
    """
    count = model.steps_per_execution if count is None else count

    def one_batch(data):
        for part in parts:
            part(data)

    if not model.run_eagerly:
        whole = model.jit_compile and not compiles_gradients(model)
        one_batch = tf_function(one_batch, jit_compile=whole)

    def steps(iterator):
        def step(done):
            model.distribute_strategy.run(one_batch, args=(next(iterator),))
            return (done + 1,)

        tf.while_loop(lambda done: done < count, step, (0,))
        return model.get_metrics_result()

    return _to_the_end(model, steps if model.run_eagerly else tf_function(steps))


def _to_the_end(model: keras.Model, steps: Callable) -> Callable:
    """Steps that may be cut short by the end of the data, which they report as stock Keras does.

    The last execution has fewer batches where the number of steps does not divide theirs. Its
    results count; an execution without any batch ends the epoch.
    """

    def until_the_end(iterator):
        before = _batches_seen(model)
        try:
            return steps(iterator)
        except (tf.errors.OutOfRangeError, StopIteration):
            if _batches_seen(model) == before:
                raise
            return model.get_metrics_result()

    return until_the_end


def _batches_seen(model: Any) -> int:
    return int(model.step.numpy() + model.batch_count.count.numpy())


def make_varying_steps(model: Any) -> Callable:
    """A train function that chooses before each step its stage, and whether to regularize."""
    functions = {}

    # A Python loop: under MirroredStrategy TensorFlow cannot run a branch within a loop.
    def steps(iterator):
        for _ in range(model.steps_per_execution):
            choice = model.training_stage, _regularizer_is_due(model)
            if choice not in functions:
                extra = [model.regularizer_step] if choice[1] else []
                functions[choice] = make_steps(model, model.train_step, *extra, count=1)
            logs = functions[choice](iterator)
        return logs

    return _to_the_end(model, steps)


def _regularizer_is_due(model: Any) -> bool:
    loss = model.elbo_loss
    # While stages train one by one, the guides of the others are fixed.
    if loss.regularizer == "none" or model.training_stage:
        return False
    since = int(model.step.numpy()) + 1 - loss.regularizer_start
    return since > 0 and since % loss.regularizer_every == 0
