# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The generator for row seeds, derived seeds, and samples with one seed per row."""

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
import tensorflow_probability as tfp

from matnet_tf.distributions import stateless_random
from matnet_tf.distributions.discretized_logistic import DiscretizedLogistic
from matnet_tf.distributions.logistic_mixture import DiscretizedLogisticMixture
from matnet_tf.distributions.mixture import GaussianMixture
from matnet_tf.likelihoods.independent import MaskedDistribution
from matnet_tf.likelihoods.observation import Normal, ObservedPixels

tfd = tfp.distributions
pytestmark = pytest.mark.usefixtures("module_eagerly")

# The known answers for Threefry-2x32-20 that Random123 publishes: counter, key, output words.
ANSWERS = [
    ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    ((2**32 - 1, 2**32 - 1), (2**32 - 1, 2**32 - 1), (0x1CB996FC, 0xBB002BE7)),
    ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
]


def test_the_generator_gives_the_published_answers():
    for counter, key, words in ANSWERS:
        seed = tf.constant(np.array([key], np.uint32).view(np.int32))
        first = tf.constant(np.array([[counter[0]]], np.uint32))
        found = stateless_random._threefry(seed, first, counter[1])
        assert tuple(int(word.numpy().item()) for word in found) == words


def test_numbers_have_their_distribution_and_are_independent():
    seeds = stateless_random.seed_tensor(range(3000), 3000)
    for numbers, cdf in (
        (stateless_random.uniform(seeds, (2, 35)), "uniform"),
        (stateless_random.normal(seeds, (71,)), "norm"),
    ):
        numbers = numbers.numpy().reshape(3000, -1)
        assert np.isfinite(numbers).all()
        assert scipy.stats.kstest(numbers[:, ::7].ravel(), cdf).pvalue > 1e-3
        # Within a row, and from one seed to the next.
        for a, b in ((numbers[:, 0], numbers[:, -1]), (numbers[:-1, 3], numbers[1:, 3])):
            assert abs(np.corrcoef(a, b)[0, 1]) < 4 / np.sqrt(3000)


def test_derived_seeds_all_differ():
    seeds = stateless_random.seed_tensor([0, 1, 2**31, 2**40], 4)
    folded = [stateless_random.fold_in(seeds, i) for i in range(3)]
    derived = [seeds, *stateless_random.split(seeds, 3), *folded]
    assert len({tuple(row) for part in derived for row in part.numpy()}) == 7 * 4


def test_seeds_of_samples_do_not_depend_on_the_pass_they_are_in():
    seeds = stateless_random.seed_tensor([5, 6], 2)
    whole = stateless_random.for_samples(seeds, 0, 5).numpy().reshape(5, 2, 2)
    for first, num in ((0, 2), (2, 3), (4, 1)):
        part = stateless_random.for_samples(seeds, first, num).numpy().reshape(num, 2, 2)
        np.testing.assert_array_equal(part, whole[first : first + num])
    np.testing.assert_array_equal(stateless_random.for_pass(seeds, 5), whole.reshape(10, 2))
    np.testing.assert_array_equal(stateless_random.for_rows(seeds, 1, 1), seeds[1:])


def test_wrong_seeds_are_refused():
    for seed in ([1, 2], 1.5, None, [1, 2, 0.5]):
        with pytest.raises(ValueError) as error:
            stateless_random.seed_tensor(seed, 3)
        assert str(error.value) == (
            f"seed must be a whole number, or a sequence of 3, one for each row; got {seed!r}"
        )


def distributions(rows):
    """Distributions without a batch, or of equal rows, whose samples must be alike."""
    observation = Normal((1, 1, 2))
    whitened = Normal((1, 1, 2), "pixel", whitening=True)
    whitened.adapt([np.random.default_rng(0).random((9, 1, 1, 2)).astype(np.float32)])
    parameters = tf.tile(tf.constant([[[[[0.3, 0.1], [-0.2, -1.0]]]]]), [rows, 1, 1, 1, 1])
    observed = ObservedPixels(tf.zeros([rows, 1, 1, 2]), tf.zeros([rows, 1, 1, 1]))
    logits = tf.fill([rows, 3], -0.4)
    pairs = tf.fill([rows, 3, 3], 0.3)
    mixed = DiscretizedLogisticMixture(logits, pairs, 0.2 * pairs, pairs)
    return {
        "mixed pixels": mixed,
        "normal": tfd.Independent(tfd.Normal([1.0, -2.0], [0.5, 3.0]), 1),
        "normal in a batch": tfd.Independent(tfd.Normal(tf.fill([rows, 2, 3], 1.5), 2.0), 2),
        "bernoulli": tfd.Independent(tfd.Bernoulli(logits=logits, dtype=tf.float32), 1),
        "logistic": tfd.Independent(DiscretizedLogistic(tf.fill([rows, 4], 0.4), 0.05), 1),
        "mixture": GaussianMixture([0.0, 1.0, 2.0], [[-3.0], [0.0], [4.0]], [[0.1], [1.0], [0.5]]),
        "transformed": observation.distribution(parameters),
        "whitened": whitened.distribution(parameters),
        "masked": MaskedDistribution(observation, parameters, observed),
    }


def test_samples_with_row_seeds_have_the_distribution_of_samples_with_a_batch_seed():
    seeds = stateless_random.seed_tensor(range(20000), 20000)
    for name, distribution in distributions(20000).items():
        rows = stateless_random.draw(distribution, seeds)
        batch = stateless_random.draw(distribution, stateless_random.seed_tensor(1), 20000)
        assert rows.shape == batch.shape and rows.dtype == batch.dtype, name
        columns = (part.numpy().reshape(20000, -1).T for part in (rows, batch))
        for ours, theirs in zip(*columns, strict=True):
            assert scipy.stats.ks_2samp(ours, theirs).pvalue > 1e-3, name


def test_a_distribution_without_row_seeds_is_named():
    with pytest.raises(TypeError, match="Gamma cannot be drawn with one seed per row"):
        stateless_random.draw(tfd.Gamma([1.0], [1.0]), stateless_random.seed_tensor([1], 1))
