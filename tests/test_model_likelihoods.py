# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""What `MatNet` promises its users, with every likelihood."""

import dataclasses
import functools

import keras
import numpy as np
import numpy_matnet as npm
import pytest
import tensorflow as tf
from test_model import dataset, equal

from matnet_tf.config import ModelConfig, Stage
from matnet_tf.model import MatNet
from matnet_tf.noise import seed_tensor
from matnet_tf.optimization import Adam

SHAPE = (4, 3, 2)
STAGES = (Stage(1, 5, 2, 1), Stage((2, 2), 3, 2, 1))
LOCAL = {"autoregressive": True, "autoregressive_layers": 3, "autoregressive_filters": 5}
KINDS = {
    "logistic": {"likelihood": "logistic"},
    "normal": {"likelihood": "normal", "likelihood_scale": "channel"},
    "whitened": {"likelihood": "normal", "whitening": True},
    "local bernoulli": LOCAL,
    "local logistic": {"likelihood": "logistic", "likelihood_scale": "scalar", **LOCAL},
}


def kinds(*quick):
    """Every kind; all but these are slow, since these do what the others do, and more."""
    marks = {kind: [] if kind in quick else [pytest.mark.slow] for kind in KINDS}
    return pytest.mark.parametrize("kind", [pytest.param(k, marks=m) for k, m in marks.items()])


every_kind = kinds("whitened", "local logistic")


def config_of(kind, **changes):
    return ModelConfig(SHAPE, STAGES, 2, 4, 3, **KINDS[kind] | changes)


def images(kind, number=4):
    levels = np.random.default_rng(0).integers(0, 256, (number, *SHAPE))
    noise = np.random.default_rng(1).random(levels.shape)
    by_likelihood = {
        "bernoulli": levels > 127,
        "logistic": levels / 255,
        "normal": (levels + noise) / 256,
    }
    return by_likelihood[config_of(kind).likelihood].astype(np.float32)


def new(kind, **changes):
    """A model that has seen what it needs to see before training."""
    model = MatNet(config_of(kind, **changes))
    model.adapt([images(kind, 40)])
    return model


@functools.cache
def made(kind):
    """A model with random biases too. Tests must not train it."""
    return npm.randomize(new(kind))


# Bounds and inference.


@every_kind
def test_the_elbo_is_the_log_likelihood_minus_the_kl_and_repeats(kind, eagerly):
    model, x = made(kind), images(kind)
    bound = model.elbo(x, seed=1)
    np.testing.assert_allclose(bound.elbo, bound.log_likelihood - sum(bound.kl.values()), rtol=1e-5)
    assert all(part.shape == (4,) and part.dtype == tf.float32 for part in tf.nest.flatten(bound))
    equal(bound[:2], model.elbo(x, seed=1)[:2])
    assert not np.array_equal(bound.elbo, model.elbo(x, seed=2).elbo)


@every_kind
def test_the_likelihood_of_the_bound_is_the_numpy_walks(kind, eagerly):
    model, x = made(kind), images(kind)
    bound, trace = model.bound_and_trace(tf.constant(x), seed_tensor(1))
    expected = npm.Walk(model, x, trace.z).log_likelihood
    np.testing.assert_allclose(bound.log_likelihood, expected, rtol=1e-3, atol=1e-3)


@every_kind
def test_log_likelihood_is_above_the_elbo_and_repeats(kind, eagerly):
    model, x = made(kind), images(kind)
    elbo = model.elbo(np.tile(x, (50, 1, 1, 1))).elbo.numpy().reshape(50, 4).mean(0)
    bound = model.log_likelihood(x, num_samples=100)
    assert bound.dtype == np.float64 and (bound > elbo).all()
    equal([bound], [model.log_likelihood(x, num_samples=100)])
    assert [len(p) for p in model.log_weights(x, 5, chunk=8)] == [2, 2, 1]
    trace = model.infer(x, num_samples=3, seed=2)
    assert [z.shape for z in trace.z] == [(12, *s) for s in model.latent_shapes]


