# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""A convolution masked to the order of an image's values: by row, column and channel."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from matnet_tf.layers.base import config_of

__all__ = ["MaskedConvolution"]


@keras.saving.register_keras_serializable("matnet_tf")
class MaskedConvolution(keras.layers.Layer):
    """A convolution whose output at a position reads only the values before it.

    Input and output filters belong to the image's channels in equal, ordered blocks. An output
    filter of channel c reads everything that the kernel covers in the rows above and to the left.
    At its own position it reads the filters of earlier channels and, with mask "B", of channel c.
    The kernel is therefore only the upper half, [k // 2 + 1, k, in, out], with a masked last row.

    Args:
      filters: Output filters.
      kernel_size: Height and width k of the full kernel, odd.
      channels: Channels of the image.
      mask: "A" for the layer that reads the image itself, "B" for the layers after it.
      shortcut: Number of further output filters, after the others and with blocks of their own.
      **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
      x: Tensor [B, H, W, in].
    """

    def __init__(self, filters, kernel_size, channels, mask, shortcut=0, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = kernel_size
        self.channels = channels
        self.mask = mask
        self.shortcut = shortcut
        self.radius = kernel_size // 2

    def build(self, x_shape):
        shape = (self.radius + 1, self.kernel_size, x_shape[-1], self.width)
        self.kernel = self.add_weight(name="kernel", shape=shape, initializer="glorot_uniform")
        reads = self._channels_of(x_shape[-1])
        writes = np.concatenate([self._channels_of(self.filters), self._channels_of(self.shortcut)])
        before = reads[:, None] < writes if self.mask == "A" else reads[:, None] <= writes
        visible = np.ones(shape, np.float32)
        visible[-1, self.radius] = before
        visible[-1, self.radius + 1 :] = 0
        self._visible = visible

    @property
    def width(self) -> int:
        """Output filters including the shortcut."""
        return self.filters + self.shortcut

    def _channels_of(self, filters: int) -> np.ndarray:
        """The channel of the image that each of this many filters belongs to."""
        return np.arange(filters) * self.channels // max(1, filters)

    def masked_kernel(self) -> tf.Tensor:
        """The kernel [k // 2 + 1, k, in, out] with zeros where it must not read."""
        return tf.convert_to_tensor(self.kernel) * self._visible

    def call(self, x):
        padding = [[0, 0], [self.radius, 0], [self.radius, self.radius], [0, 0]]
        kernel = tf.cast(self.masked_kernel(), x.dtype)
        return tf.nn.conv2d(tf.pad(x, padding), kernel, 1, "VALID")

    def compute_output_shape(self, x_shape):
        return (*x_shape[:-1], self.width)

    def get_config(self):
        names = ("filters", "kernel_size", "channels", "mask", "shortcut")
        return super().get_config() | config_of(self, *names)
