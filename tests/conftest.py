# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""What every test shares: a quiet TensorFlow with two logical CPU devices, and tiny models."""

import functools
import os

# TensorFlow reads these when it is imported.
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1"

import pytest
import tensorflow as tf

from matnet_tf.config import ModelConfig, Stage

# Two stand-ins for two accelerators; must happen before the first operation runs.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)


@functools.cache
def _two_devices() -> tf.distribute.MirroredStrategy:
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


@pytest.fixture
def two_devices() -> tf.distribute.MirroredStrategy:
    """One strategy for the whole process: TensorFlow numbers the collectives of each anew, and
    takes those of equal number for the same."""
    return _two_devices()


@pytest.fixture
def tiny() -> ModelConfig:
    """A model with a fully connected and a convolutional stage, small enough for any test."""
    return ModelConfig(
        image_shape=(8, 8, 1),
        stages=(Stage(1, 16, 4, 1), Stage(4, 8, 2, 2)),
        top_latents=4,
        top_units=16,
        image_filters=8,
    )


@pytest.fixture
def tiny_dense() -> ModelConfig:
    """A fully connected model with two modules."""
    return ModelConfig(
        image_shape=(8, 8, 1), stages=(Stage(1, 16, 4, 2),), top_latents=4, top_units=16
    )
