# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Stateless random numbers, seeded for a whole batch or for each of its rows.

A seed is an int32 tensor. A batch seed [2] feeds TensorFlow's own generator, which all rows share.
Row seeds [N, 2] give each of N rows a generator of its own, so that a row's numbers depend neither
on its position nor on the other rows. That generator is Threefry-2x32 with 20 rounds (Salmon et
al., SC 2011), written in TensorFlow because no TensorFlow operation takes a batch of seeds.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from matnet_tf.tracing import tf_function, traced_once

tfd = tfp.distributions

__all__ = [
    "draw",
    "draw_rows",
    "fold_in",
    "for_pass",
    "for_rows",
    "for_samples",
    "has_row_seeds",
    "normal",
    "seed_tensor",
    "split",
    "uniform",
]

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_ROUNDS = 20
_PARITY = 0x1BD11BDA
# The second counter word names the purpose of the bits, so that no two purposes share any.
_NUMBERS, _FOLDED, _SPLIT = range(3)


def seed_tensor(seed: Any, rows: int | None = None) -> tf.Tensor:
    """Converts a seed of the public methods to a stateless seed.

    Args:
      seed: An integer, a sequence with one integer per row, or a stateless seed, which is returned.
      rows: Number of rows N, or None to accept an integer only.

    Returns:
      A batch seed, int32 [2], for an integer; row seeds [N, 2] for a sequence.

    Raises:
      ValueError: If the seed is neither an integer nor a sequence of N integers.
    """
    if tf.is_tensor(seed):
        return tf.cast(seed, tf.int32)
    given, seed = seed, np.asarray(seed)
    if seed.dtype.kind not in "iu" or seed.shape not in ((), (rows,)):
        several = "" if rows is None else f", or a sequence of {rows}, one for each row"
        raise ValueError(f"seed must be a whole number{several}; got {given!r}")
    seed = seed.astype(np.int64)
    # Two words, because TensorFlow silently cuts a larger number to 32 bits.
    return tf.constant(np.stack([(seed >> 31) % 2**31, seed % 2**31], axis=-1), tf.int32)


def has_row_seeds(seed: tf.Tensor) -> bool:
    """Whether the seed has one seed per row, [N, 2], and not one for the whole batch, [2]."""
    return len(seed.shape) == 2


def fold_in(seed: tf.Tensor, data: int | tf.Tensor) -> tf.Tensor:
    """Derives a new seed of the same shape from a seed and a number.

    Args:
      seed: Batch seed [2] or row seeds [N, 2].
      data: Integer or int32 scalar; with row seeds also one number per row, int32 [N].
    """
    if not has_row_seeds(seed):
        return tf.random.fold_in(seed, data)
    return _derived(seed, data, _FOLDED)


def split(seed: tf.Tensor, num: int) -> Sequence[tf.Tensor]:
    """Derives `num` seeds of the same shape from one."""
    if not has_row_seeds(seed):
        return tf.unstack(tf.random.split(seed, num))
    return [_derived(seed, index, _SPLIT) for index in range(num)]


def for_samples(seed: tf.Tensor, first: int | tf.Tensor, num: int | tf.Tensor) -> tf.Tensor:
    """The seed for samples `first` to `first + num - 1` of every image.

    Args:
      seed: Batch seed [2], or one seed for each of B images, [B, 2].
      first: Index of the first sample.
      num: Number of samples per image.

    Returns:
      A batch seed [2] that depends on `first`; or row seeds [num * B, 2], sample first, where the
      seed of a sample depends on its index alone and not on `first` or `num`.
    """
    if not has_row_seeds(seed):
        return tf.random.fold_in(seed, first)
    images = tf.shape(seed)[0]
    index = tf.repeat(tf.range(first, first + num), images)
    return fold_in(tf.tile(seed, [num, 1]), index)


def for_rows(seed: tf.Tensor, first: int, num: int) -> tf.Tensor:
    """The seed for rows `first` to `first + num - 1` of a batch that is computed in parts.

    Row seeds are sliced. A batch seed is folded with `first`, or returned unchanged for the first
    part, so that a batch that needs one part only is drawn as if there were no parts.
    """
    if has_row_seeds(seed):
        return seed[first : first + num]
    return fold_in(seed, first) if first else seed


def for_pass(seed: tf.Tensor, num: int | tf.Tensor) -> tf.Tensor:
    """The seed for one top-down pass with `num` samples of every image.

    Seeds of images [B, 2] become seeds of rows [num * B, 2]; a batch seed is returned unchanged.
    """
    return for_samples(seed, 0, num) if has_row_seeds(seed) else seed


