# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Observation models: which values images have and how they are distributed (Sec. 2.2, 2.3, 3).

To add one, subclass `base.ObservationModel`, give it a row in `OBSERVATIONS` and add its name to
the choices of `ModelConfig.likelihood`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from matnet_tf.config import ModelConfig
from matnet_tf.distributions.discretized_logistic import DiscretizedLogistic
from matnet_tf.distributions.gaussian import bounded, slowed_mean
from matnet_tf.distributions.logistic_mixture import DiscretizedLogisticMixture, num_pairs
from matnet_tf.layers.base import config_of
from matnet_tf.likelihoods.base import ObservationModel
from matnet_tf.likelihoods.whitening import Unwhiten, Whitening

__all__ = [
    "OBSERVATIONS",
    "Bernoulli",
    "Logistic",
    "LogisticMixture",
    "Normal",
    "ObservedPixels",
    "make_observation_model",
]

tfd, tfb = tfp.distributions, tfp.bijectors

# Bound on log-scales for images in [-1, 1]. The smallest scale is a ninth of an 8-bit level.
LOG_SCALE_BOUND = 7.0


class _EightBit:
    """What images with 256 levels are, for the observation models of levels."""

    expected = "8-bit values divided by 255: 0, 1/255, ..., 1 (not dequantized, not rescaled)"
    first_log_scale = -2.0

    def invalid(self, x: tf.Tensor) -> tf.Tensor:
        """Where x is not one of the 256 values `v / 255`; booleans of its shape."""
        level = 255.0 * x
        return ~((abs(level - tf.round(level)) < 1e-3) & (x >= 0.0) & (x <= 1.0))


class _LocationScale(ObservationModel):
    """Base class of observation models with a location and a scale for images in [-1, 1]."""

    first_log_scale = 0.0  # The log-scale at the start of training.

    def named_parameters(self, parameters: tf.Tensor) -> dict[str, tf.Tensor]:
        """The distribution's `loc` and `scale`, [B, H, W, C], for images in [0, 1]."""
        loc, scale = self(parameters)
        return {"loc": 0.5 + 0.5 * loc, "scale": 0.5 * scale}

    def build(self, parameters_shape):
        shapes = {"channel": (self.image_shape[-1],), "scalar": ()}
        if self.scale in shapes:
            self.log_scale = self.add_weight(
                name="log_scale",
                shape=shapes[self.scale],
                initializer=keras.initializers.Constant(self.first_log_scale),
            )

    def call(self, parameters):
        """Locations and scales, [B, H, W, C] each, for images in [-1, 1]."""
        parameters = tf.cast(parameters, tf.float32)
        if self.scale == "pixel":
            log_scale = parameters[..., 1] + self.first_log_scale
        else:
            log_scale = tf.cast(self.log_scale, tf.float32)
        log_scale = bounded(log_scale, LOG_SCALE_BOUND)
        loc = slowed_mean(parameters[..., 0])
        # Scales get the full shape because all outputs of a Keras layer need the batch axis.
        return loc, tf.exp(log_scale) + tf.zeros_like(loc)


@keras.saving.register_keras_serializable("matnet_tf")
class Bernoulli(ObservationModel):
    """Independent Bernoulli values (Sec. 2.2) for images of zeros and ones, with a logit each.

    For a grey value `log_prob` would be the expected log-probability of its binarization, which is
    neither a probability of the image nor a density: grey images are refused.
    """

    num_parameters = 1
    expected = "0 or 1, as likelihood bernoulli requires (binarize grey images first)"

    def invalid(self, x: tf.Tensor) -> tf.Tensor:
        """Where x is neither 0 nor 1; booleans of its shape."""
        return ~((x == 0.0) | (x == 1.0))

    def standardize(self, x: tf.Tensor) -> tf.Tensor:
        """Returns images unchanged; networks read 0 and 1."""
        return x

    def call(self, parameters):
        return tf.cast(parameters[..., 0], tf.float32)

    def named_parameters(self, parameters: tf.Tensor) -> dict[str, tf.Tensor]:
        """The distribution's `logits`, [B, H, W, C]."""
        return {"logits": self(parameters)}

    def values(self, parameters: tf.Tensor) -> tfd.Bernoulli:
        """The distribution of every value on its own, with batch shape [B, H, W, C]."""
        return tfd.Bernoulli(logits=self(parameters), dtype=tf.float32)

    def quantile(self, parameters: tf.Tensor, uniform: tf.Tensor) -> tf.Tensor:
        """Values from uniform noise [B, H, W, C] in [0, 1)."""
        return tf.cast(uniform < tf.sigmoid(self(parameters)), tf.float32)

    def compute_output_shape(self, parameters_shape):
        return tuple(parameters_shape[:-1])


