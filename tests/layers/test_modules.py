# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The modules of Sec. 2.2 against Eqs. 7 to 11 in NumPy."""

import numpy as np
import numpy_matnet as npm
import pytest

from matnet_tf.layers.modules import (
    BottomUpModule,
    FinalBottomUpModule,
    MergeModule,
    TopDownModule,
    TopModule,
)

FILTERS, LATENTS = 4, 3
SIDES = {"dense": (), "conv": (5, 3)}
both = pytest.mark.parametrize("kind", SIDES)
RNG = np.random.default_rng(0)


def draw(kind, channels=FILTERS, rows=2):
    return RNG.normal(size=(rows, *SIDES[kind], channels)).astype(np.float32)


def built(layer, *inputs):
    layer.build(*[x.shape for x in inputs])
    return npm.randomize(layer)


def close(actual, expected):
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def body(module):
    """Both linear maps of a residual update."""
    return npm.weights(module.update_layer.hidden), npm.weights(module.update_layer.output_map)


@both
def test_bottom_up_module_is_equation_9(kind):
    h_bu = draw(kind)
    module = built(BottomUpModule(FILTERS, kind == "dense"), h_bu)
    close(module(h_bu), npm.eq_9(h_bu, *body(module)))


@both
def test_top_down_module_is_equations_7_and_8(kind):
    h_td, z = draw(kind), draw(kind, LATENTS)
    module = built(TopDownModule(FILTERS, kind == "dense", LATENTS), h_td, z)
    close(module(h_td, z), npm.eq_7(h_td, z, *body(module)))
    prior = npm.eq_8(h_td, npm.weights(module.prior_hidden), npm.weights(module.prior_head))
    close(module.prior_parameters(h_td), prior)


@both
def test_standard_prior_has_zero_parameters_and_no_weights(kind):
    h_td, z = draw(kind), draw(kind, LATENTS)
    module = built(TopDownModule(FILTERS, kind == "dense", LATENTS, "standard"), h_td, z)
    close(module.prior_parameters(h_td), np.zeros((2, *SIDES[kind], 2 * LATENTS)))
    assert len(module.trainable_variables) == 4


@both
def test_merge_module_is_equations_10_and_11_of_the_concatenation(kind):
    h_bu, h_td, h_merge = draw(kind), draw(kind), draw(kind)
    module = built(MergeModule(FILTERS, kind == "dense", LATENTS), h_bu, h_td, h_merge)
    parameters, state = module(h_bu, h_td, h_merge)
    expected = npm.eq_10(h_merge, h_bu, h_td, npm.merge_kernel(module), body(module)[1])
    close(state, expected)
    close(parameters, npm.eq_11(expected, npm.weights(module.head)))


def test_gru_merge_module_is_a_gru_of_the_concatenation():
    h_bu, h_td, h_merge = (draw("conv") for _ in range(3))
    module = MergeModule(FILTERS, False, LATENTS, update="gru", activation="tanh")
    built(module, h_bu, h_td, h_merge)
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
def test_merge_module_without_carry_ignores_the_merge_state(kind):
    h_bu, h_td = draw(kind), draw(kind)
    module = built(MergeModule(FILTERS, kind == "dense", LATENTS, carry=False), h_bu, h_td, h_td)
    parameters, state = module(h_bu, h_td, draw(kind))
    hidden = npm.lrelu(npm.linear(npm.stack(h_bu, h_td), npm.merge_kernel(module)))
    close(state, npm.lrelu(npm.linear(hidden, body(module)[1])))
    without = module.merge(module.project(h_bu), h_td, None)
    np.testing.assert_array_equal(parameters, without[0])


@both
def test_merge_module_projects_every_image_once_for_all_its_samples(kind):
    samples, images = 3, 2
    h_bu = draw(kind, rows=images)
    h_td, h_merge = draw(kind, rows=samples * images), draw(kind, rows=samples * images)
    for update in ("residual", "gru"):
        module = MergeModule(FILTERS, kind == "dense", LATENTS, update=update)
        built(module, h_bu, h_td, h_td)
        once = module.merge(module.project(h_bu), h_td, h_merge)
        each = module(np.concatenate([h_bu] * samples), h_td, h_merge)
        for actual, expected in zip(once, each, strict=True):
            close(actual, expected)


def test_top_module_is_two_dense_layers():
    z = draw("dense", 5)
    for state_shape in ((6,), (3, 2, 6)):
        layer = built(TopModule(7, state_shape), z)
        hidden = npm.lrelu(npm.linear(z, npm.weights(layer.hidden)))
        expected = npm.lrelu(npm.linear(hidden, npm.weights(layer.output_map)))
        close(layer(z), expected.reshape(2, *state_shape))


@both
def test_final_bottom_up_module_is_linear_after_one_hidden_layer(kind):
    h_bu = draw(kind)
    layer = built(FinalBottomUpModule(7, 3), h_bu)
    hidden = npm.lrelu(npm.linear(h_bu.reshape(2, -1), npm.weights(layer.hidden)))
    close(layer(h_bu), npm.linear(hidden, npm.weights(layer.head)))
