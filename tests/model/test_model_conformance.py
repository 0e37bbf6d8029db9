# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Properties of whole models and of the layers that hold their parts."""

import dataclasses

import keras
import numpy as np
import numpy_matnet as npm
import pytest
import tensorflow as tf

from matnet_tf.config import ModelConfig, Scale
from matnet_tf.model.conditional_hierarchy import ConditionalStage
from matnet_tf.model.hierarchy import Hierarchy
from matnet_tf.model.networks import TopDownNetwork

SHAPE = (5, 3, 2)
CONFIG = ModelConfig(SHAPE, (Scale(1, 4, 2, 1), Scale((3, 2), 3, 2, 1)), 2, 4, 3)
LOCAL = {"autoregressive": True, "autoregressive_layers": 3, "autoregressive_filters": 5}
MODELS = {
    "residual": {"update": "residual"},
    "gru": {"update": "gru"},
    "logistic": {"likelihood": "logistic"},
    "logistic mixture": {"likelihood": "logistic_mixture", "likelihood_components": 3},
    "whitened": {"likelihood": "normal", "likelihood_scale": "channel", "whitening": True},
    "local logistic": {"likelihood": "logistic", "likelihood_scale": "scalar", **LOCAL},
}
SEED = tf.constant([0, 1])
pytestmark = pytest.mark.usefixtures("eagerly")


def made(scale=0.5, **choices):
    hierarchy = Hierarchy(dataclasses.replace(CONFIG, **choices))
    hierarchy.build((None, *SHAPE))
    rng = np.random.default_rng(3)
    hierarchy.likelihood.observation.adapt([rng.random((40, *SHAPE)).astype(np.float32)])
    return npm.randomize(hierarchy, scale=scale)


def images(hierarchy):
    levels = np.random.default_rng(2).integers(0, 256, (2, *SHAPE))
    binary = hierarchy.config.likelihood == "bernoulli"
    return tf.constant(levels > 127 if binary else levels / 255, tf.float32)


@pytest.mark.parametrize("name", MODELS)
def test_the_gradient_of_the_bound_reaches_every_weight(name):
    hierarchy = made(**MODELS[name])
    with tf.GradientTape() as tape:
        bound, _ = hierarchy.bound_and_trace(images(hierarchy), SEED)
        total = tf.reduce_sum(bound.elbo)
    variables = hierarchy.trainable_variables
    for gradient, variable in zip(tape.gradient(total, variables), variables, strict=True):
        assert gradient is not None, f"no gradient reaches {variable.path}"
        assert np.isfinite(gradient).all() and np.any(gradient), variable.path


@pytest.mark.parametrize("name", sorted(MODELS.keys() - {"gru"}))
def test_a_bound_in_mixed_bfloat16_is_float32_and_near_the_exact_one(name):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        hierarchy = made(0.2, **MODELS[name])
        x = images(hierarchy)
        bound, trace = hierarchy.bound_and_trace(x, SEED)
    finally:
        keras.config.set_dtype_policy("float32")
    assert {part.dtype for part in tf.nest.flatten(bound)} == {tf.float32}
    expected = npm.Walk(hierarchy, x.numpy(), trace.z).log_likelihood
    np.testing.assert_allclose(bound.log_likelihood, expected, rtol=0.02)


def test_layers_that_only_hold_parts_come_back_from_their_config():
    config = dataclasses.replace(CONFIG, conditional_stages=1)
    for layer, shape in (
        (TopDownNetwork(config, name="top_down"), (None, 2)),
        (ConditionalStage(config, refines=True, name="stage_2"), (None, *SHAPE)),
    ):
        copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
        assert type(copy) is type(layer)
        layer.build(shape), copy.build(shape)
        assert copy.config == config and copy.get_config() == layer.get_config()
        paths = [(v.path, v.shape) for v in layer.weights]
        assert [(v.path, v.shape) for v in copy.weights] == paths
        assert len(set(paths)) == len(paths) > 9


def test_a_refining_stage_reads_the_guess_too():
    config = dataclasses.replace(CONFIG, conditional_stages=1)
    channels = {}
    for refines in (False, True):
        stage = ConditionalStage(config, refines)
        stage.build((None, *SHAPE))
        guides = stage.generator, stage.guide
        channels[refines] = [guide.bottom_up.image_in.kernel.shape[-2] for guide in guides]
    # The known pixels or the guess, and the mask; the inference guide also has the whole image.
    assert channels == {False: [3, 3], True: [3, 5]}