@keras.saving.register_keras_serializable("matnet_tf")
class Logistic(_EightBit, _LocationScale):
    """8-bit values with a discretized Logistic distribution (Sec. 2.3 and 3).

    Images are `v / 255` for integers v from 0 to 255; see `DiscretizedLogistic`.
    """

    def values(self, parameters: tf.Tensor) -> DiscretizedLogistic:
        """The distribution of every value on its own, with batch shape [B, H, W, C]."""
        loc, scale = self(parameters)
        return DiscretizedLogistic(0.5 + 0.5 * loc, 0.5 * scale)

    def quantile(self, parameters: tf.Tensor, uniform: tf.Tensor) -> tf.Tensor:
        """Values from uniform noise [B, H, W, C] in [0, 1)."""
        return self.values(parameters).quantile(uniform)


@keras.saving.register_keras_serializable("matnet_tf")
class LogisticMixture(_EightBit, ObservationModel):
    """8-bit pixels with a mixture of discretized Logistics (PixelCNN++, Secs. 2.1 and 2.2).

    The channels of a pixel share the choice of the component, and within a component depend on
    each other linearly; see `DiscretizedLogisticMixture`. A pixel has R = 1 + 2 C + C (C - 1) / 2
    parameters for each of K components: a logit, C locations, C log-scales, and coefficients, which
    a tanh bounds. Where they are 0, all components are equal, in the middle of [0, 1].

    Args:
      image_shape: Image shape (H, W, C).
      scale: `pixel`; a mixture has no scales that are constants.
      components: Number of components K.
      **kwargs: Arguments of `keras.layers.Layer`.
    """

    pointwise = True

    def __init__(self, image_shape, scale="pixel", components=10, **kwargs):
        super().__init__(image_shape, scale, **kwargs)
        self.components = components

    @property
    def num_parameters(self) -> int:
        """Number of parameters per pixel and component, R."""
        channels = self.image_shape[-1]
        return 1 + 2 * channels + num_pairs(channels)

    @property
    def parameters_shape(self) -> tuple[int, ...]:
        """Shape of the parameters of an image, (H, W, R, K)."""
        return (*self.image_shape[:2], self.num_parameters, self.components)

    def call(self, parameters):
        """The arguments of `DiscretizedLogisticMixture`, [B, H, W, ..., K] each."""
        channels = self.image_shape[-1]
        sizes = [1, channels, channels, num_pairs(channels)]
        parts = tf.split(tf.cast(parameters, tf.float32), sizes, axis=-2)
        loc = slowed_mean(parts[1])
        scale = tf.exp(bounded(parts[2] + self.first_log_scale, LOG_SCALE_BOUND))
        logits = tf.squeeze(parts[0], axis=-2)
        return logits, 0.5 + 0.5 * loc, 0.5 * scale, tf.tanh(parts[3])

    def named_parameters(self, parameters: tf.Tensor) -> dict[str, tf.Tensor]:
        """The mixture's `logits` [B, H, W, K], its `loc` and `scale` [B, H, W, C, K] in [0, 1].

        With several channels also its `coefficients` [B, H, W, C (C - 1) / 2, K].
        """
        named = dict(zip(("logits", "loc", "scale", "coefficients"), self(parameters), strict=True))
        if self.image_shape[-1] == 1:
            del named["coefficients"]
        return named

    def values(self, parameters: tf.Tensor) -> DiscretizedLogisticMixture:
        """The distribution of every pixel on its own, with batch shape [B, H, W]."""
        return DiscretizedLogisticMixture(*self(parameters))

    @property
    def num_uniforms(self) -> int:
        """One for the choice of the component and one for each channel."""
        return 1 + self.image_shape[-1]

    def quantile(self, parameters: tf.Tensor, uniform: tf.Tensor) -> tf.Tensor:
        """Pixels [B, H, W, C] from uniform noise [B, H, W, 1 + C] in [0, 1)."""
        return self.values(parameters).from_noise(uniform)

    def log_probs(self, parameters: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        """log p of every pixel on its own, [B, H, W, 1], in nats; they sum to `log_prob`."""
        return self.values(parameters).log_prob(x)[..., tf.newaxis]

    def compute_output_shape(self, parameters_shape):
        *area, _, components = parameters_shape
        channels = self.image_shape[-1]
        rows = [(channels,), (channels,), (num_pairs(channels),)]
        return ((*area, components), *((*area, *row, components) for row in rows))

    def get_config(self):
        return super().get_config() | config_of(self, "components")


@keras.saving.register_keras_serializable("matnet_tf")
class Normal(_LocationScale):
    """Real values in [0, 1], such as dequantized ones, with a Gaussian distribution (Sec. 3).

    The Gaussian is over the standardized image: over values in [-1, 1], or over ZCA-whitened
    values. `log_prob` is the log-density of the image itself and includes the log-determinant, so
    results with and without whitening can be compared. An 8-bit level is 1/256 wide.

    Args:
      image_shape: Image shape (H, W, C).
      scale: See `ObservationModel`.
      whitening: Whether to whiten images; then `adapt` must see the training images first.
      **kwargs: Arguments of `keras.layers.Layer`.
    """

    convert = "dequantize 8-bit images first: (value + uniform noise) / 256"
    bins = 256

    def __init__(self, image_shape, scale="pixel", whitening=False, **kwargs):
        super().__init__(image_shape, scale, **kwargs)
        self.whitening = whitening
        self.whitening_layer = Whitening(image_shape, name="whitening") if whitening else None
        self.first_log_scale = 0.0 if whitening else -1.0

    def from_bytes(self, values: tf.Tensor) -> tf.Tensor:
        """Images from 8-bit values, uint8 [B, H, W, C], in the middle of their levels."""
        return (tf.cast(values, tf.float32) + 0.5) / 256.0

    def named_parameters(self, parameters: tf.Tensor) -> dict[str, tf.Tensor]:
        """The distribution's `loc` and `scale`, [B, H, W, C], for images in [0, 1] or whitened."""
        if self.whitening_layer is None:
            return super().named_parameters(parameters)
        loc, scale = self(parameters)
        return {"loc": loc, "scale": scale}

    def adapt(self, dataset: Iterable[Any]) -> None:
        """Computes the statistics for whitening, if it is on; see `Whitening.adapt`."""
        if self.whitening_layer is not None:
            self.whitening_layer.adapt(self._checked_values(x).numpy() for x in dataset)

    def check_ready(self) -> None:
        """Raises a ValueError if whitening has not seen the training images yet."""
        if self.whitening_layer is not None and not self.whitening_layer.adapted:
            raise ValueError("whitening needs the training images first: call adapt(dataset)")

    def standardize(self, x: tf.Tensor) -> tf.Tensor:
        """Maps images to the values that the networks read and that the Gaussian is over."""
        return super().standardize(x) if self.whitening_layer is None else self.whitening_layer(x)

    def values(self, parameters: tf.Tensor) -> tfd.Normal:
        """The distribution of every standardized value, with batch shape [B, H, W, C]."""
        return tfd.Normal(*self(parameters))

    def distribution(self, parameters: tf.Tensor) -> tfd.TransformedDistribution:
        """p(x | z) with event shape [H, W, C], from parameters [B, H, W, C, P]."""
        to_image = tfb.Chain([tfb.Shift(0.5), tfb.Scale(0.5)])
        if self.whitening_layer is not None:
            to_image = Unwhiten(self.whitening_layer)
        return tfd.TransformedDistribution(super().distribution(parameters), to_image)

    def log_probs(self, parameters: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        """log p of every value on its own, [B, H, W, C], in nats; not with whitening.

        Raises:
          ValueError: With whitening, which mixes the values of an image.
        """
        if self.whitening_layer is not None:
            raise ValueError("whitened values have no densities of their own: use log_prob")
        return super().log_probs(parameters, self.standardize(x)) + math.log(2.0)

    def get_config(self):
        return super().get_config() | config_of(self, "whitening")


OBSERVATIONS = {
    "bernoulli": Bernoulli,
    "normal": Normal,
    "logistic": Logistic,
    "logistic_mixture": LogisticMixture,
}


def make_observation_model(config: ModelConfig) -> ObservationModel:
    """The observation model of a config."""
    choices = {
        "normal": {"whitening": config.whitening},
        "logistic_mixture": {"components": config.likelihood_components},
    }
    return OBSERVATIONS[config.likelihood](
        config.image_shape,
        config.likelihood_scale,
        name="observation",
        **choices.get(config.likelihood, {}),
    )


class ObservedPixels(NamedTuple):
    """The known pixels of B images, all that a conditional model may predict the others from."""

    x: tf.Tensor  # Images [B, H, W, C], 0 where the pixel is hidden.
    mask: tf.Tensor  # [B, H, W, 1], 1 where the pixel is known and 0 where it is hidden.

    @classmethod
    def of(cls, x: tf.Tensor, mask: tf.Tensor) -> ObservedPixels:
        """The known pixels of images x [B, H, W, C] under a mask [B, H, W, 1]."""
        # Not a product, through which a hidden NaN would pass.
        return cls(tf.where(mask > 0, x, tf.zeros_like(x)), mask)

    def paste(self, x: tf.Tensor) -> tf.Tensor:
        """Images x [..., B, H, W, C] with the known pixels in place of their own."""
        return tf.where(self.mask > 0, self.x, x)

    def sum_hidden(self, values: tf.Tensor) -> tf.Tensor:
        """Sums [B] of values [B, H, W, C], or [B, H, W, 1], over the hidden pixels."""
        return tf.reduce_sum(tf.where(self.mask > 0, tf.zeros_like(values), values), [1, 2, 3])
