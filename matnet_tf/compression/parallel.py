# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Several blocks of a file at once, one on each core."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import tensorflow as tf
from tqdm import tqdm

__all__ = ["in_order", "set_threads"]

_MOST = 4  # Python between the operations takes a third of the time, and runs on one core only.


def set_threads(threads: int) -> None:
    """Sets the threads of one operation, on whose number results may depend in the last bit."""
    with contextlib.suppress(RuntimeError):  # Too late; then the fingerprint decides.
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(_at_once(threads))


def in_order(
    function: Callable[..., Any], *columns: Iterable, threads: int, progress: tqdm
) -> Iterator[Any]:
    """Calls a function for every block, several at once, and yields the results in order.

    Args:
      function: Called with a block's item of each column, and with a callable that it tells the
        number of images of each finished batch.
      *columns: What the blocks have.
      threads: Of one operation.
      progress: Shows how many images are finished.
    """
    lock, stopped = threading.Lock(), threading.Event()

    def done(count):
        if stopped.is_set():  # By an error in another block, or the user.
            raise concurrent.futures.CancelledError
        with lock:
            progress.update(count)

    pool = concurrent.futures.ThreadPoolExecutor(_at_once(threads))
    try:
        yield from pool.map(lambda *items: function(*items, done), *columns)
    finally:
        stopped.set()
        pool.shutdown(cancel_futures=True)


def _at_once(threads: int) -> int:
    return max(1, min(_MOST, (os.cpu_count() or 1) // threads))
