# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Batches of requests, by concatenation along the first axis, as TensorFlow Serving makes them."""

import queue
import threading
import time
from typing import NamedTuple

import grpc
import numpy as np

from model_server.errors import Refused, invalid, refused


class Parameters(NamedTuple):
    """The fields of a batching parameters file."""

    max_batch_size: int = 64
    batch_timeout_micros: int = 2000
    max_enqueued_batches: int = 100
    allowed_batch_sizes: tuple[int, ...] = (16, 32, 64)


PARAMETERS = Parameters()
_END = object()


class _Task:
    def __init__(self, inputs, size):
        self.inputs, self.size = inputs, size
        self.done = threading.Event()
        self.outputs = self.error = None


class Batcher:
    """One queue, for requests of one signature."""

    def __init__(self, run, parameters=PARAMETERS):
        self._run, self._parameters = run, parameters
        most = parameters.max_enqueued_batches * parameters.max_batch_size
        self._tasks = queue.Queue(most)
        threading.Thread(target=self._work, daemon=True).start()

    def __call__(self, inputs):
        """Waits until a batch with these inputs has run, and gives its part of the outputs."""
        sizes = {value.shape[0] if value.ndim else None for value in inputs.values()}
        if None in sizes:
            raise invalid("Batching Run() input tensors must have at least one dimension")
        if len(sizes) != 1:
            raise invalid("Batching Run() input tensors must have equal 0th-dimension size")
        task = _Task(inputs, sizes.pop())
        if task.size > self._parameters.max_batch_size:
            raise invalid(
                f"Task size {task.size} is larger than maximum input batch size "
                f"{self._parameters.max_batch_size}"
            )
        try:
            self._tasks.put_nowait(task)
        except queue.Full:
            raise Refused(
                grpc.StatusCode.UNAVAILABLE,
                "The batch scheduling queue to which this task was submitted is full",
            ) from None
        task.done.wait()
        if task.error:
            raise task.error
        return task.outputs

    def close(self):
        """Ends the work; nobody may ask any more."""
        self._tasks.put(_END)

    def _work(self):
        task = self._tasks.get()
        while task is not _END:
            batch, task = self._next(task)
            try:
                self._process(batch)
            except Exception as error:  # It is that of every request of the batch.
                for asked in batch:
                    asked.error = refused(error)
            for asked in batch:
                asked.done.set()
            task = task or self._tasks.get()

    def _next(self, task):
        """A batch that begins with a task, and what came next but does not belong to it."""
        batch, size = [task], task.size
        until = time.monotonic() + self._parameters.batch_timeout_micros / 1e6
        while size < self._parameters.max_batch_size:
            try:
                task = self._tasks.get(timeout=max(0, until - time.monotonic()))
            except queue.Empty:
                break
            if task is _END or size + task.size > self._parameters.max_batch_size:
                return batch, task
            batch.append(task)
            size += task.size
        return batch, None

    def _process(self, batch):
        size = sum(task.size for task in batch)
        whole = min((n for n in self._parameters.allowed_batch_sizes if n >= size), default=size)
        merged = {}
        for name in batch[0].inputs:
            parts = [task.inputs[name] for task in batch]
            if len({part.shape[1:] for part in parts}) != 1:
                raise Refused(
                    grpc.StatusCode.FAILED_PRECONDITION,
                    f"Tensors with name '{name}' from different tasks have different shapes",
                )
            # Padding is the first row of the last task.
            parts += [parts[-1][:1]] * (whole - size)
            merged[name] = np.concatenate(parts)
        outputs = self._run(merged)
        for name, value in outputs.items():
            if value.ndim == 0 or len(value) != whole:
                raise Refused(
                    grpc.StatusCode.FAILED_PRECONDITION,
                    f"Batched output tensor's 0th dimension does not equal the sum of the 0th "
                    f"dimension sizes of the input tensors: {name}",
                )
        first = 0
        for task in batch:
            task.outputs = {k: v[first : first + task.size] for k, v in outputs.items()}
            first += task.size
