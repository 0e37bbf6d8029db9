# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Bounds on log p(x_u | x_k): what they count, and exact values of them for tiny models."""

import functools
import itertools

import numpy as np
import numpy_matnet as npm
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf
from local_models import log_prob_in_order
from test_bounds import IMAGES, X, log_mean_exp, meets, rises_towards
from test_conditional import LOCAL, ROWS, data, every_row, made, priors, same_bits, walk

from matnet_tf.config import ModelConfig, Scale
from matnet_tf.likelihoods.autoregressive import LocalAutoregression
from matnet_tf.likelihoods.observation import ObservedPixels
from matnet_tf.model.conditional import ConditionalMatNet

pytestmark = pytest.mark.usefixtures("module_eagerly")

SEED = tf.constant([0, 7])


# What the bound counts.


def of_every_value(likelihood, parameters, x):
    """log p of every value in SciPy, from what the likelihood's layer reads."""
    if likelihood == "logistic_mixture":
        return npm.logistic_mixture_log_probs(x, parameters)[..., None]
    first = parameters[..., 0].astype(np.float64)
    if likelihood == "bernoulli":
        return x * first - np.logaddexp(0, first)
    start = {"logistic": -2.0, "normal": -1.0}[likelihood]
    scale = np.exp(7 * np.tanh((parameters[..., 1] + start) / 7))
    loc, scale = 0.5 + 0.5 * first, 0.5 * scale
    if likelihood == "normal":
        return scipy.stats.norm.logpdf(x, loc, scale)
    level, of = np.rint(255 * x), scipy.stats.logistic(loc, scale)
    above = np.where(level == 255, np.inf, (level + 0.5) / 255)
    below = np.where(level == 0, -np.inf, (level - 0.5) / 255)
    # Of two equal differences, the one of small numbers keeps its digits.
    right = of.sf(below) - of.sf(above)
    return np.log(np.where(below > loc, right, of.cdf(above) - of.cdf(below)))


@every_row
def test_the_log_likelihood_is_the_sum_over_hidden_pixels_alone(row):
    model, (x, mask) = made(row), data(row)
    x.reshape(2, -1)[:, -1] = [0, 1]  # Hidden, at both ends of the values.
    bound, trace = model.hierarchy.bound_and_trace(tf.constant(x), tf.constant(mask), SEED)
    parameters = model.hierarchy.likelihood(trace.h_td)
    if row.local:
        seen = model.hierarchy.likelihood.add_observed(parameters, trace.observed)
        parameters = model.hierarchy.likelihood.parameters(tf.constant(x), seen)
    log_probs = of_every_value(row.likelihood, parameters.numpy(), x)
    expected = npm.sum_per_image(np.where(mask, 0, log_probs))
    np.testing.assert_allclose(bound.log_likelihood, expected, rtol=2e-4)
    assert not np.allclose(expected, npm.sum_per_image(log_probs), rtol=1e-2)
    np.testing.assert_allclose(bound.elbo, bound.log_likelihood - sum(bound.kl.values()), rtol=1e-5)


@pytest.mark.parametrize("name", ["dense, two stages, real", "convolutional, 8 bits"])
def test_known_pixels_change_log_p_by_what_is_conditioned_on_alone(name):
    row = ROWS[name]
    model, (x, mask) = made(row), data(row)
    p_x = model.hierarchy.p_x(walk(model, x, mask))
    x, mask = (np.tile(part, (2, 1, 1, 1)) for part in (x, mask))
    same_bits([p_x.log_prob(np.where(mask, 1 - x, x))], [p_x.log_prob(x)])
    assert not np.allclose(p_x.log_prob(np.where(mask, x, 1 - x)), p_x.log_prob(x))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dense, two stages, real", "convolutional, two stages, local"])
