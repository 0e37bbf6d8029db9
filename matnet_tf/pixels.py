# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""What the values of images are like: binary, 8-bit or real (Sec. 2.2, 2.3 and 3).

`PIXELS` is the seam: another kind needs a row there and a name in `ModelConfig.likelihood`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from matnet_tf.config import ModelConfig
from matnet_tf.distributions import IntegratedLogistic, bounded, clipped_mean
from matnet_tf.updates import config_of
from matnet_tf.whitening import Unwhiten, Whitening

tfd, tfb = tfp.distributions, tfp.bijectors

__all__ = ["PIXELS", "Bernoulli", "Logistic", "Normal", "Pixels", "pixels_of"]

LOG_SCALE_BOUND = 7.0  # In units of half the range: the smallest is a ninth of an 8-bit level.


class Pixels(keras.layers.Layer):
    """What the kinds of pixels share.

    `call(parameters)`, with parameters `[B, H, W, C, P]`, gives the tensors that `values` makes a
    distribution from; `distribution(parameters)` is p(x | z), with `event_shape` `[H, W, C]`.

    Args:
      image_shape: `(H, W, C)`.
      scale: what has a scale of its own: `pixel` (every value of the image, by its parameters),
        `channel` or `scalar` (a learned constant, a weight). Without meaning for Bernoulli.
    """

    expected = "finite and lie in [0, 1]"  # What `invalid` looks for, in words.
    convert = "divide 8-bit images by 255 first"  # What to do with integer images.
    bins = 1  # How many 8-bit levels fit in a unit of the density; 1 for probabilities.

    def __init__(self, image_shape, scale="pixel", **kwargs):
        super().__init__(**kwargs)
        self.image_shape = tuple(image_shape)
        self.scale = scale

    @property
    def num_parameters(self) -> int:
        """P, how many numbers `call` needs for each value of the image."""
        return 2 if self.scale == "pixel" else 1

    def invalid(self, x: tf.Tensor) -> tf.Tensor:
        """Where x cannot be an image, as booleans of its shape."""
        # A comparison with NaN is false, so this finds NaN too.
        return ~((x >= 0.0) & (x <= 1.0))

    def checked(self, x: Any) -> tf.Tensor:
        """Images as float32 `[B, H, W, C]`, if they can be modelled.

        Raises:
          ValueError: if x is not floating, of another shape, empty, or has values that cannot be
            modelled; or if `adapt` is needed first.
        """
        x = self._checked_values(x)
        self.check_ready()
        return x

    def _checked_values(self, x: Any) -> tf.Tensor:
        x = tf.convert_to_tensor(x)
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
            raise ValueError("images must be at least one; got an empty batch")
        x = tf.cast(x, tf.float32)
        if bool(tf.reduce_any(self.invalid(x))):
            nan = " and NaN" if bool(tf.reduce_any(tf.math.is_nan(x))) else ""
            least, most = float(tf.reduce_min(x)), float(tf.reduce_max(x))
            raise ValueError(
                f"images must be {self.expected}; got values from {least:g} to {most:g}{nan}"
            )
        return x

    def adapt(self, dataset: Iterable[Any]) -> None:
        """Shows batches of training images `[B, H, W, C]` to what needs their statistics."""

    def check_ready(self) -> None:
        """Raises a ValueError if `adapt` is still needed."""

    def of_bytes(self, values: tf.Tensor) -> tf.Tensor:
        """Images from 8-bit ones, uint8 `[B, H, W, C]`, without noise."""
        return tf.cast(values, tf.float32) / 255.0

    def standardize(self, x: tf.Tensor) -> tf.Tensor:
        """What networks read of an image: its values in [-1, 1]."""
        return 2.0 * x - 1.0

    def distribution(self, parameters: tf.Tensor) -> tfd.Distribution:
        """p(x | z), `event_shape` `[H, W, C]`, from parameters `[B, H, W, C, P]`."""
        return tfd.Independent(self.values(parameters), reinterpreted_batch_ndims=3)

    def log_probs(self, parameters: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        """log p of every value of images by itself, `[B, H, W, C]`; they add up to `log_prob`."""
        return self.values(parameters).log_prob(x)

    def compute_output_shape(self, parameters_shape):
        return (tuple(parameters_shape[:-1]),) * 2

    def get_config(self):
        return super().get_config() | config_of(self, "image_shape", "scale")


class _LocationScale(Pixels):
    """Pixels with a location and a scale, both for images standardized to [-1, 1]."""

    first_log_scale = 0.0  # Where training starts.

    def named(self, parameters: tf.Tensor) -> dict[str, tf.Tensor]:
        """The distribution's `loc` and `scale`, `[B, H, W, C]`, for images in [0, 1]."""
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
        """Locations and scales, `[B, H, W, C]`; the scales may have any shape that broadcasts."""
        parameters = tf.cast(parameters, tf.float32)
        if self.scale == "pixel":
            log_scale = parameters[..., 1] + self.first_log_scale
        else:
            log_scale = tf.cast(self.log_scale, tf.float32)
        log_scale = bounded(log_scale, LOG_SCALE_BOUND)
        # Of full shape, since a Keras layer's outputs all have the batch.
        loc = clipped_mean(parameters[..., 0])
        return loc, tf.exp(log_scale) + tf.zeros_like(loc)


@keras.saving.register_keras_serializable("matnet_tf")
class Bernoulli(Pixels):
    """Independent Bernoulli pixels (Sec. 2.2), for images in [0, 1]; one parameter, the logit.

    For pixels strictly between 0 and 1 `log_prob` is the expected log-probability of their
    binarization, not a density: the model's numbers are likelihoods for binary images only.
    """

    num_parameters = 1

    def standardize(self, x: tf.Tensor) -> tf.Tensor:
        """The image as it is: 0 and 1 suit the networks."""
        return x

    def call(self, parameters):
        return tf.cast(parameters[..., 0], tf.float32)

    def named(self, parameters: tf.Tensor) -> dict[str, tf.Tensor]:
        """The distribution's `logits`, `[B, H, W, C]`."""
        return {"logits": self(parameters)}

    def values(self, parameters: tf.Tensor) -> tfd.Bernoulli:
        """The distribution of every value by itself, `batch_shape` `[B, H, W, C]`."""
        return tfd.Bernoulli(logits=self(parameters), dtype=tf.float32)

    def quantile(self, parameters: tf.Tensor, uniform: tf.Tensor) -> tf.Tensor:
        """Values from uniform noise `[B, H, W, C]` in [0, 1)."""
        return tf.cast(uniform < tf.sigmoid(self(parameters)), tf.float32)

    def compute_output_shape(self, parameters_shape):
        return tuple(parameters_shape[:-1])


@keras.saving.register_keras_serializable("matnet_tf")
class Logistic(_LocationScale):
    """8-bit pixels: a Logistic integrated over each of 256 levels (Sec. 2.3 and 3).

    Images are `v / 255` for whole v from 0 to 255; see `distributions.IntegratedLogistic`.
    """

    expected = "8-bit values divided by 255: 0, 1/255, ..., 1 (not dequantized, not rescaled)"
    first_log_scale = -2.0

    def invalid(self, x: tf.Tensor) -> tf.Tensor:
        """Where x is not `v / 255` for one of the 256 levels, as booleans of its shape."""
        level = 255.0 * x
        return ~((abs(level - tf.round(level)) < 1e-3) & (x >= 0.0) & (x <= 1.0))

    def values(self, parameters: tf.Tensor) -> IntegratedLogistic:
        """The distribution of every value by itself, `batch_shape` `[B, H, W, C]`."""
        loc, scale = self(parameters)
        return IntegratedLogistic(0.5 + 0.5 * loc, 0.5 * scale)

    def quantile(self, parameters: tf.Tensor, uniform: tf.Tensor) -> tf.Tensor:
        """Values from uniform noise `[B, H, W, C]` in [0, 1)."""
        return self.values(parameters).quantile(uniform)


@keras.saving.register_keras_serializable("matnet_tf")
class Normal(_LocationScale):
    """A diagonal Gaussian over real-valued images in [0, 1], such as dequantized ones (Sec. 3).

    The Gaussian is over the standardized image: over values in [-1, 1], or over ZCA-whitened
    ones. `log_prob` is the log-density of the image itself, the log-determinant included, so
    numbers with and without whitening can be compared. One 8-bit level is 1/256 of its unit.

    Args:
      image_shape, scale: as for every kind of pixels.
      whitening: whether to whiten; `adapt` must see the training images first.
    """

    convert = "dequantize 8-bit images first: (value + uniform noise) / 256"
    bins = 256

    def __init__(self, image_shape, scale="pixel", whitening=False, **kwargs):
        super().__init__(image_shape, scale, **kwargs)
        self.whitening = whitening
        self.whitening_layer = Whitening(image_shape, name="whitening") if whitening else None
        self.first_log_scale = 0.0 if whitening else -1.0

    def of_bytes(self, values: tf.Tensor) -> tf.Tensor:
        """8-bit images at the middle of what dequantization makes of them."""
        return (tf.cast(values, tf.float32) + 0.5) / 256.0

    def named(self, parameters: tf.Tensor) -> dict[str, tf.Tensor]:
        """As for other pixels; with whitening `loc` and `scale` are those of whitened values."""
        if self.whitening_layer is None:
            return super().named(parameters)
        loc, scale = self(parameters)
        return {"loc": loc, "scale": scale}

    def adapt(self, dataset: Iterable[Any]) -> None:
        """Computes the statistics of whitening, if there is any; see `Whitening.adapt`."""
        if self.whitening_layer is not None:
            self.whitening_layer.adapt(self._checked_values(x).numpy() for x in dataset)

    def check_ready(self) -> None:
        """Raises a ValueError if whitening has not seen the training images yet."""
        if self.whitening_layer is not None and not self.whitening_layer.adapted:
            raise ValueError("whitening needs the training images first: call adapt(dataset)")

    def standardize(self, x: tf.Tensor) -> tf.Tensor:
        """What networks read of an image, and what the Gaussian is over."""
        return super().standardize(x) if self.whitening_layer is None else self.whitening_layer(x)

    def values(self, parameters: tf.Tensor) -> tfd.Normal:
        """The distribution of every standardized value, `batch_shape` `[B, H, W, C]`."""
        return tfd.Normal(*self(parameters))

    def distribution(self, parameters: tf.Tensor) -> tfd.TransformedDistribution:
        """p(x | z), `event_shape` `[H, W, C]`, from parameters `[B, H, W, C, P]`."""
        back = tfb.Chain([tfb.Shift(0.5), tfb.Scale(0.5)])
        if self.whitening_layer is not None:
            back = Unwhiten(self.whitening_layer)
        return tfd.TransformedDistribution(super().distribution(parameters), back)

    def log_probs(self, parameters: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        """log p of every value by itself; without whitening, which mixes values."""
        if self.whitening_layer is not None:
            raise ValueError("whitened pixels have a density of the image only, not one of each")
        return super().log_probs(parameters, self.standardize(x)) + math.log(2.0)

    def get_config(self):
        return super().get_config() | config_of(self, "whitening")


PIXELS = {"bernoulli": Bernoulli, "normal": Normal, "logistic": Logistic}


def pixels_of(config: ModelConfig) -> Bernoulli | Logistic | Normal:
    """The layer of pixels that a config asks for."""
    arguments = {"whitening": config.whitening} if config.likelihood == "normal" else {}
    make = PIXELS[config.likelihood]
    return make(config.image_shape, config.likelihood_scale, name="pixels", **arguments)
