# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The fused Adam against a NumPy one and against Keras's."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from matnet_tf.config import ModelConfig, Scale
from matnet_tf.model.matnet import MatNet
from matnet_tf.runs.averages import WeightAverages
from matnet_tf.runs.optimizer import Adam

SHAPES = [(3, 2), (4,)]


def gradients(steps):
    rng = np.random.default_rng(0)
    return [[rng.normal(size=s).astype(np.float32) for s in SHAPES] for _ in range(steps)]


def variables():
    rng = np.random.default_rng(1)
    return [keras.Variable(rng.normal(size=s).astype(np.float32), name=f"v{s}") for s in SHAPES]


def test_weight_decay_is_adamw_s_and_a_skipped_step_does_not_decay():
    ours, theirs = variables(), variables()
    optimizer, keras_optimizer = (
        Adam(0.01, weight_decay=0.5),
        keras.optimizers.AdamW(0.01, weight_decay=0.5),
    )
    optimizer.build(ours)
    for gradient in gradients(4):
        optimizer.apply_if(tf.constant(False), gradient, ours)
        optimizer.apply_if(tf.constant(True), gradient, ours)
        keras_optimizer.apply(gradient, theirs)
    assert_close(ours, [v.numpy() for v in theirs])


class NumpyAdam:
    """Kingma and Ba's Algorithm 1, epsilon outside the root of the uncorrected moment."""

    def __init__(self, values, rate, beta_1, beta_2, epsilon):
        self.values = [np.array(v, np.float64) for v in values]
        self.means = [np.zeros_like(v) for v in self.values]
        self.squares = [np.zeros_like(v) for v in self.values]
        self.rate, self.beta_1, self.beta_2, self.epsilon = rate, beta_1, beta_2, epsilon
        self.step = 0

    def apply(self, gradients):
        self.step += 1
        correction = np.sqrt(1 - self.beta_2**self.step) / (1 - self.beta_1**self.step)
        for i, g in enumerate(gradients):
            self.means[i] = self.beta_1 * self.means[i] + (1 - self.beta_1) * g
            self.squares[i] = self.beta_2 * self.squares[i] + (1 - self.beta_2) * g**2
            move = self.means[i] / (np.sqrt(self.squares[i]) + self.epsilon)
            self.values[i] -= self.rate * correction * move


def assert_close(ours, expected):
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_allclose(np.asarray(a), b, rtol=2e-5, atol=1e-6)


def test_steps_follow_kingma_and_ba_and_beta_1_may_change_between_them():
    ours, settings = variables(), {"beta_1": 0.8, "beta_2": 0.98, "epsilon": 1e-4}
    optimizer = Adam(0.01, **settings)
    theirs = NumpyAdam([v.numpy() for v in ours], 0.01, **settings)
    for step, gradient in enumerate(gradients(6)):
        if step == 3:
            optimizer.current_beta_1.assign(0.95)
            theirs.beta_1 = 0.95
        optimizer.apply([tf.constant(g) for g in gradient], ours)
        theirs.apply(gradient)
        assert_close(ours, theirs.values)
    assert_close(optimizer.moments[0], theirs.means)
    assert_close(optimizer.moments[1], theirs.squares)
    assert int(optimizer.iterations.numpy()) == 6


def five_steps(optimizer, in_graph):
    """The weights after five steps."""
    weights = variables()
    optimizer.build(weights)

    def step(*gradient):
        optimizer.apply(list(gradient), weights)

    step = tf.function(step) if in_graph else step
    for gradient in gradients(5):
        step(*map(tf.constant, gradient))
    return [v.numpy() for v in weights]


@pytest.mark.parametrize("in_graph", [False, True])
def test_weights_are_those_of_keras_adam(in_graph):
    ours, theirs = Adam(0.003), keras.optimizers.Adam(0.003)
    assert_close(five_steps(ours, in_graph), five_steps(theirs, in_graph))
    # A checkpoint holds these.
    paths = " ".join(v.path for v in ours.variables)
    assert all(paths.count(part) == 2 for part in ("momentum", "velocity"))


def test_averages_follow_the_weights_and_forget_the_first_ones():
    model = MatNet(ModelConfig((2, 2, 1), (Scale(1, 3, 1, 1),), 1, 2))
    first, averages = model.trainable_variables[0], WeightAverages(model, 0.9)
    expected, weight = first.numpy(), first.numpy()
    for step, steps in ((1, 1), (3, 2), (200, 1)):
        weight = weight + step
        first.assign(weight)
        averages.update(step, steps)
        keep = min(0.9, step / (9 + step)) ** steps
        expected = keep * expected + (1 - keep) * weight
        np.testing.assert_allclose(averages.variables[first.path], expected, rtol=1e-5)
    with averages.in_place():
        np.testing.assert_allclose(first.numpy(), expected, rtol=1e-5)
    np.testing.assert_array_equal(first.numpy(), weight)
    assert not WeightAverages(model, 0.0)


def test_a_config_makes_the_same_optimizer():
    optimizer = Adam(0.02, 0.8, 0.98, 1e-4, name="mine")
    optimizer.build(variables())
    optimizer.current_beta_1.assign(0.9)
    copy = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert isinstance(copy, Adam)
    assert copy.get_config() == optimizer.get_config()
    assert copy.beta_1 == 0.8