def test_a_log_weight_is_the_joint_minus_the_posterior_at_the_same_draw(name):
    row = ROWS[name]
    model, (x, mask) = made(row), data(row)
    encoding = model.hierarchy.encode(tf.constant(x), tf.constant(mask))
    for count in (None, 0, 4):
        trace = model.hierarchy.top_down_pass(encoding, 6, SEED, num_inferred=count)
        expected = model.hierarchy.p_x(trace).log_prob(np.tile(x, (3, 1, 1, 1)))
        for level in trace.levels[:count]:
            expected += level.prior.log_prob(level.z) - level.posterior.log_prob(level.z)
        actual = model.hierarchy.log_weight(tf.constant(x), encoding, 3, SEED, count)
        np.testing.assert_allclose(tf.reshape(actual, [-1]), expected, rtol=1e-4)


def test_log_likelihood_is_the_bound_of_its_chunks():
    row = ROWS["dense"]
    model, (x, mask) = made(row), data(row)
    pieces = list(model.log_weights(x, mask, 25, seed=3, chunk=20))
    assert [len(piece) for piece in pieces] == [10, 10, 5]
    expected = log_mean_exp(np.concatenate(pieces).astype(np.float64))
    actual = model.log_likelihood(x, mask, 25, seed=3, chunk=20)
    np.testing.assert_allclose(actual, expected, rtol=1e-9)
    assert actual.dtype == np.float64
    other = model.log_likelihood(x, mask, 25, seed=3, chunk=20, num_inferred=0)
    pieces = list(model.log_weights(x, mask, 25, seed=3, chunk=20, num_inferred=0))
    expected = log_mean_exp(np.concatenate(pieces).astype(np.float64))
    np.testing.assert_allclose(other, expected, rtol=1e-9)
    assert not np.allclose(other, actual, rtol=1e-4)


# A mask that hides everything.


@every_row
def test_a_mask_that_hides_everything_leaves_priors_that_know_no_image(row):
    model, (x, mask) = made(row), data(row)
    nothing = np.zeros_like(mask)
    latents = [z[:1] + tf.zeros_like(z) for z in walk(model, x, nothing).z]
    trace = walk(model, x, nothing, latents=latents)
    same_bits(priors(walk(model, 1 - x, nothing, latents=latents)), priors(trace))
    # Other images in the same rows, bit for bit; the rows of a batch are rounded each in its way.
    same_bits(priors(walk(model, np.roll(x, 1, axis=0), nothing, latents=latents)), priors(trace))
    for prior in priors(trace):
        first = np.repeat(prior[:, :1], len(latents[0]), axis=1)
        np.testing.assert_array_max_ulp(prior, first, maxulp=17)  # 1e-6 to 2e-6 of the value


def test_with_nothing_known_bounds_and_completions_are_of_whole_images():
    row = ROWS["dense"]
    model, (x, mask) = made(row), data(row)
    nothing = np.zeros_like(mask)
    bound, trace = model.hierarchy.bound_and_trace(tf.constant(x), tf.constant(nothing), SEED)
    logits = model.hierarchy.likelihood(trace.h_td).numpy()[..., 0]
    np.testing.assert_allclose(bound.log_likelihood, npm.bernoulli_log_prob(x, logits), rtol=1e-5)
    assert (sum(bound.kl.values()).numpy() > 0).all()
    same_bits(model.impute(x, nothing, 2), model.impute(1 - x, nothing, 2))


# Exact values, by quadrature.

MASKS = {
    "nothing known": [[0, 0], [0, 0]],
    "one known": [[0, 0], [1, 0]],
    "three known": [[1, 0], [1, 1]],
}
every_mask = pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)


def as_mask(rows, images=16):
    return tf.tile(tf.reshape(tf.constant(rows, tf.float32), [1, 2, 2, 1]), [images, 1, 1, 1])


@functools.cache
def tiny(stages=1, **choices) -> ConditionalMatNet:
    """Two latents of one unit in every stage, with everything smooth."""
    config = ModelConfig(
        (2, 2, 1),
        (Scale(1, 6, 1, 1),),
        1,
        4,
        activation="tanh",
        conditional_stages=stages,
        **choices,
    )
    model = npm.randomize(ConditionalMatNet(config), seed=3)
    for stage in model.hierarchy.stages:
        stage.top_down.latent_scale.assign(0.5)
        # Posteriors near the priors but wider, so that importance weights have a small variance.
        for guide, log_var in ((stage.generator, -0.5), (stage.guide, 1.0)):
            for head in (guide.top.head, guide.modules[0].head):
                head.kernel.assign(0.3 * head.kernel.value)
                head.bias.assign([0.3, log_var])
    return model


