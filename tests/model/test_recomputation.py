# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Steps whose gradients recompute activations are those of steps that keep them."""

import dataclasses
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from matnet_tf.config import ModelConfig, Scale
from matnet_tf.layers.calls import recomputing
from matnet_tf.model.conditional import ConditionalMatNet
from matnet_tf.model.gradients import accumulated_gradients
from matnet_tf.model.matnet import MatNet
from matnet_tf.tracing import tf_function

CONV = ModelConfig(
    (4, 4, 1),
    (Scale(1, 5, 2, 1), Scale(2, 4, 2, 2)),
    top_latents=2,
    top_units=4,
    image_filters=3,
    activation="tanh",
)
DENSE = ModelConfig((4, 4, 1), (Scale(1, 5, 2, 2),), 2, 4, update="gru", activation="tanh")
CONFIGS = {
    "residual": CONV,
    "gru, normalized": dataclasses.replace(CONV, update="gru", normalization="layer"),
    "bottleneck, shared": dataclasses.replace(CONV, update="bottleneck", shared=True),
    "ladder": dataclasses.replace(CONV, merge_state=False, deterministic_paths=False),
    "conditional": dataclasses.replace(CONV, conditional_stages=1),
}
X = np.random.default_rng(0).integers(0, 2, (6, 4, 4, 1)).astype(np.float32)


def stepped(config, recompute, strategy=None, **settings):
    """The weights after two steps, whose noise is that of the model's seed."""
    kind = ConditionalMatNet if config.conditional_stages else MatNet
    with (strategy or tf.distribute.get_strategy()).scope():
        model = kind(config, seed=1)
        model.compile(keras.optimizers.SGD(0.1), recompute=recompute, **settings)
    data = {"image": X, "mask": X[::-1].copy()} if config.conditional_stages else X
    model.fit(data, batch_size=6, epochs=2, shuffle=False, verbose=0)
    return [variable.numpy() for variable in model.trainable_variables]


def assert_equal_steps(config, recompute=("all",), **settings):
    kept, recomputed = (stepped(config, scales, **settings) for scales in ((), recompute))
    for a, b in zip(kept, recomputed, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_recomputed_steps_are_those_that_keep_everything(name):
    assert_equal_steps(CONFIGS[name], run_eagerly=True)


@pytest.mark.slow
def test_so_they_are_in_graphs_in_parts_and_on_two_devices(two_devices):
    assert_equal_steps(CONV, ("2x2",))
    assert_equal_steps(DENSE, micro_batches=2, strategy=two_devices)


@pytest.mark.slow
def test_xla_computes_the_same_gradients_and_does_not_undo_it():
    model, seed = MatNet(DENSE), tf.constant([0, 3])

    def losses(inputs, seed):
        return model.loss_per_image(*model.hierarchy.bound_and_trace(*inputs, seed))

    def compiled(*scales):
        def gradients(x):
            with recomputing(scales):
                return accumulated_gradients(losses, (x,), seed, model.trainable_variables, 1)

        function = tf_function(gradients, jit_compile=True)
        hlo = function.experimental_get_compiler_ir(tf.constant(X))(stage="optimized_hlo")
        return function(X), len(re.findall(r" tanh\(", hlo))

    (kept, activations), (recomputed, more) = compiled(), compiled("fc")
    assert activations < more
    for a, b in zip(kept, recomputed, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_scale_that_the_model_lacks_is_refused():
    expected = r"ElboLoss.recompute must name scales of the model, of fc, 2x2, all; got 7x7"
    with pytest.raises(ValueError, match=expected):
        MatNet(CONV).compile(recompute=["7x7"])
