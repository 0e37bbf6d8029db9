# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""`MatNet` as its users meet it: building, fitting, saving, inferring and sampling."""

import keras
import numpy as np
import numpy_matnet as npm
import pytest
import tensorflow as tf

from matnet_tf.config import ModelConfig, Stage
from matnet_tf.model import MatNet
from matnet_tf.noise import seed_tensor
from matnet_tf.optimization import Adam

CONFIG = ModelConfig((4, 3, 1), (Stage(1, 5, 2, 1), Stage((2, 2), 3, 2, 1)), 2, 4, 3)
SLOW = pytest.mark.slow
# Where what is asked of a model has nothing to do with its levels.
SMALL = ModelConfig((4, 3, 1), (Stage(1, 3, 2, 1),), 2, 2)


def images(number=4, shape=CONFIG.image_shape):
    return np.random.default_rng(0).integers(0, 2, (number, *shape)).astype(np.float32)


@pytest.fixture(scope="module")
def model() -> MatNet:
    """A model with random biases too. Tests must not train it."""
    return npm.randomize(MatNet(CONFIG))


def dataset(elements, batch=2):
    options = tf.data.Options()
    options.autotune.enabled = False
    return tf.data.Dataset.from_tensor_slices(elements).batch(batch).with_options(options)


def equal(a, b):
    a, b = list(a), list(b)
    assert len(a) == len(b) > 0
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


# Building.


def test_a_model_has_all_its_weights_when_it_is_made():
    fresh = MatNet(CONFIG)
    assert fresh.built and len(fresh.trainable_variables) > 30
    before = len(fresh.weights)
    fresh.bound_and_trace(tf.constant(images()), tf.constant([0, 0]))
    fresh(images())
    assert len(fresh.weights) == before


def test_weights_are_a_function_of_the_seed_and_not_of_global_state():
    keras.utils.set_random_seed(1)
    first = MatNet(SMALL, seed=7).get_weights()
    keras.utils.set_random_seed(2)
    equal(first, MatNet(SMALL, seed=7).get_weights())
    other = MatNet(SMALL, seed=8).get_weights()
    differ = [not np.array_equal(a, b) for a, b in zip(first, other, strict=True) if a.ndim > 1]
    assert all(differ) and len(differ) > 10


def test_kernels_of_equal_shape_start_different():
    kernels = [v.numpy() for v in MatNet(CONFIG).trainable_variables if len(v.shape) > 1]
    assert len({k.tobytes() for k in kernels}) == len(kernels)


def test_variable_paths_are_the_same_in_every_model():
    paths = [[v.path for v in MatNet(CONFIG).weights] for _ in range(2)]
    assert paths[0] == paths[1]
    assert len(set(paths[0])) == len(paths[0])


@SLOW
def test_the_default_config_is_the_papers_model_for_mnist():
    assert MatNet().config == ModelConfig()


def test_what_is_no_config_is_refused():
    with pytest.raises(ValueError, match="takes a ModelConfig; got int"):
        MatNet(3)


def test_summary_names_the_parts(model, capsys):
    model.summary()
    text = capsys.readouterr().out
    for part in ("guide", "top_down", "likelihood", "Total params"):
        assert part in text


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
    fresh.fit(
        data,
        epochs=1,
        batch_size=arguments.pop("batch_size", None),
        verbose=0,
        shuffle=False,
        **arguments,
    )
    return fresh


@pytest.fixture(scope="module")
def trained() -> MatNet:
    """Trained on the images alone."""
    return fitted(FORMS["images"](images()))


@pytest.mark.parametrize(
    "form", ["dictionaries", *(pytest.param(form, marks=SLOW) for form in ("pairs", "an array"))]
)
def test_fit_takes_images_in_every_form(form, trained):
    size = {"batch_size": 2} if form == "an array" else {}
    other = fitted(FORMS[form](images()), **size)
    equal(other.get_weights(), trained.get_weights())
    assert int(other.step.numpy()) == 2


@pytest.mark.parametrize(
    "form", ["pairs", *(pytest.param(form, marks=SLOW) for form in FORMS if form != "pairs")]
)
def test_evaluate_and_predict_take_images_in_every_form(form, trained):
    result = trained.evaluate(FORMS[form](images()), batch_size=None, verbose=0, return_dict=True)
    assert result["elbo"] == pytest.approx(
        result["log_likelihood"] - sum(result[f"kl/{n}"] for n in SMALL.level_names), rel=1e-4
    )
    means = trained.predict(FORMS[form](images()), batch_size=None, verbose=0)
    assert means.shape == images().shape
    assert (means > 0).all() and (means < 1).all()


