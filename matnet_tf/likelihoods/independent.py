# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The likelihood with values that are independent given the last top-down state (Sec. 2.2)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from matnet_tf.config import ModelConfig
from matnet_tf.distributions import stateless_random
from matnet_tf.distributions.base import RowSeededDistribution
from matnet_tf.layers.base import Configured, linear
from matnet_tf.likelihoods.base import ObservationModel
from matnet_tf.likelihoods.observation import ObservedPixels, make_observation_model

__all__ = ["Likelihood", "MaskedDistribution"]

tfd = tfp.distributions


class MaskedDistribution(RowSeededDistribution):
    """p(x_u | z, x_k): the hidden values of images, independent given the latents (Eq. 3).

    Batch shape [B], event shape [H, W, C]. Samples and the mean are whole images that contain the
    known pixels unchanged; `log_prob` counts the hidden values only.

    Args:
      observation: The observation model.
      value_parameters: Its parameters, [B, *observation.parameters_shape].
      observed: The known pixels of the B images.
      name: Name of the distribution.
    """

    def __init__(
        self,
        observation: ObservationModel,
        value_parameters: tf.Tensor,
        observed: ObservedPixels,
        name: str = "MaskedDistribution",
    ):
        parameters = dict(locals())
        self._observation, self._observed = observation, observed
        self._value_parameters = value_parameters
        super().__init__(parameters, name)

    def _unmasked(self):
        return self._observation.distribution(self._value_parameters)

    def _batch_shape(self):
        return self._value_parameters.shape[:1]

    def _batch_shape_tensor(self):
        return tf.shape(self._value_parameters)[:1]

    def _event_shape(self):
        return tf.TensorShape(self._observation.image_shape)

    def _event_shape_tensor(self):
        return tf.constant(self._observation.image_shape, tf.int32)

    def _log_prob(self, x):
        log_probs = self._observation.log_probs(self._value_parameters, x)
        return self._observed.sum_hidden(log_probs)

    def _sample_n(self, n, seed=None):
        return self._observed.paste(self._unmasked().sample(n, seed=seed))

    def draw_rows(self, seed: tf.Tensor) -> tf.Tensor:
        """One image for each row's own seed, see `stateless_random.draw_rows`."""
        return self._observed.paste(stateless_random.draw_rows(self._unmasked(), seed))

    def _mean(self):
        return self._observed.paste(self._unmasked().mean())


@keras.saving.register_keras_serializable("matnet_tf")
class Likelihood(Configured):
    """p(x | z) with values that are independent given the last top-down state (Sec. 2.2).

    `call(h_td)` returns the parameters of the observation model, a linear function of the state,
    [B, *observation.parameters_shape].

    Args:
      config: The `ModelConfig`.
      **kwargs: Arguments of `keras.layers.Layer`.

    Attributes:
      observation: The observation model.
      has_mean: Whether p(x | z) has a mean in closed form.
    """

    has_mean = True

    def __init__(self, config: ModelConfig | dict, **kwargs):
        super().__init__(config, **kwargs)
        config = self.config
        dense = config.scales[-1].dense
        self.observation = make_observation_model(config)
        self._shape = self.observation.parameters_shape
        filters = math.prod(self._shape if dense else self._shape[2:])
        kernel_size = 1 if self.observation.pointwise else config.kernel_size
        self.head = linear(filters, kernel_size, dense, name="head")

    def build(self, h_td_shape):
        self.head.build(h_td_shape)
        self.observation.build((None, *self._shape))

    def call(self, h_td):
        return tf.reshape(self.head(h_td), [-1, *self._shape])

    def add_observed(self, parameters: tf.Tensor, observed: ObservedPixels | None) -> tf.Tensor:
        """The parameters as they are: known pixels enter through the latents alone."""
        del observed
        return parameters

    def values_in_order(
        self, parameters: tf.Tensor, choose: Callable[[Any, Any, tf.Tensor], tf.Tensor]
    ) -> tf.Tensor:
        """Images [B, H, W, C] whose values are chosen, all at once, since none needs another.

        Args:
          parameters: The result of `call`.
          choose: Gives values [B, H, W, C] from row 0, column 0 and the parameters; see
            `LocalAutoregression.values_in_order`.
        """
        return choose(0, 0, parameters)

    def places(self) -> Iterator[tuple[slice, slice, slice]]:
        """Rows, columns and channels of the values that `values_in_order` chooses at once."""
        yield slice(None), slice(None), slice(None)

    @property
    def filters_per_position(self) -> int:
        """Filters of the widest tensor of the image's size, for estimates of memory."""
        return max(self.config.image_filters, math.prod(self._shape[2:]))

    def distribution(
        self, parameters: tf.Tensor, observed: ObservedPixels | None = None
    ) -> tfd.Distribution:
        """p(x | z), or p(x_u | z, x_k) given known pixels; see `MaskedDistribution`.

        Args:
          parameters: The result of `call`.
          observed: The known pixels of the B images, or None.

        Returns:
          A distribution with batch shape [B] and event shape [H, W, C].
        """
        if observed is not None:
            return MaskedDistribution(self.observation, parameters, observed)
        return self.observation.distribution(parameters)

    def guess(self, parameters: tf.Tensor, observed: ObservedPixels) -> tf.Tensor:
        """The mean of p(x | z), [B, H, W, C], for a later stage of a conditional model to refine.

        Args:
          parameters: The result of `call`.
          observed: Unused; `LocalAutoregression.guess` needs the known pixels.
        """
        del observed
        return tf.clip_by_value(self.observation.distribution(parameters).mean(), 0.0, 1.0)

    def compute_output_shape(self, h_td_shape):
        return (h_td_shape[0], *self._shape)
