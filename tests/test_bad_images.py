# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Images that a likelihood cannot model: one clear line that says what to do."""

import functools

import numpy as np
import pytest
from test_bad_input import dataset, refused

from matnet_tf import training
from matnet_tf.config import DataConfig, Experiment, ModelConfig, Stage, TrainConfig
from matnet_tf.model import MatNet

SHAPE = (4, 3, 2)
KINDS = {
    "logistic": {"likelihood": "logistic"},
    "local logistic": {
        **{"likelihood": "logistic", "autoregressive": True},
        **{"autoregressive_layers": 2, "autoregressive_filters": 2},
    },
    "normal": {"likelihood": "normal"},
    "whitened": {"likelihood": "normal", "whitening": True},
    "bernoulli": {},
}
EIGHT_BITS = "8-bit values divided by 255: 0, 1/255, ..., 1 .not dequantized, not rescaled."
IN_RANGE = r"finite and lie in \[0, 1\]"


def levels(number=4):
    return np.random.default_rng(0).integers(0, 256, (number, *SHAPE))


def images(number=4):
    return (levels(number) / 255).astype(np.float32)


def dequantized():
    return ((levels() + 0.3) / 256).astype(np.float32)


def new(kind):
    model = MatNet(ModelConfig(SHAPE, (Stage(1, 3, 1, 1),), 1, 2, 2, **KINDS[kind]))
    model.compile(optimizer="sgd", run_eagerly=True)
    return model


@functools.cache
def made(kind) -> MatNet:
    model = new(kind)
    model.adapt([images(20)])
    return model


def refused_by_array(model, x, message):
    for call in (model.elbo, model.infer, model.reconstruct, model.log_likelihood, model.predict):
        refused(lambda call=call: call(x), message)
    refused(lambda: model.fit(x, verbose=0), message)


def refused_by_data_set(model, x, message):
    refused(lambda: model.fit(dataset(x), verbose=0), message)
    refused(lambda: model.evaluate(dataset(x), verbose=0), message)
    refused(lambda: model.predict(dataset(x), verbose=0), message)
    assert int(model.step.numpy()) == 0


# Values.

WHAT_TO_DO = {
    "logistic": "divide 8-bit images by 255 first",
    "local logistic": "divide 8-bit images by 255 first",
    "normal": r"dequantize 8-bit images first: \(value \+ uniform noise\) / 256",
    "whitened": r"dequantize 8-bit images first: \(value \+ uniform noise\) / 256",
    "bernoulli": "divide 8-bit images by 255 first",
}


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
@pytest.mark.parametrize("kind", KINDS)
def test_integers_are_refused_with_what_to_do(kind, dtype):
    message = f"got dtype {np.dtype(dtype).name}: {WHAT_TO_DO[kind]}$"
    refused_by_array(made(kind), levels().astype(dtype), message)
    refused_by_data_set(made(kind), levels().astype(dtype), f"float images .*{np.dtype(dtype)}")


@pytest.mark.parametrize("kind", ["logistic", "local logistic"])
def test_real_values_are_none_of_the_256_levels(kind):
    model, x = made(kind), images()
    refused_by_array(model, dequantized(), f"images must be {EIGHT_BITS}; got values from 0.0")
    # One value among many, half a level off.
    x[1, 2, 0, 1] = 100.5 / 255
    refused_by_array(model, x, f"{EIGHT_BITS}; got values from 0 to 1")
    refused_by_data_set(model, x, f"{EIGHT_BITS}; got a batch with 1 values that are not")


WRONG = {
    "255": (255.0, "got values from 0 to 255$"),
    "negative": (-0.01, "got values from -0.01 to 1$"),
    "NaN": (np.nan, "got values from .* and NaN$"),
    "infinity": (np.inf, "got values from 0 to inf$"),
}


