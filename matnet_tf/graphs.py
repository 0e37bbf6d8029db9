# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""How functions of this package become TensorFlow graphs: as they are written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

__all__ = ["as_written", "graph"]


def graph(function: Callable, jit_compile: bool | None = None) -> Any:
    """A function as a graph, `tf.function`, in which loops over tensors are TensorFlow's own.

    AutoGraph, which would look for them, writes Python files to the temporary folder: on a full
    disk nothing would work.

    Args:
      function: of tensors.
      jit_compile: whether XLA compiles it.
    """
    return tf.function(function, jit_compile=jit_compile, reduce_retracing=True, autograph=False)


def as_written(function: Callable) -> Callable:
    """A function in whose calls no library uses AutoGraph either."""
    return tf.autograph.experimental.do_not_convert(function)
