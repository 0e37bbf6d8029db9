# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Properties of every layer, in one table."""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import numpy_matnet as npm
import pytest
import tensorflow as tf

from matnet_tf.config import ModelConfig, Scale
from matnet_tf.layers.modules import (
    BottomUpModule,
    FinalBottomUpModule,
    MergeModule,
    TopDownModule,
    TopModule,
)
from matnet_tf.layers.resampling import Resample
from matnet_tf.layers.updates import BottleneckUpdate, GRUUpdate, ResidualUpdate
from matnet_tf.likelihoods.autoregressive import LocalAutoregression
from matnet_tf.likelihoods.independent import Likelihood
from matnet_tf.likelihoods.masked_convolution import MaskedConvolution
from matnet_tf.likelihoods.observation import Logistic, Normal, ObservedPixels
from matnet_tf.likelihoods.whitening import Whitening
from matnet_tf.model.networks import BottomUpNetwork, Guide

SHAPE = (5, 3, 2)
CONFIG = ModelConfig(SHAPE, (Scale(1, 4, 2, 1), Scale((3, 2), 3, 2, 1)), 2, 4, 3)
DENSE_CONFIG = dataclasses.replace(CONFIG, scales=(Scale(1, 4, 2, 1),))
LOCAL = {"autoregressive": True, "autoregressive_layers": 3, "autoregressive_filters": 5}
LEVELS = np.random.default_rng(2).integers(0, 256, (2, *SHAPE))


@dataclasses.dataclass(frozen=True)
class Case:
    """A layer, the shapes of its inputs without the batch, and everything it can compute."""

    make: Callable[..., keras.layers.Layer]
    shapes: tuple[tuple[int, ...], ...]
    every_output: Callable[..., Any] = lambda layer, *inputs: layer(*inputs)
    # Of the layer's output and of every output, under mixed bfloat16.
    dtypes: tuple[tf.DType, tf.DType] = (tf.bfloat16, tf.bfloat16)


def with_prior(layer, h_td, z):
    return layer(h_td, z), layer.prior_parameters(h_td)


def with_posteriors(guide, x):
    encoding, outputs = guide.encode(x), []
    h_merge = guide.start(encoding.top[:, : CONFIG.top_latents])
    for i, module in enumerate(guide.modules):
        h_merge = guide.resampling[i](h_merge) if i in guide.resampling else h_merge
        parameters, h_merge = module.merge(encoding.projections[i], 0.5 * h_merge, h_merge)
        outputs.append(parameters)
    return encoding, outputs


def with_log_prob(layer, h_td):
    binary = layer.config.likelihood == "bernoulli"
    x, observed = tf.constant(LEVELS > 127 if binary else LEVELS / 255, tf.float32), None
    if layer.config.conditional_stages:
        observed = ObservedPixels.of(x, tf.constant(LEVELS[..., :1] % 2, tf.float32))
    return layer.distribution(layer(h_td), observed).log_prob(x)


def likelihood(make, dense=False, **choices):
    config = dataclasses.replace(DENSE_CONFIG if dense else CONFIG, **choices)
    shapes = (DENSE,) if dense else ((5, 3, 3),)
    dtypes = (tf.bfloat16, tf.float32)
    return Case(lambda **k: make(config, **k), shapes, with_log_prob, dtypes)


def observation(make, **choices):
    return Case(lambda **k: make(SHAPE, **choices, **k), ((*SHAPE, 1),), dtypes=(tf.float32,) * 2)


