# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""What an experiment is: frozen dataclasses with every check.

Nothing here imports TensorFlow, so a wrong setting is refused in a fraction of a second. The
dataclasses are the truth; `matnet_tf.flags` gives each field a flag, and a preset in `configs/`
is a file of such flags.
"""

from matnet_tf.config.clusters import ClusterConfig
from matnet_tf.config.imputations import ImputeConfig, Rectangle
from matnet_tf.config.model import ModelConfig, Stage, halvings
from matnet_tf.config.run import DataConfig, EvaluateConfig, Experiment, ScoreConfig, TrainConfig

__all__ = [
    "ClusterConfig",
    "DataConfig",
    "EvaluateConfig",
    "Experiment",
    "ImputeConfig",
    "ModelConfig",
    "Rectangle",
    "ScoreConfig",
    "Stage",
    "TrainConfig",
    "halvings",
]
