# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The parts of a MatNet: what they hold, and in which order states and modules come."""

import dataclasses

import numpy as np
import numpy_matnet as npm
import pytest
import tensorflow as tf

from matnet_tf.config import ModelConfig, Stage
from matnet_tf.network import BottomUpNetwork, Guide, TopDownNetwork, state_shape


def images(config, number=2):
    rng = np.random.default_rng(0)
    return rng.random((number, *config.image_shape)).astype(np.float32)


def built(network, config):
    network.build((None, *config.image_shape))
    return network


def test_the_bottom_up_network_gives_a_state_per_module_top_first(tiny):
    network = built(BottomUpNetwork(tiny), tiny)
    states = network(images(tiny))
    assert [h.shape for h in states] == [(2, 16), (2, 4, 4, 8), (2, 4, 4, 8)]
    # The states of one stage follow from each other by Eq. 9, the finest first.
    update = network.modules[1].update_layer
    expected = npm.eq_9(
        states[2].numpy(), npm.weights(update.hidden), npm.weights(update.output_map)
    )
    np.testing.assert_allclose(states[1], expected, rtol=1e-4, atol=1e-5)
    joined = network.modules[0](network.joins[0](states[1]))
    np.testing.assert_allclose(states[0], joined, rtol=1e-5)


def test_a_state_is_flat_in_a_dense_stage_and_an_image_elsewhere():
    assert state_shape(Stage(1, 5, 2, 1)) == (5,)
    assert state_shape(Stage((4, 3), 5, 2, 1)) == (4, 3, 5)


def test_modules_are_called_by_level_and_scale(tiny):
    guide, top_down = built(Guide(tiny), tiny), TopDownNetwork(tiny)
    for chain in (guide.modules, guide.bottom_up.modules, top_down.modules):
        assert tuple(m.name for m in chain) == tiny.level_names[1:]


def test_shared_stages_have_one_module_each_however_deep(tiny):
    shared = dataclasses.replace(tiny, shared=True, stages=(Stage(1, 16, 4, 3), Stage(4, 8, 2, 4)))
    once = dataclasses.replace(shared, stages=(Stage(1, 16, 4, 1), Stage(4, 8, 2, 1)))
    counts = []
    for config in (shared, once):
        top_down = TopDownNetwork(config)
        top_down.build((None, config.top_latents))
        guide = built(Guide(config), config)
        counts.append(sum(int(np.prod(v.shape)) for v in top_down.weights + guide.weights))
    assert len({id(m) for m in guide.modules}) == 2
    assert counts[0] == counts[1]


def test_unshared_modules_have_their_own_weights(tiny):
    modules = built(Guide(tiny), tiny).modules
    assert len({id(m) for m in modules}) == len(modules) == 3


def test_a_guide_can_watch_more_channels_than_the_image_has(tiny):
    guide = Guide(tiny, channels=3)
    guide.build((None, 8, 8, 3))
    view = guide.watch(tf.zeros([2, 8, 8, 3]))
    assert view.top.shape == (2, 2 * tiny.top_latents)
    assert [p.shape for p in view.projections] == [(2, 16), (2, 4, 4, 8), (2, 4, 4, 8)]


@pytest.mark.parametrize("merge_state", [True, False])
def test_only_a_merge_state_has_a_start_and_resampling(tiny, merge_state):
    guide = Guide(dataclasses.replace(tiny, merge_state=merge_state))
    assert (guide.start is not None) == merge_state
    assert bool(guide.joins) == merge_state


def test_top_prior_is_a_standard_normal(tiny):
    prior = TopDownNetwork(tiny).top_prior()
    assert prior.event_shape == (tiny.top_latents,)
    np.testing.assert_array_equal(prior.mean(), np.zeros(tiny.top_latents))
    np.testing.assert_array_equal(prior.stddev(), np.ones(tiny.top_latents))


def test_latent_scale_is_trained_and_multiplies_parameters(tiny):
    top_down = TopDownNetwork(tiny)
    top_down.build((None, tiny.top_latents))
    assert any(v is top_down.latent_scale for v in top_down.trainable_variables)
    np.testing.assert_allclose(top_down.gaussian(tf.ones([1, 2])).mean(), [[0.2]])
    top_down.latent_scale.assign(0.5)
    np.testing.assert_allclose(top_down.gaussian(tf.ones([1, 2])).mean(), [[0.5]])


def test_the_image_leaves_at_full_size_through_every_scale():
    config = ModelConfig((9, 7, 3), (Stage((3, 2), 4, 2, 1), Stage((5, 4), 4, 2, 1)), 3, 5, 6)
    top_down = TopDownNetwork(config)
    top_down.build((None, 3))
    assert top_down.leave(tf.zeros([2, 5, 4, 4])).shape == (2, 9, 7, 6)