IMAGE, DENSE = (5, 3, 4), (4,)
CASES = {
    "residual, dense": Case(lambda **k: ResidualUpdate(4, True, **k), (DENSE, (3,))),
    "residual, conv": Case(
        lambda **k: ResidualUpdate(4, False, normalization="layer", **k), (IMAGE, (5, 3, 2))
    ),
    "gru, dense": Case(lambda **k: GRUUpdate(4, True, normalization="layer", **k), (DENSE, (3,))),
    "gru, conv": Case(lambda **k: GRUUpdate(4, False, kernel_size=5, **k), (IMAGE, (5, 3, 2))),
    "bottleneck, dense": Case(lambda **k: BottleneckUpdate(8, True, **k), ((8,), (3,))),
    "bottleneck, conv": Case(lambda **k: BottleneckUpdate(4, False, **k), (IMAGE, (5, 3, 2))),
    "bottom-up": Case(lambda **k: BottomUpModule(4, False, update="gru", **k), (IMAGE,)),
    "top-down, dense": Case(lambda **k: TopDownModule(4, True, 3, **k), (DENSE, (3,)), with_prior),
    "top-down, conv": Case(
        lambda **k: TopDownModule(4, False, 2, update="gru", activation="elu", **k),
        (IMAGE, (5, 3, 2)),
        with_prior,
    ),
    "top-down, standard": Case(
        lambda **k: TopDownModule(4, True, 3, prior="standard", carry=False, **k), (DENSE, (3,))
    ),
    "merge, dense": Case(lambda **k: MergeModule(4, True, 3, **k), (DENSE,) * 3),
    "merge, conv": Case(
        lambda **k: MergeModule(4, False, 3, update="gru", normalization="layer", **k), (IMAGE,) * 3
    ),
    "top-down, bottleneck": Case(
        lambda **k: TopDownModule(8, False, 2, update="bottleneck", activation="gelu", **k),
        ((5, 3, 8), (5, 3, 2)),
        with_prior,
    ),
    "merge, bottleneck": Case(
        lambda **k: MergeModule(8, True, 3, update="bottleneck", **k), ((8,),) * 3
    ),
    "merge, ladder": Case(lambda **k: MergeModule(4, True, 3, carry=False, **k), (DENSE,) * 3),
    "top": Case(lambda **k: TopModule(5, (3, 2, 4), **k), ((6,),)),
    "final bottom-up": Case(lambda **k: FinalBottomUpModule(5, 3, "tanh", **k), (IMAGE,)),
    "resample, down": Case(lambda **k: Resample((5, 3), (2, 1), 4, 6, **k), (IMAGE,)),
    "resample, up": Case(lambda **k: Resample((5, 3), (9, 6), 4, 2, **k), (IMAGE,)),
    "resample, nearest": Case(
        lambda **k: Resample((5, 3), (9, 6), 4, 2, upsampling="nearest", **k), (IMAGE,)
    ),
    "resample, dense": Case(lambda **k: Resample((5, 3), (1, 1), 4, 6, **k), (IMAGE,)),
    "bernoulli, dense": likelihood(Likelihood, dense=True),
    "normal, pixel": likelihood(Likelihood, likelihood="normal"),
    "logistic, channel": likelihood(Likelihood, likelihood="logistic", likelihood_scale="channel"),
    "logistic mixture": likelihood(Likelihood, dense=True, likelihood="logistic_mixture"),
    "normal values": observation(Normal, scale="channel", whitening=True),
    "logistic values": observation(Logistic, scale="scalar"),
    "whitening": Case(lambda **k: Whitening(SHAPE, 1e-3, **k), (SHAPE,), dtypes=(tf.float32,) * 2),
    "masked": Case(lambda **k: MaskedConvolution(5, 5, 2, "B", shortcut=3, **k), (IMAGE,)),
    "local, dense": likelihood(
        LocalAutoregression, dense=True, likelihood="logistic", likelihood_scale="channel", **LOCAL
    ),
    "local, conditional": likelihood(LocalAutoregression, conditional_stages=1, **LOCAL),
    "bottom-up network": Case(lambda **k: BottomUpNetwork(CONFIG, **k), ((5, 3, 2),)),
    "guide": Case(lambda **k: Guide(CONFIG, channels=3, **k), ((5, 3, 3),), with_posteriors),
}
every_case = pytest.mark.parametrize("name", CASES)


def inputs_of(case, rows=2):
    rng = np.random.default_rng(0)
    return [tf.constant(rng.random((rows, *s)), tf.float32) for s in case.shapes]


def built(case):
    layer = case.make(name="original")
    layer(*inputs_of(case))
    if hasattr(layer, "adapt"):
        layer.adapt([np.random.default_rng(3).random((40, *SHAPE)).astype(np.float32)])
    return npm.randomize(layer)


def equal(a, b, **tolerance):
    a, b = tf.nest.flatten(a), tf.nest.flatten(b)
    assert len(a) == len(b) > 0
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, **tolerance)


@every_case
def test_layer(name):
    """A config makes the same layer; symbolic shapes are right; all weights have gradients."""
    case = CASES[name]
    layer, inputs = built(case), inputs_of(case)
    paths = [v.path for v in layer.weights]
    assert len(set(paths)) == len(paths) > 0
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = tf.nest.flatten(case.every_output(layer, *inputs))
        rng = np.random.default_rng(1)
        total = sum(tf.reduce_sum(x * rng.normal(size=x.shape)) for x in outputs)
    # Whitening has no trained weights, but gradients must pass through it.
    variables = inputs if isinstance(layer, Whitening) else layer.trainable_variables
    for gradient, variable in zip(tape.gradient(total, variables), variables, strict=True):
        assert gradient is not None, variable
        assert np.isfinite(gradient).all() and np.any(gradient), variable

    copy = type(layer).from_config(layer.get_config())
    copy(*inputs)
    copy.set_weights(layer.get_weights())
    assert copy.get_config() == layer.get_config()
    equal(outputs, case.every_output(copy, *inputs), rtol=0, atol=0)

    symbolic = layer(*[keras.Input(shape) for shape in case.shapes])
    shapes = [(None, *x.shape[1:]) for x in tf.nest.flatten(layer(*inputs))]
    assert [tuple(x.shape) for x in keras.tree.flatten(symbolic)] == shapes


@pytest.mark.slow
def test_a_graph_for_any_batch_equals_eager():
    layers = {name: built(case) for name, case in CASES.items()}
    inputs = {name: inputs_of(case) for name, case in CASES.items()}
    signature = {
        name: [tf.TensorSpec((None, *shape)) for shape in case.shapes]
        for name, case in CASES.items()
    }

    def outputs(inputs):
        return [case.every_output(layers[name], *inputs[name]) for name, case in CASES.items()]

    graph = tf.function(outputs, input_signature=[signature], autograph=False)
    equal(graph(inputs), outputs(inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_mixed_bfloat16_keeps_weights_and_densities_in_float32():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        for name, case in CASES.items():
            layer, inputs = built(case), inputs_of(case)
            computed = (Case.every_output, case.every_output)
            for compute, dtype in zip(computed, case.dtypes, strict=True):
                tensors = tf.nest.flatten(compute(layer, *inputs))
                assert {x.dtype for x in tensors} == {dtype}, name
                assert all(np.isfinite(tf.cast(x, tf.float32)).all() for x in tensors), name
            assert {v.dtype for v in layer.trainable_variables} <= {"float32"}, name
    finally:
        keras.config.set_dtype_policy("float32")
