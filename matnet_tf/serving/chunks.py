# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Goes through the rows and samples of a large request in chunks, so that its memory is bounded.

A request that fits into one chunk takes one pass of the model, without padding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from matnet_tf.distributions import stateless_random
from matnet_tf.likelihoods.observation import ObservedPixels
from matnet_tf.model.hierarchy import Hierarchy

__all__ = [
    "Outputs",
    "bound_in_chunks",
    "over_row_chunks",
    "rows_per_chunk",
    "samples_in_chunks",
]

Outputs = dict[str, tf.Tensor]

# A quarter of a pass is as fast as a whole one, and other requests wait half as long beside it.
_PARTS = 4


def rows_per_chunk(hierarchy: Hierarchy) -> int:
    """The most image-samples that are computed at a time."""
    return max(1, hierarchy.samples_per_pass // _PARTS)


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


def bound_in_chunks(
    hierarchy: Hierarchy, inputs: tuple[tf.Tensor, ...], num_samples: tf.Tensor, seed: tf.Tensor
) -> tf.Tensor:
    """The importance-weighted bound, float64 `[b]`, with K of each image in `num_samples` `[b]`."""
    encoding, x = hierarchy.encode(*inputs), inputs[0]

    def add(first, num, log_sum):
        own_seed = stateless_random.for_samples(seed, first, num)
        log_weight = tf.cast(hierarchy.log_weight(x, encoding, num, own_seed), tf.float64)
        counts = (first + tf.range(num))[:, tf.newaxis] < num_samples
        log_weight = tf.where(counts, log_weight, tf.constant(-float("inf"), tf.float64))
        return tf.reduce_logsumexp(tf.concat([log_sum[tf.newaxis], log_weight], axis=0), axis=0)

    start = tf.fill(tf.shape(num_samples), tf.constant(-float("inf"), tf.float64))
    size = _samples_per_chunk(hierarchy, seed)
    log_sum = _over_sample_chunks(tf.reduce_max(num_samples), size, add, start)
    return log_sum - tf.math.log(tf.cast(num_samples, tf.float64))


def samples_in_chunks(
    hierarchy: Hierarchy,
    known: ObservedPixels,
    num_samples: tf.Tensor,
    temperature: tf.Tensor,
    seed: tf.Tensor,
) -> tf.Tensor:
    """Completions of images, `[num_samples, b, H, W, C]`, given their known pixels."""
    encoding = hierarchy.encode_observed(known)

    def add(first, num, chunks):
        own_seed = stateless_random.for_samples(seed, first, num)
        rows = num * tf.shape(seed)[0]
        trace = hierarchy.top_down_pass(encoding, rows, own_seed, temperature=temperature)
        return chunks.write(chunks.size(), hierarchy.images(trace, own_seed))

    start = tf.TensorArray(
        tf.float32,
        0,
        dynamic_size=True,
        infer_shape=False,
        element_shape=[None, *known.x.shape[1:]],
    )
    size = _samples_per_chunk(hierarchy, seed)
    images = _over_sample_chunks(num_samples, size, add, start).concat()
    return tf.reshape(images, tf.concat([[num_samples], tf.shape(known.x)], axis=0))


def _over_sample_chunks(
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


def _samples_per_chunk(hierarchy: Hierarchy, seed: tf.Tensor) -> tf.Tensor:
    return tf.maximum(1, rows_per_chunk(hierarchy) // tf.shape(seed)[0])
