# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The SavedModel in a C++ session without Python, by TensorFlow's C API: values and errors."""

import pickle

import c_session
import numpy as np
import pytest
import served_models
import tensorflow as tf
import test_export_conditional as conditional
from served_models import SLOW, TWINS, binary_images, number, quantiles

from matnet_tf.signatures import signatures_of

pytestmark = pytest.mark.skipif(c_session.COMPILER is None, reason="there is no C compiler")
INVALID_ARGUMENT = 3
# Every signature is in one of these; BUILD_NOTES.md has the other kinds' figures.
MODELS = [("", "dense mixture"), ("conditional", "bernoulli")]


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return c_session.build(tmp_path_factory.mktemp("c_api"))


def shared(kind, of_conditional, tmp_path_factory):
    if not of_conditional:
        model = served_models.make_model(kind)
        return served_models.saved(kind, model, served_models.calls, tmp_path_factory)
    model = conditional.make_model(**conditional.KINDS[kind])
    name = f"conditional {kind}"
    return served_models.saved(name, model, conditional.calls, tmp_path_factory)


@SLOW
@pytest.mark.parametrize(("of_conditional", "kind"), MODELS)
def test_a_session_without_python_gives_what_the_model_gives(
    of_conditional, kind, program, tmp_path_factory
):
    model, path, requests = shared(kind, of_conditional, tmp_path_factory)
    session, asked = c_session.Session(program, path), set()
    for name, inputs, expected in pickle.loads(requests.read_bytes()):
        answer = session(name, inputs)
        assert set(answer) == set(expected)
        asked.add(name)
        for key, value in expected.items():
            difference = np.abs(answer[key] - value) / np.maximum(1, np.abs(value))
            assert np.quantile(difference, quantiles(model).get(key, 1)) < 1e-5, (name, key)
    assert session.close() == 0
    assert asked == {name for name in signatures_of(model) if not name.endswith(TWINS)}


@pytest.fixture(scope="module")
def session(program, tmp_path_factory):
    found = c_session.Session(program, shared("dense mixture", "", tmp_path_factory).path)
    yield found
    assert found.close() == 0


@SLOW
def test_files_and_bytes_reach_a_session_without_python(session):
    x = binary_images(3)
    pixels = np.uint8(255 * x)
    expected = session("serving_default", {"images": x})
    files = np.array([tf.io.encode_png(image).numpy() for image in pixels], object)
    for twin, value in (("_uint8", pixels), ("_serialized", files)):
        answer = session(f"serving_default{twin}", {"images": value})
        for key in expected:
            assert answer[key].tobytes() == expected[key].tobytes(), (twin, key)


X, PNG = binary_images(3), tf.io.encode_png(np.zeros((8, 8, 1), np.uint8)).numpy()
BAD_INPUTS = [
    # signature, inputs, what the message has to say
    ("serving_default", {"images": X[:, :7]}, "shape_of_images"),
    ("serving_default", {"images": X[..., 0]}, "shape_of_images"),
    ("serving_default", {"images": np.concatenate([X, X], axis=-1)}, "shape_of_images"),
    ("serving_default", {"images": np.float32(3)}, "images"),
    ("serving_default", {"images": X[:0]}, "images must be 1 to 4096"),
    ("serving_default", {"images": np.repeat(X, 1366, axis=0)}, "images must be 1 to 4096"),
    ("serving_default", {"images": X * np.nan}, "images must be finite and lie in"),
    ("serving_default", {"images": X + 1}, "images must be finite and lie in"),
    # A session looks at types before anything of the graph, and knows places, not names.
    ("serving_default", {"images": np.float64(X)}, "Expects arg[0] to be float"),
    ("serving_default_uint8", {"images": np.uint8(X)[:, 1:]}, "shape_of_images"),
    ("serving_default_serialized", {"images": np.array([PNG, b"x"], object)}, "images_as_PNG"),
    ("serving_default_serialized", {"images": np.array([PNG[:50]], object)}, "images_as_PNG"),
    ("serving_default_serialized", {"images": np.array([[PNG]], object)}, "shape_of_images"),
    ("serving_default_serialized", {"images": np.array([], object)}, "images must be 1 to 4096"),
    ("log_likelihood", {"images": X, "num_samples": number(0)}, "num_samples must lie in [1, 100"),
    ("log_likelihood", {"images": X, "num_samples": number(10**6)}, "num_samples must lie in [1,"),
    ("log_likelihood", {"images": X, "num_samples": np.int32([1, 2])}, "num_samples must be one"),
    ("encode", {"images": X, "seed": number(-1)}, "seed must lie in [0, 2147483647]"),
    ("decode", {f"z_0{i}": np.zeros((2, 9), np.float32) for i in range(2)}, "shape_of_z_0"),
    ("sample", {"num": number(10**6)}, "num must lie in [1, 10000]"),
    ("sample", {"temperature": np.float32(np.nan)}, "temperature must be at least 0"),
    ("sample_component", {"component": number(3)}, "component must lie in [0, 2]"),
    ("reconstruct", {"images": X, "num_inferred": number(9)}, "num_inferred must lie in [0, 2]"),
]


@SLOW
def test_bad_input_is_an_error_that_names_it_and_the_session_goes_on(session):
    good = session("serving_default", {"images": X})
    for name, inputs, message in BAD_INPUTS:
        full = {f"z_0{i}": f"z_0{i}_{level}" for i, level in enumerate(("top", "fc"))}
        inputs = {full.get(key, key): value for key, value in inputs.items()}
        with pytest.raises(c_session.Refused) as caught:
            session(name, inputs)
        assert caught.value.code == INVALID_ARGUMENT and message in str(caught.value), name
    again = session("serving_default", {"images": X})
    assert all(again[key].tobytes() == good[key].tobytes() for key in good)