@pytest.mark.parametrize(("value", "message"), WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("kind", ["logistic", "normal", "whitened"])
def test_values_out_of_range_are_refused(kind, value, message):
    x = np.float32(images() > 0.5)
    x[1, 1, 1, 0] = value
    expected = EIGHT_BITS if kind == "logistic" else IN_RANGE
    refused_by_array(made(kind), x, f"images must be {expected}; {message}")
    refused_by_data_set(made(kind), x, f"{expected}; got a batch with 1 values that are not$")


# Whitening.


def test_whitening_before_it_has_seen_the_training_images_is_refused(eagerly):
    model, message = new("whitened"), r"whitening needs the training images first: call adapt\("
    refused_by_array(model, images(), message)
    refused_by_data_set(model, images(), message)
    model.adapt(dataset((images(), np.arange(4))))
    assert np.isfinite(model.elbo(images()).elbo).all()


@functools.cache
def unseeing() -> MatNet:
    """A model that has seen no training images. Tests must not show it any that are right."""
    return new("whitened")


WRONG_STATISTICS = {
    "none": ([], "at least 2 training images; got 0"),
    "one": ([images(1)], "at least 2 training images; got 1"),
    "NaN": ([np.full((3, *SHAPE), np.nan, np.float32)], "finite"),
    "infinity": ([np.full((3, *SHAPE), np.inf, np.float32)], "finite"),
    "8 bits": ([levels().astype(np.uint8)], "got dtype uint8: dequantize"),
    "range": ([255 * images()], "got values from 0 to 255"),
    "shape": ([images()[:, :2]], r"shape \(batch, 4, 3, 2\).*got \(4, 2, 3, 2\)"),
    "not batched": (list(images()), r"shape \(batch, 4, 3, 2\).*got \(4, 3, 2\)"),
}


@pytest.mark.parametrize(
    ("batches", "message"), WRONG_STATISTICS.values(), ids=list(WRONG_STATISTICS)
)
def test_statistics_of_wrong_images_are_refused_and_change_nothing(batches, message):
    model = unseeing()
    refused(lambda: model.adapt(batches), message)
    refused(lambda: model.elbo(images()), "needs the training images first")


# Data sets by name.


def train(workdir, data, **model):
    settings = Experiment(
        ModelConfig((8, 8, 1), (Stage(1, 4, 1, 1),), 1, 2, **model),
        DataConfig(**data),
        TrainConfig(steps=1, batch_size=2, summary_images=0),
    )
    training.train(settings, workdir)


PLAIN = {"binarization": "none"}
WRONG_TRAININGS = {
    "logistic on binary images": (
        {"likelihood": "logistic"},
        {},
        "likelihood logistic is for 8-bit images, 256 levels a value; those of digits are binary",
    ),
    "normal on 8-bit images": (
        {"likelihood": "normal"},
        PLAIN,
        "normal is a density, .* 8-bit images of digits: add --data.dequantize$",
    ),
    "normal on binary images": (
        {"likelihood": "normal"},
        {},
        "normal is a density, .* binary images of digits: use likelihood bernoulli$",
    ),
    "whitening of one image": (
        {"likelihood": "normal", "whitening": True},
        {"dequantize": True, "validation_images": 1499} | PLAIN,
        "whitening needs at least 2 training images; got 1",
    ),
}


@pytest.mark.parametrize(
    ("model", "data", "message"), WRONG_TRAININGS.values(), ids=WRONG_TRAININGS
)
def test_a_training_on_images_of_another_kind_is_refused(model, data, message, tmp_path):
    refused(lambda: train(tmp_path / "run", data, **model), message)
    # Whoever follows the advice may use the same work directory.
    assert "whitening" in message or not (tmp_path / "run").exists()


def test_dequantization_of_another_likelihoods_images_is_refused_before_any_work():
    for likelihood in ("logistic", "bernoulli"):
        with pytest.raises(ValueError, match="dequantize goes with .*likelihood 'normal'; got"):
            Experiment(
                ModelConfig(likelihood=likelihood), DataConfig(dequantize=True, binarization="none")
            )
