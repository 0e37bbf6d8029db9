# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Models with one seed per image: a result depends on the image and its own seed alone."""

import numpy as np
import pytest
import tensorflow as tf

from matnet_tf.config import ModelConfig, Scale
from matnet_tf.model.conditional import ConditionalMatNet
from matnet_tf.model.matnet import MatNet

SHAPE = (4, 4, 1)
LOCAL = {"autoregressive": True, "autoregressive_layers": 2, "autoregressive_filters": 4}
MODELS = {
    "mixture": {"mixture_components": 3, "likelihood": "logistic_mixture"},
    "local": LOCAL,
    "two stages": {"conditional_stages": 2, "likelihood": "normal"},
    "conditional, local": {"conditional_stages": 1, **LOCAL},
}


def made(name):
    settings = {"scales": (Scale(1, 6, 2, 1), Scale(2, 4, 2, 1)), "top_latents": 3, "top_units": 6}
    config = ModelConfig(SHAPE, **settings | MODELS[name])
    return (ConditionalMatNet if config.conditional_stages else MatNet)(config, seed=1)


def inputs(name):
    """Four images, of which the last three are equal, and their masks if conditional."""
    x = np.random.RandomState(2).randint(0, 2, (2, *SHAPE)).astype(np.float32)[[0, 1, 1, 1]]
    mask = np.zeros((4, *SHAPE), np.float32)
    mask[:, :2] = 1
    return (x, mask) if MODELS[name].get("conditional_stages") else (x,)


def results(model, inputs, seed):
    """Everything that a model draws for images, with the images first."""
    count = len(inputs[0])
    found = {
        "elbo": model.elbo(*inputs, seed=seed).elbo,
        "bound": model.log_likelihood(*inputs, num_samples=3, seed=seed, chunk=2 * count),
        "reconstruct": model.reconstruct(*inputs, num_inferred=1, seed=seed),
        "infer": tf.reshape(model.infer(*inputs, 2, seed).z[-1], [2, count, -1])[1],
    }
    if len(inputs) == 2:
        found["impute"] = model.impute(*inputs, num_samples=3, seed=seed).samples[2]
    else:
        found["sample"] = model.sample(count, seed=seed)
        found["pixels"] = model.sample(count, seed=seed, draw=True)
        found["interpolate"] = model.interpolate(*inputs, 1 - inputs[0], 2, [0], seed=seed)[0]
    if model.config.mixture_components:
        found["assign"] = model.assign(*inputs, seed=seed)
        found["component"] = model.sample(count, seed=seed, component=1)
    return {key: np.asarray(value) for key, value in found.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_results_depend_on_the_image_and_its_own_seed_alone(name, eagerly):
    model, whole, seeds = made(name), inputs(name), [3, 1, 4, 1]
    together = results(model, whole, seeds)
    alone = results(model, [part[2:3] for part in whole], seeds[2:3])
    for key, value in together.items():
        np.testing.assert_allclose(alone[key][0], value[2], rtol=1e-4, atol=1e-5, err_msg=key)
        np.testing.assert_allclose(value[1], value[3], rtol=1e-4, atol=1e-5, err_msg=key)
        if key != "assign":
            assert np.abs(value[1] - value[2]).max() > 0, key


def test_seeds_that_do_not_fit_the_images_are_refused(eagerly):
    with pytest.raises(ValueError, match=r"sequence of 3, one for each row; got \[1, 2\]"):
        made("mixture").elbo(inputs("mixture")[0][:3], seed=[1, 2])


@pytest.mark.slow
def test_a_graph_traced_with_a_batch_seed_accepts_row_seeds():
    model, x = made("mixture"), inputs("mixture")[0][1:]
    model.elbo(x, seed=0), model.sample(3, seed=0)
    seeds = [4, 5, 4]
    for found in (model.elbo(x, seed=seeds).elbo.numpy(), model.sample(3, seed=seeds).numpy()):
        np.testing.assert_array_equal(found[0], found[2])
        assert not np.array_equal(found[0], found[1])
