# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Observation models: which values images have and how they are distributed (Sec. 2.2, 2.3, 3).

To add one, subclass `ObservationModel`, give it a row in `OBSERVATIONS` and add its name to the
choices of `ModelConfig.likelihood`.
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
from matnet_tf.distributions.gaussian import bounded, clipped_mean
from matnet_tf.layers.base import config_of
from matnet_tf.likelihoods.whitening import Unwhiten, Whitening

__all__ = [
    "OBSERVATIONS",
    "Bernoulli",
    "Logistic",
    "Normal",
    "ObservationModel",
    "ObservedPixels",
    "make_observation_model",
]

tfd, tfb = tfp.distributions, tfp.bijectors

# Bound on log-scales for images in [-1, 1]. The smallest scale is a ninth of an 8-bit level.
LOG_SCALE_BOUND = 7.0


class ObservationModel(keras.layers.Layer):
    """Base class of observation models.

    `distribution(parameters)` is p(x | z) and `values(parameters)` the distribution of each value.
    `call(parameters)` returns the tensors that `values` makes its distribution from.

    Args:
      image_shape: Image shape (H, W, C).
      scale: What has a scale of its own: `pixel` (every value, from its parameters), `channel` or
        `scalar` (a trained constant). Unused by `Bernoulli`.
      **kwargs: Arguments of `keras.layers.Layer`.

    Attributes:
      expected: What images must be, in words; `invalid` finds the values that are not.
      convert: What to do with integer images, in words.
      bins: Number of 8-bit levels per unit of the density; 1 for probabilities.
    """

    expected = "finite values in [0, 1]"
    convert = "divide 8-bit images by 255 first"
    bins = 1

    def __init__(self, image_shape, scale="pixel", **kwargs):
        super().__init__(**kwargs)
        self.image_shape = tuple(image_shape)
        self.scale = scale

    @property
    def num_parameters(self) -> int:
        """Number of parameters per value of the image, P."""
        return 2 if self.scale == "pixel" else 1

    def invalid(self, x: tf.Tensor) -> tf.Tensor:
        """Where x cannot be a value of an image; booleans of its shape."""
        # Comparisons with NaN are false, so this finds NaN too.
        return ~((x >= 0.0) & (x <= 1.0))

    def checked(self, x: Any) -> tf.Tensor:
        """Checks images and returns them as float32 [B, H, W, C].

        Raises:
          ValueError: If x has the wrong dtype or shape, is empty or has invalid values, or if
            `adapt` must be called first.
        """
        x = self._checked_values(x)
        self.check_ready()
        return x

    def _checked_values(self, x: Any) -> tf.Tensor:
        x = tf.convert_to_tensor(x)
        self._check_form(x)
        x = tf.cast(x, tf.float32)
        if bool(tf.reduce_any(self.invalid(x))):
            nan = " and NaN" if bool(tf.reduce_any(tf.math.is_nan(x))) else ""
            least, most = float(tf.reduce_min(x)), float(tf.reduce_max(x))
            raise ValueError(
                f"images must be {self.expected}; got values from {least:g} to {most:g}{nan}"
            )
        return x

    def _check_form(self, x: tf.Tensor) -> None:
        if not x.dtype.is_floating:
            raise ValueError(
                f"images must be float32, {self.expected}; got dtype {x.dtype.name}: {self.convert}"
            )
        if x.shape.rank != 4 or tuple(x.shape[1:]) != self.image_shape:
            raise ValueError(
                f"images must have shape (batch, {', '.join(map(str, self.image_shape))}), as the "
                f"model's config says; got {tuple(x.shape)}"
            )
        if x.shape[0] == 0:
            raise ValueError("expected at least one image; got an empty batch")

    def adapt(self, dataset: Iterable[Any]) -> None:
        """Computes statistics of training images, given in batches [B, H, W, C], if any are needed.

        Only `Normal` with whitening needs any.
        """

    def check_ready(self) -> None:
        """Raises a ValueError if `adapt` must be called first."""

    def from_bytes(self, values: tf.Tensor) -> tf.Tensor:
        """Images from 8-bit values, uint8 [B, H, W, C], without noise."""
        return tf.cast(values, tf.float32) / 255.0

    def standardize(self, x: tf.Tensor) -> tf.Tensor:
        """Maps images to the values that the networks read, here to [-1, 1]."""
        return 2.0 * x - 1.0

    def named_parameters(self, parameters: tf.Tensor) -> dict[str, tf.Tensor]:
        """Parameters of the distributions of images in [0, 1] by name, [B, H, W, C] each."""
        raise NotImplementedError

    def values(self, parameters: tf.Tensor) -> tfd.Distribution:
        """The distribution of every value on its own, with batch shape [B, H, W, C]."""
        raise NotImplementedError

    def distribution(self, parameters: tf.Tensor) -> tfd.Distribution:
        """p(x | z) with event shape [H, W, C], from parameters [B, H, W, C, P]."""
        return tfd.Independent(self.values(parameters), reinterpreted_batch_ndims=3)

    def log_probs(self, parameters: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        """log p of every value on its own, [B, H, W, C], in nats; they sum to `log_prob`."""
        return self.values(parameters).log_prob(x)

    def quantile(self, parameters: tf.Tensor, uniform: tf.Tensor) -> tf.Tensor:
        """Values from uniform noise [B, H, W, C] in [0, 1); only for discrete values."""
        raise NotImplementedError

    def compute_output_shape(self, parameters_shape):
        return (tuple(parameters_shape[:-1]),) * 2

    def get_config(self):
        return super().get_config() | config_of(self, "image_shape", "scale")


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
        loc = clipped_mean(parameters[..., 0])
        # Scales get the full shape because all outputs of a Keras layer need the batch axis.
        return loc, tf.exp(log_scale) + tf.zeros_like(loc)


@keras.saving.register_keras_serializable("matnet_tf")
class Bernoulli(ObservationModel):
    """Independent Bernoulli values (Sec. 2.2) for images in [0, 1], with a logit as parameter.

    For a value strictly between 0 and 1, `log_prob` is the expected log-probability of its
    binarization and not a density, so the results are likelihoods for binary images only.
    """

    num_parameters = 1

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
class Logistic(_LocationScale):
    """8-bit values with a discretized Logistic distribution (Sec. 2.3 and 3).

    Images are `v / 255` for integers v from 0 to 255; see `DiscretizedLogistic`.
    """

    expected = "8-bit values divided by 255: 0, 1/255, ..., 1 (not dequantized, not rescaled)"
    first_log_scale = -2.0

    def invalid(self, x: tf.Tensor) -> tf.Tensor:
        """Where x is not one of the 256 values `v / 255`; booleans of its shape."""
        level = 255.0 * x
        return ~((abs(level - tf.round(level)) < 1e-3) & (x >= 0.0) & (x <= 1.0))

    def values(self, parameters: tf.Tensor) -> DiscretizedLogistic:
        """The distribution of every value on its own, with batch shape [B, H, W, C]."""
        loc, scale = self(parameters)
        return DiscretizedLogistic(0.5 + 0.5 * loc, 0.5 * scale)

    def quantile(self, parameters: tf.Tensor, uniform: tf.Tensor) -> tf.Tensor:
        """Values from uniform noise [B, H, W, C] in [0, 1)."""
        return self.values(parameters).quantile(uniform)


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


OBSERVATIONS = {"bernoulli": Bernoulli, "normal": Normal, "logistic": Logistic}


def make_observation_model(config: ModelConfig) -> Bernoulli | Logistic | Normal:
    """The observation model of a config."""
    arguments = {"whitening": config.whitening} if config.likelihood == "normal" else {}
    make = OBSERVATIONS[config.likelihood]
    return make(config.image_shape, config.likelihood_scale, name="observation", **arguments)


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
        """Sums [B] of values [B, H, W, C] over the hidden pixels."""
        return tf.reduce_sum(tf.where(self.mask > 0, tf.zeros_like(values), values), [1, 2, 3])
