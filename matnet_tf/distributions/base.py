# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The base class of this package's distributions."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tensorflow_probability as tfp

from matnet_tf.distributions import stateless_random

__all__ = ["RowSeededDistribution"]

tfd = tfp.distributions


class RowSeededDistribution(tfd.Distribution):
    """A float32 distribution that can also draw each row of a batch from that row's own seed.

    Subclasses implement `draw_rows(seed)`, which `stateless_random.draw_rows` calls. No gradient
    passes through samples.

    Args:
      parameters: The constructor's arguments by name, which TFP stores.
      name: Name of the distribution.
    """

    def __init__(self, parameters: dict[str, Any], name: str):
        super().__init__(
            dtype=tf.float32,
            reparameterization_type=tfd.NOT_REPARAMETERIZED,
            validate_args=False,
            allow_nan_stats=True,
            parameters=parameters,
            name=name,
        )


@stateless_random.draw_rows.register
def _(distribution: RowSeededDistribution, seed: tf.Tensor) -> tf.Tensor:
    return distribution.draw_rows(seed)
