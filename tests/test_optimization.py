# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Our Adam against a NumPy one, and against Keras's where both can do the same."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from matnet_tf.optimization import Adam

SHAPES = [(3, 2), (4,)]


def gradients(steps):
    rng = np.random.default_rng(0)
    return [[rng.normal(size=s).astype(np.float32) for s in SHAPES] for _ in range(steps)]


def variables():
    rng = np.random.default_rng(1)
    return [keras.Variable(rng.normal(size=s).astype(np.float32), name=f"v{s}") for s in SHAPES]


class NumpyAdam:
    """Kingma and Ba's Algorithm 1, epsilon outside the root of the uncorrected moment."""

    def __init__(self, values, rate, beta_1=0.9, beta_2=0.999, epsilon=1e-7, decay=0.0):
        self.values = [np.array(v, np.float64) for v in values]
        self.means = [np.zeros_like(v) for v in self.values]
        self.squares = [np.zeros_like(v) for v in self.values]
        self.rate, self.beta_1, self.beta_2 = rate, beta_1, beta_2
        self.epsilon, self.decay, self.step = epsilon, decay, 0

    def apply(self, gradients):
        self.step += 1
        correction = np.sqrt(1 - self.beta_2**self.step) / (1 - self.beta_1**self.step)
        for i, g in enumerate(gradients):
            self.means[i] = self.beta_1 * self.means[i] + (1 - self.beta_1) * g
            self.squares[i] = self.beta_2 * self.squares[i] + (1 - self.beta_2) * g**2
            if self.values[i].ndim > 1:
                self.values[i] *= 1 - self.rate * self.decay
            move = self.means[i] / (np.sqrt(self.squares[i]) + self.epsilon)
            self.values[i] -= self.rate * correction * move


def close(ours, expected):
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_allclose(a.numpy(), b, rtol=2e-5, atol=1e-6)


def test_steps_are_adams_with_decoupled_decay_of_matrices():
    ours = variables()
    settings = {"beta_1": 0.8, "beta_2": 0.98, "epsilon": 1e-4}
    optimizer = Adam(0.01, weight_decay=0.5, **settings)
    theirs = NumpyAdam([v.numpy() for v in ours], 0.01, decay=0.5, **settings)
    for gradient in gradients(6):
        optimizer.apply([tf.constant(g) for g in gradient], ours)
        theirs.apply(gradient)
        close(ours, theirs.values)
    close(optimizer.means, theirs.means)
    close(optimizer.squares, theirs.squares)
    assert int(optimizer.iterations.numpy()) == 6


def test_without_extras_it_is_keras_adam():
    ours, theirs = variables(), variables()
    mine, keras_adam = Adam(0.003), keras.optimizers.Adam(0.003)
    for gradient in gradients(5):
        mine.apply([tf.constant(g) for g in gradient], ours)
        keras_adam.apply([tf.constant(g) for g in gradient], theirs)
    close(ours, [v.numpy() for v in theirs])


def test_beta_1_may_move_between_steps():
    ours = variables()
    optimizer, theirs = Adam(0.01, beta_1=0.8), NumpyAdam([v.numpy() for v in ours], 0.01, 0.8)
    for step, gradient in enumerate(gradients(6)):
        if step == 3:
            optimizer.beta_1.assign(0.95)
            theirs.beta_1 = 0.95
        optimizer.apply([tf.constant(g) for g in gradient], ours)
        theirs.apply(gradient)
    close(ours, theirs.values)


def test_averages_follow_the_weights_and_forget_the_first_ones():
    ours = variables()
    optimizer = Adam(0.1, average_decay=0.9)
    optimizer.build(ours)
    close(optimizer.averages, [v.numpy() for v in ours])
    expected = [v.numpy().astype(np.float64) for v in ours]
    for step, gradient in enumerate(gradients(100)):
        optimizer.apply([tf.constant(g) for g in gradient], ours)
        optimizer.update_averages(ours, 1)
        keep = min(0.9, (step + 1) / (10 + step))
        expected = [keep * e + (1 - keep) * v.numpy() for e, v in zip(expected, ours, strict=True)]
    close(optimizer.averages, expected)


def test_averages_taken_every_few_steps_keep_as_much_of_the_past():
    ours = variables()
    optimizer = Adam(0.0, average_decay=0.5)
    optimizer.build(ours)
    optimizer.iterations.assign(1000)
    start = [v.numpy() for v in ours]
    for v in ours:
        v.assign(v.value + 1)
    optimizer.update_averages(ours, 3)
    close(optimizer.averages, [v + 1 - 0.5**3 for v in start])


def test_no_average_is_kept_unless_asked():
    optimizer, ours = Adam(), variables()
    optimizer.build(ours)
    assert optimizer.averages == []
    optimizer.update_averages(ours, 1)


@pytest.mark.parametrize("wrapped", [lambda f: f, tf.function], ids=["eager", "graph"])
def test_a_step_that_is_not_kept_changes_no_weight_or_moment_bit_for_bit(wrapped):
    ours = variables()
    optimizer = Adam(0.01, weight_decay=0.1)
    optimizer.build(ours)
    step = wrapped(
        lambda keep, *g: optimizer.apply_if(keep, [tf.convert_to_tensor(x) for x in g], ours)
    )
    first, second, third = gradients(3)
    step(tf.constant(True), *map(tf.constant, first))
    watched = [*ours, *optimizer.means, *optimizer.squares]
    before = [v.numpy() for v in watched]
    step(tf.constant(False), *map(tf.constant, second))
    for a, b in zip(watched, before, strict=True):
        np.testing.assert_array_equal(a.numpy(), b)
    step(tf.constant(True), *map(tf.constant, third))
    assert not np.array_equal(ours[0].numpy(), before[0])


def test_a_config_makes_the_same_optimizer():
    optimizer = Adam(0.02, 0.8, 0.98, 1e-4, 0.1, 0.99, name="mine")
    config = optimizer.get_config()
    copy = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert isinstance(copy, Adam)
    assert copy.get_config() == config
    ours, theirs = variables(), variables()
    for gradient in gradients(2):
        optimizer.apply([tf.constant(g) for g in gradient], ours)
        copy.apply([tf.constant(g) for g in gradient], theirs)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
