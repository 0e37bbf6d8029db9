# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The networks as a coder needs them: the same numbers, to the last bit, in both directions.

Batches have one shape, which is filled with empty images if necessary, and both directions call the
same three graphs. A decoder does not know the image on its way down, so it goes down with an empty
encoding, or that of the known pixels: the priors do not depend on the others. The local model
computes each value's parameters from the values before it in both directions, as sampling does,
though an encoder knows them all.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from matnet_tf.distributions.mixture import GaussianMixture
from matnet_tf.distributions.stateless_random import seed_tensor
from matnet_tf.model.conditional_hierarchy import ConditionalEncoding
from matnet_tf.model.hierarchy import Hierarchy
from matnet_tf.model.networks import Encoding
from matnet_tf.tracing import tf_function

__all__ = ["REACH", "Gaussians", "Mixture", "Networks"]

# Prior deviations to both sides of the mean; 1e-23 of the mass lies beyond. The coder gives every
# number within reach at least 2^-24, so a long reach would draw latents where there are none.
REACH = 10


class Gaussians(NamedTuple):
    """Prior and posterior of one level, float32 [B, latents] each.

    A mixture prior has a Gaussian around all its components here, on which the grid rests.
    """

    prior_loc: np.ndarray
    prior_scale: np.ndarray
    posterior_loc: np.ndarray
    posterior_scale: np.ndarray


class Mixture(NamedTuple):
    """The mixture prior of z_0 with K components, float64."""

    log_weights: np.ndarray  # [K]
    loc: np.ndarray  # [K, units]
    scale: np.ndarray  # [K, units]


