# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Settings of experiments and programs: frozen dataclasses that check their values.

Nothing here imports TensorFlow, so a wrong setting is refused in a fraction of a second.
`matnet_tf.flags` gives every field a flag, and a preset in `presets/` is a file of such flags.
"""

from matnet_tf.config.data import DataConfig
from matnet_tf.config.experiment import ElboLoss, Experiment, TrainConfig
from matnet_tf.config.model import ModelConfig, Scale, halvings
from matnet_tf.config.programs import (
    ClusterConfig,
    CompressConfig,
    EvaluateConfig,
    ExploreConfig,
    ImputeConfig,
    Rectangle,
    ScoreConfig,
)

__all__ = [
    "ClusterConfig",
    "CompressConfig",
    "DataConfig",
    "ElboLoss",
    "EvaluateConfig",
    "Experiment",
    "ExploreConfig",
    "ImputeConfig",
    "ModelConfig",
    "Rectangle",
    "ScoreConfig",
    "Scale",
    "TrainConfig",
    "halvings",
]