def quadrature(model, mask, nodes) -> np.ndarray:
    """log p(x_u | x_k) of all 16 images: Gauss-Hermite quadrature over every latent."""
    t, w = np.polynomial.hermite_e.hermegauss(nodes)
    levels = model.config.num_levels
    grid = np.stack(np.meshgrid(*[t] * levels, indexing="ij"), -1).reshape(-1, levels)
    log_w = np.stack(np.meshgrid(*[np.log(w / w.sum())] * levels, indexing="ij")).sum(0).ravel()
    encoding, rows, latents = (
        model.hierarchy.encode_observed(ObservedPixels.of(X, as_mask(mask))),
        16 * len(grid),
        [],
    )
    for level in range(levels):
        prior = (
            model.hierarchy.top_down_pass(encoding, rows, SEED, latents=latents).levels[level].prior
        )
        deviations = np.repeat(grid[:, level], 16)[:, None].astype(np.float32)
        latents.append(prior.mean() + prior.stddev() * deviations)
    p_x = model.hierarchy.p_x(model.hierarchy.top_down_pass(encoding, rows, SEED, latents=latents))
    log_p = p_x.log_prob(tf.tile(X, [len(grid), 1, 1, 1])).numpy().astype(np.float64)
    return scipy.special.logsumexp(log_p.reshape(-1, 16) + log_w[:, None], axis=0)


def sum_to_one(log_p, mask, images=IMAGES):
    """Checks that for each x_k the probabilities of all x_u sum to 1."""
    known = np.broadcast_to(np.reshape(mask, (2, 2, 1)), images.shape[1:]) > 0
    given = [image[known].tobytes() for image in images]
    assert len(set(given)) == 2 ** known.sum()
    for x_k in set(given):
        members = np.array([other == x_k for other in given])
        assert np.exp(log_p[members]).sum() == pytest.approx(1.0, abs=1e-5)


def log_weights(model, mask, num_samples, seed):
    """`[K, 16]` importance log-weights."""
    encoding = model.hierarchy.encode(X, as_mask(mask))
    return (
        model.hierarchy.log_weight(X, encoding, num_samples, tf.constant([1, seed]))
        .numpy()
        .astype(np.float64)
    )


@pytest.mark.parametrize("everywhere", [True, False])
@every_mask
def test_for_every_x_k_the_probabilities_of_all_x_u_sum_to_one(mask, everywhere):
    exact = quadrature(tiny(known_everywhere=everywhere), mask, 32)
    sum_to_one(exact, mask)
    assert np.ptp(exact) > 0.3, "the model should tell images apart"


def test_the_quadrature_has_converged_and_agrees_with_draws_from_the_priors():
    model, mask = tiny(), MASKS["one known"]
    exact = quadrature(model, mask, 32)
    np.testing.assert_allclose(quadrature(model, mask, 24), exact, atol=1e-3)
    encoding, tiled = (
        model.hierarchy.encode_observed(ObservedPixels.of(X, as_mask(mask))),
        tf.tile(X, [4000, 1, 1, 1]),
    )
    p_x = model.hierarchy.p_x(model.hierarchy.top_down_pass(encoding, 4000 * 16, SEED))
    meets(p_x.log_prob(tiled).numpy().astype(np.float64).reshape(4000, 16), exact)


@pytest.mark.parametrize(
    "mask", [MASKS["one known"], pytest.param(MASKS["nothing known"], marks=pytest.mark.slow)]
)
def test_the_bound_meets_the_exact_value_within_its_standard_error(mask):
    model = tiny()
    meets(log_weights(model, mask, 20000, 0), quadrature(model, mask, 32))


