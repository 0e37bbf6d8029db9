# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""TensorFlow graphs of this package's functions, traced without AutoGraph.

AutoGraph writes Python files to the temporary folder, so on a full disk nothing would work.
"""

from __future__ import annotations

import contextvars
import functools
import numbers
from collections.abc import Callable
from typing import Any

import tensorflow as tf

__all__ = [
    "FunctionCache",
    "compiles_by_default",
    "tf_function",
    "traced_once",
    "without_autograph",
]

_in_xla: contextvars.ContextVar[bool] = contextvars.ContextVar("in_xla", default=False)


def compiles_by_default() -> bool:
    """Whether XLA compiles bounds and training steps where nothing else is said: with a GPU.

    An H200 trains three times as fast with it. On a CPU bounds take up to 1.8 times as long, and
    whether steps gain depends on the model.
    """
    return bool(tf.config.list_physical_devices("GPU"))


def tf_function(function: Callable, jit_compile: bool | None = None) -> Any:
    """Returns a `tf.function` without AutoGraph; loops over tensors need `tf.while_loop`.

    Args:
      function: A function of tensors.
      jit_compile: Whether XLA compiles the graph.
    """
    # TensorFlow counts the traces of all functions with the same code together, and warns of
    # retracing when several models live in one process; those of a partial it counts alone.
    function = functools.partial(*([_for_xla] if jit_compile else []), function)
    return tf.function(function, jit_compile=jit_compile, reduce_retracing=True, autograph=False)


def _for_xla(function, *arguments, **keywords):
    token = _in_xla.set(True)
    try:
        return function(*arguments, **keywords)
    finally:
        _in_xla.reset(token)


def traced_once(function: Callable) -> Callable:
    """Decorates a function that graphs call often, such as once for every level of latents.

    A graph is traced, and differentiated, once for each combination of the arguments' shapes and
    types. Where TensorFlow runs eagerly, the function is called as it is. So it is where XLA
    compiles, which compiled such graphs again in every step: it seems that sizes which a gradient
    keeps of a function must be constants, and that it then takes all arguments for constants.

    Args:
      function: A function of tensors and numbers, which uses no variables.
    """
    graphs: dict[Any, Any] = {}

    @without_autograph  # A user's `tf.function` would try to convert it, and warn.
    @functools.wraps(function)
    def call(*arguments):
        if tf.executing_eagerly() or _in_xla.get():
            return function(*arguments)
        key = tuple((a.shape, a.dtype) if tf.is_tensor(a) else a for a in arguments)
        if key not in graphs:
            graphs[key] = tf_function(function)
        return graphs[key](*arguments)

    return call


class FunctionCache:
    """Graphs of functions, one for each combination of ranks and Python values in the arguments.

    A single graph that met a seed for a batch, and then seeds for rows, would be retraced for
    tensors of unknown rank. A single `tf.function` for every number of samples, or for every choice
    of given latents, would make TensorFlow warn of retracing.
    """

    def __init__(self):
        self._graphs: dict[Any, Any] = {}

    def get(
        self,
        function: Callable,
        strategy: tf.distribute.Strategy | None = None,
        jit_compile: bool = False,
    ) -> Callable:
        """Returns a function that calls the graph for its arguments, and traces it if necessary.

        Args:
          function: The function, which is also the key of the cache. A bound method is a new object
            at each access, but equal to the others.
          strategy: If given, the function runs on each of its replicas.
          jit_compile: Whether XLA compiles the graph.
        """

        def call(*arguments):
            key = function, strategy, jit_compile, *map(_signature, tf.nest.flatten(arguments))
            if key not in self._graphs:
                self._graphs[key] = self._graph(function, strategy, jit_compile)
            return self._graphs[key](*arguments)

        return call

    @staticmethod
    def _graph(function, strategy, jit_compile):
        if jit_compile:
            function = tf_function(function, jit_compile)
        if strategy is None:
            return tf_function(function)
        return tf_function(lambda *own: strategy.run(function, own))


def _signature(value: Any) -> Any:
    """Returns an argument's part of the cache key: a tensor's rank, or a Python value itself."""
    if value is None or isinstance(value, numbers.Number):
        return value
    # Per-replica values have no rank.
    return "rank", value.shape.rank if tf.is_tensor(value) else None


def without_autograph(function: Callable) -> Callable:
    """Returns the function with AutoGraph off in its calls, for other libraries' code too."""
    return tf.autograph.experimental.do_not_convert(function)