def uniform(seed: tf.Tensor, shape: Sequence[int]) -> tf.Tensor:
    """Uniform numbers in [0, 1), multiples of 2^-24: [N, *shape] for row seeds [N, 2]."""
    count = math.prod(shape)
    first, second = _bits(seed, (count + 1) // 2)
    bits = tf.concat([first, second], axis=1)[:, :count]
    return tf.reshape(_fraction(bits), [-1, *shape])


def normal(seed: tf.Tensor, shape: Sequence[int]) -> tf.Tensor:
    """Standard normal numbers by the Box-Muller transform: [N, *shape] for row seeds [N, 2]."""
    count = math.prod(shape)
    first, second = _bits(seed, (count + 1) // 2)
    radius = tf.sqrt(-2.0 * tf.math.log(1.0 - _fraction(first)))
    angle = 2.0 * math.pi * _fraction(second)
    pairs = tf.concat([radius * tf.cos(angle), radius * tf.sin(angle)], axis=1)
    return tf.reshape(pairs[:, :count], [-1, *shape])


def draw(
    distribution: tfd.Distribution, seed: tf.Tensor, rows: int | tf.Tensor | None = None
) -> tf.Tensor:
    """Draws one sample per row, [N, *event_shape].

    Args:
      distribution: Distribution with batch shape [N], or without a batch.
      seed: Batch seed [2] or row seeds [N, 2].
      rows: N, needed for a distribution without a batch.
    """
    if has_row_seeds(seed):
        return draw_rows(distribution, seed)
    if distribution.batch_shape.rank == 0:
        return distribution.sample(rows, seed=seed)
    independent = hasattr(distribution, "reinterpreted_batch_ndims")
    if independent and isinstance(distribution.distribution, tfd.Normal):
        normal_of_rows = distribution.distribution
        return _draw_normal(normal_of_rows.loc, normal_of_rows.scale, seed)
    return distribution.sample(seed=seed)


@traced_once
def _draw_normal(loc, scale, seed):
    return tfd.Normal(loc, scale).sample(seed=seed)


@functools.singledispatch
def draw_rows(distribution: tfd.Distribution, seed: tf.Tensor) -> tf.Tensor:
    """Draws one sample per row, [N, *event_shape], each from its own seed.

    Args:
      distribution: Distribution with batch shape [N], or a vector's distribution without a batch.
      seed: Row seeds [N, 2].

    Raises:
      TypeError: If no method is registered for the distribution.
    """
    # TFP has private classes beside the public Independent and TransformedDistribution.
    if hasattr(distribution, "reinterpreted_batch_ndims"):
        return draw_rows(distribution.distribution, seed)
    if hasattr(distribution, "bijector"):
        return distribution.bijector.forward(draw_rows(distribution.distribution, seed))
    raise TypeError(f"{type(distribution).__name__} cannot be drawn with one seed per row")


@draw_rows.register
def _(distribution: tfd.Normal, seed: tf.Tensor) -> tf.Tensor:
    return distribution.loc + distribution.scale * normal(seed, _row_shape(distribution))


@draw_rows.register
def _(distribution: tfd.Bernoulli, seed: tf.Tensor) -> tf.Tensor:
    drawn = uniform(seed, _row_shape(distribution)) < distribution.probs_parameter()
    return tf.cast(drawn, distribution.dtype)


def _row_shape(distribution):
    """The shape of one row; a prior without a batch is over a vector, whose shape it is."""
    shape = distribution.batch_shape
    return shape[1:] if shape.rank > 1 else shape


def _derived(seed, data, purpose):
    """Row seeds [N, 2] from row seeds and an integer, or one integer per row."""
    data = tf.zeros_like(seed[:, 0]) + data
    words = _threefry(seed, tf.bitcast(data, tf.uint32)[:, tf.newaxis], purpose)
    return tf.bitcast(tf.concat(words, axis=1), tf.int32)


def _bits(seed, count):
    """Two tensors [N, count] of random uint32."""
    return _threefry(seed, tf.bitcast(tf.range(count), tf.uint32)[tf.newaxis], _NUMBERS)


def _fraction(bits):
    """Numbers in [0, 1) from the upper 24 bits, as many as a float32 holds."""
    return tf.cast(tf.bitwise.right_shift(bits, tf.constant(8, tf.uint32)), tf.float32) * 2.0**-24


@tf_function
def _threefry(seed, counter, purpose):
    """Both output words, [N, M] each, of Threefry-2x32.

    Args:
      seed: Keys, int32 [N, 2].
      counter: First counter word, uint32 [1, M] or [N, M].
      purpose: Second counter word, an integer.
    """
    key = tf.bitcast(seed, tf.uint32)
    keys = [key[:, :1], key[:, 1:]]
    keys.append(tf.bitwise.bitwise_xor(tf.bitwise.bitwise_xor(*keys), _word(_PARITY)))
    a, b = counter + keys[0], keys[1] + _word(purpose)
    for block in range(_ROUNDS // 4):
        for turn in _ROTATIONS[block % 2]:
            a = a + b
            b = tf.bitwise.bitwise_xor(_rotated(b, turn), a)
        a = a + keys[(block + 1) % 3]
        b = b + keys[(block + 2) % 3] + _word(block + 1)
    return a, b


def _word(value):
    return tf.constant(value, tf.uint32)


def _rotated(word, turn):
    left = tf.bitwise.left_shift(word, _word(turn))
    return tf.bitwise.bitwise_or(left, tf.bitwise.right_shift(word, _word(32 - turn)))
