# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""How functions of this package become TensorFlow graphs: as they are written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

__all__ = ["Graphs", "as_written", "graph"]


def graph(function: Callable, jit_compile: bool | None = None) -> Any:
    """A function as a graph, `tf.function`, in which loops over tensors are TensorFlow's own.

    AutoGraph, which would look for them, writes Python files to the temporary folder: on a full
    disk nothing would work.

    Args:
      function: of tensors.
      jit_compile: whether XLA compiles it.
    """
    return tf.function(function, jit_compile=jit_compile, reduce_retracing=True, autograph=False)


class Graphs:
    """Graphs of functions, each made once for every combination of its tensors' ranks.

    One that met a seed of a batch, and then seeds of rows, would be traced for any rank.
    """

    def __init__(self):
        self._made: dict[Any, Any] = {}

    def of(self, function: Callable, run: Callable | None = None) -> Callable:
        """A function as a graph.

        Args:
          function: what tells it from others. A bound method is another object at each access,
            but an equal one.
          run: what is traced in its place, such as a strategy's call of it.
        """

        def call(*arguments):
            ranks = tuple(a.shape.rank for a in arguments if tf.is_tensor(a))
            key = function, run is None, ranks
            if key not in self._made:
                self._made[key] = graph(run or function)
            return self._made[key](*arguments)

        return call


def as_written(function: Callable) -> Callable:
    """A function in whose calls no library uses AutoGraph either."""
    return tf.autograph.experimental.do_not_convert(function)
