# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""p(x_u | x_k) with its guides, as one Keras layer (Eqs. 3, 4 and 6; Fig. 5).

It consists of stages: each has two guides of one class and a top-down network. Later stages refine
the guess of those before.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from matnet_tf.config import ModelConfig
from matnet_tf.distributions import stateless_random
from matnet_tf.layers.base import Configured
from matnet_tf.likelihoods.observation import ObservedPixels
from matnet_tf.model.bounds import Bound
from matnet_tf.model.descent import Trace, descend
from matnet_tf.model.hierarchy import Hierarchy, num_rows
from matnet_tf.model.initialization import Networks
from matnet_tf.model.networks import Encoding, Guide, TopDownNetwork

__all__ = ["ConditionalEncoding", "ConditionalHierarchy", "ConditionalStage"]


class ConditionalEncoding(NamedTuple):
    """What the guides of a stage compute once per image.

    The first stage encodes the images alone, whatever the number of samples. A later stage encodes
    the guess of the stages before as well, which differs from sample to sample.
    """

    observed: ObservedPixels  # [B, ...]
    x: tf.Tensor | None  # [B, H, W, C]: standardized whole images, or None without inference
    generator: Encoding  # Of the known pixels, by the generator's guide.
    guide: Encoding | None  # Of the whole images, by the inference guide, or None as `x`.


