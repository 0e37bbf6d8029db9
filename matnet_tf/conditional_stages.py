# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""What conditional models are made of: stages of two guides and a top-down network each."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import tensorflow as tf

from matnet_tf.config import ModelConfig
from matnet_tf.configured import Configured
from matnet_tf.descent import Trace, descend
from matnet_tf.likelihoods import Known
from matnet_tf.network import Guide, TopDownNetwork, View

__all__ = ["ConditionalStage", "Shares", "Sight", "repeated", "tiled"]


class Sight(NamedTuple):
    """What a stage sees in images: the first one, of the images alone, whatever the samples.

    A later stage looks at the guess of those before, too, which differs from sample to sample.
    """

    known: Known  # [B, ...]: the known pixels
    x: tf.Tensor | None  # [B, H, W, C]: whole images as networks read them; None: known pixels only
    generator: View  # What the stage's generator saw in the known pixels.
    guide: View | None  # What its inference guide saw in everything; None as x.


@keras.saving.register_keras_serializable("matnet_tf")
class ConditionalStage(Configured):
    """The networks of one conditional MatNet: two guides of one class, and a top-down network.

    The generator's guide watches the known pixels and proposes the priors (Eq. 3); the inference
    guide watches everything and proposes the posteriors (Eq. 4).

    Args:
      config: the `ModelConfig`.
      refines: whether there is a stage before; both guides then watch its guess, too.
    """

    def __init__(self, config: ModelConfig | dict, refines: bool = False, **kwargs):
        super().__init__(config, **kwargs)
        self.refines = refines
        channels = self.config.image_shape[-1]
        self.generator = Guide(self.config, channels + 1, name="generator")
        self.guide = Guide(self.config, channels * (2 if refines else 1) + 1, name="guide")
        self.top_down = TopDownNetwork(self.config, name="top_down")

    def build(self, x_shape):
        for guide in (self.generator, self.guide):
            guide.build((*x_shape[:-1], guide.channels))
        self.top_down.build((None, self.config.top_latents))

    def walk(self, sight: Sight, rows: int | tf.Tensor, seed: tf.Tensor, **arguments: Any) -> Trace:
        """`descend` with this stage's networks; generation where known pixels alone were seen."""
        return descend(
            self.top_down,
            rows,
            seed,
            guide=None if sight.guide is None else self.guide,
            view=sight.guide,
            generator=self.generator,
            generator_view=sight.generator,
            **arguments,
        )

    def get_config(self):
        return super().get_config() | {"refines": self.refines}


class Shares:
    """What of the arguments for all levels belongs to each of the stages."""

    def __init__(self, per_stage, num_inferred, latents, temperature):
        self.per_stage = per_stage
        self.num_inferred = num_inferred
        self.latents = latents
        self.temperature = temperature

    def of(self, index: int) -> dict[str, Any]:
        """Arguments of `descend` for one stage."""
        first, last = index * self.per_stage, (index + 1) * self.per_stage
        per_level = isinstance(self.temperature, (list, tuple))
        return {
            "num_inferred": self._inferred(first),
            "latents": self.latents[first:last],
            "temperature": self.temperature[first:last] if per_level else self.temperature,
        }

    def _inferred(self, first):
        if self.num_inferred is None:
            return None
        if tf.is_tensor(self.num_inferred):
            return tf.clip_by_value(self.num_inferred - first, 0, self.per_stage)
        return min(max(self.num_inferred - first, 0), self.per_stage)


def tiled(x: tf.Tensor, rows: int | tf.Tensor) -> tf.Tensor:
    """`[B, ...]` repeated to `[rows, ...]`, sample first."""
    if isinstance(rows, int) and x.shape[0] == rows:
        return x
    return tf.tile(x, [rows // tf.shape(x)[0], 1, 1, 1])


def repeated(known: Known, rows: int | tf.Tensor) -> Known:
    """What is known of B images, for each of `rows` samples of them, sample first."""
    return Known(*(tiled(part, rows) for part in known))
