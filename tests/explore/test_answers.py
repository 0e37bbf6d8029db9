# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""What the page computes is what the model's own methods and `matnet score` give."""

import numpy as np
import pytest
import tensorflow as tf

from matnet_tf import MatNet, ModelConfig, Scale
from matnet_tf.evaluation.scores import image_scores
from matnet_tf.explore.answers import Answers

pytestmark = pytest.mark.slow
CONFIG = ModelConfig(
    (8, 8, 1),
    (Scale(1, 4, 2, 2), Scale(4, 3, 2, 1)),
    top_latents=2,
    top_units=4,
    image_filters=2,
    mixture_components=2,
)
LEVELS, SEED = CONFIG.num_levels, 5


@pytest.fixture(scope="module")
def model(module_eagerly):
    model, random = MatNet(CONFIG, seed=1), np.random.default_rng(0)
    for weight in model.trainable_weights:  # A new model's levels say nothing.
        weight.assign_add(0.3 * random.normal(size=weight.shape))
    return model


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).integers(0, 2, [2, 8, 8, 1]).astype(np.float32)


def test_reconstructions_of_every_depth_are_those_of_the_model(model, images):
    found = Answers(model).reconstructions(images[0], SEED)
    expected = [model.reconstruct(images[:1], k, seed=[SEED])[0] for k in range(LEVELS + 1)]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert all(np.abs(found[k + 1] - found[k]).max() > 1e-4 for k in range(LEVELS))


@pytest.mark.parametrize("levels", [range(LEVELS), [0], [1, 3], []])
def test_images_between_two_are_those_of_the_model(model, images, levels):
    a, b = images
    found = Answers(model).between(a, b, levels, 3, SEED)
    if levels:
        expected = model.interpolate(a[None], b[None], 3, list(levels), seed=[SEED])[:, 0]
    else:
        expected = [model.sample(1, seed=[SEED])[0]] * 3
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_samples_have_a_temperature_for_the_top_and_each_scale(model):
    found = Answers(model).samples(3, [0.5, 0.0, 2.0], SEED)
    np.testing.assert_allclose(found, model.sample(3, [0.5, 0, 0, 2.0], SEED), atol=1e-6)


@pytest.fixture
def in_graphs(module_eagerly):
    tf.config.run_functions_eagerly(False)
    yield
    tf.config.run_functions_eagerly(True)


def test_only_the_first_answers_make_graphs(images, monkeypatch, in_graphs):
    model = MatNet(CONFIG, seed=1)
    answers, traces = Answers(model), []
    descend = model.hierarchy.top_down_pass
    monkeypatch.setattr(
        model.hierarchy, "top_down_pass", lambda *a, **k: traces.append(1) or descend(*a, **k)
    )

    def ask(levels, temperature, seed):
        answers.reconstructions(images[seed], seed)
        answers.between(*images, levels, 3, seed)
        answers.samples(3, [1.0, temperature, 1.0], seed)
        answers.scores(images[seed], 3, seed)

    ask([], 1.0, 0)
    first = len(traces)
    ask([0, 2], 0.3, 1)
    assert len(traces) == first > 0


@pytest.mark.parametrize("per_pass", [5000, 7])
def test_scores_are_those_of_matnet_score(model, images, monkeypatch, per_pass):
    monkeypatch.setattr(type(model), "samples_per_pass", per_pass)
    found = Answers(model).scores(images[0], 3, SEED)
    expected = image_scores(model, images[:1], 3, [SEED])
    assert list(found) == list(expected)
    np.testing.assert_allclose(
        list(found.values()), np.ravel(list(expected.values())), rtol=1e-4, atol=1e-4
    )
