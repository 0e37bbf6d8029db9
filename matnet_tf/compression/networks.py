# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The networks as a coder needs them: the same numbers, to the last bit, in both directions.

Batches have one shape, which is filled with empty images if necessary, and both directions call the
same two graphs. A decoder does not know the image on its way down, so it goes down with an empty
encoding: the priors do not depend on it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from matnet_tf.distributions.stateless_random import seed_tensor
from matnet_tf.model.hierarchy import Hierarchy
from matnet_tf.model.networks import Encoding
from matnet_tf.tracing import tf_function

__all__ = ["Gaussians", "Networks"]


class Gaussians(NamedTuple):
    """Prior and posterior of one level, float32 [B, latents] each."""

    prior_loc: np.ndarray
    prior_scale: np.ndarray
    posterior_loc: np.ndarray
    posterior_scale: np.ndarray


class Networks:
    """Runs a hierarchy's networks in batches of one shape.

    Args:
      hierarchy: An unconditional hierarchy with Gaussian priors.
      batch_size: B.
    """

    def __init__(self, hierarchy: Hierarchy, batch_size: int):
        self.hierarchy = hierarchy
        self.batch_size = batch_size
        shape = (batch_size, *hierarchy.config.image_shape)
        x = tf.TensorSpec(shape, tf.float32)
        self._encode = tf_function(hierarchy.encode).get_concrete_function(x)
        encoding = tf.nest.map_structure(
            lambda t: tf.TensorSpec(t.shape, t.dtype), self._encode.structured_outputs
        )
        self._descend = tf_function(self._graph).get_concrete_function(encoding)
        self.nothing = tf.nest.map_structure(lambda t: tf.zeros(t.shape, t.dtype), encoding)
        self._visit: Callable[[int, Gaussians], np.ndarray] | None = None
        self._error: Exception | None = None

    def encode(self, x: np.ndarray) -> Encoding:
        """The guide's encoding of images `[B, H, W, C]`, float32 in [0, 1]."""
        return self._encode(tf.constant(x, tf.float32))

    def descend(
        self, encoding: Encoding, visit: Callable[[int, Gaussians], np.ndarray]
    ) -> list[np.ndarray]:
        """Walks down the top-down network and returns the parameters of p(x | z).

        Args:
          encoding: Encoding of B images, or `nothing`.
          visit: Called at each level, top first, with its index and Gaussians; returns the latents,
            float32 [B, latents].

        Returns:
          What the observation model's `call` returns, [B, ...] each.
        """
        self._visit, self._error = visit, None
        parameters = [part.numpy() for part in tf.nest.flatten(self._descend(encoding))]
        if self._error is not None:
            raise self._error
        return parameters

    def _graph(self, encoding):
        trace = self.hierarchy.top_down_pass(
            encoding, self.batch_size, seed_tensor(0), choose=self._choose
        )
        likelihood = self.hierarchy.likelihood
        return likelihood.observation(likelihood(trace.h_td))

    def _choose(self, index, prior, posterior):
        shape = (self.batch_size, *self.hierarchy.latent_shapes[index])
        numbers = [
            tf.reshape(tf.broadcast_to(number, shape), [self.batch_size, -1])
            for gaussian in (prior.distribution, posterior.distribution)
            for number in (gaussian.loc, gaussian.scale)
        ]
        z = tf.numpy_function(
            lambda *values: self._visited(index, Gaussians(*values)), numbers, tf.float32
        )
        return tf.reshape(z, shape)

    def _visited(self, index, gaussians):
        """What `visit` returns; its error waits for the end of the graph, and stays itself."""
        if self._error is None:
            try:
                return self._visit(index, gaussians)
            except Exception as error:
                self._error = error
        return np.zeros_like(gaussians.prior_loc)

    def fingerprint(self) -> str:
        """Digests what the networks compute for a probe: 16 hexadecimal digits.

        Another machine, version or number of threads that computes something else has another
        fingerprint.
        """
        digest = hashlib.sha256()
        shape = (self.batch_size, *self.hierarchy.config.image_shape)
        # NumPy promises that RandomState gives the same numbers in every later version.
        x = np.random.RandomState(0).randint(0, 2, shape).astype(np.float32)

        def visit(index, gaussians):
            del index
            for numbers in gaussians:
                digest.update(np.ascontiguousarray(numbers))
            return gaussians.posterior_loc

        for part in self.descend(self.encode(x), visit):
            digest.update(np.ascontiguousarray(part))
        return digest.hexdigest()[:16]
