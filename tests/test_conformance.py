# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""What every layer of the package must do, in one table."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import numpy_matnet as npm
import pytest
import tensorflow as tf

from matnet_tf.autoregression import LocalAutoregression, MaskedConvolution
from matnet_tf.conditional_stages import ConditionalStage
from matnet_tf.config import ModelConfig, Stage
from matnet_tf.joints import FinalBottomUpModule, Resample, TopModule
from matnet_tf.layers import BottomUpModule, MergeModule, TopDownModule
from matnet_tf.likelihoods import Known, Likelihood
from matnet_tf.model import MatNet
from matnet_tf.network import BottomUpNetwork, Guide, TopDownNetwork
from matnet_tf.pixels import Logistic, Normal
from matnet_tf.updates import GRUUpdate, ResidualUpdate
from matnet_tf.whitening import Whitening

SHAPE = (5, 3, 2)
CONFIG = ModelConfig(SHAPE, (Stage(1, 4, 2, 1), Stage((3, 2), 3, 2, 1)), 2, 4, 3)
DENSE_CONFIG = dataclasses.replace(CONFIG, stages=(Stage(1, 4, 2, 1),))
LOCAL = {"autoregressive": True, "autoregressive_layers": 3, "autoregressive_filters": 5}
LIKELIHOODS = {
    "logistic": {"likelihood": "logistic"},
    "whitened": {"likelihood": "normal", "likelihood_scale": "channel", "whitening": True},
    "local logistic": {"likelihood": "logistic", "likelihood_scale": "scalar", **LOCAL},
}
CONDITIONAL = {"conditional_stages": 1, **LOCAL}
LEVELS = np.random.default_rng(2).integers(0, 256, (2, *SHAPE))


@dataclasses.dataclass(frozen=True)
class Case:
    """A layer, the shapes of its inputs without the batch, and all that its weights serve."""

    make: Callable[..., keras.layers.Layer]
    shapes: tuple[tuple[int, ...], ...]
    every_output: Callable[..., Any] = lambda layer, *inputs: layer(*inputs)
    in_functional_model: bool = True
    # Of the layer's output and of every output, in mixed bfloat16.
    dtypes: tuple[tf.DType, tf.DType] = (tf.bfloat16, tf.bfloat16)


def with_prior(layer, h_td, z):
    return layer(h_td, z), layer.prior_parameters(h_td)


def with_posteriors(guide, x):
    """The view of a guide, and every posterior along its merge chain."""
    view, outputs = guide.watch(x), []
    h_merge = guide.start(view.top[:, : CONFIG.top_latents])
    for i, module in enumerate(guide.modules):
        h_merge = guide.joins[i](h_merge) if i in guide.joins else h_merge
        parameters, h_merge = module.merge(view.projections[i], 0.5 * h_merge, h_merge)
        outputs.append(parameters)
    return view, outputs


def pixels_of(config):
    """The two images that all cases share, as the config's likelihood has them."""
    binary = config.likelihood == "bernoulli"
    return tf.constant(LEVELS > 127 if binary else LEVELS / 255, tf.float32)


def with_pixels(layer, h_td):
    x, known = pixels_of(layer.config), None
    if layer.config.conditional_stages:
        known = Known.of(x, tf.constant(LEVELS[..., :1] % 2, tf.float32))
    return layer.distribution(layer(h_td), known).log_prob(x)


def last_layer(make, dense=False, **choices):
    """A likelihood, whose weights all serve the probability of an image."""
    config = dataclasses.replace(DENSE_CONFIG if dense else CONFIG, **choices)
    shapes = (DENSE,) if dense else ((5, 3, 3),)
    dtypes = (tf.bfloat16, tf.float32)
    return Case(lambda **k: make(config, **k), shapes, with_pixels, dtypes=dtypes)


def whole(**choices):
    config = dataclasses.replace(CONFIG, **choices)
    # Pixels come from a distribution, and every distribution is float32.
    return Case(lambda **k: MatNet(config, seed=3, **k), (SHAPE,), dtypes=(tf.float32,) * 2)


