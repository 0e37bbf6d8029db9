# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""`MatNet` as its users meet it, with every likelihood: building, fitting, saving, sampling."""

import dataclasses
import functools

import keras
import numpy as np
import numpy_matnet as npm
import pytest
import tensorflow as tf
from test_inputs import dataset

from matnet_tf.config import ElboLoss, ModelConfig
from matnet_tf.config import Scale as S
from matnet_tf.distributions.stateless_random import seed_tensor
from matnet_tf.model.matnet import MatNet
from matnet_tf.runs.optimizer import Adam

SHAPE = (4, 3, 2)
LOCAL = {"autoregressive": True, "autoregressive_layers": 3, "autoregressive_filters": 5}
KINDS = {
    "bernoulli": {},
    "logistic": {"likelihood": "logistic"},
    "logistic mixture": {"likelihood": "logistic_mixture", "likelihood_components": 3},
    "normal": {"likelihood": "normal", "likelihood_scale": "channel"},
    "whitened": {"likelihood": "normal", "whitening": True},
    "local bernoulli": LOCAL,
    "local logistic": {"likelihood": "logistic", "likelihood_scale": "scalar", **LOCAL},
}
every_kind = pytest.mark.parametrize("kind", KINDS)
# Where what is asked of a model has nothing to do with its levels.
SMALL = ModelConfig((4, 3, 1), (S(1, 3, 2, 1),), 2, 2)


def config_of(kind, **changes):
    return ModelConfig(SHAPE, (S(1, 5, 2, 1), S((2, 2), 3, 2, 1)), 2, 4, 3, **KINDS[kind] | changes)


def images(kind="bernoulli", number=4, shape=SHAPE):
    levels = np.random.default_rng(0).integers(0, 256, (number, *shape))
    noise = np.random.default_rng(1).random(levels.shape)
    x = {"bernoulli": levels > 127, "normal": (levels + noise) / 256}
    return x.get(config_of(kind).likelihood, levels / 255).astype(np.float32)


def small_images(number=4):
    return images(number=number, shape=SMALL.image_shape)


def new(kind, **changes):
    """A model that has seen what it needs to see before training."""
    model = MatNet(config_of(kind, **changes))
    model.adapt([images(kind, 40)])
    return model


@functools.cache
def made(kind):
    """A model with random biases too. Tests must not train it."""
    return npm.randomize(new(kind))


def equal(a, b):
    a, b = list(a), list(b)
    assert len(a) == len(b) > 0
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


# Building.


def test_a_model_has_all_its_weights_when_it_is_made(capsys):
    fresh = MatNet(config_of("bernoulli"))
    before = len(fresh.weights)
    fresh.hierarchy.bound_and_trace(tf.constant(images()), tf.constant([0, 0]))
    assert fresh(images()).shape == (4, *SHAPE)
    assert fresh.built and len(fresh.weights) == before and len(fresh.trainable_variables) > 30
    paths = [v.path for v in fresh.weights]
    assert len(set(paths)) == len(paths)
    assert paths == [v.path for v in MatNet(config_of("bernoulli")).weights]
    fresh.summary()
    assert "hierarchy" in capsys.readouterr().out


def test_weights_are_a_function_of_the_seed_and_not_of_global_state():
    keras.utils.set_random_seed(1)
    first = MatNet(SMALL, seed=7).get_weights()
    keras.utils.set_random_seed(2)
    equal(first, MatNet(SMALL, seed=7).get_weights())
    other = MatNet(SMALL, seed=8).get_weights()
    # The heads of the priors start at zero.
    drawn = [(a, b) for a, b in zip(first, other, strict=True) if a.ndim > 1 and a.any()]
    assert len(drawn) > 10 and not any(np.array_equal(a, b) for a, b in drawn)
    kernels = [k for k in MatNet(config_of("bernoulli")).get_weights() if k.ndim > 1 and k.any()]
    assert len({k.tobytes() for k in kernels}) == len(kernels), "equal kernels would stay equal"


