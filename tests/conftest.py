# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Shared fixtures. TensorFlow is set up only if tests outside of tests/pure are collected."""

import functools
import gc
import logging
import os
import pathlib

# TensorFlow reads these when it is imported.
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1"

import pytest

from matnet_tf.config import ModelConfig, Scale

PURE = pathlib.Path(__file__).parent / "pure"


def pytest_collectstart(collector):
    if isinstance(collector, pytest.Module) and PURE not in collector.path.parents:
        gc.disable()  # Speeds up the imports, see `matnet_tf.cli.startup.importing`.
        make_two_devices()


def pytest_collection_finish():
    gc.freeze()
    gc.enable()


@functools.cache
def make_two_devices():
    """Splits the CPU into two logical devices; must run before TensorFlow's first operation."""
    import tensorflow as tf

    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )


@pytest.fixture(scope="session")
def two_devices():
    """A strategy over two logical CPU devices.

    There is only one per process: each strategy numbers its collectives from the beginning, and
    TensorFlow confuses collectives of equal number.
    """
    from matnet_tf.runs import devices

    return devices.strategy_for(2)


def without_tracing():
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture
def eagerly():
    """Runs the body of a test without tracing, where the graph is not the point."""
    yield from without_tracing()


@pytest.fixture(scope="module")
def module_eagerly():
    """Runs a whole module without tracing, including the fixtures that request this one."""
    yield from without_tracing()


@pytest.fixture
def messages():
    """What TensorFlow logs, such as its warnings of retracing."""
    import tensorflow as tf

    found, handler = [], logging.Handler()
    handler.emit = lambda record: found.append(record.getMessage())
    tf.get_logger().addHandler(handler)
    yield found
    tf.get_logger().removeHandler(handler)


@pytest.fixture
def tiny() -> ModelConfig:
    """A model with a fully connected and a convolutional scale, small enough for any test."""
    return ModelConfig(
        image_shape=(8, 8, 1),
        scales=(Scale(1, 16, 4, 1), Scale(4, 8, 2, 2)),
        top_latents=4,
        top_units=16,
        image_filters=8,
    )


@pytest.fixture
def tiny_dense() -> ModelConfig:
    """A fully connected model with two modules."""
    return ModelConfig(
        image_shape=(8, 8, 1), scales=(Scale(1, 16, 4, 2),), top_latents=4, top_units=16
    )