def of_pixels(make, **choices):
    return Case(lambda **k: make(SHAPE, **choices, **k), ((*SHAPE, 1),), dtypes=(tf.float32,) * 2)


IMAGE, DENSE = (5, 3, 4), (4,)
CASES = {
    "residual, dense": Case(lambda **k: ResidualUpdate(4, True, **k), (DENSE, (3,))),
    "residual, conv": Case(
        lambda **k: ResidualUpdate(4, False, normalization="layer", **k), (IMAGE, (5, 3, 2))
    ),
    "gru, dense": Case(lambda **k: GRUUpdate(4, True, normalization="layer", **k), (DENSE, (3,))),
    "gru, conv": Case(lambda **k: GRUUpdate(4, False, kernel_size=5, **k), (IMAGE, (5, 3, 2))),
    "bottom-up": Case(lambda **k: BottomUpModule(4, False, update="gru", **k), (IMAGE,)),
    "top-down, dense": Case(lambda **k: TopDownModule(4, True, 3, **k), (DENSE, (3,)), with_prior),
    "top-down, conv": Case(
        lambda **k: TopDownModule(4, False, 2, update="gru", activation="elu", **k),
        (IMAGE, (5, 3, 2)),
        with_prior,
    ),
    "top-down, standard": Case(
        lambda **k: TopDownModule(4, True, 3, prior="standard", carry=False, **k), (DENSE, (3,))
    ),
    "merge, dense": Case(lambda **k: MergeModule(4, True, 3, **k), (DENSE,) * 3),
    "merge, conv": Case(
        lambda **k: MergeModule(4, False, 3, update="gru", normalization="layer", **k), (IMAGE,) * 3
    ),
    "merge, ladder": Case(lambda **k: MergeModule(4, True, 3, carry=False, **k), (DENSE,) * 3),
    "top": Case(lambda **k: TopModule(5, (3, 2, 4), **k), ((6,),)),
    "final bottom-up": Case(lambda **k: FinalBottomUpModule(5, 3, "tanh", **k), (IMAGE,)),
    "resample, down": Case(lambda **k: Resample((5, 3), (2, 1), 4, 6, **k), (IMAGE,)),
    "resample, up": Case(lambda **k: Resample((5, 3), (9, 6), 4, 2, **k), (IMAGE,)),
    "resample, dense": Case(lambda **k: Resample((5, 3), (1, 1), 4, 6, **k), (IMAGE,)),
    "bernoulli, dense": last_layer(Likelihood, dense=True),
    "bernoulli, conv": last_layer(Likelihood),
    "normal, pixel": last_layer(Likelihood, likelihood="normal"),
    "normal, channel": last_layer(Likelihood, likelihood="normal", likelihood_scale="channel"),
    "normal, scalar": last_layer(
        Likelihood, dense=True, likelihood="normal", likelihood_scale="scalar"
    ),
    "logistic, dense": last_layer(Likelihood, dense=True, likelihood="logistic"),
    "logistic, channel": last_layer(Likelihood, likelihood="logistic", likelihood_scale="channel"),
    "normal pixels": of_pixels(Normal, scale="channel", whitening=True),
    "logistic pixels": of_pixels(Logistic, scale="scalar"),
    "whitening": Case(lambda **k: Whitening(SHAPE, 1e-3, **k), (SHAPE,), dtypes=(tf.float32,) * 2),
    "masked, A": Case(lambda **k: MaskedConvolution(6, 3, 2, "A", **k), (IMAGE,)),
    "masked, B": Case(lambda **k: MaskedConvolution(5, 5, 2, "B", **k), (IMAGE,)),
    "local, conv": last_layer(LocalAutoregression, **LOCAL),
    "local, dense": last_layer(
        LocalAutoregression, dense=True, likelihood="logistic", likelihood_scale="channel", **LOCAL
    ),
    "local, conditional": last_layer(LocalAutoregression, likelihood="logistic", **CONDITIONAL),
    "local, dense, conditional": last_layer(LocalAutoregression, dense=True, **CONDITIONAL),
    "bottom-up network": Case(lambda **k: BottomUpNetwork(CONFIG, **k), ((5, 3, 2),)),
    # Keras's functional models do not keep the View that a guide gives.
    "guide": Case(
        lambda **k: Guide(CONFIG, channels=3, **k),
        ((5, 3, 3),),
        with_posteriors,
        in_functional_model=False,
    ),
    "mean reconstruction": whole(),
    **{f"reconstruction, {name}": whole(**choices) for name, choices in LIKELIHOODS.items()},
}


