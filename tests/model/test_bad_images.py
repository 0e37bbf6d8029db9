# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Images that a likelihood cannot model: one clear line that says what to do."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from matnet_tf.config import ModelConfig, Scale
from matnet_tf.model.matnet import MatNet

pytestmark = pytest.mark.usefixtures("eagerly")

SHAPE = (4, 3, 2)
KINDS = {
    "logistic": {"likelihood": "logistic"},
    "logistic mixture": {"likelihood": "logistic_mixture"},
    "local logistic": {
        **{"likelihood": "logistic", "autoregressive": True},
        **{"autoregressive_layers": 2, "autoregressive_filters": 2},
    },
    "normal": {"likelihood": "normal"},
    "whitened": {"likelihood": "normal", "whitening": True},
    "bernoulli": {},
}
EIGHT_BITS = "8-bit values divided by 255: 0, 1/255, ..., 1 .not dequantized, not rescaled."
IN_RANGE = r"finite values in \[0, 1\]"


def levels(number=4):
    return np.random.default_rng(0).integers(0, 256, (number, *SHAPE))


def images(number=4):
    return (levels(number) / 255).astype(np.float32)


def new(kind):
    model = MatNet(ModelConfig(SHAPE, (Scale(1, 3, 1, 1),), 1, 2, 2, **KINDS[kind]))
    model.compile(optimizer="sgd", run_eagerly=True)
    return model


@functools.cache
def made(kind):
    model = new(kind)
    model.adapt([images(20)])
    return model


def dataset(x):
    return tf.data.Dataset.from_tensor_slices(x).batch(3)


def refused(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_integers_are_refused_with_advice():
    divide, dequantize = (
        "divide 8-bit images by 255 first",
        r"dequantize 8-bit images first: \(value \+ uniform noise\) / 256",
    )
    for kind in KINDS:
        advice = dequantize if kind in ("normal", "whitened") else divide
        for dtype in ("uint8", "int32"):
            x = levels().astype(dtype)
            refused(lambda k=kind, x=x: made(k).elbo(x), f"got dtype {dtype}: {advice}$")
        refused(lambda k=kind, x=x: made(k).fit(dataset(x), verbose=0), "float images .*int32")


def test_real_values_are_none_of_the_256_levels():
    for kind in ("logistic", "local logistic", "logistic mixture"):
        x = images()
        x[1, 2, 0, 1] = 100.5 / 255  # One value among many, half a level off.
        model, between = made(kind), ((levels() + 0.3) / 256).astype(np.float32)
        refused(lambda m=model, x=x: m.elbo(x), f"{EIGHT_BITS}; got values from 0 to 1")
        refused(lambda m=model, x=between: m.elbo(x), f"{EIGHT_BITS}; got values from 0.0")
        message = f"{EIGHT_BITS}; got a batch with 1 values that are not$"
        for call in (model.fit, model.evaluate, model.predict):
            refused(lambda call=call, x=x: call(dataset(x), verbose=0), message)
        assert int(model.step.numpy()) == 0


def test_values_out_of_range_are_refused():
    for kind, expected in (
        ("logistic", EIGHT_BITS),
        ("normal", IN_RANGE),
        ("whitened", IN_RANGE),
    ):
        for value, message in (
            (255.0, "got values from 0 to 255$"),
            (-0.01, "got values from -0.01 to 1$"),
            (np.nan, "got values from .* and NaN$"),
            (np.inf, "got values from 0 to inf$"),
        ):
            x = np.float32(images() > 0.5)
            x[1, 1, 1, 0] = value
            refused(lambda k=kind, x=x: made(k).elbo(x), f"images must be {expected}; {message}")
        message = f"{expected}; got a batch with 1 values that are not$"
        refused(lambda k=kind, x=x: made(k).fit(dataset(x), verbose=0), message)


def test_whitening_needs_right_training_images_first():
    model, needed = new("whitened"), r"whitening needs the training images first: call adapt\("
    refused(lambda: model.elbo(images()), needed)
    refused(lambda: model.fit(dataset(images()), verbose=0), needed)
    for batches, message in (
        ([], "at least 2 training images; got 0"),
        ([images(1)], "at least 2 training images; got 1"),
        ([np.full((3, *SHAPE), np.nan, np.float32)], "finite"),
        ([levels().astype(np.uint8)], "got dtype uint8: dequantize"),
        ([255 * images()], "got values from 0 to 255"),
        ([images()[:, :2]], r"shape \(batch, 4, 3, 2\).*got \(4, 2, 3, 2\)"),
        (list(images()), r"shape \(batch, 4, 3, 2\).*got \(4, 3, 2\)"),
    ):
        refused(lambda b=batches: model.adapt(b), message)
        refused(lambda: model.elbo(images()), needed)
    model.adapt(dataset((images(), np.arange(4))))
    assert np.isfinite(model.elbo(images()).elbo).all()