def test_float16_is_refused():
    with pytest.raises(ValueError, match="float32 or mixed_bfloat16; got mixed_float16"):
        MatNet(SMALL, dtype="mixed_float16")


# Bounds and images.


@every_kind
def test_bounds_are_consistent_and_repeat(kind, eagerly):
    model, x = made(kind), images(kind)
    bound = model.elbo(x, seed=1)
    assert list(bound.kl) == list(model.config.level_names)
    np.testing.assert_allclose(bound.elbo, bound.log_likelihood - sum(bound.kl.values()), rtol=1e-5)
    assert all(part.shape == (4,) and part.dtype == tf.float32 for part in tf.nest.flatten(bound))
    equal(bound[:2], model.elbo(x, seed=1)[:2])
    assert not np.array_equal(bound.elbo, model.elbo(x, seed=2).elbo)
    elbo = model.elbo(np.tile(x, (50, 1, 1, 1))).elbo.numpy().reshape(50, 4).mean(0)
    estimate = model.log_likelihood(x, num_samples=100)
    assert estimate.dtype == np.float64 and (estimate > elbo).all()
    equal([estimate], [model.log_likelihood(x, num_samples=100)])
    assert [len(p) for p in model.log_weights(x, 5, chunk=8)] == [2, 2, 1]


def test_levels_drawn_from_the_prior_leave_only_the_others_in_the_weights(eagerly):
    model, x, seed = made("bernoulli"), images(), seed_tensor(4)
    layer = model.hierarchy
    for count in (0, 2, 3):
        log_weight = layer.log_weight(tf.constant(x), layer.encode(x), 5, seed, count)
        trace = layer.top_down_pass(layer.encode(x), 20, seed, num_inferred=count)
        expected = layer.p_x(trace).log_prob(np.tile(x, (5, 1, 1, 1)))
        for level in trace.levels[:count]:
            expected += level.prior.log_prob(level.z) - level.posterior.log_prob(level.z)
        assert log_weight.shape == (5, 4)
        np.testing.assert_allclose(tf.reshape(log_weight, [-1]), expected, rtol=1e-4)


def test_large_and_negative_seeds_are_their_own():
    seeds = {tuple(seed_tensor(s).numpy()) for s in (0, 1, 2**31, 2**32, 2**40, -1)}
    assert len(seeds) == 6


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["whitened", "local logistic"])
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


@pytest.mark.slow
@every_kind
def test_samples_and_reconstructions_are_images_that_the_likelihood_can_model(kind, eagerly):
    model, x = made(kind), images(kind)
    plain, drawn = (model.sample(5, seed=3, draw=draw) for draw in (False, True))
    assert plain.shape == drawn.shape == (5, *SHAPE)
    assert not model.hierarchy.likelihood.observation.invalid(drawn).numpy().any()
    assert plain.numpy().min() >= 0 and plain.numpy().max() <= 1
    # The local model has no mean in closed form: it always draws.
    assert np.array_equal(plain, drawn) == model.config.autoregressive
    equal([drawn], [model.sample(5, seed=3, draw=True)])
    assert not np.array_equal(drawn, model.sample(5, seed=4, draw=True))
    equal([model.reconstruct(x, num_inferred=0, seed=5)], [model.sample(4, seed=5)])
    decoded = model.decode(model.infer(x, seed=5).z, seed=5)
    np.testing.assert_allclose(model.reconstruct(x, seed=5), decoded, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["logistic", "logistic mixture"])
def test_drawn_8_bit_pixels_have_the_means_of_their_sample(kind, eagerly):
    model = made(kind)
    z = [np.tile(z[:1], [2000] + [1] * (z.ndim - 1)) for z in model.infer(images(kind)).z]
    means = model.sample(1, latents=[z[:1] for z in z])[0].numpy()
    drawn = model.sample(2000, latents=z, draw=True).numpy()
    error = np.abs(drawn.mean(0) - means)
    np.testing.assert_array_less(error, 5 * drawn.std(0) / np.sqrt(2000) + 1 / 255)


# Fitting and saving.

