# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Bad input to a `MatNet`: one clear line for each, and nothing else happens."""

import numpy as np
import pytest
import tensorflow as tf

from matnet_tf.config import ModelConfig, Stage
from matnet_tf.model import MatNet

CONFIG = ModelConfig((4, 3, 1), (Stage(1, 5, 2, 1), Stage((2, 2), 3, 2, 1)), 2, 4, 3)


def images(number=4, shape=CONFIG.image_shape):
    return np.random.default_rng(0).integers(0, 2, (number, *shape)).astype(np.float32)


@pytest.fixture(scope="module")
def model() -> MatNet:
    made = MatNet(CONFIG)
    made.compile(optimizer="sgd", run_eagerly=True)
    return made


def dataset(elements, batch=2):
    options = tf.data.Options()
    options.autotune.enabled = False
    return tf.data.Dataset.from_tensor_slices(elements).batch(batch).with_options(options)


NAN = images()
NAN[1, 0, 0, 0] = np.nan
WRONG_IMAGES = {
    "other shape": (images(2, (3, 4, 1)), r"shape \(batch, 4, 3, 1\).*got \(2, 3, 4, 1\)"),
    "no batch": (images()[0], r"shape \(batch, 4, 3, 1\).*got \(4, 3, 1\)"),
    "8 bits": (images().astype(np.uint8), r"float32, .* in \[0, 1\]; got dtype uint8: divide"),
    "range": (255 * images(), r"and lie in \[0, 1\]; got values from 0 to 255"),
    "negative": (-images(), r"and lie in \[0, 1\]; got values from -1 to"),
    "NaN": (NAN, "must be finite and .*; got .* and NaN"),
    "infinite": (
        np.full_like(images(), np.inf),
        "must be finite and .*; got values from inf to inf",
    ),
    "empty": (images(0), "at least one; got an empty batch"),
}


def refused(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("x", "message"), WRONG_IMAGES.values(), ids=WRONG_IMAGES)
def test_wrong_images_get_one_clear_line(model, x, message):
    for call in (model.elbo, model.infer, model.reconstruct, model.log_likelihood, model.predict):
        refused(lambda call=call: call(x), message)
    refused(lambda: model.fit(x, verbose=0), message)


WRONG_CALLS = {
    "no samples": (lambda m: m.log_likelihood(images(), num_samples=0), "at least 1; got 0"),
    "K is no whole number": (lambda m: m.infer(images(), 1.5), "whole number of at least 1"),
    "chunk": (lambda m: m.log_likelihood(images(), chunk=0), "chunk must be .*; got 0"),
    "a scalar": (lambda m: m.log_likelihood(np.float32(1)), r"got \(\)"),
    "sample none": (lambda m: m.sample(0), "num must be a whole number of at least 1; got 0"),
    "temperature": (lambda m: m.sample(1, temperature=-1.0), "one number >= 0 .*got -1"),
    "hot as NaN": (lambda m: m.sample(1, temperature=np.nan), "one number >= 0"),
    "no number": (lambda m: m.sample(1, temperature="hot"), "one number >= 0 .*got 'hot'"),
    "temperatures": (lambda m: m.sample(1, temperature=[1, 1]), r"one per level \(3\)"),
    "too many levels": (lambda m: m.reconstruct(images(), 4), r"in \[0, 3\].*got 4"),
    "half a level": (lambda m: m.reconstruct(images(), 1.5), "whole number .*got 1.5"),
    "latents": (lambda m: m.sample(2, latents=[np.zeros((1, 2))]), r"00_top .*\(2, 2\).*\(1, 2\)"),
    "more latents": (lambda m: m.sample(1, latents=[np.zeros((1, 2))] * 4), "has 3 levels; got 4"),
    "nothing to decode": (lambda m: m.decode([]), "at least one level; got none"),
}


@pytest.mark.parametrize(("call", "message"), WRONG_CALLS.values(), ids=WRONG_CALLS)
def test_wrong_arguments_get_one_clear_line(model, call, message):
    refused(lambda: call(model), message)


def unknown_rank(x):
    return dataset(x).map(lambda e: tf.py_function(lambda t: t, [e], tf.float32))


WRONG_DATA = {
    "NaN": (dataset(NAN), "finite and lie in .0, 1.; got a batch with 1 values that are not"),
    "range": (dataset(np.full_like(images(), 2)), "got a batch with 24 values that are not"),
    "shape": (dataset(images(2, (3, 4, 1))), r"\(batch, 4, 3, 1\).*got float32 \(None, 3, 4, 1\)"),
    "not batched": (dataset(images()).unbatch(), r"got float32 \(4, 3, 1\)"),
    "integers": (dataset(images().astype(np.uint8)), "float images .*got uint8"),
    "unknown rank": (unknown_rank(images()), "float images .*got float32 <unknown>"),
    "no image": (dataset({"pixels": images()}), r"key 'image'; got \['pixels'\]"),
    "empty": (dataset(images()).take(0), "the data set is empty"),
    "None": (None, "must be a tf.data.Dataset or an array of images; got None"),
}


@pytest.mark.parametrize(("data", "message"), WRONG_DATA.values(), ids=WRONG_DATA)
def test_wrong_data_sets_get_one_clear_line(data, message, model):
    refused(lambda: model.fit(data, verbose=0), message)
    refused(lambda: model.evaluate(data, verbose=0), message)
    if data is not None:
        good = images()
        refused(lambda: model.fit(good, validation_data=data, verbose=0, epochs=1), message)


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_a_data_set_that_turns_out_empty_is_refused(model):
    empty = dataset(images()).filter(lambda x: False)
    refused(lambda: model.fit(empty, verbose=0), "the data set is empty")
    refused(lambda: model.evaluate(empty, verbose=0), "the data set is empty")


def test_no_epoch_is_no_empty_data_set(model):
    assert model.fit(dataset(images()), epochs=2, initial_epoch=2, verbose=0).epoch == []
