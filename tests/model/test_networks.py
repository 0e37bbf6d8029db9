# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The networks of a MatNet: what they hold, and in which order states and modules come."""

import dataclasses

import numpy as np
import numpy_matnet as npm
import tensorflow as tf

from matnet_tf.config import ModelConfig, Scale
from matnet_tf.model.networks import BottomUpNetwork, Guide, TopDownNetwork


def built(network, config):
    network.build((None, *config.image_shape))
    return network


def built_top_down(config):
    network = TopDownNetwork(config)
    network.build((None, config.top_latents))
    return network


def test_the_bottom_up_network_gives_a_state_per_module_top_first(tiny):
    network = built(BottomUpNetwork(tiny), tiny)
    x = np.random.default_rng(0).random((2, *tiny.image_shape)).astype(np.float32)
    states = network(x)
    assert [h.shape for h in states] == [(2, 16), (2, 4, 4, 8), (2, 4, 4, 8)]
    # The states of one scale follow from each other by Eq. 9, the finest first.
    update = network.modules[1].update_layer
    maps = npm.weights(update.hidden), npm.weights(update.output_map)
    np.testing.assert_allclose(states[1], npm.eq_9(states[2].numpy(), *maps), rtol=1e-4, atol=1e-5)
    resampled = network.modules[0](network.resampling[0](states[1]))
    np.testing.assert_allclose(states[0], resampled, rtol=1e-5)


def test_modules_have_weights_of_their_own_unless_a_scale_shares_them(tiny):
    guide = built(Guide(tiny), tiny)
    for chain in (guide.modules, guide.bottom_up.modules, TopDownNetwork(tiny).modules):
        assert tuple(m.name for m in chain) == tiny.level_names[1:]
        assert len({id(m) for m in chain}) == 3
    deep, once = (
        dataclasses.replace(tiny, shared=True, scales=(Scale(1, 16, 4, n), Scale(4, 8, 2, n)))
        for n in (3, 1)
    )
    counts = []
    for config in (deep, once):
        parts = built(Guide(config), config), built_top_down(config)
        counts.append(sum(int(np.prod(v.shape)) for part in parts for v in part.weights))
    assert counts[0] == counts[1]


def test_a_guide_may_encode_more_channels_than_the_image_has(tiny):
    guide = Guide(tiny, channels=3)
    guide.build((None, 8, 8, 3))
    encoding = guide.encode(tf.zeros([2, 8, 8, 3]))
    assert encoding.top.shape == (2, 2 * tiny.top_latents)
    assert [p.shape for p in encoding.projections] == [(2, 16), (2, 4, 4, 8), (2, 4, 4, 8)]


def test_the_top_prior_is_standard_and_latent_scale_multiplies_parameters(tiny):
    top_down = built_top_down(tiny)
    prior = top_down.top_prior()
    np.testing.assert_array_equal(prior.mean(), np.zeros(tiny.top_latents))
    np.testing.assert_array_equal(prior.stddev(), np.ones(tiny.top_latents))
    assert any(v is top_down.latent_scale for v in top_down.trainable_variables)
    for scale in (0.2, 0.5):
        top_down.latent_scale.assign(scale)
        np.testing.assert_allclose(top_down.gaussian(tf.ones([1, 2])).mean(), [[scale]])


def test_the_image_leaves_at_full_size_through_every_scale():
    config = ModelConfig((9, 7, 3), (Scale((3, 2), 4, 2, 1), Scale((5, 4), 4, 2, 1)), 3, 5, 6)
    assert built_top_down(config).to_image(tf.zeros([2, 5, 4, 4])).shape == (2, 9, 7, 6)
