# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Noise of rows with seeds of their own: the generator, distributions, all methods of models."""

import functools

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from scipy import stats

from matnet_tf import noise
from matnet_tf.conditional import ConditionalMatNet
from matnet_tf.config import ModelConfig, Stage
from matnet_tf.distributions import GaussianMixture, IntegratedLogistic
from matnet_tf.likelihoods import Completion, Known
from matnet_tf.model import MatNet
from matnet_tf.pixels import Normal

tfd = tfp.distributions
pytestmark = pytest.mark.usefixtures("module_eagerly")


# The known answers for Threefry-2x32-20 that Random123 publishes: counter, key, words.
ANSWERS = [
    ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    ((2**32 - 1, 2**32 - 1), (2**32 - 1, 2**32 - 1), (0x1CB996FC, 0xBB002BE7)),
    ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
]


@pytest.mark.parametrize(("counter", "key", "words"), ANSWERS)
def test_the_generator_gives_the_published_answers(counter, key, words):
    seed = tf.constant(np.array([key], np.uint32).view(np.int32))
    first = tf.constant(np.array([[counter[0]]], np.uint32))
    found = noise._threefry(seed, first, counter[1])
    assert tuple(int(word.numpy().item()) for word in found) == words


def test_uniform_and_normal_numbers_are_so_distributed_within_rows_and_across_them():
    seeds = noise.seed_tensor(range(3000), 3000)
    for numbers, cdf in (
        (noise.uniform(seeds, (2, 35)), "uniform"),
        (noise.normal(seeds, (71,)), "norm"),
    ):
        numbers = numbers.numpy().reshape(3000, -1)
        assert stats.kstest(numbers[:, ::7].ravel(), cdf).pvalue > 1e-3
        # Independent of each other: by row, by column, and from one seed to the next.
        for a, b in ((numbers[:, 0], numbers[:, -1]), (numbers[:-1, 3], numbers[1:, 3])):
            assert abs(np.corrcoef(a, b)[0, 1]) < 4 / np.sqrt(3000)
    assert numbers.min() >= -6 and np.isfinite(numbers).all()


def test_seeds_that_are_derived_differ_for_every_purpose_and_seed():
    seeds = noise.seed_tensor([0, 1, 2**31, 2**40], 4)
    derived = [seeds, *noise.split(seeds, 3), *(noise.fold_in(seeds, i) for i in range(3))]
    assert len({tuple(row) for part in derived for row in part.numpy()}) == 7 * 4


def test_of_samples_gives_the_same_rows_however_passes_are_cut():
    seeds = noise.seed_tensor([5, 6], 2)
    whole = noise.of_samples(seeds, 0, 5).numpy().reshape(5, 2, 2)
    for first, num in ((0, 2), (2, 3), (4, 1)):
        part = noise.of_samples(seeds, first, num).numpy().reshape(num, 2, 2)
        np.testing.assert_array_equal(part, whole[first : first + num])


