# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Stateless noise, of a whole batch or of each of its rows by itself.

A seed is an int32 tensor: `[2]` for a batch, whose rows then share TensorFlow's stream of random
numbers, or `[N, 2]`, one for each of N rows. The noise of a row with a seed of its own depends on
that seed alone, not on how many rows there are or where in the batch it stands. It comes from
Threefry-2x32 with 20 rounds (Salmon et al., SC 2011), in TensorFlow's operations, since none of
them takes a batch of seeds.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from matnet_tf.graphs import graph

tfd = tfp.distributions

__all__ = [
    "by_row",
    "draw",
    "draw_rows",
    "fold_in",
    "normal",
    "of_pass",
    "of_samples",
    "of_walk",
    "seed_tensor",
    "split",
    "uniform",
]

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_ROUNDS = 20
_PARITY = 0x1BD11BDA
# The second word of the counters: what the bits of a seed are for.
_NUMBERS, _FOLDED, _SPLIT = range(3)


def seed_tensor(seed: Any, rows: int | None = None) -> tf.Tensor:
    """A stateless seed from a whole number, from several, or as it is if it is a tensor.

    Args:
      seed: a whole number, a sequence of them, or a tensor that this gave.
      rows: how many rows there are, or None where one seed for all of them is needed.

    Returns:
      int32 `[2]`, or `[N, 2]` for N numbers: one for each row.

    Raises:
      ValueError: if it is none of them, or there is not one number for each row.
    """
    if tf.is_tensor(seed):
        return tf.cast(seed, tf.int32)
    given, seed = seed, np.asarray(seed)
    if seed.dtype.kind not in "iu" or seed.shape not in ((), (rows,)):
        several = "" if rows is None else f", or {rows} of them, one for each row"
        raise ValueError(f"seed must be a whole number{several}; got {given!r}")
    seed = seed.astype(np.int64)
    # In two words, since TensorFlow would cut a larger one to 32 bits in silence.
    return tf.constant(np.stack([(seed >> 31) % 2**31, seed % 2**31], axis=-1), tf.int32)


def by_row(seed: tf.Tensor) -> bool:
    """Whether each row has a seed of its own."""
    return len(seed.shape) == 2


def fold_in(seed: tf.Tensor, data: int | tf.Tensor) -> tf.Tensor:
    """Another seed, or as many, for each value of `data`, int32: a scalar, or one for each row."""
    if not by_row(seed):
        return tf.random.fold_in(seed, data)
    return _derived(seed, data, _FOLDED)


def split(seed: tf.Tensor, num: int) -> Sequence[tf.Tensor]:
    """`num` seeds from one, each of its shape."""
    if not by_row(seed):
        return tf.random.split(seed, num)
    return [_derived(seed, index, _SPLIT) for index in range(num)]


def of_samples(seed: tf.Tensor, first: int | tf.Tensor, num: int | tf.Tensor) -> tf.Tensor:
    """The seed of samples `first` to `first + num - 1` of every image, sample first.

    Seeds of images become those of rows: of a sample the noise is the same wherever a pass begins.
    The one seed of a batch becomes that of the pass.
    """
    if not by_row(seed):
        return tf.random.fold_in(seed, first)
    images = tf.shape(seed)[0]
    index = tf.repeat(tf.range(first, first + num), images)
    return fold_in(tf.tile(seed, [num, 1]), index)


def of_pass(seed: tf.Tensor, first: int, num: int) -> tf.Tensor:
    """The seed of rows `first` to `first + num - 1`: theirs, or the batch's with `first` in it."""
    if by_row(seed):
        return seed[first : first + num]
    # Of the first pass it is the seed itself, of which few samples have always been drawn.
    return fold_in(seed, first) if first else seed


def of_walk(seed: tf.Tensor, num: int | tf.Tensor) -> tf.Tensor:
    """The seed of a walk with `num` samples of every image: rows' from images', or the batch's."""
    return of_samples(seed, 0, num) if by_row(seed) else seed


