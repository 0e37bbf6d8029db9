# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""A model for images of a given shape and kind, for users who do not want to design one."""

from __future__ import annotations

import itertools

from matnet_tf.config.experiment import TrainConfig
from matnet_tf.config.model import ModelConfig, Scale, halvings
from matnet_tf.config.validation import require

__all__ = ["KINDS", "SIZES", "suggested_model", "suggested_training"]

# Settings of a whole model, then filters, latents and modules of a convolutional and of a fully
# connected scale.
SIZES = {
    "small": ({"image_filters": 16, "top_latents": 16, "top_units": 64}, (16, 4, 1), (64, 8, 2)),
    "medium": (
        {"image_filters": 16, "top_latents": 32, "top_units": 128},
        (32, 4, 3),
        (256, 16, 3),
    ),
    "large": ({"image_filters": 32, "top_latents": 32, "top_units": 256}, (64, 8, 5), (512, 32, 4)),
}
KINDS = {
    "binary": "bernoulli",
    "8-bit grey": "logistic",
    "8-bit colour": "logistic",
    "real": "normal",
}
_MOST, _LEAST = 32, 4  # Sides of convolutional scales.
_FULL_BATCH = 32 * 32  # Pixels of the largest images of which a batch has the default size.


def suggested_model(
    image_shape: tuple[int, int, int], kind: str, size: str = "medium", conditional: bool = False
) -> ModelConfig:
    """Returns a model for images of a shape and kind.

    Its scales are the halved sizes of the image from 32 down to 4, top first; images too small for
    any get a fully connected one.

    Args:
      image_shape: Height, width and channels.
      kind: What the values are, one of `KINDS`: it gives the likelihood.
      size: `small`, `medium` or `large`, see `SIZES`.
      conditional: Whether the model predicts hidden pixels.

    Raises:
      ValueError: If the kind or the size is none of these.
    """
    require(kind in KINDS, f"kind must be one of {', '.join(KINDS)}; got {kind!r}")
    require(size in SIZES, f"size must be one of {', '.join(SIZES)}; got {size!r}")
    settings, convolutional, dense = SIZES[size]
    height, width, _ = image_shape
    # A side of 1 stays while the other side halves.
    shapes = itertools.zip_longest(halvings(height)[1:], halvings(width)[1:], fillvalue=1)
    shapes = [shape for shape in shapes if _LEAST <= max(shape) <= _MOST]
    scales = tuple(Scale(shape, *convolutional) for shape in reversed(shapes))
    return ModelConfig(
        tuple(image_shape),
        scales or (Scale(1, *dense),),
        likelihood=KINDS[kind],
        activation="elu",
        latent_scale=1.0,
        conditional_stages=int(conditional),
        **settings,
    )


def suggested_training(image_shape: tuple[int, int, int]) -> TrainConfig:
    """Returns how to train on images of a shape: larger ones need fewer a step, and save oftener.

    Args:
      image_shape: Height, width and channels.
    """
    height, width, _ = image_shape
    if height * width <= _FULL_BATCH:
        return TrainConfig()
    batch_size = max(8, TrainConfig.batch_size * _FULL_BATCH // (height * width))
    return TrainConfig(batch_size=batch_size, checkpoint_every=25)
