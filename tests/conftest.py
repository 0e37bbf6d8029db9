# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""What every test shares: a quiet TensorFlow with two logical CPU devices, and tiny models."""

import functools
import gc
import os

# TensorFlow reads these when it is imported.
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1"

import pytest

from matnet_tf.config import ModelConfig, Stage


def pytest_collectstart():
    """Only who collects tests needs TensorFlow: the process that hands them out does not."""
    gc.disable()  # While it is imported: see `flags.importing`.
    _make_two_devices()


def pytest_collection_finish():
    gc.freeze()
    gc.enable()


@functools.cache
def _make_two_devices():
    """Two stand-ins for two accelerators; must happen before the first operation runs."""
    import tensorflow as tf

    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )


@functools.cache
def _two_devices():
    from matnet_tf import devices

    return devices.strategy_for(2)


@pytest.fixture
def two_devices():
    """One strategy for the whole process: TensorFlow numbers the collectives of each anew, and
    takes those of equal number for the same."""
    return _two_devices()


def _without_tracing():
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture
def eagerly():
    """No tracing, where the graph is not the point."""
    yield from _without_tracing()


@pytest.fixture(scope="module")
def module_eagerly():
    """No tracing in the whole module, and in those of its fixtures that ask for it."""
    yield from _without_tracing()


@pytest.fixture(scope="module")
def reused_models():
    """One model for all work directories of equal settings, so that its graphs are traced once.

    It is as good as new whenever it is built: all its variables have their first values again.
    """
    from matnet_tf import experiment

    build, made = experiment.build_model, {}

    def rebuild(settings):
        key = settings.model, settings.train, settings.seed
        if key not in made:
            model = build(settings)
            state = [*model.weights, *model.optimizer.variables, *model.bound_metric.variables]
            made[key] = model, [(variable, variable.numpy()) for variable in state]
        model, first = made[key]
        for variable, value in first:
            variable.assign(value)
        return model

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "build_model", rebuild)
        yield


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
