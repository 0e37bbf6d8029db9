# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The modules of Sec. 2.2 against Eqs. 7 to 11 in NumPy."""

import numpy as np
import numpy_matnet as npm
import pytest
import tensorflow as tf

from matnet_tf.layers import BottomUpModule, MergeModule, TopDownModule
from matnet_tf.updates import UPDATES

FILTERS, LATENTS = 4, 3
SIDES = {"dense": (), "conv": (5, 3)}
both = pytest.mark.parametrize("kind", SIDES)
RNG = np.random.default_rng(0)


def draw(kind, channels=FILTERS, rows=2):
    return RNG.normal(size=(rows, *SIDES[kind], channels)).astype(np.float32)


def made(layer, *inputs):
    layer.build(*[x.shape for x in inputs])
    return npm.randomize(layer)


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def body(module):
    """Both linear maps of a residual update."""
    return npm.weights(module.update_layer.hidden), npm.weights(module.update_layer.output_map)


def test_a_module_passes_its_settings_to_its_update():
    settings = {
        "kernel_size": 5,
        "activation": "elu",
        "update": "gru",
        "normalization": "layer",
        "carry": False,
    }
    for module in (
        BottomUpModule(FILTERS, True, *settings.values()),
        TopDownModule(FILTERS, True, LATENTS, **settings),
        MergeModule(FILTERS, True, LATENTS, **settings),
    ):
        own = settings | {"filters": FILTERS, "dense": True}
        assert {name: getattr(module, name) for name in own} == own
        assert module.get_config().items() >= own.items()
        kind = UPDATES[own.pop("update")]
        assert type(module.update_layer) is kind
        assert module.update_layer.get_config().items() >= own.items()


@both
def test_a_bottom_up_module_computes_equation_9(kind):
    h_bu = draw(kind)
    module = made(BottomUpModule(FILTERS, kind == "dense"), h_bu)
    close(module(h_bu), npm.eq_9(h_bu, *body(module)))


@both
def test_a_top_down_module_computes_equation_7(kind):
    h_td, z = draw(kind), draw(kind, LATENTS)
    module = made(TopDownModule(FILTERS, kind == "dense", LATENTS), h_td, z)
    close(module(h_td, z), npm.eq_7(h_td, z, *body(module)))


@both
def test_the_prior_of_a_top_down_module_is_equation_8(kind):
    h_td = draw(kind)
    module = made(TopDownModule(FILTERS, kind == "dense", LATENTS), h_td, draw(kind, LATENTS))
    expected = npm.eq_8(h_td, npm.weights(module.prior_hidden), npm.weights(module.prior_head))
    close(module.prior_parameters(h_td), expected)


@both
def test_a_standard_prior_has_zero_parameters_and_no_weights(kind):
    h_td, z = draw(kind), draw(kind, LATENTS)
    module = made(TopDownModule(FILTERS, kind == "dense", LATENTS, "standard"), h_td, z)
    expected = np.zeros((2, *SIDES[kind], 2 * LATENTS))
    np.testing.assert_array_equal(module.prior_parameters(h_td), expected)
    assert len(module.trainable_variables) == 4


@both
def test_a_merge_module_computes_equations_10_and_11_of_the_concatenation(kind):
    h_bu, h_td, h_merge = draw(kind), draw(kind), draw(kind)
    module = made(MergeModule(FILTERS, kind == "dense", LATENTS), h_bu, h_td, h_merge)
    parameters, state = module(h_bu, h_td, h_merge)
    expected = npm.eq_10(h_merge, h_bu, h_td, npm.merge_kernel(module), body(module)[1])
    close(state, expected)
    close(parameters, npm.eq_11(expected, npm.weights(module.head)))


@both
@pytest.mark.parametrize("update", ["residual", "gru"])
def test_a_merge_module_reads_every_image_once_for_all_its_samples(kind, update):
    samples, images = 3, 2
    h_bu = draw(kind, rows=images)
    h_td, h_merge = draw(kind, rows=samples * images), draw(kind, rows=samples * images)
    module = made(MergeModule(FILTERS, kind == "dense", LATENTS, update=update), h_bu, h_td, h_td)
    once = module.merge(module.project(h_bu), h_td, h_merge)
    each = module(np.concatenate([h_bu] * samples), h_td, h_merge)
    for actual, expected in zip(once, each, strict=True):
        close(actual, expected)


def test_a_gru_merge_is_a_gru_of_the_concatenation():
    h_bu, h_td, h_merge = (draw("conv") for _ in range(3))
    module = made(
        MergeModule(FILTERS, False, LATENTS, update="gru", activation="tanh"), h_bu, h_td, h_merge
    )
    layer, projection = module.update_layer, npm.weights(module.projection)[0]
    kernels = []
    for part, own in (
        (projection[..., : 2 * FILTERS], layer.gates),
        (projection[..., 2 * FILTERS :], layer.candidate),
    ):
        kernel, bias = npm.weights(own)
        kernels.append((np.concatenate([kernel, part], axis=-2), bias))
    close(module(h_bu, h_td, h_merge)[1], npm.gru(h_merge, [h_td, h_bu], *kernels))


@both
def test_a_merge_module_without_carry_forgets_the_merge_state(kind):
    h_bu, h_td = draw(kind), draw(kind)
    module = made(MergeModule(FILTERS, kind == "dense", LATENTS, carry=False), h_bu, h_td, h_td)
    parameters, state = module(h_bu, h_td, draw(kind))
    hidden = npm.lrelu(npm.linear(npm.stack(h_bu, h_td), npm.merge_kernel(module)))
    close(state, npm.lrelu(npm.linear(hidden, body(module)[1])))
    without = module.merge(module.project(tf.constant(h_bu)), tf.constant(h_td), None)
    np.testing.assert_array_equal(parameters, without[0])