def uniform(seed: tf.Tensor, shape: Sequence[int]) -> tf.Tensor:
    """Numbers in [0, 1), multiples of 2^-24: `[N, *shape]` for N seeds `[N, 2]`."""
    count = math.prod(shape)
    first, second = _bits(seed, (count + 1) // 2)
    bits = tf.concat([first, second], axis=1)[:, :count]
    return tf.reshape(_fraction(bits), [-1, *shape])


def normal(seed: tf.Tensor, shape: Sequence[int]) -> tf.Tensor:
    """Standard normal numbers by the Box-Muller transform: `[N, *shape]` for seeds `[N, 2]`."""
    count = math.prod(shape)
    first, second = _bits(seed, (count + 1) // 2)
    radius = tf.sqrt(-2.0 * tf.math.log(1.0 - _fraction(first)))
    angle = 2.0 * math.pi * _fraction(second)
    pairs = tf.concat([radius * tf.cos(angle), radius * tf.sin(angle)], axis=1)
    return tf.reshape(pairs[:, :count], [-1, *shape])


def draw(
    distribution: tfd.Distribution, seed: tf.Tensor, rows: int | tf.Tensor | None = None
) -> tf.Tensor:
    """One sample of each row: `[N, *event_shape]`.

    Args:
      distribution: with `batch_shape` `[N]`, or without a batch.
      seed: of the batch, `[2]`, or of its rows, `[N, 2]`.
      rows: N, for a distribution without a batch.
    """
    if by_row(seed):
        return draw_rows(distribution, seed)
    alone = distribution.batch_shape.rank == 0
    return distribution.sample(*([rows] if alone else []), seed=seed)


@functools.singledispatch
def draw_rows(distribution: tfd.Distribution, seed: tf.Tensor) -> tf.Tensor:
    """A sample of each row from its own seed, of each kind of distribution that is registered."""
    # TFP has several classes for Independent, of which one is public.
    if hasattr(distribution, "reinterpreted_batch_ndims"):
        return draw_rows(distribution.distribution, seed)
    raise TypeError(f"no way to draw from {type(distribution).__name__} by rows")


@draw_rows.register
def _(distribution: tfd.Normal, seed: tf.Tensor) -> tf.Tensor:
    shape = _row_shape(distribution)
    return distribution.loc + distribution.scale * normal(seed, shape)


@draw_rows.register
def _(distribution: tfd.Bernoulli, seed: tf.Tensor) -> tf.Tensor:
    drawn = uniform(seed, _row_shape(distribution)) < distribution.probs_parameter()
    return tf.cast(drawn, distribution.dtype)


@draw_rows.register
def _(distribution: tfd.TransformedDistribution, seed: tf.Tensor) -> tf.Tensor:
    return distribution.bijector.forward(draw_rows(distribution.distribution, seed))


def _row_shape(distribution):
    """Shape of a row: that of a prior without a batch of rows is its only one, a vector."""
    shape = distribution.batch_shape
    return shape[1:] if shape.rank > 1 else shape


def _derived(seed, data, purpose):
    data = tf.zeros_like(seed[:, 0]) + data
    words = _threefry(seed, tf.bitcast(data, tf.uint32)[:, tf.newaxis], purpose)
    return tf.bitcast(tf.concat(words, axis=1), tf.int32)


def _bits(seed, count):
    """Two tensors `[N, count]` of random uint32."""
    return _threefry(seed, tf.bitcast(tf.range(count), tf.uint32)[tf.newaxis], _NUMBERS)


def _fraction(bits):
    return tf.cast(tf.bitwise.right_shift(bits, tf.constant(8, tf.uint32)), tf.float32) * 2.0**-24


@graph
def _threefry(seed, counter, purpose):
    """The two words, `[N, M]`, of Threefry-2x32 for keys `[N, 2]` and counters `[1 or N, M]`."""
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
