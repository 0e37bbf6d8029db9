# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""On which devices a program runs: one, several of this machine, or those of several machines.

Several machines ("workers") are described by the environment variable TF_CONFIG, as TensorFlow has
it. Everything that all of a job must do alike, such as the step at which it ends, they agree on.
"""

from __future__ import annotations

import functools
import json
import os
from typing import Any, NamedTuple

import tensorflow as tf

from matnet_tf.graphs import graph

__all__ = [
    "Agreement",
    "Worker",
    "WorkerLost",
    "local_strategy",
    "lost_workers",
    "strategy_for",
    "this_worker",
]

_MOST_PARTS = 64  # of a CPU; each costs memory and threads
_CONFIG = '{"cluster": {"worker": ["HOST:PORT", ...]}, "task": {"type": "worker", "index": 0}}'


class WorkerLost(OSError):
    """Another worker of the job is gone: all must be started again, and then they resume."""

    exit_status = os.EX_TEMPFAIL


class Worker(NamedTuple):
    """Which process of a job this one is."""

    index: int = 0
    count: int = 1

    @property
    def is_chief(self) -> bool:
        """Whether it is the one that writes."""
        return self.index == 0


def this_worker() -> Worker:
    """Which worker this process is, by TF_CONFIG; the only one where there is none.

    Raises:
      ValueError: if TF_CONFIG is not as TensorFlow has it.
    """
    text = os.environ.get("TF_CONFIG", "")
    if not text.strip():
        return Worker()
    try:
        config = json.loads(text)
        cluster, task = config.get("cluster", {}), config.get("task", {})
        kinds = {kind: len(addresses) for kind, addresses in cluster.items()}
        kind, index = task.get("type", "worker"), int(task.get("index", 0))
    except (ValueError, TypeError, AttributeError):
        raise ValueError(f"TF_CONFIG must read like {_CONFIG}; got {text[:200]!r}") from None
    if not kinds:
        return Worker()
    if set(kinds) - {"chief", "worker"}:
        raise ValueError(
            f"the cluster of TF_CONFIG may have a chief and workers; it has {', '.join(kinds)}"
        )
    if not 0 <= index < kinds.get(kind, 0):
        raise ValueError(f"the task of TF_CONFIG, {kind} {index}, is not in its cluster {kinds}")
    before = kinds.get("chief", 0) if kind == "worker" else 0
    return Worker(before + index, sum(kinds.values()))


def strategy_for(devices: int = 0) -> tf.distribute.Strategy:
    """The strategy for this process's devices; before anything else is done with TensorFlow.

    Args:
      devices: how many of this machine; 0 is all its GPUs, or one CPU. Without GPUs, several are
        parts of the CPU. With several workers it must be 0: each uses all it has.

    Raises:
      ValueError: if there are not that many, TensorFlow runs already, or TF_CONFIG is wrong.
    """
    if this_worker().count > 1:
        if devices:
            raise ValueError(
                f"with several workers each uses all its devices; got devices {devices}"
            )
        return _multi_worker()
    return local_strategy(devices)


def local_strategy(devices: int = 0) -> tf.distribute.Strategy:
    """The strategy for devices of this machine alone, whatever TF_CONFIG says.

    Args:
      devices: as for `strategy_for`.

    Raises:
      ValueError: if the number is negative, there are not that many, or TensorFlow runs already.
    """
    if devices < 0:
        raise ValueError(f"devices must be at least 0; got {devices}")
    gpus = tf.config.list_physical_devices("GPU")
    if devices > len(gpus) > 0:
        raise ValueError(f"there are {len(gpus)} GPUs; got devices {devices}")
    count = devices or max(1, len(gpus))
    if count == 1:
        return tf.distribute.get_strategy()
    kind = "GPU" if gpus else "CPU"
    if not gpus:
        if count > _MOST_PARTS:
            raise ValueError(f"a CPU makes at most {_MOST_PARTS} devices; got {count}")
        _split_cpu(count)
    return _mirrored(tuple(f"{kind}:{index}" for index in range(count)))


def _split_cpu(count: int) -> None:
    """Makes the CPU show as at least `count` devices."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    if len(tf.config.get_logical_device_configuration(cpu) or ()) >= count:
        return
    try:
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * count
        )
    except RuntimeError:
        raise ValueError(
            f"the CPU cannot become {count} devices: TensorFlow runs already in this process"
        ) from None


# One for the whole process: TensorFlow numbers the collectives of each strategy anew, and takes
# those of equal number for the same.
@functools.cache
def _mirrored(names: tuple[str, ...]) -> tf.distribute.Strategy:
    return tf.distribute.MirroredStrategy(names)


@functools.cache
def _multi_worker() -> tf.distribute.Strategy:
    return tf.distribute.MultiWorkerMirroredStrategy()


class Agreement:
    """What the workers of a job agree on: the chief's clock, and whether any was told to stop.

    Each would otherwise end, or change the learning rate, at a step of its own.

    Args:
      strategy: the job's.
      worker: this process.
    """

    def __init__(self, strategy: tf.distribute.Strategy, worker: Worker):
        self._strategy, self._worker = strategy, worker
        self._sum = graph(self._sum_over_replicas)

    def __call__(self, seconds: float, stop: bool) -> tuple[float, bool]:
        """The chief's seconds, and whether any worker's `stop` is true; all must call it."""
        if self._worker.count == 1:
            return seconds, stop
        values = [seconds if self._worker.is_chief else 0.0, float(stop)]
        seconds, stops = self._sum(tf.constant(values, tf.float64)).numpy()
        return float(seconds), bool(stops)

    def _sum_over_replicas(self, values: tf.Tensor) -> tf.Tensor:
        own = self._strategy.num_replicas_in_sync // self._worker.count

        def run() -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            return context.all_reduce(tf.distribute.ReduceOp.SUM, values / own)

        return self._strategy.experimental_local_results(self._strategy.run(run))[0]


class lost_workers:  # noqa: N801 - used as a with statement
    """Turns the errors by which TensorFlow tells of a worker that is gone into `WorkerLost`."""

    _ERRORS = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError)

    def __init__(self, worker: Worker):
        self._worker = worker

    def __enter__(self):
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if self._worker.count > 1 and isinstance(error, self._ERRORS):
            raise WorkerLost(
                f"worker {self._worker.index} of {self._worker.count}: another worker of the job "
                f"is gone, or cannot be reached; start all of them again, and they resume"
            ) from None
