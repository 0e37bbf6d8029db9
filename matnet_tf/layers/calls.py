# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Methods of modules as functions of their weights.

Tracing takes Python time for every operation, and a deep model repeats the same ones in every
module. So modules that are alike share the graphs of their methods: each is traced, and
differentiated, once, with the weights among its arguments; but not for XLA, see `traced_once`.

A gradient needs what the forward pass has computed. Within `recomputing`, a call of a module of a
chosen scale keeps its arguments alone, and the gradient computes the rest again: memory for time.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Callable, Collection, Iterator
from typing import Any

import keras
import tensorflow as tf

from matnet_tf.tracing import traced_once

__all__ = ["SharedGraphs", "of_weights", "recomputing"]

# Seen by the thread that traces: each replica has its own.
_scales: contextvars.ContextVar[Collection[str]] = contextvars.ContextVar("scales", default=())


@contextlib.contextmanager
def recomputing(scales: Collection[str]) -> Iterator[None]:
    """Lets gradients of what is computed inside a with statement recompute some modules.

    Args:
      scales: Labels of the scales whose modules are recomputed, such as `14x14`; or `all`.
    """
    token = _scales.set(scales)
    try:
        yield
    finally:
        _scales.reset(token)


class SharedGraphs:
    """The graphs of the methods of modules that are alike.

    Args:
      module: One of them, which stands for all.
    """

    def __init__(self, module: keras.layers.Layer):
        self._module = module
        self._functions: dict[Callable, Callable] = {}

    def function(self, method: Callable) -> Callable:
        """A method as a function of the values of the weights, in their order, and tensors."""
        if method not in self._functions:
            compute = functools.partial(self._compute, method)
            self._functions[method] = traced_once(compute)
        return self._functions[method]

    def _compute(self, method: Callable, *arguments: tf.Tensor) -> Any:
        variables = self._module.weights
        values, tensors = arguments[: len(variables)], arguments[len(variables) :]
        mapping = list(zip(variables, values, strict=True))
        with keras.StatelessScope(mapping, initialize_variables=False):
            return method(self._module, *tensors)


def of_weights(method: Callable) -> Callable:
    """Decorates a method of a module that maps tensors to tensors.

    The module has two attributes: `graphs`, its `SharedGraphs`, and `scale`, the label of its
    scale, see `recomputing`. An argument that may be None is the last one and has that default.
    """

    @functools.wraps(method)
    def call(self, *tensors):
        recompute = self.scale in _scales.get() or "all" in _scales.get()
        if tf.executing_eagerly() and not recompute:
            return method(self, *tensors)
        function = self.graphs.function(method)
        if recompute:
            function = tf.recompute_grad(function)
        weights = [tf.convert_to_tensor(variable) for variable in self.weights]
        return function(*weights, *[tensor for tensor in tensors if tensor is not None])

    return call