FORMS = {
    "images": lambda x: dataset(x),
    "pairs": lambda x: dataset((x, np.arange(len(x)))),
    "dictionaries": lambda x: dataset({"image": x, "label": np.arange(len(x))}),
    "an array": lambda x: x,
}


def fitted(data, **arguments):
    fresh = MatNet(SMALL)
    fresh.compile(optimizer=Adam(0.01), run_eagerly=True)
    size = None if isinstance(data, tf.data.Dataset) else 2
    history = fresh.fit(data, batch_size=size, verbose=0, shuffle=False, **arguments).history
    return fresh, history


@pytest.mark.slow
def test_fit_evaluate_and_predict_take_images_in_every_form():
    first = None
    for form in FORMS.values():
        data = form(small_images())
        model, history = fitted(data, validation_data=data)
        first = first or model
        equal(model.get_weights(), first.get_weights())
        assert int(model.step.numpy()) == 2
        size = None if isinstance(data, tf.data.Dataset) else 2
        result = model.evaluate(data, batch_size=size, verbose=0, return_dict=True)
        assert history["val_elbo"][0] == pytest.approx(result["elbo"], rel=1e-5)
        kl = sum(result[f"kl/{n}"] for n in SMALL.level_names)
        assert result["elbo"] == pytest.approx(result["log_likelihood"] - kl, rel=1e-4)
        means = model.predict(data, batch_size=size, verbose=0)
        assert means.shape == (4, 4, 3, 1) and (means > 0).all() and (means < 1).all()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bernoulli", "whitened", "local logistic"])
def test_training_raises_the_bound_on_its_images(kind):
    model = new(kind)
    model.compile(optimizer=Adam(0.01))
    x = np.tile(images(kind, 8), (200, 1, 1, 1))
    before = model.evaluate(x, batch_size=800, verbose=0, return_dict=True)["elbo"]
    model.fit(x, batch_size=8, shuffle=False, verbose=0)
    after = model.evaluate(x, batch_size=800, verbose=0, return_dict=True)["elbo"]
    assert after > before + 1 and int(model.skipped.numpy()) == 0
    if kind == "bernoulli":  # No bound on eight different images can be above log 1/8.
        assert after < -np.log(8)


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


@pytest.mark.slow
def test_a_saved_model_loads_equal_with_its_optimizer_and_settings(tmp_path, eagerly):
    model, _ = fitted(small_images())
    settings = ElboLoss(clip_norm=5.0, skip_norm=50.0, max_skipped=7, kl_schedule="squared")
    model.compile(optimizer=model.optimizer, elbo_loss=settings)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(loaded, MatNet) and loaded.config == SMALL and loaded.seed == model.seed
    assert loaded.elbo_loss == settings
    equal(loaded.get_weights(), model.get_weights())
    equal(*[[v.numpy() for v in m.optimizer.variables] for m in (loaded, model)])
    equal(loaded.elbo(small_images(), seed=3)[:2], model.elbo(small_images(), seed=3)[:2])
    for each in (loaded, model):
        each.run_eagerly = True
        each.train_step(small_images())
    equal(loaded.get_weights(), model.get_weights())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["whitened", "local logistic"])
def test_models_that_are_not_compiled_and_weights_alone_can_be_saved(kind, tmp_path, eagerly):
    model, x = made(kind), images(kind)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert not loaded.compiled and loaded.config == model.config
    # Statistics of whitening come with the weights: nothing has to be adapted again.
    equal(loaded.elbo(x, seed=3)[:2], model.elbo(x, seed=3)[:2])
    equal([loaded.sample(2, seed=3, draw=True)], [model.sample(2, seed=3, draw=True)])
    model.save_weights(tmp_path / "model.weights.h5")
    other = MatNet(model.config, seed=5)
    other.load_weights(tmp_path / "model.weights.h5")
    equal(other.get_weights(), model.get_weights())


# Sizes and kinds.


def sized(image_shape, *scales, **kind):
    return ModelConfig(image_shape, scales, 2, 3, 2, **kind)


