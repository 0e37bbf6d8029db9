# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The devices a program runs on: one, several of this machine, or those of several machines.

Several machines ("workers") are described by the environment variable TF_CONFIG in TensorFlow's
format. The workers of a job agree on everything that they must do alike, such as the step at which
they stop.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
from collections.abc import Iterator
from typing import NamedTuple

import tensorflow as tf

from matnet_tf.tracing import tf_function

__all__ = [
    "Worker",
    "WorkerConsensus",
    "WorkerLost",
    "described",
    "local_strategy",
    "peak_memory",
    "strategy_for",
    "tensor_float_32",
    "this_worker",
    "translate_lost_worker",
    "translate_out_of_memory",
]

_MAX_CPU_DEVICES = 64  # Each costs memory and threads.
_CONFIG = '{"cluster": {"worker": ["HOST:PORT", ...]}, "task": {"type": "worker", "index": 0}}'
# What TensorFlow raises when another worker is gone.
_LOST = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError)


class WorkerLost(OSError):
    """Another worker of the job is gone. When all workers are started again, they resume."""

    exit_status = os.EX_TEMPFAIL


class Worker(NamedTuple):
    """Position of this process among the workers of a job."""

    index: int = 0
    count: int = 1

    @property
    def is_chief(self) -> bool:
        """Whether this worker writes the files of the run."""
        return self.index == 0


def this_worker() -> Worker:
    """Reads the worker that this process is from TF_CONFIG; without it there is only one.

    Raises:
      ValueError: If TF_CONFIG does not have TensorFlow's format.
    """
    text = os.environ.get("TF_CONFIG", "")
    if not text.strip():
        return Worker()
    try:
        config = json.loads(text)
        cluster, task = config.get("cluster", {}), config.get("task", {})
        counts = {kind: len(addresses) for kind, addresses in cluster.items()}
        kind, index = task.get("type", "worker"), int(task.get("index", 0))
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise ValueError(f"TF_CONFIG must read like {_CONFIG}; got {text[:200]!r}") from None
    if not counts:
        return Worker()
    if set(counts) - {"chief", "worker"}:
        raise ValueError(
            f"the cluster of TF_CONFIG may have a chief and workers; it has {', '.join(counts)}"
        )
    if not 0 <= index < counts.get(kind, 0):
        raise ValueError(f"the task of TF_CONFIG, {kind} {index}, is not in its cluster {counts}")
    before = counts.get("chief", 0) if kind == "worker" else 0
    return Worker(before + index, sum(counts.values()))


def strategy_for(devices: int = 0) -> tf.distribute.Strategy:
    """Returns the strategy for this process. Call it before any other use of TensorFlow.

    Args:
      devices: Number of devices of this machine; 0 is all its GPUs, or one CPU. Without GPUs,
        several devices are parts of the CPU. With several workers it must be 0: each uses all
        devices of its machine.

    Raises:
      ValueError: If there are too few devices, TensorFlow has already started, or TF_CONFIG is
        wrong.
    """
    if this_worker().count > 1:
        if devices:
            raise ValueError(
                f"with several workers each uses all its devices; got devices {devices}"
            )
        return _multi_worker()
    return local_strategy(devices)


def local_strategy(devices: int = 0) -> tf.distribute.Strategy:
    """Returns the strategy for devices of this machine alone, whatever TF_CONFIG says.

    Args:
      devices: As in `strategy_for`.

    Raises:
      ValueError: If the number is negative or too large, or TensorFlow has already started.
    """
    if devices < 0:
        raise ValueError(f"devices must be at least 0; got {devices}")
    gpus = tf.config.list_physical_devices("GPU")
    if devices > len(gpus) > 0:
        raise ValueError(f"there are {len(gpus)} GPUs; got devices {devices}")
    count = devices or max(1, len(gpus))
    if count == 1:
        return tf.distribute.get_strategy()
    if not gpus:
        _split_cpu(count)
    kind = "GPU" if gpus else "CPU"
    return _mirrored(tuple(f"{kind}:{index}" for index in range(count)))


