# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The local autoregressive model of Sec. 2.3: masked convolutions that the latents condition.

Values of an image are ordered by row, column and channel. Each one's distribution is a function of
the last top-down state and of the values before it in a neighbourhood: with n layers of kernels
of side k, the n (k // 2) rows above and as many columns to either side.
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from matnet_tf.config import ModelConfig
from matnet_tf.configured import Configured
from matnet_tf.distributions import OwnDistribution
from matnet_tf.graphs import graph
from matnet_tf.likelihoods import Known
from matnet_tf.noise import by_row, uniform
from matnet_tf.pixels import pixels_of
from matnet_tf.updates import Conv2D, activation_function, config_of

tfd = tfp.distributions

__all__ = ["Autoregressive", "LocalAutoregression", "MaskedConvolution"]


@keras.saving.register_keras_serializable("matnet_tf")
class MaskedConvolution(keras.layers.Layer):
    """A convolution that reads, of every position, only what comes before it.

    Input and output filters belong to the image's channels, in equal blocks and in order. Output
    filters of channel c at a position read all that the kernel covers above and to the left, and
    at the position itself the filters of earlier channels, with mask "B" also those of c. So the
    kernel needs its upper half only: `[k // 2 + 1, k, in, out]`, whose last row is masked.

    Args:
      filters: of the output.
      kernel_size: k, odd.
      channels: C, of the image.
      mask: "A" for the layer that reads the image itself, "B" for those behind it.
      shortcut: further filters of the output, behind the others and in blocks of their own.

    Call arguments:
      x: `[B, H, W, in]`.
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
        """Filters of the output, those of the shortcut included."""
        return self.filters + self.shortcut

    def _channels_of(self, filters: int) -> np.ndarray:
        """The channel of the image that each of so many filters belongs to."""
        return np.arange(filters) * self.channels // max(1, filters)

    def masked_kernel(self) -> tf.Tensor:
        """The kernel with zeros where it must not read, `[k // 2 + 1, k, in, out]`."""
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


@keras.saving.register_keras_serializable("matnet_tf")
class LocalAutoregression(Configured):
    """p(x | z) where every value also depends on those before it nearby (Sec. 2.3).

    The first masked convolution (mask A) reads the image, the others (mask B) each other's output,
    with a skip connection where the sizes agree; the last state enters each of them unmasked. The
    first one's shortcut goes straight to the parameters: neighbours predict a value well by a
    linear function, which then need not be learned through all the layers. The state's share of
    every layer is computed at once: `call(h_td)` gives it as the context `[B, H, W, n]`, all that
    `distribution` needs.

    In a conditional model every layer also reads the known pixels around a position, wherever they
    lie, by a convolution without a mask: p(x_u | z, x_k) of Eq. 3.

    Args:
      config: the `ModelConfig`.
    """

    has_mean = False  # The mean of p(x | z) is an integral over images: draw one instead.

    def __init__(self, config: ModelConfig | dict, **kwargs):
        super().__init__(config, **kwargs)
        config = self.config
        height, width, channels = config.image_shape
        filters, size = config.autoregressive_filters, config.autoregressive_kernel_size
        self.pixels = pixels_of(config)
        self._act = activation_function(config.activation)
        widths = [filters] * (config.autoregressive_layers - 1)
        widths.append(channels * self.pixels.num_parameters)
        first = {"mask": "A", "shortcut": widths[-1]}
        self.convolutions = [
            MaskedConvolution(
                n, size, channels, **({"mask": "B"} if i else first), name=f"{i:02d}_masked"
            )
            for i, n in enumerate(widths)
        ]
        self.spread = None
        if config.stages[-1].dense:
            # A fully connected state has no place for each pixel: it is spread over a map first.
            self.spread = keras.layers.Dense(height * width * config.image_filters, name="spread")
        total = sum(convolution.width for convolution in self.convolutions)
        self.context = Conv2D(total, 1, name="context")
        self.known_context = None
        if config.conditional_stages:
            self.known_context = Conv2D(
                total, size, padding="same", use_bias=False, name="known_context"
            )

    def build(self, h_td_shape):
        *area, channels = self.config.image_shape
        image_filters = self.config.image_filters
        if self.spread is not None:
            self.spread.build(h_td_shape)
        self.context.build((None, *area, image_filters))
        if self.known_context is not None:
            self.known_context.build((None, *area, channels + 1))
        for convolution, reads in zip(self.convolutions, self._reads(), strict=True):
            convolution.build((None, *area, reads))
        self.pixels.build((None, *self.config.image_shape, self.pixels.num_parameters))

    def _reads(self) -> list[int]:
        """Filters that each masked convolution reads."""
        return [self.config.image_shape[-1], *(c.filters for c in self.convolutions[:-1])]

    def call(self, h_td):
        if self.spread is not None:
            shape = (*self.config.image_shape[:2], self.config.image_filters)
            h_td = tf.reshape(self._act(self.spread(h_td)), [-1, *shape])
        return self.context(h_td)

    def parameters(self, x: tf.Tensor, context: tf.Tensor) -> tf.Tensor:
        """Parameters `[B, H, W, C, P]` of every value given those before it: one parallel pass."""
        hidden, shortcut = tf.cast(self.pixels.standardize(x), context.dtype), None
        for index, share in enumerate(self._shares(context)):
            sums = self.convolutions[index](hidden) + share
            hidden, shortcut = self._output(index, hidden, sums, shortcut)
        return self._shaped(hidden)

    def _shares(self, context: tf.Tensor) -> list[tf.Tensor]:
        """Each layer's part of the context."""
        return tf.split(context, [c.width for c in self.convolutions], axis=-1)

    def _output(self, index, reads, sums, shortcut) -> tuple[tf.Tensor, tf.Tensor]:
        """A layer's output, and the first one's shortcut, from what it reads and from its sums."""
        if index == 0:
            hidden, shortcut = tf.split(sums, [self.convolutions[0].filters, -1], axis=-1)
            return self._act(hidden), shortcut
        if index == len(self.convolutions) - 1:
            return sums + shortcut, None
        return self._act(sums) + reads, shortcut

    def _shaped(self, outputs: tf.Tensor) -> tf.Tensor:
        """The last layer's `[B, ..., C * P]` as `[B, ..., C, P]`."""
        tail = [self.config.image_shape[-1], self.pixels.num_parameters]
        return tf.reshape(outputs, tf.concat([tf.shape(outputs)[:-1], tail], 0))

    @property
    def filters_per_position(self) -> int:
        """The most filters that a tensor next to the image has, for estimates of memory."""
        return self.context.filters

    def distribution(self, context: tf.Tensor, known: Known | None = None) -> Autoregressive:
        """p(x | z) from what `call` gave; `batch_shape` `[B]`, `event_shape` `[H, W, C]`.

        With known pixels it is p(x_u | z, x_k): samples have them, and `log_prob` does not count
        them.
        """
        return Autoregressive(self, self._with_known(context, known), known)

    def guess(self, context: tf.Tensor, known: Known) -> tf.Tensor:
        """An image for a later stage to refine, `[B, H, W, C]`.

        It is the mean of p(x | z) if the last layer read nothing but the context.
        """
        parameters = self._shaped(self._shares(self._with_known(context, known))[-1])
        return tf.clip_by_value(self.pixels.distribution(parameters).mean(), 0.0, 1.0)

    def _with_known(self, context: tf.Tensor, known: Known | None) -> tf.Tensor:
        if known is None:
            return context
        seen = tf.concat([self.pixels.standardize(known.x) * known.mask, known.mask], axis=-1)
        return context + self.known_context(tf.cast(seen, context.dtype))

    def sample(
        self, context: tf.Tensor, seed: tf.Tensor, known: Known | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Draws images, value by value.

        No layer is computed twice at a position but for the C passes over its channels: the rows
        above enter by one convolution a row, the columns before by one product a position. The
        cost is that of C parallel passes in products a position wide.

        Args:
          context: what `call` gave, `[B, H, W, n]`, with the share of the known pixels.
          seed: stateless seed, int32 `[2]`, or `[B, 2]` with one for each image.
          known: of each image, what is not drawn.

        Returns:
          images: `[B, H, W, C]`.
          log_prob: `[B]`, of the values that were drawn, in nats.
        """
        height, width, channels = self.config.image_shape
        if by_row(seed):
            drawn = tf.transpose(uniform(seed, [height, width, channels]), [1, 2, 0, 3])
        else:
            shape = tf.stack([height, width, tf.shape(context)[0], channels])
            drawn = tf.random.stateless_uniform(shape, seed)
        return self._from_noise(context, drawn, known)

    @graph
    def _from_noise(self, context, drawn, known):
        return _Sampler(self, tf.cast(context, tf.float32), known).run(drawn)

    def compute_output_shape(self, h_td_shape):
        return (h_td_shape[0], *self.config.image_shape[:2], self.context.filters)


class _Sampler:
    """The incremental draw of a batch: each layer keeps the rows, and columns, that it still reads.

    In the lists below, entry l belongs to masked convolution l.
    """

    def __init__(self, layer: LocalAutoregression, context: tf.Tensor, known: Known | None):
        self.layer = layer
        # [H, W, B, .], so that a position is one slice.
        self.known = known and Known(*(tf.transpose(t, [1, 2, 0, 3]) for t in known))
        self.radius = layer.convolutions[0].radius
        # [W, B, filters], so that a column is one slice.
        self.shares = [tf.transpose(s, [1, 2, 0, 3]) for s in layer._shares(context)]
        kernels = [tf.cast(c.masked_kernel(), tf.float32) for c in layer.convolutions]
        self.reads = [kernel.shape[2] for kernel in kernels]
        self.above = [kernel[: self.radius] for kernel in kernels]
        past = [kernel[self.radius, : self.radius] for kernel in kernels]
        self.past = [tf.reshape(k, [-1, k.shape[-1]]) for k in past]
        self.here = [kernel[self.radius, self.radius] for kernel in kernels]

    def run(self, noise: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Images `[B, H, W, C]` and their log-probability `[B]` from noise `[H, W, B, C]`."""
        height, width, batch = noise.shape[0], noise.shape[1], tf.shape(noise)[2]
        wide = width + 2 * self.radius
        rows = [tf.zeros([batch, self.radius, wide, n]) for n in self.reads]
        images = tf.TensorArray(tf.float32, size=height)

        def body(y, rows, images, log_prob):
            rows, image_row, row_log_prob = self._row(y, rows, noise[y])
            return y + 1, rows, images.write(y, image_row), log_prob + row_log_prob

        start = (0, rows, images, tf.zeros([batch]))
        _, _, images, log_prob = tf.while_loop(
            lambda y, *_: y < height, body, start, parallel_iterations=1
        )
        return tf.transpose(images.stack(), [2, 0, 1, 3]), log_prob

    def _row(self, y, rows, noise):
        """Draws row y, `[W, B, C]`, and moves every layer's window of rows down by one."""
        width, batch = noise.shape[0], tf.shape(noise)[1]
        sums = [
            tf.transpose(tf.nn.conv2d(row, kernel, 1, "VALID")[:, 0], [1, 0, 2]) + share[y]
            for row, kernel, share in zip(rows, self.above, self.shares, strict=True)
        ]
        windows = [tf.zeros([batch, self.radius, n]) for n in self.reads]
        read = [tf.TensorArray(tf.float32, size=width) for _ in self.reads]
        image_row = tf.TensorArray(tf.float32, size=width)

        def body(x, windows, read, image_row, log_prob):
            here = [s[x] for s in sums]
            known = self.known and Known(self.known.x[y, x], self.known.mask[y, x])
            inputs, value, value_log_prob = self._position(here, windows, noise[x], known)
            windows = [
                tf.concat([w[:, 1:], i[:, None]], 1) for w, i in zip(windows, inputs, strict=True)
            ]
            read = [array.write(x, i) for array, i in zip(read, inputs, strict=True)]
            return x + 1, windows, read, image_row.write(x, value), log_prob + value_log_prob

        start = (0, windows, read, image_row, tf.zeros([batch]))
        _, _, read, image_row, log_prob = tf.while_loop(
            lambda x, *_: x < width, body, start, parallel_iterations=1
        )
        margins = [[0, 0], [self.radius, self.radius], [0, 0]]
        new = [tf.pad(tf.transpose(array.stack(), [1, 0, 2]), margins) for array in read]
        rows = [tf.concat([a[:, 1:], b[:, None]], 1) for a, b in zip(rows, new, strict=True)]
        return rows, image_row.stack(), log_prob

    def _position(self, sums, windows, noise, known):
        """Draws the C channels of a position: what layers read there, values, log-probability."""
        layer, pixels = self.layer, self.layer.pixels
        channels = noise.shape[-1]
        batch = tf.shape(noise)[0]
        sums = [
            s + tf.reshape(window, [batch, -1]) @ kernel
            for s, window, kernel in zip(sums, windows, self.past, strict=True)
        ]
        value = tf.zeros_like(noise)
        for channel in range(channels):
            # Filters of this channel and of those before it are final now, the others not yet.
            inputs, hidden, shortcut = [], pixels.standardize(value), None
            for index, kernel in enumerate(self.here):
                inputs.append(hidden)
                total = sums[index] + hidden @ kernel
                hidden, shortcut = layer._output(index, hidden, total, shortcut)
            parameters = layer._shaped(hidden)[:, None, None]
            drawn = pixels.quantile(parameters, noise[:, None, None])[:, 0, 0]
            drawn = drawn if known is None else known.paste(drawn)
            value = tf.where(tf.range(channels) == channel, drawn, value)
        inputs[0] = pixels.standardize(value)
        log_probs = pixels.log_probs(parameters, value[:, None, None])[:, 0, 0]
        if known is not None:
            log_probs = tf.where(known.mask > 0, 0.0, log_probs)
        return inputs, value, tf.reduce_sum(log_probs, axis=-1)


class Autoregressive(OwnDistribution):
    """p(x | z) of a `LocalAutoregression`, `batch_shape` `[B]`, `event_shape` `[H, W, C]`.

    Args:
      layer: the local model.
      context: what its `call` gave, `[B, H, W, n]`.
      known: the pixels that samples have and `log_prob` does not count, of each of the B images.
    """

    def __init__(
        self,
        layer: LocalAutoregression,
        context: tf.Tensor,
        known: Known | None = None,
        name="Autoregressive",
    ):
        parameters = dict(locals())
        self._layer, self._context, self._known = layer, context, known
        super().__init__(parameters, name)

    def _batch_shape(self):
        return self._context.shape[:1]

    def _batch_shape_tensor(self):
        return tf.shape(self._context)[:1]

    def _event_shape(self):
        return tf.TensorShape(self._layer.config.image_shape)

    def _event_shape_tensor(self):
        return tf.constant(self._layer.config.image_shape, tf.int32)

    def _log_prob(self, x):
        log_probs = self._layer.pixels.log_probs(self._layer.parameters(x, self._context), x)
        if self._known is not None:
            return self._known.hidden(log_probs)
        return tf.reduce_sum(log_probs, axis=[1, 2, 3])

    def _sample_n(self, n, seed=None):
        context, known = tf.tile(self._context, [n, 1, 1, 1]), self._known
        if known is not None:
            known = Known(*(tf.tile(part, [n, 1, 1, 1]) for part in known))
        images, _ = self._layer.sample(context, tfp.random.sanitize_seed(seed), known)
        return tf.reshape(images, tf.concat([[n, -1], self._event_shape_tensor()], 0))

    def _mean(self):
        raise TypeError("p(x | z) of the local model has no mean in closed form: average samples")

    def draw_rows(self, seed: tf.Tensor) -> tf.Tensor:
        """As `noise.draw_rows`."""
        return self._layer.sample(self._context, seed, self._known)[0]
