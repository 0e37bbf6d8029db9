# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""From the last top-down state to p(x | z): Keras layers with a TFP distribution.

Two layers share the work. A layer of **pixels** (`pixels.PIXELS`: Bernoulli, Normal, Logistic)
knows what images are like, and what their distribution is, given P parameters for each value of the
image. The layer around it says where the parameters come from: `Likelihood`, from the state alone,
so that values are independent; `autoregression.LocalAutoregression`, from the state and the values
before.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from matnet_tf import noise
from matnet_tf.config import ModelConfig
from matnet_tf.configured import Configured
from matnet_tf.distributions import OwnDistribution
from matnet_tf.pixels import Pixels, pixels_of
from matnet_tf.updates import linear

tfd, tfb = tfp.distributions, tfp.bijectors

__all__ = ["Completion", "Known", "Likelihood"]


class Known(NamedTuple):
    """What is known of images: all that a conditional model may predict the rest from."""

    x: tf.Tensor  # [B, H, W, C]: images, 0 where they are not known
    mask: tf.Tensor  # [B, H, W, 1]: 1 where the pixel is known, 0 elsewhere

    @classmethod
    def of(cls, x: tf.Tensor, mask: tf.Tensor) -> Known:
        """What `mask` shows of images; a choice, so that nothing hidden comes through, NaN too."""
        return cls(tf.where(mask > 0, x, tf.zeros_like(x)), mask)

    def paste(self, x: tf.Tensor) -> tf.Tensor:
        """Images x with the known pixels put over them."""
        return tf.where(self.mask > 0, self.x, x)

    def hidden(self, values: tf.Tensor) -> tf.Tensor:
        """Sums `[B]` of values `[B, H, W, C]` over the pixels that are not known."""
        return tf.reduce_sum(tf.where(self.mask > 0, tf.zeros_like(values), values), [1, 2, 3])


class Completion(OwnDistribution):
    """p(x_u | z, x_k): the hidden values of images, independent given the latents (Eq. 3).

    `batch_shape` `[B]`, `event_shape` `[H, W, C]`: samples and the mean are whole images with the
    known pixels as they are, and `log_prob` counts the values that are not known, alone.

    Args:
      pixels: what images are like.
      parameters: `[B, H, W, C, P]`.
      known: what is known of each of the B images.
    """

    def __init__(self, pixels: Pixels, parameters: tf.Tensor, known: Known, name="Completion"):
        arguments = dict(locals())
        self._pixels, self._of_pixels, self._known = pixels, parameters, known
        super().__init__(arguments, name)

    def _batch_shape(self):
        return self._of_pixels.shape[:1]

    def _batch_shape_tensor(self):
        return tf.shape(self._of_pixels)[:1]

    def _event_shape(self):
        return tf.TensorShape(self._pixels.image_shape)

    def _event_shape_tensor(self):
        return tf.constant(self._pixels.image_shape, tf.int32)

    def _log_prob(self, x):
        return self._known.hidden(self._pixels.log_probs(self._of_pixels, x))

    def _sample_n(self, n, seed=None):
        return self._known.paste(self._pixels.distribution(self._of_pixels).sample(n, seed=seed))

    def draw_rows(self, seed: tf.Tensor) -> tf.Tensor:
        """As `noise.draw_rows`."""
        return self._known.paste(noise.draw_rows(self._pixels.distribution(self._of_pixels), seed))

    def _mean(self):
        return self._known.paste(self._pixels.distribution(self._of_pixels).mean())


@keras.saving.register_keras_serializable("matnet_tf")
class Likelihood(Configured):
    """p(x | z) with values that are independent given the last state (Sec. 2.2).

    `call(h_td)` gives the parameters `[B, H, W, C, P]`, a linear function of the state.

    Args:
      config: the `ModelConfig`.
    """

    has_mean = True

    def __init__(self, config: ModelConfig | dict, **kwargs):
        super().__init__(config, **kwargs)
        config = self.config
        dense = config.stages[-1].dense
        self.pixels = pixels_of(config)
        self._shape = (*config.image_shape, self.pixels.num_parameters)
        filters = math.prod(self._shape if dense else self._shape[2:])
        self.head = linear(filters, config.kernel_size, dense, name="head")

    def build(self, h_td_shape):
        self.head.build(h_td_shape)
        self.pixels.build((None, *self._shape))

    def call(self, h_td):
        return tf.reshape(self.head(h_td), [-1, *self._shape])

    @property
    def filters_per_position(self) -> int:
        """The most filters that a tensor next to the image has, for estimates of memory."""
        return max(self.config.image_filters, math.prod(self._shape[2:]))

    def distribution(self, parameters: tf.Tensor, known: Known | None = None) -> tfd.Distribution:
        """p(x | z) from what `call` gave; `batch_shape` `[B]`, `event_shape` `[H, W, C]`.

        With known pixels it is p(x_u | z, x_k), see `Completion`.
        """
        if known is not None:
            return Completion(self.pixels, parameters, known)
        return self.pixels.distribution(parameters)

    def guess(self, parameters: tf.Tensor, known: Known) -> tf.Tensor:
        """An image for a later stage to refine, `[B, H, W, C]`: the mean of p(x | z)."""
        del known
        return tf.clip_by_value(self.pixels.distribution(parameters).mean(), 0.0, 1.0)

    def compute_output_shape(self, h_td_shape):
        return (h_td_shape[0], *self._shape)