# Whole models take their time, and have tests of their own.
every_case = pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=name, marks=[pytest.mark.slow] if "reconstruction" in name else [])
        for name, case in CASES.items()
    ],
)


def inputs_of(case, rows=2):
    rng = np.random.default_rng(0)
    return [tf.constant(rng.random((rows, *s)), tf.float32) for s in case.shapes]


def new(case):
    layer = case.make(name="original")
    layer(*inputs_of(case))
    return npm.randomize(adapted(layer))


def adapted(layer):
    """The layer, having seen images if it wants to."""
    if hasattr(layer, "adapt"):
        layer.adapt([np.random.default_rng(3).random((40, *SHAPE)).astype(np.float32)])
    return layer


made = functools.cache(new)


def equal(a, b, **tolerance):
    a, b = tf.nest.flatten(a), tf.nest.flatten(b)
    assert len(a) == len(b) > 0
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, **tolerance)


@every_case
def test_a_config_makes_the_same_layer(case):
    layer, inputs = made(case), inputs_of(case)
    config = layer.get_config()
    copy = type(layer).from_config(config)
    copy(*inputs)
    copy.set_weights(layer.get_weights())
    assert copy.name == "original"
    assert copy.get_config() == config
    equal(case.every_output(layer, *inputs), case.every_output(copy, *inputs), rtol=0, atol=0)


@every_case
def test_a_symbolic_call_gives_the_shapes_of_an_eager_one(case):
    layer = made(case)
    symbolic = layer(*[keras.Input(shape) for shape in case.shapes])
    eager = layer(*inputs_of(case))
    shapes = [(None, *x.shape[1:]) for x in tf.nest.flatten(eager)]
    assert [tuple(x.shape) for x in keras.tree.flatten(symbolic)] == shapes


@every_case
def test_a_graph_of_any_batch_equals_eager(case):
    layer, inputs = made(case), inputs_of(case)
    signature = [tf.TensorSpec((None, *shape)) for shape in case.shapes]
    graph = tf.function(lambda *x: case.every_output(layer, *x), input_signature=signature)
    equal(graph(*inputs), case.every_output(layer, *inputs), rtol=1e-4, atol=1e-5)


def reached(gradients, variables):
    for gradient, variable in zip(gradients, variables, strict=True):
        name = getattr(variable, "path", "the input")
        assert gradient is not None, f"no gradient reaches {name}"
        assert np.isfinite(gradient).all() and np.any(gradient), name


@every_case
def test_the_gradient_reaches_every_weight(case):
    layer, inputs = made(case), inputs_of(case)
    if isinstance(layer, MatNet):
        pytest.skip("its reconstruction needs no priors; the bound's test below has them")
    rng = np.random.default_rng(1)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = tf.nest.flatten(case.every_output(layer, *inputs))
        total = sum(tf.reduce_sum(x * rng.normal(size=x.shape)) for x in outputs)
    # Whitening trains nothing, but gradients have to pass it.
    variables = inputs if isinstance(layer, Whitening) else layer.trainable_variables
    assert variables
    reached(tape.gradient(total, variables), variables)


def every_model(first):
    """These models and one of every likelihood; all but the first and the last are slow."""
    models = first | LIKELIHOODS
    slow = list(models)[1:-1]
    models = [
        pytest.param(choices, id=name, marks=[pytest.mark.slow] if name in slow else [])
        for name, choices in models.items()
    ]
    return pytest.mark.parametrize("choices", models)