PIXELS = Normal((1, 1, 2))
HIDDEN = Known(tf.zeros([20000, 1, 1, 2]), tf.zeros([20000, 1, 1, 1]))
PARAMETERS = tf.tile(tf.constant([[[[[0.3, 0.1], [-0.2, -1.0]]]]]), [20000, 1, 1, 1, 1])
# Each without a batch, or with one of 20,000 equal rows, whose samples must be alike.
DISTRIBUTIONS = {
    "normal": tfd.Independent(tfd.Normal([1.0, -2.0], [0.5, 3.0]), 1),
    "normal in a batch": tfd.Independent(tfd.Normal(tf.fill([20000, 2, 3], 1.5), 2.0), 2),
    "bernoulli": tfd.Independent(tfd.Bernoulli(tf.fill([20000, 4], -1.0), dtype=tf.float32), 1),
    "logistic": tfd.Independent(IntegratedLogistic(tf.fill([20000, 4], 0.4), 0.05), 1),
    "mixture": GaussianMixture([0.0, 1.0, 2.0], [[-3.0], [0.0], [4.0]], [[0.1], [1.0], [0.5]]),
    "transformed": PIXELS.distribution(PARAMETERS),
    "completion": Completion(PIXELS, PARAMETERS, HIDDEN),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_rows_have_the_distribution_that_batches_have(name):
    distribution = DISTRIBUTIONS[name]
    rows = noise.draw(distribution, noise.seed_tensor(range(20000), 20000))
    batch = noise.draw(distribution, noise.seed_tensor(1), 20000)
    assert rows.shape == batch.shape and rows.dtype == batch.dtype
    for ours, theirs in zip(_columns(rows), _columns(batch), strict=True):
        assert stats.ks_2samp(ours, theirs).pvalue > 1e-3


def _columns(samples):
    return samples.numpy().reshape(20000, -1).T


def test_a_distribution_that_cannot_be_drawn_by_rows_is_named():
    with pytest.raises(TypeError, match="Gamma"):
        noise.draw(tfd.Gamma([1.0], [1.0]), noise.seed_tensor([1], 1))


STAGES = (Stage(1, 6, 2, 1), Stage(2, 4, 2, 1))
MODELS = {
    "bernoulli": {},
    "dense": {"stages": (Stage(1, 8, 3, 2),)},
    "mixture": {"mixture_components": 3},
    "logistic": {"likelihood": "logistic"},
    "normal": {"likelihood": "normal", "likelihood_scale": "channel"},
    "local": {"autoregressive_layers": 2, "autoregressive_filters": 4},
    "conditional": {"conditional_stages": 1},
    "two stages": {"conditional_stages": 2},
    "conditional local": {
        "conditional_stages": 1,
        "autoregressive_layers": 2,
        "autoregressive_filters": 4,
    },
}
SHAPE = (4, 4, 1)


@functools.cache
def model(name):
    settings = {"stages": STAGES, "top_latents": 3, "top_units": 6} | MODELS[name]
    config = ModelConfig(SHAPE, **settings)
    return (ConditionalMatNet if config.conditional_stages else MatNet)(config, seed=1)


def inputs(name, count):
    rng = np.random.RandomState(2)
    x = rng.randint(0, 2, (count, *SHAPE)).astype(np.float32)
    mask = np.zeros((count, *SHAPE), np.float32)
    mask[:, :2] = 1
    return (x, mask) if MODELS[name].get("conditional_stages") else (x,)


def results(name, inputs, seed):
    """Everything that a model draws for images, with the images first."""
    own, count = model(name), len(inputs[0])
    found = {
        "elbo": own.elbo(*inputs, seed=seed).elbo,
        "bound": own.log_likelihood(*inputs, num_samples=5, seed=seed, chunk=2 * count),
        "reconstruct": own.reconstruct(*inputs, num_inferred=1, seed=seed),
        "infer": tf.reshape(own.infer(*inputs, 2, seed).z[-1], [2, count, -1])[1],
    }
    if len(inputs) == 2:
        found["impute"] = own.impute(*inputs, num_samples=3, seed=seed).samples[2]
    else:
        found["sample"] = own.sample(count, seed=seed)
        found["pixels"] = own.sample(count, seed=seed, draw=True)
        found["interpolate"] = own.interpolate(*inputs, inputs[0][::-1], 2, [0], seed=seed)[0]
    if own.config.mixture_components:
        found["assign"] = own.assign(*inputs, seed=seed)
        found["component"] = own.sample(count, seed=seed, component=1)
    return {key: np.asarray(value) for key, value in found.items()}


QUICK = ("mixture", "conditional")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in QUICK else [pytest.mark.slow]) for n in MODELS]
)
def test_what_an_image_gets_depends_on_its_own_seed_and_on_no_other_image(name):
    whole = inputs(name, 7)
    seeds = [3, 1, 4, 1, 5, 9, 2]
    together = results(name, whole, seeds)
    alone = results(name, [part[4:5] for part in whole], seeds[4:5])
    for key, value in alone.items():
        np.testing.assert_allclose(value[0], together[key][4], rtol=1e-4, atol=1e-5, err_msg=key)
    equal = [np.repeat(part[:1], 7, axis=0) for part in whole]
    for key, value in results(name, equal, seeds).items():
        assert np.abs(value[1] - value[3]).max() < 1e-4, key  # Of equal seeds.
        if key != "assign":
            assert np.abs(value[1] - value[2]).max() > 0, key


def test_seeds_that_do_not_fit_the_images_are_refused():
    (x,) = inputs("bernoulli", 3)
    for seed, got in (([1, 2], r"\[1, 2\]"), (1.5, "1.5"), (None, "None"), ([1, 2, 0.5], "0.5")):
        with pytest.raises(ValueError, match=f"seed must be a whole number, or 3 .* got .*{got}"):
            model("bernoulli").elbo(x, seed=seed)


@pytest.mark.parametrize("name", ["mixture", "local"])
def test_a_graph_that_met_one_seed_takes_those_of_rows_for_what_they_are(name):
    tf.config.run_functions_eagerly(False)  # The module's fixture ends with it so.
    fresh = MatNet(model(name).config, seed=1)
    (x,) = inputs(name, 3)
    fresh.elbo(x, seed=0), fresh.sample(3, seed=0)
    seeds = [4, 5, 4]
    np.testing.assert_array_equal(
        fresh.elbo(np.repeat(x[:1], 3, axis=0), seed=seeds).elbo[0],
        fresh.elbo(np.repeat(x[:1], 3, axis=0), seed=seeds).elbo[2],
    )
    drawn = fresh.sample(3, seed=seeds).numpy()
    np.testing.assert_array_equal(drawn[0], drawn[2])