@pytest.mark.slow
@every_kind
def test_graphs_equal_eager_computation(kind):
    model, x = made(kind), images(kind)
    calls = {
        "elbo": lambda: model.elbo(x).elbo,
        "sample": lambda: model.sample(3, temperature=0.7),
        "reconstruct": lambda: model.reconstruct(x, num_inferred=2),
        "log_likelihood": lambda: model.log_likelihood(x, num_samples=3),
    }
    graphs = {name: np.array(call()) for name, call in calls.items()}
    tf.config.run_functions_eagerly(True)
    try:
        for name, call in calls.items():
            np.testing.assert_allclose(graphs[name], call(), rtol=1e-3, atol=1e-5, err_msg=name)
    finally:
        tf.config.run_functions_eagerly(False)


# Images.


@every_kind
def test_a_sample_is_a_mean_or_a_draw_of_what_the_likelihood_can_model(kind, eagerly):
    model = made(kind)
    plain, drawn = (model.sample(5, seed=3, draw=draw) for draw in (False, True))
    assert plain.shape == drawn.shape == (5, *SHAPE)
    assert not model.likelihood.pixels.invalid(drawn).numpy().any()
    assert plain.numpy().min() >= 0 and plain.numpy().max() <= 1
    # Where the mean is an integral over images, there are draws only.
    assert np.array_equal(plain, drawn) == model.config.autoregressive
    equal([drawn], [model.sample(5, seed=3, draw=True)])
    assert not np.array_equal(drawn, model.sample(5, seed=4, draw=True))


def test_drawn_8_bit_pixels_have_the_means_of_their_sample(eagerly):
    model = made("logistic")
    latents = [
        np.tile(z[:1], [2000] + [1] * (z.ndim - 1)) for z in model.infer(images("logistic")).z
    ]
    means = model.sample(1, latents=[z[:1] for z in latents])[0].numpy()
    drawn = model.sample(2000, latents=latents, draw=True).numpy()
    error = np.abs(drawn.mean(0) - means)
    np.testing.assert_array_less(error, 5 * drawn.std(0) / np.sqrt(2000) + 1 / 255)


@kinds("logistic", "whitened")
def test_reconstructions_go_from_a_sample_to_the_image_of_the_posteriors_draw(kind, eagerly):
    model, x = made(kind), images(kind)
    equal([model.reconstruct(x, num_inferred=0, seed=5)], [model.sample(4, seed=5)])
    decoded = model.decode(model.infer(x, seed=5).z, seed=5)
    np.testing.assert_allclose(model.reconstruct(x, seed=5), decoded, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        model(x), model.decode(model.infer(x, seed=model.seed).z, seed=model.seed), atol=1e-5
    )


# Training and saving.


@kinds("whitened")
def test_a_fitted_model_predicts_evaluates_and_comes_back_from_its_file(kind, tmp_path, eagerly):
    model, x = new(kind), images(kind)
    model.compile(optimizer=Adam(0.01), run_eagerly=True)
    before = model.get_weights()
    model.fit(dataset(x), epochs=1, verbose=0, shuffle=False)
    assert int(model.step.numpy()) == 2 and int(model.skipped.numpy()) == 0
    after = model.get_weights()
    assert sum(not np.array_equal(a, b) for a, b in zip(before, after, strict=True)) > 30
    result = model.evaluate(dataset((x, np.zeros(4))), verbose=0, return_dict=True)
    kl = sum(result[f"kl/{name}"] for name in model.config.level_names)
    assert result["elbo"] == pytest.approx(result["log_likelihood"] - kl, rel=1e-4)
    predicted = model.predict(dataset(x), verbose=0)
    assert predicted.shape == x.shape and predicted.min() >= 0 and predicted.max() <= 1
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.config == model.config
    equal(loaded.get_weights(), model.get_weights())
    # Statistics of whitening come with the weights: nothing has to be adapted again.
    equal(loaded.elbo(x, seed=3)[:2], model.elbo(x, seed=3)[:2])
    equal([loaded.sample(2, seed=3, draw=True)], [model.sample(2, seed=3, draw=True)])


