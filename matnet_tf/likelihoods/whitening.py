# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""ZCA whitening of images: a layer that holds the statistics, and a bijector back to images."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from matnet_tf.layers.base import config_of

tfb = tfp.bijectors

__all__ = ["Unwhiten", "Whitening"]


@keras.saving.register_keras_serializable("matnet_tf")
class Whitening(keras.layers.Layer):
    """ZCA whitening, `W (x - mean)` with the symmetric `W = (covariance + epsilon I)^(-1/2)`.

    The paper's research code whitened CIFAR-10 this way and modelled the whitened pixels by a
    Gaussian. The statistics come from `adapt`. They are weights that are not trained, so they are
    saved in checkpoints and exports.

    Args:
      image_shape: Image shape (H, W, C); all D = H * W * C values are whitened together.
      epsilon: Added to the eigenvalues of the covariance, which is that of images in [0, 1].
      **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
      x: Images [B, H, W, C], float32 in [0, 1].
    """

    def __init__(self, image_shape, epsilon=1e-5, **kwargs):
        # float32 whatever the dtype policy, because densities depend on every digit.
        super().__init__(**{"dtype": "float32", **kwargs})
        self.image_shape = tuple(image_shape)
        self.epsilon = epsilon
        size = math.prod(self.image_shape)
        weight = {"trainable": False, "dtype": "float32", "autocast": False}
        self.location = self.add_weight(name="mean", shape=(size,), initializer="zeros", **weight)
        self.matrix = self.add_weight(
            name="matrix", shape=(size, size), initializer="identity", **weight
        )
        self.inverse = self.add_weight(
            name="inverse", shape=(size, size), initializer="identity", **weight
        )
        self.log_det = self.add_weight(name="log_det", shape=(), initializer="zeros", **weight)
        self.num_images = self.add_weight(
            name="num_images", shape=(), initializer="zeros", trainable=False, dtype="int64"
        )
        self.built = True

    @property
    def adapted(self) -> bool:
        """Whether the statistics have been computed, by this layer or before it was saved."""
        return int(self.num_images.numpy()) > 0

    def adapt(self, dataset: Iterable[Any]) -> None:
        """Computes the statistics from training images.

        Args:
          dataset: Batches of images [B, H, W, C], read once; at least 2 images in total.

        Raises:
          ValueError: If there are fewer than 2 images, or a value is not finite.
        """
        mean, covariance, count = self._moments(dataset)
        values, vectors = np.linalg.eigh(covariance)
        values = np.maximum(values, 0) + self.epsilon
        self.location.assign(mean + 0.5)
        self.matrix.assign((vectors / np.sqrt(values)) @ vectors.T)
        self.inverse.assign((vectors * np.sqrt(values)) @ vectors.T)
        self.log_det.assign(-0.5 * np.log(values).sum())
        self.num_images.assign(count)

    def _moments(self, dataset):
        """Mean [D] and covariance [D, D] of images minus 1/2, and the number of images."""
        size = math.prod(self.image_shape)
        total, products, count = np.zeros(size), np.zeros([size, size]), 0
        for x in dataset:
            # Values around 0 lose nothing in float32 products; the sums are float64.
            rows = np.reshape(x, [-1, size]).astype(np.float32) - 0.5
            total += rows.sum(axis=0, dtype=np.float64)
            products += rows.T @ rows
            count += len(rows)
        if count < 2:
            raise ValueError(f"whitening needs at least 2 training images; got {count}")
        mean = total / count
        covariance = products / count - np.outer(mean, mean)
        if not np.isfinite(covariance).all():
            raise ValueError("whitening needs finite training images; got NaN or infinity")
        return mean, covariance, count

    def call(self, x):
        rows = tf.reshape(x, [-1, math.prod(self.image_shape)])
        # W is symmetric, so multiplying rows by W from the right is the same.
        rows = (rows - self.location) @ tf.convert_to_tensor(self.matrix)
        return tf.reshape(rows, [-1, *self.image_shape])

    def undo(self, y: tf.Tensor) -> tf.Tensor:
        """The images [B, H, W, C] whose whitened values are y."""
        shape = tf.shape(y)
        rows = tf.reshape(y, [-1, math.prod(self.image_shape)])
        return tf.reshape(rows @ tf.convert_to_tensor(self.inverse) + self.location, shape)

    def compute_output_shape(self, x_shape):
        return x_shape

    def get_config(self):
        return super().get_config() | config_of(self, "image_shape", "epsilon")


class Unwhiten(tfb.Bijector):
    """The bijector from whitened values [..., H, W, C] to images.

    Args:
      whitening: The layer that holds the statistics.
      name: Name of the bijector.
    """

    def __init__(self, whitening: Whitening, name: str = "unwhiten"):
        parameters = dict(locals())
        self._whitening = whitening
        super().__init__(
            forward_min_event_ndims=3,
            is_constant_jacobian=True,
            dtype=tf.float32,
            parameters=parameters,
            name=name,
        )

    def _forward(self, y):
        return self._whitening.undo(y)

    def _inverse(self, x):
        shape = tf.shape(x)
        return tf.reshape(self._whitening(x), shape)

    def _inverse_log_det_jacobian(self, x):
        return tf.convert_to_tensor(self._whitening.log_det)

    def _forward_log_det_jacobian(self, y):
        return -tf.convert_to_tensor(self._whitening.log_det)
