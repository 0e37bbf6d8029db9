# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""p(x, z) with its guide q(z | x), as one Keras layer (Secs. 2.1 and 2.2).

The layer maps tensors to tensors and traces. It knows no optimizer, metric or file, and checks
nothing: its methods run inside graphs, with stateless seeds, int32 `[2]` or `[N, 2]`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from matnet_tf.config import ModelConfig
from matnet_tf.distributions import stateless_random
from matnet_tf.distributions.mixture import tempered
from matnet_tf.layers.base import Configured
from matnet_tf.likelihoods.autoregressive import LocalAutoregression
from matnet_tf.likelihoods.independent import Likelihood
from matnet_tf.model.bounds import Bound
from matnet_tf.model.descent import Trace, descend
from matnet_tf.model.initialization import Networks, initialize
from matnet_tf.model.networks import Encoding, Guide, TopDownNetwork, state_shape

tfd = tfp.distributions

__all__ = ["Hierarchy", "num_rows"]

_LARGEST_STATE = 2**24  # Numbers in a state of one pass: 64 MB of float32.
_MOST_PER_PASS = 5000


@keras.saving.register_keras_serializable("matnet_tf")
class Hierarchy(Configured):
    """An unconditional MatNet: a top-down network, a guide and a likelihood (Eqs. 1, 2 and 5).

    `call(inputs, seed)` reconstructs images from one draw of every latent, `[B, H, W, C]`.

    `ConditionalHierarchy` overrides what differs in a conditional model: the networks
    (`make_networks`, `build_networks`, `networks`), how they are used (`encode`,
    `top_down_pass`, `bound_and_trace`, `sample_trace`), and which weights steps move
    (`guide_variables`, `num_stages`, `stage_variables`). There are no other hooks.

    Args:
      config: The `ModelConfig`.
    """

    num_stages = 1  # Stages that can be trained one after another; see `ConditionalHierarchy`.

    def __init__(self, config: ModelConfig | dict, **kwargs):
        super().__init__(config, **kwargs)
        self.make_networks()
        make_likelihood = LocalAutoregression if self.config.autoregressive else Likelihood
        self.likelihood = make_likelihood(self.config, name="likelihood")

    def make_networks(self) -> None:
        """Constructs the networks, without weights."""
        self.guide = Guide(self.config, name="guide")
        self.top_down = TopDownNetwork(self.config, name="top_down")

    def build(self, x_shape):
        self.build_networks(x_shape)
        config = self.config
        finest = config.scales[-1]
        area = (*config.image_shape[:2], config.image_filters)
        self.likelihood.build((None, finest.filters) if finest.dense else (None, *area))

    def build_networks(self, x_shape) -> None:
        """Creates the weights of the networks."""
        self.guide.build(x_shape)
        self.top_down.build((None, self.config.top_latents))

    @property
    def networks(self) -> tuple[Networks, ...]:
        """The networks of every stage."""
        return (Networks(self.top_down, self.guide),)

    def initialize(self, seed: int) -> None:
        """Draws every kernel from `seed`, see `model.initialization`."""
        initialize(self.config, self.trainable_variables, self.networks, seed)

    # From images to a trace.

    def encode(self, x: tf.Tensor) -> Encoding:
        """Runs the guide's bottom-up pass, once per image.

        Args:
          x: Images `[B, H, W, C]`, float32.
        """
        return self.guide.encode(self.likelihood.observation.standardize(x))

    def top_down_pass(
        self,
        encoding: Encoding | None,
        rows: int | tf.Tensor,
        seed: tf.Tensor,
        *,
        stages: int | None = None,
        **arguments: Any,
    ) -> Trace:
        """Walks down the top-down network once; see `descend` for the other arguments.

        Args:
          encoding: Encoding of B images, or None to generate.
          rows: N, the number of samples times images, sample first.
          seed: Stateless seed.
          stages: Unused, since there is one; see `ConditionalHierarchy`.
          **arguments: `num_inferred`, `latents`, `temperature`.
        """
        del stages
        guide = None if encoding is None else self.guide
        return descend(self.top_down, rows, seed, guide=guide, encoding=encoding, **arguments)

    def sample_trace(self, inputs: tuple[tf.Tensor, ...], seed: tf.Tensor) -> Trace:
        """Draws every latent from the prior, for as many images as `inputs` has."""
        return self.top_down_pass(None, num_rows(inputs[0]), seed)

    # From a trace to images and bounds.

    def p_x(self, trace: Trace) -> tfd.Distribution:
        """p(x | z) at the end of a trace: `batch_shape` `[N]`, `event_shape` `[H, W, C]`."""
        return self.likelihood.distribution(self.likelihood(trace.h_td), trace.observed)

    def images(self, trace: Trace, seed: tf.Tensor, draw: bool = False) -> tf.Tensor:
        """Images in [0, 1] at the end of a trace, `[N, H, W, C]`.

        Args:
          trace: The trace.
          seed: Seed of the trace; pixels are drawn with a seed derived from it.
          draw: Whether to draw pixels from p(x | z) instead of taking its mean. The local
            autoregressive model, which has no mean in closed form, always draws.
        """
        takes_mean = self.likelihood.has_mean and not draw
        x = self.p_x(trace).mean() if takes_mean else self.draw(trace, seed)
        return tf.clip_by_value(x, 0.0, 1.0)

    def draw(self, trace: Trace, seed: tf.Tensor) -> tf.Tensor:
        """Draws x from p(x | z) at the end of a trace, `[N, H, W, C]`, for computations.

        Unlike `images`, values of a Gaussian are not clipped to [0, 1]: they have the model's own
        distribution.

        Args:
          trace: The trace.
          seed: Seed of the trace; pixels are drawn with a seed derived from it.
        """
        own_seed = stateless_random.fold_in(seed, self.config.num_levels)
        return stateless_random.draw(self.p_x(trace), own_seed)

    def bound(self, trace: Trace, x: tf.Tensor) -> Bound:
        """The bound of Eq. 5 (Eq. 6 if conditional) from one trace with posteriors.

        Args:
          trace: Trace of N rows.
          x: Images `[N, H, W, C]`.
        """
        log_likelihood = self.p_x(trace).log_prob(x)
        kl = {level.name: level.kl() for level in trace.levels}
        # Levels of stages that do not take part cost nothing.
        kl = {name: kl.get(name, tf.zeros_like(log_likelihood)) for name in self.config.level_names}
        return Bound(log_likelihood - sum(kl.values()), log_likelihood, kl)

    def bound_and_trace(
        self, x: tf.Tensor, seed: tf.Tensor, stages: int | None = None
    ) -> tuple[Bound, Trace]:
        """The bound of images `[B, H, W, C]` from one draw of the latents, and its trace."""
        del stages  # There is one.
        trace = self.top_down_pass(self.encode(x), num_rows(x), seed)
        return self.bound(trace, x), trace

    def elbo(self, *inputs_and_seed: tf.Tensor) -> Bound:
        """The bound of a batch from one draw of the latents; arguments as `bound_and_trace`."""
        return self.bound_and_trace(*inputs_and_seed)[0]

    def log_weight(
        self,
        x: tf.Tensor,
        encoding: Any,
        num_samples: int | tf.Tensor,
        seed: tf.Tensor,
        num_inferred: int | None = None,
    ) -> tf.Tensor:
        """Importance log-weights log p(x, z) - log q(z | x), `[K, B]`, in nats.

        Levels below the top `num_inferred` are drawn from the prior and contribute no ratio. In a
        conditional model every density is given the known pixels.

        Args:
          x: Images `[B, H, W, C]`.
          encoding: Encoding of the images.
          num_samples: K.
          seed: Stateless seed.
          num_inferred: Number of levels drawn from the posterior, from the top; None for all.
        """
        images = num_rows(x)
        trace = self.top_down_pass(encoding, num_samples * images, seed, num_inferred=num_inferred)
        log_weight = self.p_x(trace).log_prob(tf.tile(x, [num_samples, 1, 1, 1]))
        for level in trace.levels[:num_inferred]:
            log_weight += level.log_weight()
        return tf.reshape(log_weight, [num_samples, images])

    def reconstruct(
        self,
        inputs: tuple[tf.Tensor, ...],
        num_inferred: int,
        temperatures: tf.Tensor,
        seed: tf.Tensor,
    ) -> tf.Tensor:
        """Images from the top levels of the posterior; the levels below come from the prior.

        Args:
          inputs: Images `[B, H, W, C]`, and masks if the model is conditional.
          num_inferred: Number of levels drawn from the posterior.
          temperatures: Factors on the scales of the priors, `[levels]`.
          seed: Stateless seed.
        """
        trace = self.top_down_pass(
            self.encode(*inputs),
            num_rows(inputs[0]),
            seed,
            num_inferred=num_inferred,
            temperature=tf.unstack(temperatures),
        )
        return self.images(trace, seed)

    def call(self, inputs, seed):
        trace = self.top_down_pass(self.encode(*inputs), num_rows(inputs[0]), seed)
        return self.images(trace, seed)

    # Samples, and the mixture prior.

    def sample(
        self,
        num: int,
        temperatures: tf.Tensor,
        seed: tf.Tensor,
        latents: Sequence[tf.Tensor | None] = (),
        draw: bool = False,
        component: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Images `[num, H, W, C]` from the prior or from given latents; see `MatNet.sample`."""
        temperatures = tf.unstack(temperatures)
        if component is not None:
            z_0 = self.component_latent(component, seed, temperatures[0])
            latents = (z_0, *latents[1:])
        trace = self.top_down_pass(None, num, seed, latents=latents, temperature=temperatures)
        return self.images(trace, seed, draw)

    def component_latent(
        self, component: tf.Tensor, seed: tf.Tensor, temperature: tf.Tensor
    ) -> tf.Tensor:
        """Draws z_0 `[N, top_latents]` from components `[N]` of the mixture prior.

        Args:
          component: Indices `[N]`.
          seed: Seed of the trace that goes on from z_0.
          temperature: Factor on the components' scales.
        """
        prior = tempered(self.top_down.top_prior().component(component), temperature)
        seed_0 = stateless_random.split(seed, self.config.num_levels)[0]
        return stateless_random.draw(prior, seed_0)

    def assign(self, x: tf.Tensor, num_samples: int, seed: tf.Tensor) -> tf.Tensor:
        """Mean of p(component | z_0) over draws of z_0 from the posterior, `[B, K]`."""
        top = self.encode(x).top
        if stateless_random.has_row_seeds(seed):
            posterior = self.top_down.gaussian(tf.tile(top, [num_samples, 1]))
            z_0 = stateless_random.draw(posterior, stateless_random.for_pass(seed, num_samples))
            z_0 = tf.reshape(z_0, [num_samples, num_rows(x), -1])
        else:
            z_0 = self.top_down.gaussian(top).sample(num_samples, seed=seed)
        return tf.reduce_mean(tf.exp(self.top_down.top_prior().assign(z_0)), axis=0)

    # Sizes and weights.

    @property
    def guide_variables(self) -> list[keras.Variable]:
        """Trainable weights of the inference guide, which the regularizer (Eq. 13) moves."""
        return self.guide.trainable_variables

    def stage_variables(self, stage: int) -> list[keras.Variable]:
        """Trainable weights that a step moves; `stage` 0 stands for all stages."""
        del stage  # There is one.
        return self.trainable_variables

    @property
    def latent_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shape of every latent without the batch, top first."""
        config = self.config
        scales = [scale for scale in config.scales for _ in range(scale.modules)]
        shapes = [(s.latents,) if s.dense else (*s.shape, s.latents) for s in scales]
        return ((config.top_latents,), *shapes) * max(1, config.conditional_stages)

    @property
    def samples_per_pass(self) -> int:
        """Image-samples in one pass, so few that no state takes more than 64 MB."""
        config = self.config
        sizes = [math.prod(state_shape(scale)) for scale in config.scales]
        sizes.append(math.prod(config.image_shape[:2]) * self.likelihood.filters_per_position)
        return max(1, min(_MOST_PER_PASS, _LARGEST_STATE // max(sizes)))


def num_rows(x: tf.Tensor) -> int | tf.Tensor:
    """Size of the first axis: an int where the graph knows it, else a tensor."""
    return x.shape[0] or tf.shape(x)[0]
