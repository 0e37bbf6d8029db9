# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Goes through the rows and samples of a large request in chunks, so that its memory is bounded.

A request that fits into one pass of the model takes one pass, without padding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

__all__ = ["Outputs", "over_row_chunks", "over_sample_chunks"]

Outputs = dict[str, tf.Tensor]


def over_row_chunks(
    function: Callable[..., Outputs], rows: dict[str, tf.Tensor], size: int, most: int
) -> Outputs:
    """Applies a function to rows, at most `size` at a time.

    Args:
      function: Takes tensors `[b, ...]` by name and returns tensors `[b, ...]` by name.
      rows: Tensors `[B, ...]` by name.
      size: The largest b.
      most: The largest B. If it is at most `size`, the graph has no loop.

    Returns:
      The function's outputs for all rows, `[B, ...]`.
    """
    if most <= size:
        return function(**rows)
    count = tf.shape(next(iter(rows.values())))[0]
    # One graph for two calls. Inlined, it would be optimized twice before the first request.
    function = tf.function(function, autograph=False, experimental_attributes={"_noinline": True})

    def chunk(first):
        return function(**{name: value[first : first + size] for name, value in rows.items()})

    def add(first, outputs):
        more = chunk(first)
        joined = {name: tf.concat([outputs[name], more[name]], axis=0) for name in outputs}
        return first + size, joined

    # Most requests are a single chunk, which leaves nothing to the loop.
    return tf.while_loop(
        lambda first, _: first < count, add, (size, chunk(0)), parallel_iterations=1
    )[1]


def over_sample_chunks(
    num_samples: tf.Tensor,
    size: tf.Tensor,
    add: Callable[[tf.Tensor, tf.Tensor, Any], Any],
    start: Any,
) -> Any:
    """Goes through the samples of every image, at most `size` at a time.

    Args:
      num_samples: K, int32.
      size: The most samples per chunk, int32.
      add: Takes the index of a chunk's first sample, the number of its samples and the state, and
        returns the next state.
      start: The first state.

    Returns:
      The last state.
    """

    def step(first, state):
        num = tf.minimum(size, num_samples - first)
        return first + num, add(first, num, state)

    return tf.while_loop(
        lambda first, _: first < num_samples, step, (0, start), parallel_iterations=1
    )[1]
