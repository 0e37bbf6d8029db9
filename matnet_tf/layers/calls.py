# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Methods of modules as functions of their weights, so that gradients can recompute them.

A gradient needs what the forward pass has computed. Within `recomputing`, a call of a module of a
chosen scale keeps its arguments alone, and the gradient computes the rest again: memory for time.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Callable, Collection, Iterator

import keras
import tensorflow as tf

__all__ = ["of_weights", "recomputing"]

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


def of_weights(method: Callable) -> Callable:
    """Decorates a method of a module that maps tensors to tensors.

    The module has an attribute `scale`, the label of its scale, see `recomputing`. An argument that
    may be None is the last one and has that default.
    """

    @functools.wraps(method)
    def call(self, *tensors):
        if self.scale not in _scales.get() and "all" not in _scales.get():
            return method(self, *tensors)
        variables = self.weights

        def of_values(*arguments):
            values, own = arguments[: len(variables)], arguments[len(variables) :]
            mapping = list(zip(variables, values, strict=True))
            with keras.StatelessScope(mapping, initialize_variables=False):
                return method(self, *own)

        # The weights are arguments: TensorFlow then need not look for them, on every replica.
        values = [tf.convert_to_tensor(variable) for variable in variables]
        given = [tensor for tensor in tensors if tensor is not None]
        return tf.recompute_grad(of_values)(*values, *given)

    return call
