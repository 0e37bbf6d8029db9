# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Rows of a served batch in blocks of one size, so that none depends on the others, bit for bit.

TensorFlow computes each row of a block by operations of one shape, which add in one order, however
many rows a request has.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from matnet_tf.graphs import graph
from matnet_tf.hierarchy import Hierarchy

__all__ = ["BLOCK", "by_block", "in_passes", "samples_per_pass"]

# Rows that are computed at once. A multiple of the 16 float32 numbers of the widest registers: what
# is left over after the last whole register would be rounded differently.
BLOCK = 16
_SAMPLES_PER_PASS = 8

Outputs = dict[str, tf.Tensor]


def by_block(
    function: Callable[..., Outputs], rows: dict[str, tf.Tensor], **settings: tf.Tensor
) -> Outputs:
    """What a function of blocks of rows gives for any number of rows.

    Args:
      function: of tensors `[BLOCK, ...]`, and of the settings.
      rows: tensors `[B, ...]`; the last block is filled up with the last row.
      settings: scalars.
    """
    count = tf.shape(next(iter(rows.values())))[0]
    # Without rows, which a check refuses, one block all the same: TensorFlow may look at shapes
    # before the check, and has an error of its own for none.
    blocks = tf.maximum(1, -(-count // BLOCK))
    last = tf.maximum(0, count - 1)
    index = tf.reshape(tf.minimum(tf.range(blocks * BLOCK), last), [blocks, BLOCK])
    specs = {n: tf.TensorSpec([BLOCK, *t.shape[1:]], t.dtype) for n, t in rows.items()}
    specs |= {n: tf.TensorSpec([], t.dtype) for n, t in settings.items()}
    concrete = graph(function).get_concrete_function(**specs)

    def one(index):
        own = {n: tf.ensure_shape(tf.gather(t, index), specs[n].shape) for n, t in rows.items()}
        return concrete(**own, **settings)

    given = {n: tf.TensorSpec(t.shape, t.dtype) for n, t in concrete.structured_outputs.items()}
    found = tf.map_fn(one, index, fn_output_signature=given, parallel_iterations=1)
    outputs = {}
    for name, value in found.items():
        shape = tf.concat([[blocks * BLOCK], tf.shape(value)[2:]], axis=0)
        outputs[name] = tf.reshape(value, shape)[:count]
        outputs[name].set_shape([None, *value.shape[2:]])
    return outputs


def samples_per_pass(model: Hierarchy) -> int:
    """How many samples of a block are walked at once: fixed, as the block is."""
    return max(1, min(_SAMPLES_PER_PASS, model.samples_per_pass // BLOCK))


def in_passes(
    model: Hierarchy, num_samples: tf.Tensor, add: Callable[[tf.Tensor, Any], Any], start: Any
) -> Any:
    """Goes through samples, all passes of one size: `add` makes the next state from the last."""
    step = samples_per_pass(model)
    return tf.while_loop(
        lambda first, _: first < num_samples,
        lambda first, state: (first + step, add(first, state)),
        (0, start),
        parallel_iterations=1,
    )[1]