@pytest.mark.slow
@every_kind
def test_training_raises_the_bound_on_its_images(kind):
    model = new(kind)
    model.compile(optimizer=Adam(0.01))
    x = np.tile(images(kind, 8), (200, 1, 1, 1))
    before = model.evaluate(x, batch_size=800, verbose=0, return_dict=True)["elbo"]
    model.fit(x, batch_size=8, shuffle=False, verbose=0)
    after = model.evaluate(x, batch_size=800, verbose=0, return_dict=True)["elbo"]
    assert after > before + 1
    assert int(model.skipped.numpy()) == 0


@pytest.mark.slow
def test_the_local_model_learns_what_pixels_say_of_each_other():
    # The second channel repeats the first: 12 fair coins, not 24.
    rng = np.random.default_rng(0)
    x = np.repeat(rng.integers(0, 2, (4000, 4, 3, 1)), 2, axis=-1).astype(np.float32)
    model = new("local bernoulli")
    model.compile(optimizer=Adam(0.01))
    model.fit(x, batch_size=10, shuffle=False, verbose=0)
    elbo = model.evaluate(x[:1000], batch_size=1000, verbose=0, return_dict=True)["elbo"]
    assert -1.1 * 12 * np.log(2) < elbo < -0.99 * 12 * np.log(2)
    drawn = model.sample(50).numpy()
    assert np.mean(drawn[..., 0] == drawn[..., 1]) > 0.95


SIZES = {
    "one grey pixel": ((1, 1, 1), (Stage(1, 3, 1, 1),)),
    "a column, 5 channels": ((9, 1, 5), (Stage((5, 1), 3, 1, 1),)),
    "odd, dense stages, 3 channels": ((5, 3, 3), (Stage(1, 3, 1, 1),)),
}


@pytest.mark.parametrize(
    ("size", "kind"),
    [
        pytest.param(size, kind, marks=[] if i == j else [pytest.mark.slow])
        for i, size in enumerate(SIZES)
        for j, kind in enumerate(("logistic", "whitened", "local logistic"))
    ],
)
def test_images_of_any_shape_and_number_of_channels_train_and_are_drawn(size, kind, eagerly):
    shape, stages = SIZES[size]
    model = MatNet(dataclasses.replace(config_of(kind), image_shape=shape, stages=stages))
    x = (np.random.default_rng(0).integers(0, 256, (6, *shape)) / 255).astype(np.float32)
    model.adapt([x])
    model.compile(optimizer="sgd", run_eagerly=True)
    assert np.isfinite(model.train_step(x)["elbo"])
    assert int(model.skipped.numpy()) == 0
    drawn = model.sample(3, draw=True)
    assert drawn.shape == (3, *shape)
    assert not model.likelihood.pixels.invalid(drawn).numpy().any()


# What else the model says of itself.


@every_kind
def test_the_weights_of_a_bound_are_all_but_the_training_state(kind):
    model = made(kind)
    paths = {v.path for v in model.bound_weights}
    assert {v.path for v in model.trainable_variables} <= paths
    rest = {v.path.rpartition("/")[2] for v in model.weights if v.path not in paths}
    assert {"step", "skipped", "skipped_in_a_row", "kl_weight"} <= rest
    statistics = {p.rpartition("/")[2] for p in paths if "whitening" in p.split("/")}
    expected = {"mean", "matrix", "inverse", "log_det", "num_images"}
    assert statistics == (expected if model.config.whitening else set())


@pytest.mark.slow
def test_a_pass_of_a_bound_holds_fewer_samples_of_a_larger_model():
    small = MatNet(config_of("local bernoulli")).samples_per_pass
    assert small == 5000
    # 2**24 numbers of the largest tensor: the state's share of the layers and the shortcut.
    shape, layers = {"image_shape": (32, 32, 3)}, {"autoregressive_layers": 2}
    config = config_of("local logistic", autoregressive_filters=40, **layers)
    large = MatNet(dataclasses.replace(config, **shape, stages=(Stage(1, 3, 1, 1),)))
    assert large.likelihood.filters_per_position == 40 + 3 + 3
    assert large.samples_per_pass == 2**24 // (32 * 32 * 46)
