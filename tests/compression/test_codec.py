# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Bits-back coding: round trips, and lengths against the bound and against SciPy's masses."""

import dataclasses

import numpy as np
import numpy_matnet as npm
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf
from constriction import stream

from matnet_tf.compression.codec import Codec, check_codable
from matnet_tf.compression.latents import LatentCoder
from matnet_tf.compression.masked import MaskedImages
from matnet_tf.compression.networks import Gaussians
from matnet_tf.compression.pixels import make_pixels
from matnet_tf.config import ModelConfig, Scale
from matnet_tf.likelihoods.observation import make_observation_model
from matnet_tf.model.conditional import ConditionalMatNet
from matnet_tf.model.matnet import MatNet

pytestmark = pytest.mark.slow

DENSE = (Scale(1, 8, 2, 2),)
SMALL = ModelConfig(image_shape=(4, 4, 1), scales=DENSE, top_latents=2, top_units=8)
MODELS = {
    "bernoulli": SMALL,
    "logistic": dataclasses.replace(SMALL, likelihood="logistic"),
    "mixture": dataclasses.replace(
        SMALL,
        image_shape=(4, 4, 3),
        scales=(Scale(1, 8, 2, 1), Scale(2, 4, 2, 1)),
        likelihood="logistic_mixture",
        likelihood_components=3,
    ),
}
LOCAL = {"autoregressive": True, "autoregressive_layers": 3, "autoregressive_filters": 6}
MODELS |= {
    "local bernoulli": dataclasses.replace(SMALL, **LOCAL),
    "local logistic": dataclasses.replace(
        SMALL, image_shape=(3, 2, 3), likelihood="logistic", **LOCAL
    ),
    "local mixture": dataclasses.replace(MODELS["mixture"], **LOCAL),
}
CONDITIONAL = {"conditional_stages": 1, "known_everywhere": True}
MODELS |= {
    "conditional": dataclasses.replace(SMALL, **CONDITIONAL),
    "mixture prior": dataclasses.replace(SMALL, mixture_components=3),
    "one component": dataclasses.replace(SMALL, mixture_components=1),
    "two stages": dataclasses.replace(MODELS["logistic"], conditional_stages=2),
    "conditional local mixture": dataclasses.replace(MODELS["local mixture"], **CONDITIONAL),
}


def full_stack(words=50_000):
    values = np.random.RandomState(0).randint(0, 2**32, words, np.uint32)
    return stream.stack.AnsCoder(values, seal=True)


def images_for(config, count):
    largest = 1 if config.likelihood == "bernoulli" else 255
    shape, random = (count, *config.image_shape), np.random.RandomState(1)
    return masked(config, random.randint(0, largest + 1, shape).astype(np.uint8))


def masked(config, images):
    """Images of which a conditional model knows one of two pixels on average, and never all."""
    if not config.conditional_stages:
        return MaskedImages.all_hidden(images)
    hidden = np.random.RandomState(2).randint(0, 2, images.shape[:3]) > 0
    hidden[:, 0, 0] = True
    return MaskedImages(images, hidden)


def model_of(config):
    model = (ConditionalMatNet if config.conditional_stages else MatNet)(config, seed=0)
    npm.randomize(model.hierarchy)
    return model


@pytest.mark.parametrize("name", MODELS)
def test_images_come_back_bit_for_bit(name):
    masked = images_for(MODELS[name], 31)
    model = model_of(MODELS[name])
    codec = Codec(model.hierarchy, batch_size=4)
    steps, done = codec.suitable_steps(masked), []
    data = codec.encode(masked, steps, done.append)
    assert sum(done) == len(masked)
    assert int.from_bytes(data[:4], "little") < len(masked)  # Not all are first images.
    again = Codec(model.hierarchy, batch_size=4)
    assert again.networks.fingerprint() == codec.networks.fingerprint()
    np.testing.assert_array_equal(again.decode(data, masked.known(), steps), masked.images)
    one = masked[:1]
    np.testing.assert_array_equal(
        codec.decode(codec.encode(one, steps), one.known(), steps), one.images
    )


MIXTURE = {"mixture_components": 3, "mixture_weights": "trained", "mixture_spread": 2.0}


