# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""A Keras layer that is made from a `ModelConfig`."""

from __future__ import annotations

import keras

from matnet_tf.config import ModelConfig
from matnet_tf.serialization import from_dict, to_dict

__all__ = ["Configured"]


class Configured(keras.layers.Layer):
    """A part of a model, with the `ModelConfig` that it is made from.

    Args:
      config: a `ModelConfig`, or its dictionary, as Keras gives it back when it loads a layer.
    """

    def __init__(self, config: ModelConfig | dict, **kwargs):
        super().__init__(**kwargs)
        self.config = from_dict(ModelConfig, config) if isinstance(config, dict) else config

    def get_config(self):
        return super().get_config() | {"config": to_dict(self.config)}
