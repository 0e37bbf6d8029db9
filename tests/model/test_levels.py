# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""What users do with levels of latents: sampling, keeping, decoding, mixing, assigning."""

import dataclasses

import numpy as np
import numpy_matnet as npm
import pytest
import tensorflow as tf
from test_matnet import equal

from matnet_tf.config import ModelConfig, Scale
from matnet_tf.distributions.stateless_random import seed_tensor
from matnet_tf.model.matnet import MatNet

pytestmark = pytest.mark.usefixtures("eagerly")

CONFIG = ModelConfig((4, 3, 1), (Scale(1, 5, 2, 1), Scale((2, 2), 3, 2, 1)), 2, 4, 3)
MIXTURE = dataclasses.replace(CONFIG, mixture_components=3, mixture_weights="trained")


def images(number=4, seed=0):
    shape = (number, *CONFIG.image_shape)
    return np.random.default_rng(seed).integers(0, 2, shape).astype(np.float32)


@pytest.fixture(scope="module")
def model() -> MatNet:
    """A model with random biases too. Tests must not train it."""
    return npm.randomize(MatNet(CONFIG))


@pytest.fixture(scope="module")
def mixture() -> MatNet:
    """The same with a mixture prior, of three components that lie apart."""
    model = npm.randomize(MatNet(MIXTURE))
    model.hierarchy.top_down.mixture.loc.assign([[9.0, 9.0], [-9.0, 9.0], [0.0, -9.0]])
    return model


def test_a_sample_is_a_mean_or_binary(model):
    means, pixels = model.sample(5), model.sample(5, draw=True)
    assert means.shape == pixels.shape == (5, 4, 3, 1)
    assert set(np.unique(pixels)) == {0.0, 1.0}
    assert means.numpy().min() > 0 and means.numpy().max() < 1


def test_drawn_pixels_have_the_means_of_their_sample(model):
    latents = [np.tile(z[:1], [2000] + [1] * (z.ndim - 1)) for z in model.infer(images(1)).z]
    means = model.sample(1, latents=[z[:1] for z in latents])[0].numpy()
    pixels = model.sample(2000, latents=latents, draw=True).numpy().mean(0)
    np.testing.assert_array_less(np.abs(pixels - means), 5 * np.sqrt(0.25 / 2000))


@pytest.mark.slow
def test_many_samples_are_drawn_in_passes_with_noise_of_their_own(model, monkeypatch):
    monkeypatch.setattr(type(model), "samples_per_pass", 3)
    parts = model.sample(8, seed=5).numpy()
    assert parts.shape == (8, *model.config.image_shape)
    equal([parts[:3]], [model.sample(3, seed=5)])
    assert not np.array_equal(parts[:3], parts[3:6])
    z = [level.z for level in model.infer(images(8), seed=1).levels]
    monkeypatch.undo()
    whole = model.sample(8, latents=z)
    monkeypatch.setattr(type(model), "samples_per_pass", 3)
    np.testing.assert_allclose(model.sample(8, latents=z), whole, rtol=1e-4, atol=1e-6)


def test_a_reconstruction_of_no_level_is_a_sample(model):
    equal([model.reconstruct(images(), num_inferred=0, seed=5)], [model.sample(4, seed=5)])


def test_a_reconstruction_of_all_levels_is_the_image_of_the_posteriors_draw(model):
    trace = model.infer(images(), seed=5)
    decoded = model.decode(trace.z)
    for num_inferred in (None, CONFIG.num_levels):
        again = model.reconstruct(images(), num_inferred=num_inferred, seed=5)
        np.testing.assert_allclose(again, decoded, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        model(images()), model.decode(model.infer(images(), seed=model.seed).z), rtol=1e-5
    )


def test_temperature_zero_leaves_no_noise(model):
    frozen = [model.sample(2, temperature=0.0, seed=seed).numpy() for seed in (1, 2)]
    np.testing.assert_array_equal(*frozen)
    np.testing.assert_array_equal(frozen[0][0], frozen[0][1])


def test_temperature_may_be_given_per_level(model):
    ones, top = [1.0] * 3, [0.0, 1.0, 1.0]
    equal([model.sample(2, temperature=ones)], [model.sample(2)])
    z = np.zeros((2, 2), np.float32)
    equal([model.sample(2, temperature=top, seed=3)], [model.sample(2, latents=[z], seed=3)])


def test_given_latents_are_used_and_the_rest_is_drawn(model):
    z = model.infer(images(), seed=2).z
    equal([model.sample(4, latents=z, seed=1)], [model.sample(4, latents=z, seed=2)])
    first, second = (model.sample(4, latents=z[:2], seed=s).numpy() for s in (1, 2))
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, model.sample(4, latents=[z[0] + 1, z[1]], seed=1))


def test_infer_gives_every_level_sample_first(model):
    trace = model.infer(images(3), num_samples=5)
    assert [level.name for level in trace.levels] == list(CONFIG.level_names)
    assert [z.shape for z in trace.z] == [(15, 2), (15, 2), (15, 2, 2, 2)]
    means = trace.levels[0].posterior.mean().numpy().reshape(5, 3, 2)
    np.testing.assert_array_equal(means, np.broadcast_to(means[:1], means.shape))
    assert len(np.unique(trace.z[0].numpy()[:, 0])) == 15