@pytest.mark.parametrize("changes", [{}, LOCAL, MIXTURE, MIXTURE | LOCAL, CONDITIONAL])
def test_the_mean_length_is_the_bound(changes):
    config = dataclasses.replace(SMALL, image_shape=(2, 2, 1), **changes)
    model = model_of(config)
    for variable in model.hierarchy.trainable_variables:
        variable.assign(0.5 * variable.value)  # So that the coder's shortest masses do not count.
    count = 4800
    if config.conditional_stages:
        images = np.random.RandomState(1).randint(0, 2, (count, *config.image_shape))
    else:  # The bits that images leave are random, as the next ones need them, if the model fits.
        images = model.sample(count, draw=True, seed=1).numpy()
    images = masked(config, images.astype(np.uint8))
    codec = Codec(model.hierarchy, batch_size=100)
    data = codec.encode(images, codec.suitable_steps(images[::37]))
    first, length, sizes = map(int, np.frombuffer(data[:12], "<u4"))
    coded = images[: len(images) - first]
    bits = 8 * (len(data) - 12 - length - sizes)
    mask = [np.float32(~coded.hidden[..., np.newaxis])] if config.conditional_stages else []
    elbo = model.elbo(coded.images.astype(np.float32), *mask, seed=1).elbo
    bound = -elbo.numpy().astype(np.float64) / np.log(2)
    # The length is the sum of a draw of the same kind, so the difference has both variances.
    error = np.std(bound) * np.sqrt(2 * len(bound))
    assert abs(bits - bound.sum()) < 3 * error + 64  # The end of the stack is whole words.
    assert error < 0.01 * bound.sum()


@pytest.mark.parametrize("name", ["bernoulli", "logistic", "mixture"])
def test_values_cost_their_probability(name):
    config = MODELS[name]
    observation = make_observation_model(config)
    observation.build((None, *observation.parameters_shape))
    parameters = np.random.RandomState(2).randn(500, *observation.parameters_shape)
    parameters = tf.constant(parameters, tf.float32)
    x = observation.distribution(parameters).sample(seed=3)
    outputs = [part.numpy() for part in tf.nest.flatten(observation(parameters))]
    pixels, stack = make_pixels(config), full_stack()
    values = np.rint(x.numpy() * pixels.largest).astype(np.uint8)
    before = stack.num_valid_bits()
    pixels.push(stack, outputs, values)
    expected = -observation.distribution(parameters).log_prob(x).numpy().sum(dtype=np.float64)
    assert stack.num_valid_bits() - before == pytest.approx(expected / np.log(2), rel=1e-4)
    np.testing.assert_array_equal(pixels.pop(stack, outputs), values)


def test_latents_cost_their_ratio_of_masses():
    random = np.random.RandomState(4)
    shape = (100, 60)
    loc, scale = random.randn(*shape), np.exp(random.randn(*shape))
    posterior = (loc + scale * random.randn(*shape), scale * random.uniform(0.1, 1.0, shape))
    gaussians = Gaussians(loc, scale, *posterior)
    coder, stack = LatentCoder([3, 6], gaussians, 90), full_stack()
    start = stack.num_valid_bits()
    numbers = coder.pop_posterior(stack)
    coder.push_prior(stack, numbers)
    net = stack.num_valid_bits() - start
    step = np.tile([2.0**-3, 2.0**-6], (90, 30))
    loc, scale, posterior_loc, posterior_scale = (part[:90] for part in gaussians)
    whole = numbers.reshape(90, 60)
    edges = loc + scale * step * np.stack([whole - 0.5, whole + 0.5])
    masses = [
        np.diff(scipy.stats.norm.cdf(edges, *pair), axis=0)
        for pair in ((loc, scale), (posterior_loc, posterior_scale))
    ]
    # Each of the 1281 numbers within reach has at least the smallest mass.
    prior, posterior = (mass * (1 - 1281 / 2**24) + 2**-24 for mass in masses)
    assert net == pytest.approx(np.log2(posterior / prior).sum(), rel=1e-4)
    np.testing.assert_array_equal(coder.pop_prior(stack), numbers)
    coder.push_posterior(stack, numbers)
    assert stack.num_valid_bits() == start


def test_networks_that_compute_nonsense_are_refused():
    model = model_of(SMALL)
    codec, images = Codec(model.hierarchy, batch_size=4), images_for(SMALL, 40)
    steps = codec.suitable_steps(images)
    with pytest.raises(ValueError, match="another model"):
        codec.decode(codec.encode(images, steps), images.known(), steps[1:])
    model.hierarchy.top_down.latent_scale.assign(np.nan)
    with pytest.raises(ValueError, match="not finite"):
        codec.encode(images, steps)


def test_densities_are_refused():
    with pytest.raises(ValueError, match="density"):
        check_codable(dataclasses.replace(SMALL, likelihood="normal"))
