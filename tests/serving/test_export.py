# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The SavedModel of a work directory: what it holds, and its answers without this package."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from served_models import VARIANTS, meta_graph

from matnet_tf.runs.models import load_run
from matnet_tf.serving.signatures import signatures_of

pytestmark = pytest.mark.slow


def test_every_signature_with_images_has_variants(served):
    signatures = meta_graph(served.path).signature_def
    assert {n for n in signatures if not n.startswith("__")} == set(signatures_of(served.model))
    for name, signature in signatures.items():
        if "images" in signature.inputs and not name.endswith(VARIANTS):
            for variant in VARIANTS:
                assert set(signatures[name + variant].inputs) == set(signature.inputs)
                assert set(signatures[name + variant].outputs) == set(signature.outputs)


def test_the_batch_is_dynamic_and_inputs_with_defaults_may_be_left_out(served):
    signature = meta_graph(served.path).signature_def["log_likelihood"]
    shapes = {
        name: [dim.size for dim in info.tensor_shape.dim]
        for name, info in [*signature.inputs.items(), *signature.outputs.items()]
    }
    assert shapes["images"] == [-1, 4, 6, 1] and shapes["log_likelihood"] == [-1]
    defaults = {name: tf.make_ndarray(value) for name, value in signature.defaults.items()}
    assert defaults == {"num_samples": 100, "seed": 0}


# A request must not run Python, touch files, print, or draw from a generator with a state.
FORBIDDEN = re.compile(
    "(Eager)?PyFunc.*|ReadFile|WriteFile|MatchingFiles|Save.*|Restore.*|MergeV2.*|.*Dataset.*"
    "|.*Reader.*|Print.*|Random(Uniform|UniformInt|StandardNormal|Gamma|Poisson|Shuffle).*"
    "|Multinomial|TruncatedNormal|ParameterizedTruncatedNormal|Stateful.*Random.*"
    "|Stateful(Uniform|Normal).*"
)


def test_no_signature_runs_python_touches_files_or_draws_from_a_state(served):
    functions = {f.signature.name: f for f in meta_graph(served.path).graph_def.library.function}
    found = set()
    for name, function in functions.items():
        if "_restore_" not in name and "_save_" not in name:
            found |= {node.op for node in function.node_def}
    assert "Assert" in found and not {op for op in found if FORBIDDEN.fullmatch(op)}


def test_the_export_holds_the_weights_of_the_model_and_nothing_of_training(served):
    stored = tf.train.list_variables(str(served.path / "variables" / "variables"))
    sizes = [int(np.prod(shape)) for name, shape in stored if "CHECKPOINTABLE" not in name]
    trained = [int(np.prod(v.shape)) for v in served.model.trainable_variables]
    uniform = [3] if served.model.config.mixture_components else []  # of the mixture prior
    assert sorted(sizes) == sorted(trained + uniform)


def test_warm_up_requests_are_valid_for_every_signature(served, eagerly):
    prediction_log = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    path = served.path / "assets.extra" / "tf_serving_warmup_requests"
    signatures, asked = signatures_of(served.model), []
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        request = prediction_log.PredictionLog.FromString(record).predict_log.request
        asked.append(request.model_spec.signature_name)
        inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
        assert set(inputs) == set(signatures[asked[-1]].specs)
        signatures[asked[-1]].function(**{k: tf.constant(v) for k, v in inputs.items()})
    assert asked == list(signatures)


# Runs without the repository on its path, and cannot import these packages even if installed.
WITHOUT_THE_PACKAGE = """
import json, pickle, sys

for name in ("matnet_tf", "tensorflow_probability", "keras"):
    sys.modules[name] = None
import numpy as np
import tensorflow as tf

tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})  # Saves time.
answers = []
for path, requests in zip(sys.argv[1::2], sys.argv[2::2]):
    signatures = tf.saved_model.load(path).signatures
    for name, inputs, expected in pickle.load(open(requests, "rb")):
        answer = signatures[name](**{k: tf.constant(v) for k, v in inputs.items()})
        if set(answer) != set(expected):
            raise SystemExit(f"{name} returns {sorted(answer)}")
        for key, value in expected.items():
            error = np.abs(answer[key].numpy() - value) / np.maximum(1, np.abs(value))
            answers.append((name, key, float(error.max())))
print(json.dumps(answers))
"""


def test_a_process_without_the_package_returns_what_the_model_returns(
    served_mixture, served_conditional, tmp_path
):
    exports = served_mixture, served_conditional
    arguments = [argument for s in exports for argument in (s.path, s.requests)]
    done = subprocess.run(
        [sys.executable, "-I", "-c", WITHOUT_THE_PACKAGE, *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answers = json.loads(done.stdout.splitlines()[-1])
    asked = {name for name, *_ in answers}
    expected = {name for served in exports for name in signatures_of(served.model)}
    assert asked == {name for name in expected if not name.endswith(VARIANTS)}
    assert max(error for *_, error in answers) < 1e-5, answers


def test_the_export_is_the_model_of_the_work_directory(served_mixture):
    trained = load_run(served_mixture.workdir).model.trainable_variables
    for variable, expected in zip(trained, served_mixture.model.trainable_variables, strict=True):
        np.testing.assert_array_equal(variable, expected)