def test_any_level_may_be_given_to_decode(model):
    z = model.infer(images(), seed=2).z
    equal([model.decode([None, None, z[2]], seed=1)], [model.sample(4, 1.0, 1, (None, None, z[2]))])
    given = model.hierarchy.top_down_pass(None, 4, seed_tensor(1), latents=(None, z[1]))
    equal([model.decode([None, z[1]], seed=1)], [model.hierarchy.images(given, seed_tensor(1))])
    cold = model.hierarchy.top_down_pass(
        None, 4, seed_tensor(1), latents=(None, z[1]), temperature=0.5
    )
    equal([model.decode([None, z[1]], 0.5, 1)], [model.hierarchy.images(cold, seed_tensor(1))])


def test_the_ends_of_an_interpolation_are_the_images_of_their_draws(model):
    a, b = images(2), images(2, seed=1)
    way = model.interpolate(a, b, num=5, seed=3)
    assert way.shape == (5, 2, *CONFIG.image_shape)
    ends = [model.infer(x, seed=3).z for x in (a, b)]
    for image, z in zip((way[0], way[-1]), ends, strict=True):
        np.testing.assert_allclose(image, model.decode(z), rtol=1e-5)
    middle = [(p + q) / 2 for p, q in zip(*ends, strict=True)]
    np.testing.assert_allclose(way[2], model.decode(middle), rtol=1e-5)


def test_levels_that_are_not_mixed_are_drawn_with_the_same_noise(model):
    a = images(2)
    way = model.interpolate(a, a, num=3, levels=[1], seed=3)
    equal([way[0], way[1]], [way[1], way[2]])
    z = model.infer(a, seed=3).z
    np.testing.assert_allclose(way[0], model.decode([None, z[1]], seed=3), rtol=1e-5)


def test_a_component_gives_z_0_and_the_rest_is_drawn(mixture, monkeypatch):
    trace = mixture.hierarchy.top_down_pass(None, 500, seed_tensor(1))
    assigned = np.argmax(trace.levels[0].prior.assign(trace.z[0]), axis=1)
    assert set(assigned) == {0, 1, 2}
    indices = np.arange(500) % 3
    z_0 = []
    component_latent = mixture.hierarchy.component_latent

    def recorded(*arguments):
        z_0.append(component_latent(*arguments))
        return z_0[-1]

    monkeypatch.setattr(mixture.hierarchy, "component_latent", recorded)
    several = mixture.sample(500, component=indices, seed=4)
    one = mixture.sample(500, component=2, seed=4)
    for z, expected in zip(z_0, (indices, np.full(500, 2)), strict=True):
        equal([np.argmax(mixture.hierarchy.top_down.top_prior().assign(z), axis=1)], [expected])
    equal([several[2]], [one[2]])
    equal([one], [mixture.sample(500, latents=[z_0[1]], seed=4)])


def test_a_cold_component_gives_its_mean(mixture):
    cold = mixture.sample(2, temperature=0.0, component=1)
    z_0 = tf.repeat(mixture.hierarchy.top_down.mixture.loc[1:2], 2, axis=0)
    np.testing.assert_allclose(cold, mixture.sample(2, 0.0, latents=[z_0]), rtol=1e-5)


def test_images_are_assigned_by_the_mean_over_draws_of_z_0(mixture):
    x = images(3)
    probabilities = mixture.assign(x, num_samples=7, seed=2).numpy()
    posterior = mixture.hierarchy.top_down.gaussian(mixture.hierarchy.encode(x).top)
    z_0 = posterior.sample(7, seed=seed_tensor(2)).numpy()
    layer = mixture.hierarchy.top_down.mixture
    loc, log_var, logits = (np.float64(v) for v in (layer.loc, layer.log_var, layer.logits))
    inside = -((z_0[..., None, :] - loc) ** 2) / np.exp(log_var) / 2 - log_var / 2
    joint = logits + inside.sum(-1)
    expected = np.exp(joint - npm.log_sum_exp(joint)[..., None]).mean(0)
    np.testing.assert_allclose(probabilities, expected, rtol=1e-2, atol=1e-5)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)


def test_what_cannot_be_done_is_refused_in_one_line(model, mixture):
    x, z = images(1), np.zeros((1, 2))
    levels = r"levels must be one or more whole numbers in \[0, 2\], 0 the top; got"
    for call, message in (
        (lambda: model.sample(2, component=0), "a component needs a mixture prior"),
        (lambda: model.assign(x), "assign needs a mixture prior, .*mixture_components of at leas"),
        (lambda: mixture.sample(2, component=3), r"in \[0, 2\], or 2 of them; got 3"),
        (lambda: mixture.sample(2, component=0.5), "component must be a whole number"),
        (lambda: mixture.sample(3, component=[0, 1]), r"or 3 of them; got \[0, 1\]"),
        (lambda: mixture.sample(1, component=0, latents=[z]), "a value for the top level, not bo"),
        (lambda: model.decode([None]), "decode needs the latents of at least one level; got none"),
        (lambda: model.decode([None, np.zeros((2, 3))]), r"01_fc .* \(2, 2\); got \(2, 3\)"),
        (lambda: model.interpolate(x, x, num=1), "interpolate needs num of at least 2"),
        (lambda: model.interpolate(x, images(2)), "a and b must be as many images; got 1 and 2"),
        (lambda: model.interpolate(x, x, levels=[]), rf"{levels} \[\]"),
        (lambda: model.interpolate(x, x, levels=[3]), rf"{levels} \[3\]"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
