# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The SavedModel: its signatures against the Python model, and how versions come about."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from served_models import (
    KINDS,
    SLOW,
    TWINS,
    binary_images,
    calls,
    images_for,
    make_model,
    number,
    quantiles,
)
from served_models import saved as shared

from matnet_tf.signatures import signatures_of


@pytest.fixture(scope="module", params=[pytest.param(kind, marks=SLOW) for kind in KINDS])
def saved(request, tmp_path_factory):
    """A model, its SavedModel, and requests with answers."""
    return shared(request.param, make_model(request.param), calls, tmp_path_factory)


@pytest.fixture(scope="module")
def signatures(saved):
    return tf.saved_model.load(str(saved.path)).signatures


def with_twins(signatures):
    """The entries of those that take images, under the names of their twins."""
    return {
        f"{name}{twin}": value
        for name, value in signatures.items()
        for twin in TWINS
        if "images" in value[0]
    }


def test_every_signature_names_its_inputs_and_outputs(saved, signatures):
    levels = saved[0].config.level_names
    z, loc, kl = ([f"{kind}_{level}" for level in levels] for kind in ("z", "loc", "kl"))
    # A draw of the local model takes its time: nobody should wait for it unasked.
    mean = [] if saved[0].config.autoregressive else ["reconstruction"]
    of_x = ["logits"] if saved[0].config.likelihood == "bernoulli" else ["loc", "scale"]
    of_x = of_x if mean else []
    expected = {
        "serving_default": (["images"], ["elbo", "log_likelihood", *kl, *mean]),
        "log_likelihood": (["images", "num_samples", "seed"], ["log_likelihood", "bits_per_dim"]),
        "encode": (["images", "seed"], [*z, *loc]),
        "decode": (z, ["images", *of_x]),
        "sample": (["num", "temperature", "seed"], ["images"]),
        "reconstruct": (["images", "num_inferred", "seed"], ["images"]),
    }
    if saved[0].config.mixture_components:
        expected["sample_component"] = (["component", *expected["sample"][0]], ["images"])
    expected |= with_twins(expected)
    assert set(signatures) == set(expected)
    for name, (inputs, outputs) in expected.items():
        assert set(signatures[name].structured_input_signature[1]) == set(inputs)
        assert set(signatures[name].structured_outputs) == set(outputs)


def test_the_batch_is_dynamic_and_the_image_is_not(signatures):
    specs = signatures["serving_default"].structured_input_signature[1]
    assert specs["images"].shape.as_list() == [None, 8, 8, 1]
    outputs = signatures["serving_default"].structured_outputs
    assert outputs["elbo"].shape.rank == 1 and outputs["elbo"].shape[0] is None


def stored_sizes(path):
    """How many numbers each variable of a SavedModel has, sorted."""
    stored = tf.train.list_variables(str(path / "variables" / "variables"))
    return sorted(int(np.prod(shape)) for name, shape in stored if "CHECKPOINTABLE" not in name)


def test_the_saved_model_holds_the_weights_of_the_model_and_nothing_of_training(saved):
    model, path, _ = saved
    statistics = []  # Of whitening: mean, matrix and its inverse, log-determinant, count.
    if model.config.whitening:
        statistics = [64, 64 * 64, 64 * 64, 1, 1]
    if model.config.mixture_components:
        statistics = [3]  # The uniform weights of its components.
    trained = [int(np.prod(v.shape)) for v in model.trainable_variables]
    assert stored_sizes(path) == sorted(trained + statistics)


# What a server must not do for a request: run Python, touch files, print, or draw from a generator
# whose state other requests move.
FORBIDDEN = re.compile(
    "(Eager)?PyFunc.*|ReadFile|WriteFile|MatchingFiles|Save.*|Restore.*|MergeV2.*|.*Dataset.*|.*Reader.*"
    "|Print.*|Random(Uniform|UniformInt|StandardNormal|Gamma|Poisson|Shuffle).*|Multinomial"
    "|TruncatedNormal|ParameterizedTruncatedNormal|Stateful.*Random.*|Stateful(Uniform|Normal).*"
)


def test_no_signature_runs_python_touches_files_or_draws_from_a_state(signatures):
    for name, signature in signatures.items():
        graph = signature.graph.as_graph_def()
        nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
        found = {node.op for node in nodes}
        assert "Assert" in found or name.startswith("decode")
        assert not {op for op in found if FORBIDDEN.fullmatch(op)}


# It runs without the repository on its path, and cannot import these even where installed.
FRESH_PROCESS = """
import json, pickle, sys

for name in ("matnet_tf", "tensorflow_probability"):
    sys.modules[name] = None
try:
    import matnet_tf
except ImportError:
    pass
else:
    raise SystemExit("matnet_tf can be imported")

import numpy as np
import tensorflow as tf

path, requests, quantiles = sys.argv[1:]
quantiles = json.loads(quantiles)
signatures = tf.saved_model.load(path).signatures
differences = []
for name, inputs, expected in pickle.load(open(requests, "rb")):
    answer = signatures[name](**{k: tf.constant(v) for k, v in inputs.items()})
    if set(answer) != set(expected):
        raise SystemExit(f"{name} gives {sorted(answer)}")
    for key, value in expected.items():
        difference = np.abs(answer[key].numpy() - value) / np.maximum(1, np.abs(value))
        differences.append((name, key, float(np.quantile(difference, quantiles.get(key, 1)))))
print(json.dumps(differences))
"""