def _split_cpu(count: int) -> None:
    """Makes the CPU appear as at least `count` devices."""
    if count > _MAX_CPU_DEVICES:
        raise ValueError(f"a CPU makes at most {_MAX_CPU_DEVICES} devices; got {count}")
    cpu = tf.config.list_physical_devices("CPU")[0]
    if len(tf.config.get_logical_device_configuration(cpu) or ()) >= count:
        return
    try:
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * count
        )
        # Each device has its share of the cores. If an operation of one could use all threads, two
        # devices on two cores would train a convolutional model 0.75 times as fast.
        threads = max(1, (os.cpu_count() or 1) // count)
        tf.config.threading.set_intra_op_parallelism_threads(threads)
    except RuntimeError:
        raise ValueError(
            f"the CPU cannot become {count} devices: TensorFlow runs already in this process"
        ) from None


# One per process: TensorFlow numbers the collectives of each strategy from the start and confuses
# those with equal numbers.
@functools.cache
def _mirrored(names: tuple[str, ...]) -> tf.distribute.Strategy:
    return tf.distribute.MirroredStrategy(names)


@functools.cache
def _multi_worker() -> tf.distribute.Strategy:
    return tf.distribute.MultiWorkerMirroredStrategy()


class WorkerConsensus:
    """Makes the workers of a job agree on the chief's clock and on whether to stop.

    Otherwise each would stop, or change its learning rate, at a different step.

    Args:
      strategy: The strategy of the job.
      worker: This process.
    """

    def __init__(self, strategy: tf.distribute.Strategy, worker: Worker):
        self._strategy, self._worker = strategy, worker
        self._sum = tf_function(self._sum_over_replicas)

    def __call__(self, seconds: float, stop: bool) -> tuple[float, bool]:
        """Returns the chief's `seconds`, and whether `stop` is true on any worker.

        All workers must call it.
        """
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


@contextlib.contextmanager
def translate_lost_worker(worker: Worker) -> Iterator[None]:
    """Turns TensorFlow's errors about a lost worker into `WorkerLost`."""
    try:
        yield
    except _LOST:
        if worker.count == 1:
            raise
        raise WorkerLost(
            f"worker {worker.index} of {worker.count}: another worker of the job is gone, or "
            f"cannot be reached; start all of them again, and they resume"
        ) from None


@contextlib.contextmanager
def translate_out_of_memory(advice: str) -> Iterator[None]:
    """Turns TensorFlow's error about a device's memory into a MemoryError with this message.

    Args:
      advice: What needs too much memory, and what to try, in one line of at most 200 characters.
    """
    try:
        yield
    except tf.errors.ResourceExhaustedError:
        raise MemoryError(advice) from None


def peak_memory() -> int | None:
    """The most bytes that TensorFlow has had on a GPU of this machine; None without a GPU."""
    count = len(tf.config.list_physical_devices("GPU"))
    infos = [tf.config.experimental.get_memory_info(f"GPU:{index}") for index in range(count)]
    return max((info["peak"] for info in infos), default=None)


def described() -> list[str]:
    """Describes in lines what TensorFlow is, and which devices `strategy_for` uses by default."""
    gpus, build = tf.config.list_physical_devices("GPU"), tf.sysconfig.get_build_info()
    cuda = f"for CUDA {build['cuda_version']}" if build["is_cuda_build"] else "without CUDA"
    lines = [f"TensorFlow {tf.__version__}, built {cuda}"]
    for index, gpu in enumerate(gpus):
        details = tf.config.experimental.get_device_details(gpu)
        capability = ".".join(map(str, details.get("compute_capability", ("unknown",))))
        name = details.get("device_name", gpu.name)
        lines.append(f"GPU {index}: {name}, compute capability {capability}")
    if not gpus:
        cores = len(os.sched_getaffinity(0))
        lines.append(f"no GPU; one CPU device on {cores} cores, more with --train.devices")
    return lines


@contextlib.contextmanager
def tensor_float_32(allowed: bool) -> Iterator[None]:
    """Lets GPUs multiply in TF32 inside a with statement, or in float32 only; CPUs never do."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(allowed)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)