def test_validation_data_is_evaluated_as_it_is_by_hand():
    data = FORMS["dictionaries"](images())
    fresh = MatNet(SMALL)
    fresh.compile(optimizer=Adam(0.01), run_eagerly=True)
    history = fresh.fit(data, validation_data=data, verbose=0).history
    result = fresh.evaluate(data, verbose=0, return_dict=True)
    assert history["val_elbo"][0] == pytest.approx(result["elbo"], rel=1e-5)


@SLOW
def test_training_raises_the_bound_on_its_images():
    fresh = MatNet(CONFIG)
    fresh.compile(optimizer=Adam(0.02))
    x = np.tile(images(8), (250, 1, 1, 1))
    before = fresh.evaluate(x, batch_size=1000, verbose=0, return_dict=True)["elbo"]
    fresh.fit(x, batch_size=8, shuffle=False, verbose=0)
    after = fresh.evaluate(x, batch_size=1000, verbose=0, return_dict=True)["elbo"]
    # At the start the twelve pixels are noise; no bound can be above log 1/8 for each image.
    assert before + 0.8 < after < -np.log(8)


def test_a_saved_model_loads_equal_with_its_optimizer_and_settings(trained, tmp_path, eagerly):
    trained.compile(
        optimizer=trained.optimizer,
        clip_norm=5.0,
        skip_norm=50.0,
        max_skipped=7,
        squared_kl=True,
        run_eagerly=True,
    )
    trained.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(loaded, MatNet) and loaded.config == SMALL and loaded.seed == trained.seed
    settings = (loaded.clip_norm, loaded.skip_norm, loaded.max_skipped, loaded.squared_kl)
    assert settings == (5.0, 50.0, 7, True)
    equal(loaded.get_weights(), trained.get_weights())
    equal(*[[v.numpy() for v in m.optimizer.variables] for m in (loaded, trained)])
    equal(loaded.elbo(images(), seed=3)[:2], trained.elbo(images(), seed=3)[:2])
    copies = []
    for each in (loaded, trained):
        each.run_eagerly = True
        weights = each.get_weights()
        each.train_step(images())
        copies.append(each.get_weights())
        each.set_weights(weights)
    equal(*copies)


def test_a_model_that_is_not_compiled_loads_not_compiled(model, tmp_path):
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert not loaded.compiled
    equal(loaded.get_weights(), model.get_weights())


def test_weights_alone_can_be_saved_and_loaded(model, tmp_path):
    model.save_weights(tmp_path / "model.weights.h5")
    other = MatNet(CONFIG, seed=5)
    other.load_weights(tmp_path / "model.weights.h5")
    equal(other.get_weights(), model.get_weights())


# Sizes and kinds.

S = Stage


def sized(image_shape, *stages, **kind):
    return ModelConfig(image_shape, stages, 2, 3, 2, **kind)


LADDER = {"deterministic_paths": False, "merge_state": False}
LARGE_KERNELS = {"kernel_size": 5, "activation": "gelu"}
EVEN_KERNELS = {"kernel_size": 4, "activation": "silu"}
SHARED = {"update": "gru", "normalization": "layer", "shared": True}
# A size and a kind at a time: neither should care about the other.
MODELS = {
    "one pixel, standard prior": sized((1, 1, 1), S(1, 3, 1, 1), prior="standard"),
    "odd, ladder": sized((7, 7, 1), S(1, 3, 2, 1), S(2, 3, 1, 1), S(4, 3, 1, 1), **LADDER),
    "rectangular, 5 x 5 kernels, gelu": sized((6, 3, 3), S((3, 2), 3, 2, 1), **LARGE_KERNELS),
    "a column, 4 x 4 kernels, silu": sized((9, 1, 5), S((5, 1), 3, 1, 2), **EVEN_KERNELS),
    "full size, gru": sized((3, 4, 1), S((3, 4), 3, 1, 1), update="gru", activation="tanh"),
    "two halvings at once, ladder, gru": sized(
        (9, 12, 1), S(1, 4, 2, 1), S((3, 3), 3, 1, 1), update="gru", **LADDER
    ),
    "dense stages, layer normalization": sized(
        (5, 3, 3), S(1, 3, 1, 1), S(1, 4, 2, 2), normalization="layer"
    ),
    "equal stages, layer normalization": sized(
        (4, 4, 1), S(2, 3, 1, 1), S(2, 4, 1, 1), normalization="layer"
    ),
    "shared": sized((4, 3, 1), S(1, 3, 1, 3), S(2, 3, 1, 2), shared=True),
    "gru, layer normalization, shared": sized((4, 3, 1), S(1, 3, 1, 2), S(2, 3, 1, 2), **SHARED),
}


# These have every kind of stage and of update between them.
FIRST = ("odd, ladder", "dense stages, layer normalization", "gru, layer normalization, shared")


