# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Conditional models p(x_u | x_k): hidden pixels from known ones (Eqs. 3, 4 and 6; Fig. 5)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from matnet_tf import noise, serialization
from matnet_tf.bounds import Bound
from matnet_tf.conditional_stages import ConditionalStage, Shares, Sight, repeated, tiled
from matnet_tf.config import ModelConfig
from matnet_tf.descent import Trace
from matnet_tf.hierarchy import Hierarchy, check_count, rows_of
from matnet_tf.inputs import checked_mask, image_and_mask_of, valid_images, valid_masks
from matnet_tf.likelihoods import Known
from matnet_tf.noise import seed_tensor

__all__ = ["ConditionalMatNet", "Imputation", "TwoStageMatNet"]


class Imputation(NamedTuple):
    """Completions of images; known pixels are those that were given, bit for bit."""

    samples: tf.Tensor  # [K, B, H, W, C]
    mean: tf.Tensor  # [B, H, W, C]: the pixel-wise mean of the samples


@keras.saving.register_keras_serializable("matnet_tf")
class ConditionalMatNet(Hierarchy):
    """A conditional MatNet p(x_u | x_k), which predicts hidden pixels from known ones (Sec. 2.1).

    The prior of every latent comes from a guide that watches the known pixels x_k and the mask, its
    posterior from one that watches the whole image; the top-down network is one. The bound, Eq. 6,
    counts the hidden pixels x_u alone. As `MatNet`, it is built when constructed. `fit` takes
    a `tf.data.Dataset` of dictionaries with `image` and `mask`, or of pairs of them; a mask is
    `[B, H, W, 1]`, 1 where the pixel is known.

    With `config.conditional_stages` of 2 and more, later stages refine the guess of those before
    (the two-stage models of Sec. 3). Each is a conditional MatNet, whose guides watch the guess,
    too: the mean image so far in place of the hidden pixels. Its last state is added to those
    before, so it corrects what p(x_u | z, x_k) is made from before any squashing, as the second
    stage of the reference does. The latents of all stages make one bound on log p(x_u | x_k): the
    guess is a function of known pixels and of latents that are drawn already.

    Setting `training_stage` to s > 0 before `fit` trains stage s alone, those before it being
    fixed, on the bound of the first s stages; 0, the default, trains all at once.

    Args:
      config: the architecture, with `conditional_stages` of at least 1.
      seed: of the initial weights and of the noise in training.

    Example:
      config = ModelConfig((8, 8, 1), (Stage(1, 64, 8, 3),), conditional_stages=1)
      model = ConditionalMatNet(config, seed=0)
      model.compile(optimizer="adam")
      model.fit(dataset)  # of {"image": x, "mask": mask}
      samples, mean = model.impute(x, mask, num_samples=8)
    """

    def make_networks(self) -> None:
        """The stages, not built yet."""
        self._training_stage = 0
        # To its networks a stage is a model of its own.
        alone = dataclasses.replace(self.config, conditional_stages=1)
        self.stages = [
            ConditionalStage(alone, refines=i > 0, name=f"stage_{i + 1}")
            for i in range(self.config.conditional_stages)
        ]

    def build_networks(self) -> None:
        """Gives the stages their weights."""
        for stage in self.stages:
            stage.build((None, *self.config.image_shape))

    @property
    def networks(self) -> tuple[keras.layers.Layer, ...]:
        """What the model is made of beside the likelihood."""
        return tuple(self.stages)

    def _check_kind(self, config):
        if not config.conditional_stages:
            raise ValueError(
                f"{type(self).__name__} takes a ModelConfig with conditional_stages of at least 1; "
                f"got 0, which MatNet takes"
            )

    # What its inputs are: images and masks.

    def inputs_of(self, element: Any) -> tuple[Any, Any]:
        """Images and masks of a data set's element; see `inputs.image_and_mask_of`."""
        return image_and_mask_of(element)

    def element_of(self, x: Any, mask: Any) -> dict[str, Any]:
        """A data set's element with these images and masks."""
        return {"image": x, "mask": mask}

    def checked_inputs(self, x: Any, mask: Any) -> tuple[tf.Tensor, tf.Tensor]:
        """Whole images and masks, or a ValueError that names what is wrong with them."""
        x = self.likelihood.pixels.checked(x)
        return x, checked_mask(mask, x.shape[0], self.config.image_shape)

    def valid_inputs(self, x: tf.Tensor, mask: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Images and masks that fail in a graph unless they are valid."""
        return valid_images(x, self.likelihood.pixels), valid_masks(mask)

    def _checked_known(self, x, mask) -> Known:
        """Known pixels; whatever stands in the place of the others does not matter."""
        x, pixels = tf.convert_to_tensor(x), self.likelihood.pixels
        if not x.dtype.is_floating or x.shape.rank != 4 or not x.shape[0]:
            pixels.checked(x)  # It has something to say against them.
        mask = checked_mask(mask, x.shape[0], self.config.image_shape)
        if tuple(x.shape[1:]) == pixels.image_shape:
            x = Known.of(tf.cast(x, tf.float32), mask).x
        return Known(pixels.checked(x), mask)

    # What the model is, as tensors in a graph: no checks, seeds are int32 [2].

    def call(self, inputs):
        """The reconstruction from one draw of every latent, `[B, H, W, C]`; see `images`."""
        x, mask = self.inputs_of(inputs)
        seed = seed_tensor(self.seed)
        return self.images(self.walk(self.watch(x, mask), rows_of(x), seed), seed)

    def watch(self, x: tf.Tensor, mask: tf.Tensor) -> Sight:
        """All that the first stage's guides compute once per image, for images `[B, H, W, C]`."""
        x_read = self.likelihood.pixels.standardize(x)
        guide = self.stages[0].guide.watch(tf.concat([x_read, mask], axis=-1))
        return self.watch_known(Known.of(x, mask))._replace(x=x_read, guide=guide)

    def watch_known(self, known: Known) -> Sight:
        """What the generator sees: nothing that depends on a hidden pixel."""
        view = self.stages[0].generator.watch(self._read(known))
        return Sight(known, None, view, None)

    def _read(self, known: Known, guess: tf.Tensor | None = None) -> tf.Tensor:
        """What a generator's guide reads: known pixels, a guess of the others or 0, the mask."""
        standardize, (x, mask) = self.likelihood.pixels.standardize, known
        x = standardize(x) * mask if guess is None else standardize(known.paste(guess))
        return tf.concat([x, mask], axis=-1)

    def walk(
        self,
        view: Sight,
        rows: int | tf.Tensor,
        seed: tf.Tensor,
        *,
        num_inferred: int | tf.Tensor | None = None,
        latents: Any = (),
        temperature: Any = 1.0,
        stages: int | None = None,
    ) -> Trace:
        """Walks down the stages' top-down networks, one after the other; see `descend`.

        Args:
          view: what was seen in the images; without inference all levels come from the priors.
          rows: N, how many walks: samples times images, sample first.
          seed: int32 `[2]`.
          num_inferred: as that of `descend`, of the levels of all stages.
          latents: likewise.
          temperature: likewise.
          stages: how many of the stages to walk; None is all.
        """
        known = repeated(view.known, rows)
        levels, h_td = [], None
        share = Shares(self.config.levels_per_stage, num_inferred, latents, temperature)
        for index, stage in enumerate(self.stages[:stages]):
            sight, own_seed = view, seed
            if index:
                guess = self.likelihood.guess(self.likelihood(h_td), known)
                sight = self._look_again(stage, view, known, guess)
                own_seed = noise.fold_in(seed, index)
            trace = stage.walk(sight, rows, own_seed, **share.of(index))
            h_td = trace.h_td if h_td is None else h_td + trace.h_td
            levels += trace.levels
        named = zip(levels, self.config.level_names, strict=False)
        return Trace(tuple(level._replace(name=name) for level, name in named), h_td, known)

    def _look_again(self, stage, view, known, guess) -> Sight:
        """What a later stage's guides see of N images with the guess so far in them."""
        read = self._read(known, guess)
        generator = stage.generator.watch(read)
        if view.x is None:
            return Sight(known, None, generator, None)
        x = tiled(view.x, rows_of(guess))
        return Sight(known, x, generator, stage.guide.watch(tf.concat([read, x], axis=-1)))

    def bound_and_trace(
        self, x: tf.Tensor, mask: tf.Tensor, seed: tf.Tensor, stages: int | None = None
    ) -> tuple[Bound, Trace]:
        trace = self.walk(self.watch(x, mask), rows_of(x), seed, stages=stages)
        return self.bound_of(trace, x), trace

    def dream(self, inputs: tuple[tf.Tensor, tf.Tensor], seed: tf.Tensor) -> Trace:
        """A walk from the priors, given the known pixels of the inputs."""
        return self.walk(self.watch_known(Known.of(*inputs)), rows_of(inputs[0]), seed)

    @property
    def guide_variables(self) -> list[keras.Variable]:
        """The trained weights of the inference guides: what the regularizer moves."""
        return [v for stage in self.stages for v in stage.guide.trainable_variables]

    # Training stage by stage.

    @property
    def training_stage(self) -> int:
        """Which stage steps on data train, from 1 on; 0 is all of them."""
        return self._training_stage

    @training_stage.setter
    def training_stage(self, stage: int) -> None:
        if isinstance(stage, bool) or stage not in range(len(self.stages) + 1):
            raise ValueError(
                f"training_stage must be 0, for all, or one of the {len(self.stages)} stages; got "
                f"{stage!r}"
            )
        self._training_stage = stage

    @property
    def trains_in_parts(self) -> bool:
        """Whether steps may train another stage than those before did."""
        return len(self.stages) > 1

    def training_bound(self, inputs, seed):
        return self.bound_and_trace(*inputs, seed, self.training_stage or None)

    @property
    def training_variables(self) -> list[keras.Variable]:
        """The weights that steps on data move: all, or those of `training_stage`."""
        if not self.training_stage:
            return self.trainable_variables
        parts = self.stages[self.training_stage - 1], self.likelihood
        return [variable for part in parts for variable in part.trainable_variables]

    # What users call: checked, eager in and out.

    def elbo(self, x: Any, mask: Any, seed: int = 0) -> Bound:
        """The bound of Eq. 6 on log p(x_u | x_k) from one draw of the latents.

        Args:
          x: whole images `[B, H, W, C]`, float32 in [0, 1].
          mask: 1 where a pixel is known, `[B, H, W, 1]`, or `[H, W, 1]` for all.
          seed: of the draw; a sequence has one for each image, see `noise`.

        Returns:
          A `Bound`: ELBO, log-likelihood of the hidden pixels and KL per level, `[B]`, in nats.

        Raises:
          ValueError: if the images or masks are not as the config says, or a mask leaves nothing
            to predict.
        """
        x, mask = self.checked_inputs(x, mask)
        return self._graphs.of(self._elbo)(x, mask, seed_tensor(seed, x.shape[0]))

    def log_likelihood(
        self,
        x: Any,
        mask: Any,
        num_samples: int = 100,
        seed: int = 0,
        chunk: int | None = None,
        num_inferred: int | None = None,
    ) -> np.ndarray:
        """The importance-weighted bound on log p(x_u | x_k), K samples, `[B]` float64, in nats.

        Args:
          x: whole images `[B, H, W, C]`.
          mask: 1 where a pixel is known, `[B, H, W, 1]`, or `[H, W, 1]` for all.
          num_samples: K.
          seed: of the samples; a sequence has one for each image, see `noise`.
          chunk: image-samples per top-down pass, which bounds the memory; `samples_per_pass` by
            default.
          num_inferred: levels from the posterior, the others from the prior; None is all.

        Raises:
          ValueError: as `elbo`, or if a number is out of range.
        """
        return self._log_likelihood((x, mask), num_samples, seed, chunk, num_inferred)

    def log_weights(
        self, x: Any, mask: Any, num_samples: int, seed: int = 0, chunk: int | None = None
    ) -> Iterator[np.ndarray]:
        """Importance log-weights in pieces `[k, B]`; the first bottom-up passes run once."""
        return self._log_weights((x, mask), num_samples, seed, chunk)

    def infer(self, x: Any, mask: Any, num_samples: int = 1, seed: int = 0) -> Trace:
        """Every level's latents, prior and posterior, for whole images.

        Returns:
          A `Trace` whose tensors have K * B rows, sample first.

        Raises:
          ValueError: as `elbo`, or if K < 1.
        """
        check_count("num_samples", num_samples)
        x, mask = self.checked_inputs(x, mask)
        seed = noise.of_walk(seed_tensor(seed, x.shape[0]), num_samples)
        return self.walk(self.watch(x, mask), num_samples * x.shape[0], seed)

    def reconstruct(
        self,
        x: Any,
        mask: Any,
        num_inferred: int | None = None,
        temperature: Any = 1.0,
        seed: int = 0,
    ) -> tf.Tensor:
        """Completions that take the top `num_inferred` levels from the whole image.

        The levels below are drawn from the priors, given the known pixels.

        Returns:
          images: `[B, H, W, C]`, with the known pixels as they are.

        Raises:
          ValueError: as `elbo`, or if a number is out of range.
        """
        num_inferred = self.checked_inferred(num_inferred)
        x, mask = self.checked_inputs(x, mask)
        temperatures = self._temperatures(temperature)
        return self._graphs.of(self._reconstruct)(
            x, mask, num_inferred, temperatures, seed_tensor(seed, x.shape[0])
        )

    def _reconstruct(self, x, mask, num_inferred, temperatures, seed):
        temperatures = tf.unstack(temperatures)
        trace = self.walk(
            self.watch(x, mask),
            rows_of(x),
            seed,
            num_inferred=num_inferred,
            temperature=temperatures,
        )
        return self.images(trace, seed)

    def impute(
        self,
        x: Any,
        mask: Any,
        num_samples: int = 1,
        temperature: Any = 1.0,
        seed: int = 0,
        draw: bool = False,
    ) -> Imputation:
        """Completions of images whose hidden pixels nobody knows.

        Args:
          x: images `[B, H, W, C]`; what stands in the place of hidden pixels, NaN included, has no
            effect.
          mask: 1 where a pixel is known, `[B, H, W, 1]`, or `[H, W, 1]` for all.
          num_samples: K, completions of each image.
          temperature: multiplies the priors' scales; a sequence has one value per level.
          seed: of the draws; a sequence has one for each image, see `noise`.
          draw: draw the pixels from p(x_u | z, x_k) too, instead of giving its mean. The local
            autoregressive model always draws.

        Returns:
          An `Imputation`: the K samples, and their mean.

        Raises:
          ValueError: if known pixels or masks are not as the config says, a mask leaves nothing to
            predict, or a number is out of range.
        """
        check_count("num_samples", num_samples)
        known, temperatures = self._checked_known(x, mask), self._temperatures(temperature)
        images, parts = known.x.shape[0], []
        seed, per_pass = seed_tensor(seed, images), max(1, self.samples_per_pass // images)
        for first in range(0, num_samples, per_pass):
            k = min(per_pass, num_samples - first)
            piece = noise.of_samples(seed, first, k)
            parts.append(self._graphs.of(self._impute)(known, k, temperatures, piece, draw))
        samples = parts[0] if len(parts) == 1 else tf.concat(parts, axis=0)
        # A mean of equal numbers may differ from them in the last bit.
        return Imputation(samples, known.paste(tf.reduce_mean(samples, axis=0)))

    def _impute(self, known, num_samples, temperatures, seed, draw):
        rows = num_samples * rows_of(known.x)
        trace = self.walk(self.watch_known(known), rows, seed, temperature=tf.unstack(temperatures))
        x = self.images(trace, seed, draw)
        return tf.reshape(x, tf.concat([[num_samples, -1], tf.shape(x)[1:]], axis=0))


@keras.saving.register_keras_serializable("matnet_tf")
class TwoStageMatNet(ConditionalMatNet):
    """A conditional MatNet of two stages, the second of which refines the first one's guess.

    It is `ConditionalMatNet` with `conditional_stages` of 2, whatever less the config says.
    """

    def __init__(self, config: ModelConfig | dict | None = None, seed: int = 0, **kwargs):
        config = ModelConfig() if config is None else config
        if isinstance(config, dict):
            config = serialization.from_dict(ModelConfig, config)
        if isinstance(config, ModelConfig) and config.conditional_stages < 2:
            config = dataclasses.replace(config, conditional_stages=2)
        super().__init__(config, seed, **kwargs)