@keras.saving.register_keras_serializable("matnet_tf")
class ConditionalStage(Configured):
    """The networks of one stage: two guides of one class and a top-down network.

    The generator's guide encodes the known pixels and proposes the priors (Eq. 3). The inference
    guide encodes everything and proposes the posteriors (Eq. 4).

    Args:
      config: The `ModelConfig`.
      refines: Whether a stage comes before; both guides then read its guess as well.
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

    def top_down_pass(
        self, encoding: ConditionalEncoding, rows: int | tf.Tensor, seed: tf.Tensor, **arguments
    ) -> Trace:
        """Calls `descend` with the networks of this stage."""
        return descend(
            self.top_down,
            rows,
            seed,
            guide=None if encoding.guide is None else self.guide,
            encoding=encoding.guide,
            generator=self.generator,
            generator_encoding=encoding.generator,
            **arguments,
        )

    def get_config(self):
        return super().get_config() | {"refines": self.refines}


@keras.saving.register_keras_serializable("matnet_tf")
class ConditionalHierarchy(Hierarchy):
    """A conditional MatNet of `config.conditional_stages` stages; see `ConditionalMatNet`.

    Args:
      config: The `ModelConfig`, with at least one conditional stage.
    """

    def make_networks(self) -> None:
        # The networks of a stage are those of a model with one stage.
        alone = dataclasses.replace(self.config, conditional_stages=1)
        self.stages = [
            ConditionalStage(alone, refines=index > 0, name=f"stage_{index + 1}")
            for index in range(self.config.conditional_stages)
        ]

    def build_networks(self, x_shape) -> None:
        for stage in self.stages:
            stage.build(x_shape)

    @property
    def networks(self) -> tuple[Networks, ...]:
        """The networks of every stage."""
        return tuple(
            Networks(stage.top_down, stage.guide, stage.generator) for stage in self.stages
        )

    @property
    def num_stages(self) -> int:
        """Number of stages that can be trained one after another."""
        return len(self.stages)

    def encode(self, x: tf.Tensor, mask: tf.Tensor) -> ConditionalEncoding:
        """Runs the bottom-up passes of the first stage, once per image.

        Args:
          x: Whole images `[B, H, W, C]`, float32.
          mask: 1 where a pixel is known, `[B, H, W, 1]`.
        """
        standardized = self.likelihood.observation.standardize(x)
        guide = self.stages[0].guide.encode(tf.concat([standardized, mask], axis=-1))
        encoding = self.encode_observed(ObservedPixels.of(x, mask))
        return encoding._replace(x=standardized, guide=guide)

    def encode_observed(self, observed: ObservedPixels) -> ConditionalEncoding:
        """Runs the generator's bottom-up pass; nothing depends on a hidden pixel."""
        generator = self.stages[0].generator.encode(self._generator_input(observed))
        return ConditionalEncoding(observed, None, generator, None)

    def _generator_input(
        self, observed: ObservedPixels, guess: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Known pixels, a guess (or 0) in place of the hidden ones, and the mask."""
        standardize, (x, mask) = self.likelihood.observation.standardize, observed
        x = standardize(x) * mask if guess is None else standardize(observed.paste(guess))
        return tf.concat([x, mask], axis=-1)

    def top_down_pass(
        self,
        encoding: ConditionalEncoding,
        rows: int | tf.Tensor,
        seed: tf.Tensor,
        *,
        num_inferred: int | tf.Tensor | None = None,
        latents: Any = (),
        temperature: Any = 1.0,
        stages: int | None = None,
        choose: Callable[[int, Any, Any], tf.Tensor] | None = None,
    ) -> Trace:
        """Walks down the top-down networks of the stages, one after the other.

        Args:
          encoding: Encoding of B images; without a guide's part all latents come from the priors.
          rows: N, the number of samples times images, sample first.
          seed: Stateless seed.
          num_inferred: As in `descend`, over the levels of all stages.
          latents: As in `descend`, over the levels of all stages.
          temperature: As in `descend`, over the levels of all stages.
          stages: Number of stages to walk; None for all.
          choose: As in `descend`, with the indices of levels of all stages.
        """
        observed = _repeat_observed(encoding.observed, rows)
        levels, h_td = [], None
        for index, stage in enumerate(self.stages[:stages]):
            own_encoding, own_seed = encoding, seed
            if index:
                guess = self.likelihood.guess(self.likelihood(h_td), observed)
                own_encoding = self._encode_guess(stage, encoding, observed, guess)
                own_seed = stateless_random.fold_in(seed, index)
            arguments = _split_by_stage(
                index, self.config.levels_per_stage, num_inferred, latents, temperature, choose
            )
            trace = stage.top_down_pass(own_encoding, rows, own_seed, **arguments)
            # Each stage corrects what p(x_u | z, x_k) is made from.
            h_td = trace.h_td if h_td is None else h_td + trace.h_td
            levels += trace.levels
        named = zip(levels, self.config.level_names, strict=False)
        return Trace(tuple(level._replace(name=name) for level, name in named), h_td, observed)

    def _encode_guess(self, stage, encoding, observed, guess) -> ConditionalEncoding:
        """Encodes N images with the guess so far, for the guides of a later stage."""
        generator_input = self._generator_input(observed, guess)
        generator = stage.generator.encode(generator_input)
        if encoding.x is None:
            return ConditionalEncoding(observed, None, generator, None)
        x = _repeat(encoding.x, num_rows(guess))
        guide = stage.guide.encode(tf.concat([generator_input, x], axis=-1))
        return ConditionalEncoding(observed, x, generator, guide)

    def bound_and_trace(
        self, x: tf.Tensor, mask: tf.Tensor, seed: tf.Tensor, stages: int | None = None
    ) -> tuple[Bound, Trace]:
        """The bound of Eq. 6 from one draw of the latents, and its trace.

        Args:
          x: Whole images `[B, H, W, C]`.
          mask: 1 where a pixel is known, `[B, H, W, 1]`.
          seed: Stateless seed.
          stages: Number of stages that take part; None for all.
        """
        trace = self.top_down_pass(self.encode(x, mask), num_rows(x), seed, stages=stages)
        return self.bound(trace, x), trace

    def sample_trace(self, inputs: tuple[tf.Tensor, tf.Tensor], seed: tf.Tensor) -> Trace:
        """Draws every latent from the prior given the known pixels of `inputs`."""
        encoding = self.encode_observed(ObservedPixels.of(*inputs))
        return self.top_down_pass(encoding, num_rows(inputs[0]), seed)

    def impute(
        self,
        observed: ObservedPixels,
        num_samples: int,
        temperatures: tf.Tensor,
        seed: tf.Tensor,
        draw: bool,
    ) -> tf.Tensor:
        """Completions `[K, B, H, W, C]` of images; see `ConditionalMatNet.impute`."""
        rows = num_samples * num_rows(observed.x)
        trace = self.top_down_pass(
            self.encode_observed(observed), rows, seed, temperature=tf.unstack(temperatures)
        )
        x = self.images(trace, seed, draw)
        return tf.reshape(x, tf.concat([[num_samples, -1], tf.shape(x)[1:]], axis=0))

    @property
    def guide_variables(self) -> list[keras.Variable]:
        """Trainable weights of the inference guides, which the regularizer moves."""
        return [v for stage in self.stages for v in stage.guide.trainable_variables]

    def stage_variables(self, stage: int) -> list[keras.Variable]:
        """Trainable weights of one stage and the likelihood; `stage` 0 stands for all stages."""
        if not stage:
            return self.trainable_variables
        parts = self.stages[stage - 1], self.likelihood
        return [variable for part in parts for variable in part.trainable_variables]


def _split_by_stage(index, per_stage, num_inferred, latents, temperature, choose) -> dict[str, Any]:
    """The arguments of `descend` for one stage, from those for all levels."""
    first, last = index * per_stage, (index + 1) * per_stage
    if tf.is_tensor(num_inferred):
        num_inferred = tf.clip_by_value(num_inferred - first, 0, per_stage)
    elif num_inferred is not None:
        num_inferred = min(max(num_inferred - first, 0), per_stage)
    per_level = isinstance(temperature, (list, tuple))
    return {
        "num_inferred": num_inferred,
        "latents": latents[first:last],
        "temperature": temperature[first:last] if per_level else temperature,
        "choose": choose and (lambda level, *pair: choose(first + level, *pair)),
    }


def _repeat(x: tf.Tensor, rows: int | tf.Tensor) -> tf.Tensor:
    """Repeats `[B, H, W, c]` to `[rows, H, W, c]`, sample first."""
    if isinstance(rows, int) and x.shape[0] == rows:
        return x
    return tf.tile(x, [rows // tf.shape(x)[0], 1, 1, 1])


def _repeat_observed(observed: ObservedPixels, rows: int | tf.Tensor) -> ObservedPixels:
    return ObservedPixels(*(_repeat(part, rows) for part in observed))