def differences_in_a_fresh_process(saved, folder):
    """How far the answers are from the model's, `(signature, output, difference)`."""
    done = subprocess.run(
        [
            *(sys.executable, "-I", "-c", FRESH_PROCESS, saved.path, saved.requests),
            json.dumps(quantiles(saved.model)),
        ],
        capture_output=True,
        text=True,
        cwd=folder,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_a_process_without_the_package_gives_what_the_model_gives(saved, tmp_path):
    differences = differences_in_a_fresh_process(saved, tmp_path)
    asked = {name for name, *_ in differences}
    assert asked == {name for name in signatures_of(saved[0]) if not name.endswith(TWINS)}
    assert max(difference for *_, difference in differences) < 1e-5, differences


SETTINGS = {  # What the signatures with images take beside them.
    "serving_default": {},
    "log_likelihood": {"num_samples": number(3), "seed": number(3)},
    "encode": {"seed": number(2)},
    "reconstruct": {"num_inferred": number(1), "seed": number(1)},
}


def test_an_image_gets_the_same_bytes_whoever_shares_its_batch(saved, signatures):
    x = images_for(saved[0], 64)
    for name, settings in SETTINGS.items():

        def ask(rows, name=name, settings=settings):
            inputs = {"images": x[rows]} | settings
            answer = signatures[name](**{k: tf.constant(v) for k, v in inputs.items()})
            return {key: value.numpy() for key, value in answer.items()}

        whole = ask(np.arange(64))
        for rows in ([41], [3, 41, 5, 9, 60, 0, 2], np.arange(64)[::-1]):
            for key, value in ask(rows).items():
                assert value.tobytes() == whole[key][rows].tobytes(), (name, key, len(rows))


def test_inputs_with_defaults_may_be_left_out_of_a_session(saved):
    model, path, _ = saved
    x = images_for(model, 2)
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], str(path))
        signature = loaded.signature_def["log_likelihood"]
        defaults = {name: tf.make_ndarray(value) for name, value in signature.defaults.items()}
        fed = {signature.inputs["images"].name: x}
        nats = session.run(signature.outputs["log_likelihood"].name, fed)
    assert defaults == {"num_samples": 100, "seed": 0}
    np.testing.assert_allclose(nats, model.log_likelihood(x, 100, seed=[0, 0]), rtol=1e-5)


def test_twins_give_for_bytes_and_files_what_the_signature_gives_for_floats(saved, signatures):
    pixels = np.random.RandomState(3).randint(0, 256, (3, 8, 8, 1)).astype(np.uint8)
    if saved[0].config.likelihood == "bernoulli":
        pixels = np.uint8(255) * (pixels > 127)
    unit = 256 if saved[0].config.likelihood == "normal" else 255
    middle = 0.5 if unit == 256 else 0.0
    files = tf.stack([tf.io.encode_png(image) for image in pixels])
    images = tf.constant(((pixels + middle) / unit).astype(np.float32))
    for name, settings in SETTINGS.items():
        settings = {key: tf.constant(value) for key, value in settings.items()}
        answer = signatures[name](images=images, **settings)
        for twin, value in (("_uint8", tf.constant(pixels)), ("_serialized", files)):
            again = signatures[f"{name}{twin}"](images=value, **settings)
            for key in answer:
                difference = np.abs(again[key] - answer[key]) / np.maximum(1, np.abs(answer[key]))
                assert np.quantile(difference, quantiles(saved[0]).get(key, 1)) < 1e-5, (name, key)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (b"no picture", "images_as_PNG_or_JPEG"),
        (tf.io.encode_png(np.zeros((8, 9, 1), np.uint8)).numpy(), "images_of_8x8_pixels"),
        (tf.io.encode_png(np.zeros((8, 8, 1), np.uint8)).numpy()[:40], "images_as_PNG_or_JPEG"),
    ],
)
def test_a_bad_file_is_an_error_that_names_the_images(signatures, value, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        signatures["serving_default_serialized"](images=tf.constant([value]))


@pytest.mark.parametrize(
    ("name", "inputs", "message"),
    [
        ("serving_default", {"images": binary_images(2) * 2}, "images must be {expected}"),
        ("serving_default", {"images": binary_images(2) * np.nan}, "images must be {expected}"),
        ("serving_default", {"images": binary_images(2)[:0]}, "images must be 1 to 4096"),
        (
            "log_likelihood",
            {"images": binary_images(2), "num_samples": number(0), "seed": number(0)},
            "num_samples must lie in [1, 10000]",
        ),
        (
            "reconstruct",
            {"images": binary_images(2), "num_inferred": number(-1), "seed": number(0)},
            "num_inferred must lie in",
        ),
        (
            "sample",
            {"num": number(0), "temperature": np.float32(1), "seed": number(0)},
            "num must lie in [1, 10000]",
        ),
        (
            "sample",
            {"num": number(1), "temperature": np.float32(-1), "seed": number(0)},
            "temperature must be at least 0",
        ),
    ],
)
def test_bad_input_is_an_error_that_names_it(saved, signatures, name, inputs, message):
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        signatures[name](**{k: tf.constant(v) for k, v in inputs.items()})
    assert message.format(expected=saved[0].likelihood.pixels.expected) in str(caught.value)


@SLOW
def test_a_served_logistic_model_refuses_values_between_the_levels():
    signature = signatures_of(make_model("convolutional logistic"))["log_likelihood"].function
    x = tf.fill([1, 8, 8, 1], 100.5 / 255)
    with pytest.raises(tf.errors.InvalidArgumentError, match="8-bit values divided by 255"):
        signature(images=x, num_samples=number(1), seed=number(0))
