# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The stored images of a split, in memory or streamed from disk, as tf.data pipelines.

Both classes offer `shuffled`, endless batches in which the batch at a global step is a function of
(seed, step) alone, and `ordered`, one pass in a given order. A run that resumes at step s therefore
sees the images that it would have seen without the interruption. Both are read within `reading`,
which names the files in errors of reading.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf

__all__ = ["MemoryImages", "StreamedImages", "deterministic"]

# Size of the blocks in which streamed images are shuffled. It bounds the memory; TFDS has already
# shuffled the images on disk.
SHUFFLE_BYTES = 256 * 2**20

_DIGESTED = 100  # Streamed images that enter the digest.

# Rounds of the cipher behind an order in memory. With TensorFlow's default of 4 it is visibly less
# random than a permutation.
_ROUNDS = 24


def _digest(images: np.ndarray) -> str:
    digest = hashlib.sha256(f"{images.dtype.name} {images.shape}".encode())
    digest.update(np.ascontiguousarray(images))
    return digest.hexdigest()[:16]


def _order_seeds(seed: tf.Tensor, epochs: tf.Tensor) -> tf.Tensor:
    """The seeds of `RandomIndexShuffle` for epochs [B], int32 [B, 3].

    Of each word only the low bits count, eight of them for up to 65,536 images. Each word therefore
    has one byte of the epoch, so that no two of 2^24 epochs have the same order.
    """
    words = tf.random.stateless_uniform([3], seed, None, None, tf.int32)
    epoch_bytes = tf.bitwise.bitwise_and(tf.bitwise.right_shift(epochs[:, None], [0, 8, 16]), 255)
    return tf.bitwise.bitwise_xor(words, epoch_bytes)