def test_the_bound_rises_with_the_number_of_samples_towards_the_exact_value():
    model, mask = tiny(), MASKS["one known"]
    exact = quadrature(model, mask, 32)
    rises_towards(exact, functools.partial(log_weights, model, mask))


def test_the_elbo_is_the_mean_of_the_log_weights():
    model, mask, draws = tiny(), MASKS["one known"], 2000
    tiled = tf.tile(X, [draws, 1, 1, 1])
    elbo = model.hierarchy.bound_and_trace(tiled, as_mask(mask, draws * 16), SEED)[0].elbo
    elbo, weights = elbo.numpy().reshape(draws, 16), log_weights(model, mask, draws, 1)
    error = np.hypot(elbo.std(0), weights.std(0)) / np.sqrt(draws)
    assert (np.abs(elbo.mean(0) - weights.mean(0)) < 4 * error).all()
    assert (elbo.mean(0) < quadrature(model, mask, 32)).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    "local", [{}, pytest.param(LOCAL, marks=pytest.mark.slow)], ids=["independent", "local"]
)
def test_with_two_stages_and_four_latents_they_sum_to_one_and_the_bound_meets_them(local):
    model, mask = tiny(stages=2, **local), MASKS["one known"]
    exact = quadrature(model, mask, 8)
    sum_to_one(exact, mask)
    assert np.ptp(exact) > 1.0, "the model should tell images apart"
    meets(log_weights(model, mask, 8000, 0), exact)


# The local autoregressive model with known pixels.


@functools.cache
def layer_of(image, likelihood="bernoulli", stage=None) -> LocalAutoregression:
    config = ModelConfig(
        image,
        (stage or Scale(image[:2], 5, 2, 1),),
        2,
        4,
        image_filters=3,
        likelihood=likelihood,
        autoregressive=True,
        autoregressive_layers=3,
        autoregressive_filters=7,
        conditional_stages=1,
    )
    layer = LocalAutoregression(config)
    layer.build((None, 5) if config.scales[0].dense else (None, *image[:2], 3))
    return npm.randomize(layer)


def context_of(layer, rows=1):
    config = layer.config
    shape = (5,) if config.scales[0].dense else (*config.image_shape[:2], 3)
    noise = np.random.default_rng(1).normal(size=(1, *shape))
    return layer(tf.repeat(tf.constant(noise, tf.float32), rows, 0))


def some_images(layer, rows=3):
    """Images, and masks that are each another, with known pixels behind hidden ones."""
    rng = np.random.default_rng(2)
    levels = rng.integers(0, 256, (rows, *layer.config.image_shape))
    x = levels > 127 if layer.config.likelihood == "bernoulli" else levels / 255
    mask = rng.random((rows, *layer.config.image_shape[:2], 1)) < 0.5
    mask[:, 0, 0], mask[:, -1, -1] = False, True
    return ObservedPixels(tf.constant(x, tf.float32), tf.constant(mask, tf.float32))


@pytest.mark.parametrize("stage", [Scale(1, 5, 2, 1), Scale(2, 5, 2, 1)], ids=["dense", "2x2"])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("mask", [*MASKS.values(), [[0, 1], [0, 1]]])
def test_with_the_local_model_the_probabilities_of_all_x_u_sum_to_one(mask, channels, stage):
    layer = layer_of((2, 2, channels), stage=stage)
    images = np.float32(list(itertools.product([0, 1], repeat=4 * channels)))
    images = images.reshape(-1, 2, 2, channels)
    known = ObservedPixels.of(tf.constant(images), as_mask(mask, len(images)))
    p_x = layer.distribution(context_of(layer, len(images)), known)
    log_p = p_x.log_prob(images).numpy().astype(np.float64)
    sum_to_one(log_p, mask, images)
    assert np.ptp(log_p) > 0.5, "the images should differ in probability"


