# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Train, test and predict functions for `fit`, `evaluate` and `predict`.

Keras's own (3.15) fail under MultiWorkerMirroredStrategy, and under MirroredStrategy with several
steps per execution. They run one kind of step, while training may alternate between kinds. And
TensorFlow counts the traces of all models' functions together, since they share their code, and
warns of retracing when several models live in one process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from matnet_tf.model.gradients import compiles_gradients
from matnet_tf.tracing import tf_function

__all__ = ["make_predict_steps", "make_steps", "make_train_steps"]


def make_train_steps(model: Any) -> Callable:
    """A function that trains on the next batches of an iterator and returns the metrics."""
    varies = model.elbo_loss.regularizer != "none" or model.hierarchy.num_stages > 1
    return _make_varying_steps(model) if varies else make_steps(model, model.train_step)


def make_steps(model: Any, *parts: Callable, count: int | None = None) -> Callable:
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

    on_batch = _on_replicas(model, one_batch)

    def steps(iterator):
        def step(done):
            on_batch(next(iterator))
            return (done + 1,)

        tf.while_loop(lambda done: done < count, step, (0,))
        return model.get_metrics_result()

    in_graph = steps if model.run_eagerly else tf_function(steps)

    def run(iterator):
        if isinstance(iterator, (tf.data.Iterator, tf.distribute.DistributedIterator)):
            return in_graph(iterator)
        on_batch(next(iterator))  # `train_on_batch` and `test_on_batch` give a generator.
        return model.get_metrics_result()

    return run if count == 1 else _to_the_end(model, run)


def make_predict_steps(model: Any) -> Callable:
    """A function that returns the reconstructions of a list of batches, one after another."""
    on_batch = _on_replicas(model, model.predict_step)
    local_results = model.distribute_strategy.experimental_local_results

    def predict(batches):
        results = [local_results(on_batch(data)) for data in batches]
        parts = [part for of_replicas in results for part in of_replicas]
        return parts[0] if len(parts) == 1 else tf.concat(parts, axis=0)

    return predict if model.run_eagerly else tf_function(predict)


def _on_replicas(model: Any, function: Callable) -> Callable:
    """A function that calls another on every replica with its part of a batch."""
    if model.jit_compile and not compiles_gradients(model):
        function = tf_function(function, jit_compile=True)

    def on_batch(data):
        return model.distribute_strategy.run(function, args=(data,))

    return on_batch if model.run_eagerly else tf_function(on_batch)


def _to_the_end(model: Any, steps: Callable) -> Callable:
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


def _make_varying_steps(model: Any) -> Callable:
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