def deterministic(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Returns the data set with the options that every pipeline here uses.

    The order is fixed. Autotuning is off because destroying an iterator waits for its thread. Each
    of several workers takes its share of every batch, so that together they see the same batches as
    one worker.
    """
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    options.autotune.enabled = False
    options.deterministic = True
    return dataset.with_options(options)


class MemoryImages:
    """Images held in memory.

    Args:
      images: Images [N, H, W, C], uint8, or float32 in [0, 1].
    """

    reading = staticmethod(contextlib.nullcontext)

    def __init__(self, images: np.ndarray):
        self.array = images

    def __len__(self) -> int:
        return len(self.array)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        return self.array.shape[1:]

    @property
    def dtype(self) -> np.dtype:
        """Type of the stored intensities: uint8, where 255 stands for 1.0, or a float type."""
        return self.array.dtype

    def shuffled(self, batch_size: int, seed: tf.Tensor, first_step: int) -> tf.data.Dataset:
        """Returns endless pairs (step, images [B, H, W, C]); it starts at any step at no cost.

        Every image occurs once per epoch. Batches run across the end of an epoch, so all are full.

        Args:
          batch_size: Batch size B.
          seed: int32 seed [2].
          first_step: Global step of the first batch.
        """
        images, size = self._tensor, len(self)

        def batch(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            position = step * batch_size + tf.range(batch_size, dtype=tf.int64)
            # tf.random.experimental.index_shuffle pads a batch of seeds wrongly.
            index = tf.raw_ops.RandomIndexShuffle(
                index=position % size,
                seed=_order_seeds(seed, tf.cast(position // size, tf.int32)),
                max_index=tf.constant(size - 1, tf.int64),
                rounds=_ROUNDS,
            )
            return step, tf.ensure_shape(tf.gather(images, index), [batch_size, *images.shape[1:]])

        return tf.data.Dataset.range(first_step, tf.int64.max).map(batch)

    def ordered(self, batch_size: int, indices: np.ndarray) -> tf.data.Dataset:
        """Returns one pass of pairs (indices [B], images [B, H, W, C]); the last may be smaller."""
        images = self._tensor
        dataset = tf.data.Dataset.from_tensor_slices(indices).batch(batch_size)
        return dataset.map(lambda index: (index, tf.gather(images, index)))

    def digest(self) -> str:
        """Returns a digest of all values."""
        return _digest(self.array)

    @functools.cached_property
    def _tensor(self) -> tf.Tensor:
        """The images on the host, where batches are made; all pipelines share this copy."""
        with tf.device("/CPU:0"):
            return tf.convert_to_tensor(self.array)


class StreamedImages:
    """Images read from disk as they are needed, for sets that do not fit into memory.

    Each epoch shuffles them anew within blocks of `SHUFFLE_BYTES`. Starting in the middle of an
    epoch reads and drops the images before that point.

    Args:
      dataset: Single images [H, W, C] in a fixed order.
      size: Number of images.
      reading: Returns a context that names the files in errors of reading.
    """

    def __init__(
        self,
        dataset: tf.data.Dataset,
        size: int,
        reading: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext,
    ):
        self._dataset, self._size, self.reading = dataset, size, reading

    def __len__(self) -> int:
        return self._size

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        return tuple(self._dataset.element_spec.shape)

    @property
    def dtype(self) -> np.dtype:
        """See `MemoryImages.dtype`."""
        return np.dtype(self._dataset.element_spec.dtype.as_numpy_dtype)

    def shuffled(self, batch_size: int, seed: tf.Tensor, first_step: int) -> tf.data.Dataset:
        """See `MemoryImages.shuffled`, except that starting late costs reading up to one epoch."""
        first_epoch, skipped = divmod(first_step * batch_size, self._size)
        epochs = tf.data.Dataset.range(first_epoch, tf.int64.max)
        images = epochs.flat_map(lambda epoch: self._epoch(epoch, seed)).skip(skipped)
        return images.batch(batch_size, drop_remainder=True).enumerate(first_step)

    def _epoch(self, epoch: tf.Tensor, seed: tf.Tensor) -> tf.data.Dataset:
        """Returns the images in the order of one epoch, without the state of Dataset.shuffle."""
        fold_in = tf.random.experimental.stateless_fold_in

        def permute(block: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
            block_seed = fold_in(fold_in(seed, epoch), block)
            keys = tf.random.stateless_uniform([tf.shape(images)[0]], block_seed)
            return tf.gather(images, tf.argsort(keys))

        blocks = self._dataset.batch(self._images_in(SHUFFLE_BYTES)).enumerate()
        return blocks.map(permute).unbatch()

    def _images_in(self, size: int) -> int:
        spec = self._dataset.element_spec
        return max(1, size // (math.prod(spec.shape) * spec.dtype.size))

    def digest(self) -> str:
        """Returns a digest of the first images; reading all would take as long as an epoch."""
        batch = next(self._dataset.batch(_DIGESTED).as_numpy_iterator())
        return _digest(batch)

    def ordered(self, batch_size: int, indices: np.ndarray) -> tf.data.Dataset:
        """See `MemoryImages.ordered`; a proper subset is first read into memory."""
        if np.array_equal(indices, np.arange(self._size)):
            return self._dataset.enumerate().batch(batch_size)
        subset = MemoryImages(self._subset(indices))
        image_indices = tf.constant(indices)
        rows = subset.ordered(batch_size, np.arange(len(indices)))
        return rows.map(lambda row, images: (tf.gather(image_indices, row), images))

    def _subset(self, indices: np.ndarray) -> np.ndarray:
        """Reads the images at these indices, which may repeat."""
        spec = self._dataset.element_spec
        subset = np.empty([len(indices), *spec.shape], spec.dtype.as_numpy_dtype)
        order = np.argsort(indices, kind="stable")
        wanted = indices[order]
        for position, image in enumerate(self._dataset.as_numpy_iterator()):
            first, last = np.searchsorted(wanted, [position, position + 1])
            subset[order[first:last]] = image
        return subset