@pytest.mark.parametrize(
    ("image", "likelihood"), [((3, 4, 1), "bernoulli"), ((3, 3, 2), "logistic")]
)
def test_a_hidden_value_sees_known_values_behind_it_and_no_hidden_ones(image, likelihood):
    layer, size = layer_of(image, likelihood), int(np.prod(image))
    known = some_images(layer, 1)
    x, context = known.x, context_of(layer)
    with tf.GradientTape() as tape:
        tape.watch(x)
        seen = layer.add_observed(context, ObservedPixels.of(x, known.mask))
        parameters = tf.reshape(layer.parameters(x, seen), [size, -1])
    jacobian = tape.jacobian(parameters, x).numpy().reshape(size, -1, size)
    sees = abs(jacobian).max(1) > 0
    shown = np.broadcast_to(known.mask.numpy()[0] > 0, image).ravel()
    places = np.indices(image).reshape(3, -1)
    behind, found = np.triu(np.ones((size, size), bool)), 0
    assert not (sees & behind)[:, ~shown].any(), "a value sees itself or a hidden one behind it"
    for i, j in itertools.product(np.flatnonzero(~shown), np.flatnonzero(shown)):
        if i < j and np.abs(places[:2, i] - places[:2, j]).max() <= 1:
            assert sees[i, j], (i, j)
            found += 1
    assert found > 4
    before = np.tri(size, k=-1, dtype=bool) & ~shown
    assert (sees & before)[~shown].any(), "nor is there an autoregressive model"


DRAWN = {
    "grey, dense": ((3, 4, 1), "bernoulli", Scale(1, 5, 2, 1)),
    "colour": ((3, 3, 2), "logistic"),
}


@pytest.mark.parametrize("arguments", DRAWN.values(), ids=DRAWN)
def test_a_sample_has_the_known_pixels_and_scores_as_its_values_were_drawn(arguments):
    layer = layer_of(*arguments)
    known, context = some_images(layer), context_of(layer, 3)
    images = layer.sample(layer.add_observed(context, known), tf.constant([3, 4]), known)
    assert not layer.observation.invalid(images).numpy().any()
    images, (x, mask) = images.numpy(), (part.numpy() for part in known)
    shown = np.broadcast_to(mask > 0, x.shape)
    assert images[shown].tobytes() == x[shown].tobytes()
    assert not np.array_equal(images[~shown], x[~shown])
    p_x, seen = layer.distribution(context, known), layer.add_observed(context, known)
    expected = log_prob_in_order(layer, seen, images, known)
    np.testing.assert_allclose(p_x.log_prob(images), expected, rtol=1e-4)
    # What is drawn does not depend on what stands in the place of hidden pixels.
    same = ObservedPixels(tf.where(known.mask > 0, known.x, 1 - known.x), known.mask)
    seen = layer.add_observed(context, same)
    same_bits([images], [layer.sample(seen, tf.constant([3, 4]), same)])
    many = p_x.sample(2, seed=[0, 1]).numpy()
    assert many.shape == (2, *x.shape) and not np.array_equal(*many)
    same_bits(many[:, shown], np.stack([x[shown]] * 2))


def test_sampled_frequencies_are_the_probabilities_given_a_known_pixel_behind():
    layer, draws, shares = layer_of.__wrapped__((1, 2, 1)), 4000, []
    layer.observed_context.kernel.assign(10 * layer.observed_context.kernel.value)
    for value in (0.0, 1.0):
        x, mask = tf.constant([[[[0.0], [value]]]]), tf.constant([[[[0.0], [1.0]]]])
        known = ObservedPixels(*(tf.repeat(part, draws, 0) for part in (x, mask)))
        p_x = layer.distribution(context_of(layer, draws), known)
        drawn = p_x.sample(seed=[1, 2]).numpy()[:, 0, 0, 0]
        white = tf.tensor_scatter_nd_update(known.x, [[0, 0, 0, 0]], [1.0])
        shares.append(float(np.exp(p_x.log_prob(white))[0]))
        error = np.sqrt(shares[-1] * (1 - shares[-1]) / draws)
        assert drawn.mean() == pytest.approx(shares[-1], abs=4 * error)
    assert abs(shares[0] - shares[1]) > 0.1, "the known pixel should matter"