@every_model({"residual": {"update": "residual"}, "gru": {"update": "gru"}})
def test_the_gradient_of_the_bound_reaches_every_weight_of_a_model(choices):
    model = npm.randomize(adapted(MatNet(dataclasses.replace(CONFIG, **choices))))
    with tf.GradientTape() as tape:
        bound, _ = model.bound_and_trace(pixels_of(model.config), tf.constant([0, 1]))
        total = tf.reduce_sum(bound.elbo)
    reached(tape.gradient(total, model.trainable_variables), model.trainable_variables)


@pytest.fixture
def bfloat16():
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy("float32")


@every_case
def test_mixed_bfloat16_computes_in_it_and_keeps_float32_weights(case, bfloat16):
    layer, inputs = new(case), inputs_of(case)
    outputs = [tf.nest.flatten(f(layer, *inputs)) for f in (Case.every_output, case.every_output)]
    for tensors, expected in zip(outputs, case.dtypes, strict=True):
        assert {x.dtype for x in tensors} == {expected}
        assert all(np.isfinite(tf.cast(x, tf.float32)).all() for x in tensors)
    assert {v.dtype for v in layer.trainable_variables} <= {"float32"}


@every_model({"bernoulli": {}})
def test_a_bound_in_mixed_bfloat16_is_float32_and_near_the_exact_one(choices, bfloat16):
    model = npm.randomize(adapted(MatNet(dataclasses.replace(CONFIG, **choices))), scale=0.2)
    x = pixels_of(model.config)
    bound, trace = model.bound_and_trace(x, tf.constant([0, 1]))
    assert {part.dtype for part in tf.nest.flatten(bound)} == {tf.float32}
    walk = npm.Walk(model, x.numpy(), trace.z)
    np.testing.assert_allclose(bound.log_likelihood, walk.log_likelihood, rtol=0.02)


@every_case
def test_a_saved_model_with_the_layer_loads_equal(case, tmp_path):
    if not case.in_functional_model:
        pytest.skip("its output is no plain tensor or tuple")
    layer, inputs = made(case), inputs_of(case)
    ends = [keras.Input(shape) for shape in case.shapes]
    model = keras.Model(ends, layer(*ends))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    argument = inputs if len(inputs) > 1 else inputs[0]
    equal(loaded(argument), layer(*inputs), rtol=1e-6)


@every_case
def test_every_weight_has_a_path_of_its_own(case):
    paths = [v.path for v in made(case).weights]
    assert len(set(paths)) == len(paths) > 0


@pytest.mark.parametrize(
    "make",
    [
        lambda config: TopDownNetwork(config, name="top_down"),
        lambda config: ConditionalStage(config, name="stage_1"),
        lambda config: ConditionalStage(config, refines=True, name="stage_2"),
    ],
    ids=["top-down network", "conditional stage", "conditional stage that refines"],
)
def test_what_only_holds_parts_comes_back_from_its_config(make):
    config = dataclasses.replace(CONFIG, conditional_stages=1)
    layer = make(config)
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(copy) is type(layer)
    for each in (layer, copy):
        each.build((None, *SHAPE) if isinstance(each, ConditionalStage) else (None, 2))
    assert copy.config == config and copy.get_config() == layer.get_config()
    paths = [(v.path, v.shape) for v in layer.weights]
    assert [(v.path, v.shape) for v in copy.weights] == paths and len(set(paths)) == len(paths) > 9


def test_a_stage_that_refines_watches_the_guess_too():
    config = dataclasses.replace(CONFIG, conditional_stages=1)
    channels = {}
    for refines in (False, True):
        stage = ConditionalStage(config, refines)
        stage.build((None, *SHAPE))
        guides = stage.generator, stage.guide
        channels[refines] = [guide.bottom_up.image_in.kernel.shape[-2] for guide in guides]
    # Known pixels or the guess, and the mask; the inference guide has the whole image beside it.
    assert channels == {False: [3, 3], True: [3, 5]}
