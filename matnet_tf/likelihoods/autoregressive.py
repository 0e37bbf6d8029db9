# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The local autoregressive likelihood of Sec. 2.3: masked convolutions conditioned on the latents.

Values of an image are ordered by row, column and channel. The distribution of each depends on the
last top-down state and on the earlier values nearby: with n layers of kernel size k, on n (k // 2)
rows above and as many columns on either side. A mixture of Logistics orders whole pixels; within a
pixel it has a dependence of its own.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from matnet_tf.config import ModelConfig
from matnet_tf.distributions.base import RowSeededDistribution
from matnet_tf.distributions.stateless_random import has_row_seeds, uniform
from matnet_tf.layers.base import Configured, Conv2D, activation_function
from matnet_tf.likelihoods.incremental_sampling import IncrementalSampler
from matnet_tf.likelihoods.masked_convolution import MaskedConvolution
from matnet_tf.likelihoods.observation import ObservedPixels, make_observation_model
from matnet_tf.tracing import tf_function

__all__ = ["Autoregressive", "LocalAutoregression"]


@keras.saving.register_keras_serializable("matnet_tf")
class LocalAutoregression(Configured):
    """p(x | z) where every value also depends on the earlier values nearby (Sec. 2.3).

    The first masked convolution (mask A) reads the image. Each of the others (mask B) reads the
    output of the one before, with a skip connection between equal sizes. The last top-down state
    enters every layer unmasked. A shortcut leads from the first layer straight to the parameters:
    neighbours predict a value well by a linear function, which the deeper layers then need not
    learn.

    `call(h_td)` returns the context [B, H, W, n], the share of the state in all layers, which is
    all that `distribution` needs. In a conditional model every layer also reads the known pixels
    around a position by a convolution without a mask: p(x_u | z, x_k) of Eq. 3.

    Args:
      config: The `ModelConfig`.
      **kwargs: Arguments of `keras.layers.Layer`.

    Attributes:
      observation: The observation model.
      has_mean: Whether p(x | z) has a mean in closed form.
      steps: Number of draws at a position: one for each channel, or one for the pixel.
      convolutions: The masked convolutions in order.
    """

    has_mean = False  # Its mean is a sum over all images; draw a sample instead.

    def __init__(self, config: ModelConfig | dict, **kwargs):
        super().__init__(config, **kwargs)
        config = self.config
        size = config.autoregressive_kernel_size
        self.observation = make_observation_model(config)
        self.steps = 1 if self.observation.pointwise else config.image_shape[-1]
        self._act = activation_function(config.activation)
        self.convolutions = self._make_convolutions()
        self.spread = None
        if config.scales[-1].dense:
            # A dense state has no positions, so a dense layer first spreads it over a map.
            height, width, _ = config.image_shape
            self.spread = keras.layers.Dense(height * width * config.image_filters, name="spread")
        total = sum(convolution.width for convolution in self.convolutions)
        self.context = Conv2D(total, 1, name="context")
        self.observed_context = None
        if config.conditional_stages:
            self.observed_context = Conv2D(
                total, size, padding="same", use_bias=False, name="observed_context"
            )

    def _make_convolutions(self) -> list[MaskedConvolution]:
        config = self.config
        outputs = math.prod(self.observation.parameters_shape[2:])
        filters = [config.autoregressive_filters] * (config.autoregressive_layers - 1) + [outputs]
        masks = [{"mask": "A", "shortcut": outputs}] + [{"mask": "B"}] * (len(filters) - 1)
        sizes = [config.autoregressive_kernel_size] * len(filters)
        if self.observation.pointwise:
            sizes[-1] = 1
        return [
            MaskedConvolution(n, size, self.steps, **mask, name=f"{i:02d}_masked")
            for i, (n, size, mask) in enumerate(zip(filters, sizes, masks, strict=True))
        ]

    def build(self, h_td_shape):
        *area, channels = self.config.image_shape
        if self.spread is not None:
            self.spread.build(h_td_shape)
        self.context.build((None, *area, self.config.image_filters))
        if self.observed_context is not None:
            self.observed_context.build((None, *area, channels + 1))
        reads = [channels, *(convolution.filters for convolution in self.convolutions[:-1])]
        for convolution, filters in zip(self.convolutions, reads, strict=True):
            convolution.build((None, *area, filters))
        self.observation.build((None, *self.observation.parameters_shape))

    def call(self, h_td):
        if self.spread is not None:
            shape = (*self.config.image_shape[:2], self.config.image_filters)
            h_td = tf.reshape(self._act(self.spread(h_td)), [-1, *shape])
        return self.context(h_td)

    def parameters(self, x: tf.Tensor, context: tf.Tensor) -> tf.Tensor:
        """Parameters of every value given the values before it, in one parallel pass.

        Args:
          x: Images [B, H, W, C], float32 in [0, 1].
          context: The result of `call`, plus the share of the known pixels if there are any.

        Returns:
          Parameters of the observation model, [B, *observation.parameters_shape].
        """
        hidden, shortcut = tf.cast(self.observation.standardize(x), context.dtype), None
        for index, share in enumerate(self.split_context(context)):
            sums = self.convolutions[index](hidden) + share
            hidden, shortcut = self.layer_output(index, hidden, sums, shortcut)
        return self.split_parameters(hidden)

    def split_context(self, context: tf.Tensor) -> list[tf.Tensor]:
        """The share of the context in each masked convolution."""
        return tf.split(context, [c.width for c in self.convolutions], axis=-1)

    def layer_output(self, index, inputs, sums, shortcut) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Activation, skip connection and shortcut of a layer.

        Args:
          index: Index of the masked convolution.
          inputs: The layer's inputs, [..., filters].
          sums: The convolution of the inputs plus the share of the context, [..., width].
          shortcut: What the layer before returned; None for the first layer.

        Returns:
          output: The layer's output, [..., filters].
          shortcut: The first layer's shortcut, for the next layer; None after the last.
        """
        if index == 0:
            output, shortcut = tf.split(sums, [self.convolutions[0].filters, -1], axis=-1)
            return self._act(output), shortcut
        if index == len(self.convolutions) - 1:
            return sums + shortcut, None
        return self._act(sums) + inputs, shortcut

    def split_parameters(self, outputs: tf.Tensor) -> tf.Tensor:
        """Reshapes the last layer's outputs from [..., n] to those of the observation model."""
        tail = self.observation.parameters_shape[2:]
        return tf.reshape(outputs, tf.concat([tf.shape(outputs)[:-1], tail], 0))

    @property
    def filters_per_position(self) -> int:
        """Filters of the widest tensor of the image's size, for estimates of memory."""
        return self.context.filters

    def distribution(
        self, context: tf.Tensor, observed: ObservedPixels | None = None
    ) -> Autoregressive:
        """p(x | z), or p(x_u | z, x_k) given known pixels.

        Args:
          context: The result of `call`.
          observed: The known pixels of the B images, or None. Samples contain them unchanged;
            `log_prob` does not count them.

        Returns:
          A distribution with batch shape [B] and event shape [H, W, C].
        """
        return Autoregressive(self, self.add_observed(context, observed), observed)

    def guess(self, context: tf.Tensor, observed: ObservedPixels) -> tf.Tensor:
        """Images [B, H, W, C] for a later stage of a conditional model to refine.

        They are the mean of the observation model if the last layer read the context alone.
        """
        share = self.split_context(self.add_observed(context, observed))[-1]
        mean = self.observation.distribution(self.split_parameters(share)).mean()
        return tf.clip_by_value(mean, 0.0, 1.0)

    def add_observed(self, context: tf.Tensor, observed: ObservedPixels | None) -> tf.Tensor:
        """The context plus the share of the known pixels in all layers."""
        if observed is None:
            return context
        x, mask = observed
        inputs = tf.concat([self.observation.standardize(x) * mask, mask], axis=-1)
        return context + self.observed_context(tf.cast(inputs, context.dtype))

    def sample(
        self, context: tf.Tensor, seed: tf.Tensor, observed: ObservedPixels | None = None
    ) -> tf.Tensor:
        """Draws images [B, H, W, C] value by value; see `values_in_order`.

        Args:
          context: The result of `call`, plus the share of the known pixels, [B, H, W, n].
          seed: Batch seed, int32 [2], or one seed per image, [B, 2].
          observed: The known pixels of the B images, which are not drawn, or None.
        """
        height, width, _ = self.config.image_shape
        draws = self.observation.num_uniforms
        if has_row_seeds(seed):
            noise = tf.transpose(uniform(seed, [height, width, draws]), [1, 2, 0, 3])
        else:
            shape = tf.stack([height, width, tf.shape(context)[0], draws])
            noise = tf.random.stateless_uniform(shape, seed)
        return self._from_noise(context, noise, observed)

    @tf_function
    def _from_noise(self, context, noise, observed):
        def draw(y, x, parameters):
            return self.observation.quantile(parameters, noise[y, x][:, None, None])

        return self.values_in_order(context, draw, observed)

    def values_in_order(
        self,
        context: tf.Tensor,
        choose: Callable[[Any, Any, tf.Tensor], tf.Tensor],
        observed: ObservedPixels | None = None,
    ) -> tf.Tensor:
        """Images [B, H, W, C] whose values are chosen in order, each given those before.

        Every layer is computed once for each of the `steps` of a position. The rows above enter by
        one convolution per row, the columns before by one matrix product per position. The total
        cost is that of as many parallel passes, in products that are one position wide.

        Args:
          context: The result of `call`, plus the share of the known pixels, [B, H, W, n].
          choose: Gives the values of a position, [B, 1, 1, C], from its row, its column and the
            parameters there, [B, 1, 1, ...]; it is called in the order of `places`.
          observed: The known pixels of the B images, which are not chosen, or None.
        """
        return IncrementalSampler(self, tf.cast(context, tf.float32), observed).run(choose)

    def places(self) -> Iterator[tuple[slice, slice, slice]]:
        """Rows, columns and channels of the values that `values_in_order` chooses at once."""
        height, width, channels = self.config.image_shape
        each = [slice(None)] if self.steps == 1 else [slice(c, c + 1) for c in range(channels)]
        for y, x, values in itertools.product(range(height), range(width), each):
            yield slice(y, y + 1), slice(x, x + 1), values

    def compute_output_shape(self, h_td_shape):
        return (h_td_shape[0], *self.config.image_shape[:2], self.context.filters)


class Autoregressive(RowSeededDistribution):
    """p(x | z) of a `LocalAutoregression`, with batch shape [B] and event shape [H, W, C].

    Args:
      layer: The likelihood.
      context: The result of its `call`, plus the share of the known pixels, [B, H, W, n].
      observed: The known pixels of the B images, or None. Samples contain them unchanged;
        `log_prob` does not count them.
      name: Name of the distribution.
    """

    def __init__(
        self,
        layer: LocalAutoregression,
        context: tf.Tensor,
        observed: ObservedPixels | None = None,
        name: str = "Autoregressive",
    ):
        parameters = dict(locals())
        self._layer, self._context, self._observed = layer, context, observed
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
        log_probs = self._layer.observation.log_probs(self._layer.parameters(x, self._context), x)
        if self._observed is not None:
            return self._observed.sum_hidden(log_probs)
        return tf.reduce_sum(log_probs, axis=[1, 2, 3])

    def _sample_n(self, n, seed=None):
        context, observed = tf.tile(self._context, [n, 1, 1, 1]), self._observed
        if observed is not None:
            observed = ObservedPixels(*(tf.tile(part, [n, 1, 1, 1]) for part in observed))
        images = self._layer.sample(context, tfp.random.sanitize_seed(seed), observed)
        return tf.reshape(images, tf.concat([[n, -1], self._event_shape_tensor()], 0))

    def _mean(self):
        raise TypeError("p(x | z) of the local model has no mean in closed form: average samples")

    def draw_rows(self, seed: tf.Tensor) -> tf.Tensor:
        """One image for each row's own seed, see `stateless_random.draw_rows`."""
        return self._layer.sample(self._context, seed, self._observed)
