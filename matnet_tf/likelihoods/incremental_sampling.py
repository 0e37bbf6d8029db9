# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Walks over the values of images in the order of the local autoregressive model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from matnet_tf.likelihoods.observation import ObservedPixels

__all__ = ["IncrementalSampler"]


class IncrementalSampler:
    """Makes a batch of images incrementally: layers keep the rows and columns they still read.

    In all lists, entry l belongs to masked convolution l. Positions come before the batch, so that
    a position is one slice.

    Args:
      layer: The likelihood, a `LocalAutoregression`.
      context: The result of its `call`, plus the share of the known pixels, [B, H, W, n].
      observed: The known pixels of the B images, or None.
    """

    def __init__(self, layer: Any, context: tf.Tensor, observed: ObservedPixels | None):
        self.layer = layer
        if observed is not None:
            observed = ObservedPixels(*(tf.transpose(part, [1, 2, 0, 3]) for part in observed))
        self.observed = observed  # [H, W, B, C] and [H, W, B, 1]
        self.radii = [c.radius for c in layer.convolutions]
        # [H, W, B, width] each.
        self.shares = [tf.transpose(s, [1, 2, 0, 3]) for s in layer.split_context(context)]
        kernels = [tf.cast(c.masked_kernel(), tf.float32) for c in layer.convolutions]
        self.reads = [kernel.shape[2] for kernel in kernels]
        self.above = [kernel[:r] for kernel, r in zip(kernels, self.radii, strict=True)]
        past = [kernel[r, :r] for kernel, r in zip(kernels, self.radii, strict=True)]
        self.past = [tf.reshape(k, [-1, k.shape[-1]]) for k in past]
        self.here = [kernel[r, r] for kernel, r in zip(kernels, self.radii, strict=True)]

    def run(self, choose: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]) -> tf.Tensor:
        """Images [B, H, W, C], position by position.

        Args:
          choose: Gives the values of a position, [B, 1, 1, C], from its row, its column and the
            parameters there, [B, 1, 1, ...]. It is called for each of the `steps` in turn.
        """
        height, width, _ = self.layer.config.image_shape
        batch = tf.shape(self.shares[0])[2]
        rows = [
            tf.zeros([batch, r, width + 2 * r, n])
            for r, n in zip(self.radii, self.reads, strict=True)
        ]

        def body(y, rows, images):
            rows, image_row = self._row(y, rows, choose)
            return y + 1, rows, images.write(y, image_row)

        start = (0, rows, tf.TensorArray(tf.float32, size=height))
        images = tf.while_loop(lambda y, *_: y < height, body, start, parallel_iterations=1)[-1]
        return tf.transpose(images.stack(), [2, 0, 1, 3])

    def _row(self, y, rows, choose):
        """The values of row y, [W, B, C]; every layer's window of rows moves down by one."""
        width, batch = self.layer.config.image_shape[1], tf.shape(self.shares[0])[2]
        sums = [
            share[y] + self._above(row, kernel)
            for row, kernel, share in zip(rows, self.above, self.shares, strict=True)
        ]
        columns = [tf.zeros([batch, r, n]) for r, n in zip(self.radii, self.reads, strict=True)]
        read = [tf.TensorArray(tf.float32, size=width) for _ in self.reads]
        image_row = tf.TensorArray(tf.float32, size=width)

        def body(x, columns, read, image_row):
            inputs, value = self._position(y, x, sums, columns, choose)
            columns = [
                tf.concat([c, i[:, None]], 1)[:, 1:] for c, i in zip(columns, inputs, strict=True)
            ]
            read = [array.write(x, i) for array, i in zip(read, inputs, strict=True)]
            return x + 1, columns, read, image_row.write(x, value)

        start = (0, columns, read, image_row)
        _, _, read, image_row = tf.while_loop(
            lambda x, *_: x < width, body, start, parallel_iterations=1
        )
        rows = [self._moved(*row) for row in zip(rows, read, self.radii, strict=True)]
        return rows, image_row.stack()

    @staticmethod
    def _above(row, kernel):
        """What the rows above add to a layer's sums, [W, B, width]; a 1x1 kernel reads none."""
        if kernel.shape[0] == 0:
            return 0.0
        return tf.transpose(tf.nn.conv2d(row, kernel, 1, "VALID")[:, 0], [1, 0, 2])

    @staticmethod
    def _moved(window, read, radius):
        """A layer's window of rows with the row just read in place of the uppermost."""
        new = tf.pad(tf.transpose(read.stack(), [1, 0, 2]), [[0, 0], [radius, radius], [0, 0]])
        return tf.concat([window, new[:, None]], 1)[:, 1:]

    def _position(self, y, x, sums, columns, choose):
        """What every layer reads at a position, [B, filters] each, and its values, [B, C]."""
        batch, channels = tf.shape(self.shares[0])[2], self.reads[0]
        sums = [
            s[x] + tf.reshape(c, [batch, -1]) @ kernel
            for s, c, kernel in zip(sums, columns, self.past, strict=True)
        ]
        observed = self.observed and ObservedPixels(*(part[y, x] for part in self.observed))
        observation, value = self.layer.observation, tf.zeros([batch, channels])
        steps = self.layer.steps
        for step in range(steps):
            inputs, parameters = self._layers(observation.standardize(value), sums)
            chosen = choose(y, x, parameters)[:, 0, 0]
            chosen = chosen if observed is None else observed.paste(chosen)
            value = tf.where(tf.range(channels) * steps // channels == step, chosen, value)
        inputs[0] = observation.standardize(value)
        return inputs, value

    def _layers(self, hidden, sums):
        """What every layer reads at a position, and the parameters [B, 1, 1, ...] that result.

        Filters of the channels drawn so far, and of the next one, are final; the others are not.
        """
        inputs, shortcut = [], None
        for index, kernel in enumerate(self.here):
            inputs.append(hidden)
            total = sums[index] + hidden @ kernel
            hidden, shortcut = self.layer.layer_output(index, hidden, total, shortcut)
        return inputs, self.layer.split_parameters(hidden)[:, None, None]