class Networks:
    """Runs a hierarchy's networks in batches of one shape; several threads may at once.

    Args:
      hierarchy: The hierarchy.
      batch_size: B.

    Attributes:
      mixture: The mixture prior of z_0, or None.
    """

    def __init__(self, hierarchy: Hierarchy, batch_size: int):
        self.hierarchy = hierarchy
        self.batch_size = batch_size
        self.mixture = None
        if hierarchy.config.mixture_components:
            prior = hierarchy.top_down.top_prior()
            parts = (prior.logits, prior.loc, prior.scale)
            parts = [part.numpy().astype(np.float64) for part in parts]
            # The coder needs a choice: a single component counts as two equal ones.
            self.mixture = Mixture(*(np.repeat(p, 2, axis=0) if len(p) == 1 else p for p in parts))
        self.conditional = hierarchy.config.conditional_stages > 0
        *area, channels = hierarchy.config.image_shape
        sizes = (channels, 1) if self.conditional else (channels,)
        inputs = [tf.TensorSpec((batch_size, *area, size), tf.float32) for size in sizes]
        self._encode = tf_function(hierarchy.encode).get_concrete_function(*inputs)
        encoding, run = _specs(self._encode.structured_outputs), tf.TensorSpec((), tf.int64)
        self._descend = tf_function(self._context).get_concrete_function(encoding, run)
        context = _specs(self._descend.structured_outputs)
        self._values = tf_function(self._images).get_concrete_function(context, run)
        self._nothing = tf.nest.map_structure(lambda t: tf.zeros(t.shape, t.dtype), encoding)
        self._runs, self._numbers = {}, itertools.count()

    def encode(self, x: np.ndarray, hidden: np.ndarray) -> Encoding | ConditionalEncoding:
        """The guides' encoding of images.

        Args:
          x: Images [B, H, W, C], float32 in [0, 1].
          hidden: Which pixels a conditional model does not know, bool [B, H, W].
        """
        mask = [tf.constant(~hidden[..., np.newaxis], tf.float32)] if self.conditional else []
        return self._encode(tf.constant(x, tf.float32), *mask)

    def encode_known(self, x: np.ndarray, hidden: np.ndarray) -> Encoding | ConditionalEncoding:
        """An encoding whose priors are those of `encode`, from known pixels alone.

        Args:
          x: Images [B, H, W, C], 0 where a pixel is hidden.
          hidden: As for `encode`.
        """
        return self.encode(x, hidden) if self.conditional else self._nothing

    def descend(
        self,
        encoding: Encoding | ConditionalEncoding,
        visit: Callable[[int, Gaussians], np.ndarray],
    ) -> tf.Tensor:
        """Walks down the top-down network.

        Args:
          encoding: Of `encode` or `encode_known`.
          visit: Called at each level, top first, with its index and Gaussians; returns the latents,
            float32 [B, latents].

        Returns:
          The result of the likelihood's `call`, with the share of the known pixels.
        """
        return self._run(self._descend, encoding, visit)

    def values(
        self, context: tf.Tensor, choose: Callable[[list[np.ndarray]], np.ndarray]
    ) -> np.ndarray:
        """Goes through the values of images in the order of the likelihood's `places`.

        Args:
          context: The result of `descend`.
          choose: Called for each place with what the observation model's `call` returns for it,
            [B, h, w, ...] each; returns the values there, float32 [B, h, w, C] in [0, 1]. The
            parameters of later places depend on them in the local model.

        Returns:
          The images [B, H, W, C].
        """
        return self._run(self._values, context, lambda *parameters: choose(list(parameters)))

    def _run(self, graph, inputs, answer):
        """Runs a graph, which is given its own number to find who answers its questions."""
        number, answers = next(self._numbers), _Answers(answer)
        self._runs[number] = answers
        try:
            result = graph(inputs, tf.constant(number, tf.int64))
        finally:
            del self._runs[number]
        if answers.error is not None:
            raise answers.error
        return result

    def _context(self, encoding, run):
        choose = functools.partial(self._latents, run)
        trace = self.hierarchy.top_down_pass(
            encoding, self.batch_size, seed_tensor(0), choose=choose
        )
        likelihood = self.hierarchy.likelihood
        return likelihood.add_observed(likelihood(trace.h_td), trace.observed)

    def _latents(self, run, index, prior, posterior):
        shape = (self.batch_size, *self.hierarchy.latent_shapes[index])
        numbers = [
            tf.reshape(tf.broadcast_to(number, shape), [self.batch_size, -1])
            for gaussian in (_gaussian(prior), _gaussian(posterior))
            for number in gaussian
        ]
        return self._asked(run, shape, lambda *values: (index, Gaussians(*values)), numbers)

    def _images(self, context, run):
        likelihood, channels = self.hierarchy.likelihood, self.hierarchy.config.image_shape[-1]

        def choose(y, x, parameters):
            shape = (self.batch_size, *parameters.shape[1:3], channels)
            parts = tf.nest.flatten(likelihood.observation(parameters))
            return self._asked(run, shape, lambda *values: values, parts)

        return likelihood.values_in_order(context, choose)

    def _asked(self, run, shape, question, tensors):
        """The answer to a question, in the graph."""

        def ask(number, *values):
            answer = self._runs[int(number)](*question(*values))
            return np.zeros(shape, np.float32) if answer is None else answer

        return tf.reshape(tf.numpy_function(ask, [run, *tensors], tf.float32), shape)

    def fingerprint(self) -> str:
        """Digests what the networks compute for a probe: 16 hexadecimal digits.

        Another machine, version or number of threads that computes something else has another
        fingerprint.
        """
        digest = hashlib.sha256()
        shape = (self.batch_size, *self.hierarchy.config.image_shape)
        # NumPy promises that RandomState gives the same numbers in every later version.
        random = np.random.RandomState(0)
        x = random.randint(0, 2, shape).astype(np.float32)
        hidden = random.randint(0, 2, shape[:3]) > 0

        def visit(index, gaussians):
            del index
            for numbers in gaussians:
                digest.update(np.ascontiguousarray(numbers))
            return gaussians.posterior_loc

        def choose(parameters):
            for part in parameters:
                digest.update(np.ascontiguousarray(part))
            rows, columns, _ = next(places)
            return x[:, rows, columns]

        places = self.hierarchy.likelihood.places()
        self.values(self.descend(self.encode(x, hidden), visit), choose)
        return digest.hexdigest()[:16]


class _Answers:
    """Answers the questions of one run of a graph; an error waits for the end of the run."""

    def __init__(self, answer):
        self._answer = answer
        self.error: Exception | None = None

    def __call__(self, *question):
        """The answer; None after an error."""
        if self.error is None:
            try:
                return self._answer(*question)
            except Exception as error:
                self.error = error
        return None


def _gaussian(distribution) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean and deviation; those of a Gaussian around all components, if it is a mixture."""
    if not isinstance(distribution, GaussianMixture):
        return distribution.distribution.loc, distribution.distribution.scale
    least, most = (f(distribution.loc, axis=0) for f in (tf.reduce_min, tf.reduce_max))
    # All components then lie within half of what a grid reaches, see `latents`.
    scale = (most - least) / REACH + tf.reduce_max(distribution.scale, axis=0)
    return (least + most) / 2, scale


def _specs(tensors):
    return tf.nest.map_structure(lambda t: tf.TensorSpec(t.shape, t.dtype), tensors)
