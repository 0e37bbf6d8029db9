# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The order of training images over many epochs."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from matnet_tf.data.batching import MemoryImages, StreamedImages


def epochs_of(images, count):
    """The indices of whole epochs, [count, N]."""
    dataset = images.shuffled(len(images), tf.constant([0, 1]), 0).take(count)
    return np.stack([x.numpy().ravel() for _, x in dataset]).astype(int)


@pytest.mark.slow
def test_no_order_returns_and_a_class_is_spread_as_by_a_permutation():
    size, batch, epochs = 1350, 100, 600
    order = epochs_of(MemoryImages(np.arange(size).reshape(-1, 1, 1, 1)), epochs)
    first = order[:, :batch]
    assert len(np.unique(first, axis=0)) == epochs
    # Ten classes, stored one after the other; their counts in a batch are hypergeometric.
    counts = np.stack([np.bincount(row, minlength=10) for row in first * 10 // size])
    expected = batch * 0.1 * 0.9 * (size - batch) / (size - 1)
    assert counts.var(0).mean() == pytest.approx(expected, rel=0.05)
    np.testing.assert_allclose(counts.var(0), expected, rtol=0.2)  # 3.5 standard errors.


def test_the_order_has_no_trace_of_the_stored_one():
    stored = np.arange(1000)
    epochs = epochs_of(MemoryImages(stored.reshape(-1, 1, 1, 1)), 4)
    # A random permutation's correlation with another is about 1 / sqrt(1000) = 0.03.
    for one, other in itertools.combinations([stored, *epochs], 2):
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.13
        assert abs(np.corrcoef(one[1:], other[:-1])[0, 1]) < 0.13
    for epoch in epochs:
        assert abs(np.corrcoef(epoch[1:], epoch[:-1])[0, 1]) < 0.13


@pytest.mark.slow
def test_no_order_of_streamed_images_returns():
    dataset = tf.data.Dataset.range(30).map(lambda i: tf.reshape(i, [1, 1, 1]))
    order = epochs_of(StreamedImages(dataset, 30), 300)
    assert len(np.unique(order, axis=0)) == 300
    assert (np.sort(order) == np.arange(30)).all()