LADDER = {"deterministic_paths": False, "merge_state": False}
LOCAL_8_BIT = KINDS["local logistic"]
# A size and a kind at a time: neither should care about the other.
MODELS = {
    "one pixel, standard prior": sized((1, 1, 1), S(1, 3, 1, 1), prior="standard"),
    "odd, ladder": sized((7, 7, 1), S(1, 3, 2, 1), S(2, 3, 1, 1), S(4, 3, 1, 1), **LADDER),
    "rectangle, kernels": sized((6, 3, 3), S((3, 2), 3, 2, 1), kernel_size=5, activation="gelu"),
    "column, even": sized((9, 1, 5), S((5, 1), 3, 1, 2), kernel_size=4, activation="silu"),
    "full size, gru": sized((3, 4, 1), S((3, 4), 3, 1, 1), update="gru", activation="tanh"),
    "two halvings": sized((9, 12, 1), S(1, 4, 2, 1), S((3, 3), 3, 1, 1), update="gru", **LADDER),
    "dense scales": sized((5, 3, 3), S(1, 3, 1, 1), S(1, 4, 2, 2), normalization="layer"),
    "equal scales": sized((4, 4, 1), S(2, 3, 1, 1), S(2, 4, 1, 1), normalization="layer"),
    "shared": sized((4, 3, 1), S(1, 3, 1, 3), S(2, 3, 1, 2), shared=True, update="gru"),
    "column, whitened": sized((9, 1, 5), S((5, 1), 3, 1, 1), **KINDS["whitened"]),
    "one pixel, local": sized((1, 1, 1), S(1, 3, 1, 1), **LOCAL_8_BIT),
    "odd, local": sized((5, 3, 3), S(1, 3, 1, 1), **LOCAL_8_BIT),
}


@pytest.mark.slow
def test_models_of_every_size_and_kind_train_and_sample(eagerly):
    for name, config in MODELS.items():
        model = MatNet(config)
        x = images("logistic" if config.likelihood != "bernoulli" else "bernoulli", 6)
        x = np.resize(x, (6, *config.image_shape))
        model.adapt([x])
        model.compile(optimizer="adam", run_eagerly=True)
        before = [v.numpy() for v in model.trainable_variables]
        for _ in range(3):  # A prior's head starts at 0, so what lies before it moves later.
            assert np.isfinite(model.train_step(x)["elbo"]) and not int(model.skipped.numpy()), name
        after = [v.numpy() for v in model.trainable_variables]
        # A masked kernel over one pixel reads nothing and gets no gradient.
        same = [np.array_equal(a, b) for a, b in zip(before, after, strict=True) if a.ndim > 1]
        assert not any(same) or config.autoregressive, name
        drawn = model.sample(3, draw=True)
        assert drawn.shape == (3, *config.image_shape), name
        assert not model.hierarchy.likelihood.observation.invalid(drawn).numpy().any(), name
        shapes = [tuple(z.shape[1:]) for z in model.infer(x).z]
        assert shapes == list(model.hierarchy.latent_shapes), name


def test_the_weights_of_a_bound_are_all_but_the_training_state():
    model = made("whitened")
    paths = {v.path for v in model.bound_weights}
    assert {v.path for v in model.trainable_variables} <= paths
    rest = {v.path.rpartition("/")[2] for v in model.weights if v.path not in paths}
    assert {"step", "skipped", "skipped_in_a_row", "kl_weight"} <= rest
    statistics = {p.rpartition("/")[2] for p in paths if "whitening" in p.split("/")}
    assert statistics == {"mean", "matrix", "inverse", "log_det", "num_images"}


def test_a_pass_holds_fewer_samples_of_a_larger_model():
    assert made("local bernoulli").samples_per_pass == 5000
    # 2**24 numbers of the largest tensor: the state's share of the layers and the shortcut.
    config = config_of("local logistic", autoregressive_filters=40, autoregressive_layers=2)
    config = dataclasses.replace(config, image_shape=(32, 32, 3), scales=(S(1, 3, 1, 1),))
    assert MatNet(config).samples_per_pass == 2**24 // (32 * 32 * 46)