@pytest.mark.parametrize(
    "config",
    [pytest.param(c, id=name, marks=[] if name in FIRST else SLOW) for name, c in MODELS.items()],
)
def test_models_of_every_size_and_kind_train_and_sample(config):
    fresh = MatNet(config)
    fresh.compile(optimizer="sgd", run_eagerly=True)
    x = images(2, config.image_shape)
    before = [v.numpy() for v in fresh.trainable_variables]
    metrics = fresh.train_step(x)
    assert np.isfinite(metrics["elbo"])
    assert int(fresh.skipped.numpy()) == 0
    after = [v.numpy() for v in fresh.trainable_variables]
    kernels = [not np.array_equal(a, b) for a, b in zip(before, after, strict=True) if a.ndim > 1]
    assert all(kernels)
    trace = fresh.walk(None, 3, tf.constant([0, 1]))
    assert fresh.images(trace, tf.constant([0, 1])).shape == (3, *config.image_shape)
    assert [tuple(z.shape[1:]) for z in trace.z] == list(fresh.latent_shapes)


# Bounds, inference and generation.


def test_the_elbo_is_the_log_likelihood_minus_the_kl(model, eagerly):
    bound = model.elbo(images(), seed=1)
    assert list(bound.kl) == list(CONFIG.level_names)
    np.testing.assert_allclose(bound.elbo, bound.log_likelihood - sum(bound.kl.values()), rtol=1e-5)
    assert all(part.shape == (4,) for part in tf.nest.flatten(bound))
    assert all((kl.numpy() >= 0).all() for kl in bound.kl.values())


def test_the_same_seed_gives_the_same_draw(model, eagerly):
    equal(model.elbo(images(), seed=1)[:2], model.elbo(images(), seed=1)[:2])
    assert not np.array_equal(model.elbo(images(), 1).elbo, model.elbo(images(), 2).elbo)
    equal([model.sample(3, seed=1)], [model.sample(3, seed=1)])
    assert not np.array_equal(model.sample(3, seed=1), model.sample(3, seed=2))


def test_large_and_negative_seeds_are_their_own():
    seeds = {tuple(seed_tensor(s).numpy()) for s in (0, 1, 2**31, 2**32, 2**40, -1)}
    assert len(seeds) == 6


@SLOW
def test_graphs_equal_eager_computation(model):
    x = images()
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


def test_log_likelihood_is_above_the_elbo_and_repeats(model, eagerly):
    x = images()
    elbo = model.elbo(np.tile(x, (200, 1, 1, 1))).elbo.numpy().reshape(200, 4).mean(0)
    bound = model.log_likelihood(x, num_samples=300)
    assert bound.dtype == np.float64 and (bound > elbo).all()
    equal([bound], [model.log_likelihood(x, num_samples=300)])
    by_chunk = model.log_likelihood(x, num_samples=300, chunk=4 * 75)
    np.testing.assert_allclose(by_chunk, bound, atol=0.5)
    assert [len(p) for p in model.log_weights(x, 5, chunk=8)] == [2, 2, 1]


@pytest.mark.parametrize("num_inferred", [0, 2, 3])
def test_levels_drawn_from_the_prior_leave_only_the_others_in_the_weights(
    model, eagerly, num_inferred
):
    x, seed = images(), seed_tensor(4)
    log_weight = model.log_weight(tf.constant(x), model.watch(x), 5, seed, num_inferred)
    trace = model.walk(model.watch(x), 20, seed, num_inferred=num_inferred)
    expected = model.p_x(trace).log_prob(np.tile(x, (5, 1, 1, 1)))
    for level in trace.levels[:num_inferred]:
        expected += level.prior.log_prob(level.z) - level.posterior.log_prob(level.z)
    assert log_weight.shape == (5, 4)
    np.testing.assert_allclose(tf.reshape(log_weight, [-1]), expected, rtol=1e-4)


@SLOW
def test_bounds_with_levels_from_the_prior_agree_in_the_limit(model, eagerly):
    """Each bounds the same log p(x), and an untrained model's meet it with few samples."""
    x = images()
    bounds = [model.log_likelihood(x, 4000, num_inferred=n) for n in range(CONFIG.num_levels + 1)]
    assert len({bound.tobytes() for bound in bounds}) == len(bounds)
    np.testing.assert_allclose(bounds, np.broadcast_to(bounds[-1], np.shape(bounds)), atol=0.2)
    equal([bounds[-1]], [model.log_likelihood(x, 4000)])


@pytest.mark.parametrize("bad", [-1, 4, 1.5, True])
def test_a_number_of_inferred_levels_that_there_is_not_is_refused(model, bad):
    with pytest.raises(ValueError, match=r"num_inferred must be a whole number in \[0, 3\]"):
        model.log_likelihood(images(), 5, num_inferred=bad)
