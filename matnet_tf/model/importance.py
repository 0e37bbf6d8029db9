# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Bounds of checked inputs: one batch, or several at once with one on each replica.

The result for a batch does not depend on the batches that the other replicas work on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from matnet_tf.distributions import stateless_random
from matnet_tf.model.argument_checks import check_count, checked_num_inferred
from matnet_tf.model.bounds import Bound, StreamingLogMeanExp
from matnet_tf.model.elbo_model import ElboModel
from matnet_tf.tracing import compiles_by_default

__all__ = [
    "bounds_on_replicas",
    "log_likelihood",
    "log_weights",
    "log_weights_on_replicas",
]

Inputs = tuple[tf.Tensor, ...]


def log_likelihood(
    model: ElboModel,
    inputs: Inputs,
    num_samples: int,
    seed: Any,
    chunk: int | None,
    num_inferred: int | None,
) -> np.ndarray:
    """The importance-weighted bound `[B]`, float64, in nats; arguments as `log_weights`."""
    bound = StreamingLogMeanExp(inputs[0].shape[0])
    for log_weight in log_weights(model, inputs, num_samples, seed, chunk, num_inferred):
        bound.update(log_weight)
    return bound.result()


def log_weights(
    model: ElboModel,
    inputs: Inputs,
    num_samples: int,
    seed: Any,
    chunk: int | None,
    num_inferred: int | None = None,
) -> Iterator[np.ndarray]:
    """Importance log-weights in pieces `[k, B]`, in nats; images are encoded once.

    Args:
      model: The model.
      inputs: Checked inputs.
      num_samples: K.
      seed: Integer seed, or one per image.
      chunk: Image-samples per pass; None for `samples_per_pass`.
      num_inferred: Number of levels from the posterior; None for all.

    Raises:
      ValueError: If a number is out of range.
    """
    num_inferred = checked_num_inferred(model.config, num_inferred)
    seeds = [stateless_random.seed_tensor(seed, inputs[0].shape[0])]
    for (piece,) in log_weights_on_replicas(
        model, [inputs], num_samples, seeds, chunk, num_inferred
    ):
        yield piece


def log_weights_on_replicas(
    model: ElboModel,
    batches: Sequence[Inputs],
    num_samples: int,
    seeds: Sequence[tf.Tensor],
    chunk: int | None = None,
    num_inferred: int | None = None,
) -> Iterator[list[np.ndarray]]:
    """Importance log-weights of several batches, in pieces that are lists of `[k, B]`.

    Args:
      model: The model.
      batches: Checked inputs, at most as many batches as replicas, all of B images.
      num_samples: K.
      seeds: One stateless seed per batch.
      chunk: Image-samples per pass of a replica; None for `samples_per_pass`.
      num_inferred: As in `Hierarchy.log_weight`.
    """
    check_count("num_samples", num_samples)
    chunk = model.samples_per_pass if chunk is None else chunk
    check_count("chunk", chunk)
    hierarchy = model.hierarchy
    encodings = _on_replicas(model, hierarchy.encode, batches)
    per_pass = max(1, chunk // batches[0][0].shape[0])
    for first in range(0, num_samples, per_pass):
        k = min(per_pass, num_samples - first)
        arguments = [
            (x, encoding, k, stateless_random.for_samples(seed, first, k), num_inferred)
            for (x, *_), encoding, seed in zip(batches, encodings, seeds, strict=True)
        ]
        pieces = _on_replicas(model, hierarchy.log_weight, arguments)
        yield [piece.numpy() for piece in pieces]


def bounds_on_replicas(
    model: ElboModel, batches: Sequence[Inputs], seeds: Sequence[tf.Tensor]
) -> list[Bound]:
    """The bound of every image of several batches, as `model.elbo` gives it.

    Args:
      model: The model.
      batches: Checked inputs, at most as many batches as replicas.
      seeds: One stateless seed per batch.
    """
    arguments = [(*batch, seed) for batch, seed in zip(batches, seeds, strict=True)]
    return _on_replicas(model, model.hierarchy.elbo, arguments)


def _on_replicas(
    model: ElboModel, function: Callable, arguments: Sequence[tuple[Any, ...]]
) -> list[Any]:
    """Calls a function as a graph, on each replica with arguments of its own.

    The function must not depend on its replica. There are at most as many calls as replicas.
    """
    compiled = compiles_by_default()
    if len(arguments) == 1:
        return [model.functions.get(function, jit_compile=compiled)(*arguments[0])]
    strategy = model.distribute_strategy
    replicas = strategy.num_replicas_in_sync
    padded = [*arguments, *[arguments[-1]] * (replicas - len(arguments))]
    together = model.functions.get(function, strategy, compiled)
    results = together(*_per_replica(strategy, padded))
    return _by_replica(strategy, results, replicas)[: len(arguments)]


def _per_replica(strategy: tf.distribute.Strategy, calls: Sequence[Any]) -> Any:
    """One structure of per-replica tensors, from one structure for each replica."""

    def join(*own):
        if not tf.is_tensor(own[0]):
            return own[0]
        return strategy.experimental_distribute_values_from_function(
            lambda context: own[context.replica_id_in_sync_group]
        )

    return tf.nest.map_structure(join, *calls)


def _by_replica(strategy: tf.distribute.Strategy, structure: Any, replicas: int) -> list[Any]:
    """Undoes `_per_replica`."""

    def own(index):
        return tf.nest.map_structure(
            lambda value: strategy.experimental_local_results(value)[index], structure
        )

    return [own(index) for index in range(replicas)]
