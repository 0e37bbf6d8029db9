# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Depth changes neither the scale of the states nor the first gradient."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from matnet_tf.config import ModelConfig, Scale
from matnet_tf.distributions.stateless_random import seed_tensor
from matnet_tf.model.conditional import ConditionalMatNet
from matnet_tf.model.matnet import MatNet

SHAPE = (16, 16, 1)
CONFIG = ModelConfig(SHAPE, (Scale(8, 16, 4, 4),), top_latents=16, top_units=32, latent_scale=1.0)


def scales(kind, modules):
    if kind == "dense":
        return (Scale(1, 64, 8, modules),)
    half = modules // 2
    return Scale(4, 16, 4, half), Scale(8, 16, 4, modules - half)


def rms(x):
    return float(tf.sqrt(tf.reduce_mean(tf.square(x))))


def watch(module, seen):
    """Records the rms of every state that goes into and comes out of a module's update."""
    call = module.update_layer.call

    def recorded(state=None, inputs=None, projection=None):
        output = call(state, inputs, projection)
        seen.append((rms(state), rms(output)))
        return output

    module.update_layer.call = recorded


@pytest.mark.slow
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(
    ("update", "activation"),
    [("residual", "leaky_relu"), ("gru", "tanh"), ("bottleneck", "gelu")],
)
def test_the_first_pass_and_gradient_do_not_depend_on_the_depth(update, activation, shared):
    x = np.random.default_rng(0).integers(0, 2, (4, *SHAPE)).astype(np.float32)
    settings = {"update": update, "activation": activation, "shared": shared}
    for kind, modules in (("dense", 4), ("conv", 4), ("dense", 16), ("conv", 16), ("conv", 64)):
        config = dataclasses.replace(CONFIG, scales=scales(kind, modules), **settings)
        layer, case = MatNet(config).hierarchy, f"{kind}, {modules} modules"
        chains = layer.top_down.modules, layer.guide.modules, layer.guide.bottom_up.modules
        seen = [[] for _ in chains]
        for chain, rows in zip(chains, seen, strict=True):
            for module in {id(module): module for module in chain}.values():
                watch(module, rows)
        with tf.GradientTape() as tape:
            bound = layer.elbo(tf.constant(x), seed_tensor(0))
            loss = -tf.reduce_mean(bound.elbo)
        gradient = tape.gradient(loss, layer.trainable_variables)
        assert tf.linalg.global_norm(gradient) < 1e3, case
        assert max(float(tf.reduce_mean(kl)) for kl in bound.kl.values()) < 5, case
        for rows in seen:
            assert len(rows) == modules
            assert 0.5 < rows[-1][1] / rows[0][0] < 2, case


@pytest.mark.slow
def test_priors_start_at_n_0_1_and_posteriors_near_it():
    conditional = dataclasses.replace(CONFIG, conditional_stages=1)
    x = np.random.default_rng(0).integers(0, 2, (4, *SHAPE)).astype(np.float32)
    mask = np.ones((4, 16, 16, 1), np.float32)
    for model, inputs in ((MatNet(CONFIG), (x,)), (ConditionalMatNet(conditional), (x, mask))):
        trace = model.hierarchy.bound_and_trace(*map(tf.constant, inputs), seed_tensor(0))[1]
        for level in trace.levels:
            prior, posterior = (d.distribution for d in (level.prior, level.posterior))
            np.testing.assert_array_equal(prior.mean(), np.zeros_like(prior.mean()))
            np.testing.assert_array_equal(prior.stddev(), np.ones_like(prior.stddev()))
            near = 1.0 if level.name == "00_top" else 0.1
            assert 0 < np.abs(posterior.mean()).max() < near
            np.testing.assert_allclose(posterior.stddev(), 1, atol=0.8 * near)


@pytest.mark.parametrize("update", ["residual", "gru", "bottleneck"])
def test_the_parts_of_a_merge_modules_first_map_are_drawn_as_one_kernel(update):
    config = dataclasses.replace(CONFIG, scales=(Scale(1, 256, 4, 1),), update=update)
    module = MatNet(config).hierarchy.guide.modules[0]
    own, channel = module.projection.kernel.numpy(), 0
    for part in module.update_layer.first_maps:
        inputs, outputs = part.kernel.shape
        expected = np.sqrt(2 / (inputs + own.shape[0] + outputs))
        np.testing.assert_allclose(np.std(part.kernel), expected, rtol=0.02)
        share = own[:, channel : channel + outputs]
        np.testing.assert_allclose(np.std(share), expected, rtol=0.02)
        channel += outputs
    assert channel == own.shape[1]


def test_glorot_alone_is_an_option():
    layer = MatNet(dataclasses.replace(CONFIG, initialization="glorot")).hierarchy
    for module in layer.top_down.modules:
        for kernel in (module.prior_head.kernel, module.update_layer.output_map.kernel):
            fan = np.prod(kernel.shape[:2]) * sum(kernel.shape[2:])
            np.testing.assert_allclose(np.std(kernel), np.sqrt(2 / fan), rtol=0.1)
