# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""SavedModels in a C++ session without TensorFlow's Python, through the C API."""

import pickle
import subprocess
import sys

import c_api
import numpy as np
import pytest
import tensorflow as tf
from served_models import assert_close, inputs_of, meta_graph

pytestmark = pytest.mark.serving


def ask(path, requests):
    """Outputs by name, or the message of an error, for each request `(signature, inputs)`."""
    signatures, named = meta_graph(path).signature_def, []
    for name, inputs in requests:
        signature = signatures[name]
        inputs = {k: tf.make_ndarray(v) for k, v in signature.defaults.items()} | inputs
        inputs = {signature.inputs[key].name: value for key, value in inputs.items()}
        named.append((inputs, {key: info.name for key, info in signature.outputs.items()}))
    command = [sys.executable, c_api.__file__, tf.sysconfig.get_lib(), path]
    done = subprocess.run(command, input=pickle.dumps(named), stdout=subprocess.PIPE, check=True)
    return pickle.loads(done.stdout)


def test_a_session_of_the_c_api_returns_what_the_model_returns(served):
    requests = pickle.loads(served.requests.read_bytes())
    answers = ask(served.path, [request[:2] for request in requests])
    for answer, (name, _, expected) in zip(answers, requests, strict=True):
        assert_close(answer, expected, name)


def test_bad_input_is_an_error_that_names_it_and_the_session_goes_on(served_mixture):
    x = inputs_of(served_mixture.model, 3)["images"]
    cases = [
        (x[:, :3], "shape_of_images"),
        (x[..., 0], "shape_of_images"),
        (x[:0], "images must have 1 to 10000 rows"),
        (x * np.nan, "images must be 0 or 1"),
        (np.float64(x), "Expects arg[0] to be float"),  # A session checks types by position.
    ]
    values = [*(value for value, _ in cases), x]
    *errors, good = ask(served_mixture.path, [("serving_default", {"images": v}) for v in values])
    for error, (_, message) in zip(errors, cases, strict=True):
        assert message in error
    assert np.isfinite(good["elbo"]).all()
