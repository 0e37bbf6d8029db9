# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Graphs are traced once per combination of ranks, and without files in the temporary folder."""

import functools
import tempfile

import numpy as np
import pytest
import tensorflow as tf

from matnet_tf.config import ModelConfig, Scale
from matnet_tf.layers.updates import ResidualUpdate
from matnet_tf.model.matnet import MatNet
from matnet_tf.tracing import FunctionCache, tf_function, traced_once, without_autograph


class Layer:
    """Counts the traces of a method."""

    def __init__(self):
        self.traces = 0

    def double(self, x):
        self.traces += 1
        return 2 * x


def test_functions_are_traced_once_for_every_combination_of_ranks():
    cache, layer, other = FunctionCache(), Layer(), Layer()
    vector, matrix = tf.ones([2]), tf.ones([2, 2])
    for x in (vector, matrix, vector, matrix):
        np.testing.assert_array_equal(cache.get(layer.double)(x), 2 * x)
    assert (layer.traces, other.traces) == (2, 0)
    cache.get(other.double)(vector)
    assert (layer.traces, other.traces) == (2, 1)
    for compiled in (False, True):
        inside = cache.get(layer.double, tf.distribute.get_strategy(), compiled)
        np.testing.assert_array_equal(inside(vector), [2, 2])


def test_calls_with_other_values_or_latents_do_not_warn_of_retracing(messages):
    cache, vector = FunctionCache(), tf.ones([2])

    def scaled(x, factor, latents):
        return factor * x if latents[0] is None else latents[0]

    for factor in range(8):
        for latents in ((None, None), (vector, None), (None, vector)):
            cache.get(scaled)(vector, factor, latents)
    assert not messages


def test_a_function_is_traced_once_for_every_shape_in_graphs_and_without_a_warning(messages):
    layer = Layer()
    double, tensors = traced_once(layer.double), [tf.ones([n]) for n in range(1, 8)] * 2
    for x, y in zip(tensors, tf_function(lambda: [*map(double, tensors)])(), strict=True):
        np.testing.assert_array_equal(y, 2 * x)
    assert layer.traces == 7
    np.testing.assert_array_equal(double(tensors[0]), [2])
    assert layer.traces == 8 and not messages


@pytest.mark.slow
def test_modules_that_are_alike_are_traced_once_each_with_its_own_weights(monkeypatch):
    called, call = [], ResidualUpdate.call

    @functools.wraps(call)
    def counted(self, *arguments, **keywords):
        called.append(self)
        return call(self, *arguments, **keywords)

    monkeypatch.setattr(ResidualUpdate, "call", counted)
    model = MatNet(ModelConfig((2, 2, 1), (Scale(1, 3, 1, 3),), 2, 4))
    x, seed = tf.constant([[[[0.0], [1.0]], [[1.0], [1.0]]]]), tf.constant([0, 1])

    def gradients():
        with tf.GradientTape() as tape:
            elbo = tf.reduce_sum(model.hierarchy.elbo(x, seed).elbo)
        return tape.gradient(elbo, model.trainable_variables)

    one_by_one, updates = gradients(), len(called)
    for a, b in zip(tf_function(gradients)(), one_by_one, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    # Three modules, each of a bottom-up, a merge and a top-down update.
    assert (updates, len(called)) == (9, 9 + 3)
    # XLA would compile again in every step, see `traced_once`.
    tf_function(gradients, jit_compile=True).get_concrete_function()
    assert len(called) == 9 + 3 + 9


@pytest.mark.slow
def test_several_models_in_one_process_do_not_warn_of_retracing(messages):
    x = np.zeros((4, 2, 2, 1), np.float32)

    class Idle(MatNet):  # Its steps cost no time to trace.
        def train_step(self, data):
            self.step.assign_add(1)
            return self.get_metrics_result()

        def test_step(self, data):
            return self.get_metrics_result()

        def predict_step(self, data):
            return self.input_form.unpack(data)[0]

    for seed in range(6):
        model = Idle(ModelConfig((2, 2, 1), (Scale(1, 2, 1, 1),), 1, 2), seed=seed)
        model.compile(optimizer="adam")
        model.fit(x, batch_size=2, verbose=0)
        model.train_on_batch(x)
        model.test_on_batch(x)
        np.testing.assert_array_equal(model.predict(x, batch_size=2, verbose=0), x)
    assert not messages


@pytest.mark.slow
def test_training_and_bounds_need_no_temporary_files(monkeypatch, tiny_dense):
    written, make = [], tempfile.NamedTemporaryFile

    def record(*arguments, **keywords):
        written.append(keywords)
        return make(*arguments, **keywords)

    model = MatNet(tiny_dense)
    x = np.zeros((4, *tiny_dense.image_shape), np.float32)

    @without_autograph
    def work():
        model.compile(optimizer="adam")
        model.fit(tf.data.Dataset.from_tensors(x).map(lambda x: x).repeat(2), verbose=0)
        return model.elbo(x).elbo

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", record)  # AutoGraph writes code to it.
    assert np.isfinite(work()).all() and not written
