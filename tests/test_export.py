# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The SavedModel: its signatures against the Python model, and how versions come about."""

import json
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from work_directories import save_checkpoint

from matnet_tf import experiment, export
from matnet_tf.config import Experiment, ModelConfig, Stage, TrainConfig
from matnet_tf.model import MatNet

SLOW = pytest.mark.slow
DENSE, CONVOLUTIONAL = (Stage(1, 16, 4, 2),), (Stage(1, 16, 4, 1), Stage(4, 8, 2, 2))
LOCAL = {"autoregressive": True, "autoregressive_layers": 2, "autoregressive_filters": 4}
KINDS = {
    "dense": {"stages": DENSE},
    "convolutional": {"stages": CONVOLUTIONAL},
    "logistic": {"stages": DENSE, "likelihood": "logistic", "likelihood_scale": "channel"},
    "whitened": {"stages": CONVOLUTIONAL, "likelihood": "normal", "whitening": True},
    "local bernoulli": {"stages": CONVOLUTIONAL, **LOCAL},
    "local logistic": {"stages": DENSE, "likelihood": "logistic", **LOCAL},
}
BITS_OF_THE_DENSITY = {"bernoulli": 0, "logistic": 0, "normal": 8}
NUM_SAMPLES = 23
CHUNK = 20  # Small, so that the samples of a bound come in several chunks.


def make_model(kind):
    config = ModelConfig((8, 8, 1), top_latents=4, top_units=16, image_filters=8, **KINDS[kind])
    model = MatNet(config)
    model.adapt([images_for(model, 40)])
    return model


def images_for(model, count, seed=0):
    levels = np.random.RandomState(seed).randint(0, 256, (count, 8, 8, 1))
    binary = model.config.likelihood == "bernoulli"
    return (levels > 178 if binary else levels / 255).astype(np.float32)


def binary_images(count):
    return (np.random.RandomState(0).rand(count, 8, 8, 1) < 0.3).astype(np.float32)


@pytest.fixture(scope="module", params=[pytest.param(kind, marks=SLOW) for kind in KINDS])
def saved(request, tmp_path_factory):
    """A model and the path of its SavedModel."""
    model = make_model(request.param)
    path = tmp_path_factory.mktemp("saved") / "1"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MatNet, "samples_per_pass", CHUNK)
        export.save(model, path)
    return model, path


@pytest.fixture(scope="module")
def signatures(saved):
    return tf.saved_model.load(str(saved[1])).signatures


@pytest.fixture
def quick_save(monkeypatch):
    """Replaces the writing of a SavedModel by that of one weight."""

    def save(model, path):
        path.mkdir()
        np.save(path / "weight.npy", model.trainable_variables[0].numpy())

    monkeypatch.setattr(export, "save", save)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A work directory at step 7 whose weights and averages differ; not to be changed."""
    folder = tmp_path_factory.mktemp("trained")
    model = ModelConfig((8, 8, 1), (Stage(1, 4, 2, 1),), top_latents=2, top_units=4)
    settings = Experiment(model, train=TrainConfig(average_decay=0.9))
    experiment.create(folder, settings)
    model = experiment.build_model(settings)
    model.trainable_variables[0].assign(tf.ones_like(model.trainable_variables[0]))
    save_checkpoint(folder, model)
    return folder


@pytest.fixture
def workdir(trained, tmp_path):
    """A work directory of the test's own."""
    return shutil.copytree(trained, tmp_path / "run")


def number(value):
    return np.int32(value)


def calls_with_images(model, inputs, dims):
    """Requests `(signature, inputs)` with what the Python model answers.

    `inputs` are images, or images and masks, by their names; `dims` is how many values of each
    image the model predicts.
    """
    given, more_bits = inputs.values(), BITS_OF_THE_DENSITY[model.config.likelihood]
    bound, trace = model.elbo(*given), model.infer(*given, seed=4)
    expected = {"elbo": bound.elbo, "log_likelihood": bound.log_likelihood}
    expected |= {f"kl_{level}": kl for level, kl in bound.kl.items()}
    if not model.config.autoregressive:
        expected["reconstruction"] = model.reconstruct(*given, seed=0)
    yield "serving_default", inputs, expected
    nats = model.log_likelihood(*given, NUM_SAMPLES, seed=3, chunk=CHUNK)
    bits = -nats / (dims * np.log(2)) + more_bits
    samples = {"num_samples": number(NUM_SAMPLES), "seed": number(3)}
    yield "log_likelihood", inputs | samples, {"log_likelihood": nats, "bits_per_dim": bits}
    z = {f"z_{level.name}": level.z for level in trace.levels}
    loc = {f"loc_{level.name}": level.posterior.mean() for level in trace.levels}
    yield "encode", inputs | {"seed": number(4)}, z | loc
    for num_inferred in range(model.config.num_levels + 1):
        settings = {"num_inferred": number(num_inferred), "seed": number(5)}
        expected = model.reconstruct(*given, num_inferred, seed=5)
        yield "reconstruct", inputs | settings, {"images": expected}


def calls(model):
    """Requests with the answers, for two batch sizes."""
    for x in (images_for(model, 5), images_for(model, 3, seed=1)):
        yield from calls_with_images(model, {"images": x}, 64)
        trace = model.infer(x, seed=4)
        z = {f"z_{level.name}": level.z.numpy() for level in trace.levels}
        yield "decode", z, {"images": model.decode(trace.z)}
    inputs = {"num": number(6), "temperature": np.float32(0.7), "seed": number(2)}
    yield "sample", inputs, {"images": model.sample(6, temperature=0.7, seed=2)}


def answers(model, calls):
    """What `calls` gives, without tracing: only the signatures have to be graphs.

    The loops of the local model are longer than its tracing.
    """
    tf.config.run_functions_eagerly(not model.config.autoregressive)
    try:
        return list(calls(model))
    finally:
        tf.config.run_functions_eagerly(False)


def test_every_signature_names_its_inputs_and_outputs(saved, signatures):
    levels = saved[0].config.level_names
    z, loc, kl = ([f"{kind}_{level}" for level in levels] for kind in ("z", "loc", "kl"))
    # A draw of the local model takes its time: nobody should wait for it unasked.
    mean = [] if saved[0].config.autoregressive else ["reconstruction"]
    expected = {
        "serving_default": (["images"], ["elbo", "log_likelihood", *kl, *mean]),
        "log_likelihood": (["images", "num_samples", "seed"], ["log_likelihood", "bits_per_dim"]),
        "encode": (["images", "seed"], [*z, *loc]),
        "decode": (z, ["images"]),
        "sample": (["num", "temperature", "seed"], ["images"]),
        "reconstruct": (["images", "num_inferred", "seed"], ["images"]),
    }
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
    model, path = saved
    statistics = []  # Of whitening: mean, matrix and its inverse, log-determinant, count.
    if model.config.whitening:
        statistics = [64, 64 * 64, 64 * 64, 1, 1]
    trained = [int(np.prod(v.shape)) for v in model.trainable_variables]
    assert stored_sizes(path) == sorted(trained + statistics)


def quantiles(model):
    """How much of an output must be equal, where not all of it has to be.

    A draw of a level may be the next one where two computations differ in the last bit.
    """
    draws = {"images": 0.98, "samples": 0.98, "mean": 0.9}
    return draws if model.config.autoregressive else {}


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


def differences_in_a_fresh_process(model, path, calls, folder):
    """How far the answers are from the model's, `(signature, output, difference)`."""
    requests = [
        (name, inputs, {key: np.asarray(value) for key, value in expected.items()})
        for name, inputs, expected in answers(model, calls)
    ]
    (folder / "requests").write_bytes(pickle.dumps(requests))
    done = subprocess.run(
        [
            *(sys.executable, "-I", "-c", FRESH_PROCESS, str(path), str(folder / "requests")),
            json.dumps(quantiles(model)),
        ],
        capture_output=True,
        text=True,
        cwd=folder,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_a_process_without_the_package_gives_what_the_model_gives(saved, tmp_path):
    differences = differences_in_a_fresh_process(*saved, calls, tmp_path)
    assert {name for name, *_ in differences} == set(export.signatures_of(saved[0]))
    assert max(difference for *_, difference in differences) < 1e-5, differences


def test_every_signature_gives_what_the_model_gives(saved, signatures):
    model = saved[0]
    for name, inputs, expected in answers(model, calls):
        answer = signatures[name](**{k: tf.constant(v) for k, v in inputs.items()})
        assert set(answer) == set(expected)
        for key, value in expected.items():
            difference = np.abs(answer[key] - value) / np.maximum(1, np.abs(value))
            assert np.quantile(difference, quantiles(model).get(key, 1)) < 1e-5, (name, key)


@pytest.mark.parametrize(
    ("name", "inputs", "message"),
    [
        ("serving_default", {"images": binary_images(2) * 2}, "images must be {expected}"),
        ("serving_default", {"images": binary_images(2) * np.nan}, "images must be {expected}"),
        ("serving_default", {"images": binary_images(2)[:0]}, "images must be at least one"),
        (
            "log_likelihood",
            {"images": binary_images(2), "num_samples": number(0), "seed": number(0)},
            "num_samples must be at least 1",
        ),
        (
            "reconstruct",
            {"images": binary_images(2), "num_inferred": number(-1), "seed": number(0)},
            "num_inferred must lie in",
        ),
        (
            "sample",
            {"num": number(0), "temperature": np.float32(1), "seed": number(0)},
            "num must be at least 1",
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
    signature = export.signatures_of(make_model("logistic"))["log_likelihood"]
    x = tf.fill([1, 8, 8, 1], 100.5 / 255)
    with pytest.raises(tf.errors.InvalidArgumentError, match="8-bit values divided by 255"):
        signature(images=x, num_samples=number(1), seed=number(0))


def test_an_export_has_its_config_and_its_origin_beside_it(workdir, quick_save):
    path = export.export(workdir, weights="averaged")
    assert path == str(workdir / "export" / "1")
    extra = workdir / "export" / "1" / "assets.extra"
    assert (extra / "config.json").read_bytes() == (workdir / "config.json").read_bytes()
    origin = json.loads((extra / "export.json").read_text())
    assert origin["weights"] == "averaged" and origin["checkpoint_step"] == 7


@SLOW
def test_an_export_is_a_saved_model_of_the_weights_of_the_run(workdir):
    path = export.export(workdir, weights="averaged")
    assert tf.saved_model.contains_saved_model(path)
    assert (workdir / "export" / "1" / "assets.extra" / "config.json").is_file()
    x = tf.constant(binary_images(2))
    answer = tf.saved_model.load(path).signatures["serving_default"](images=x)
    expected = experiment.load(workdir, "averaged").model.elbo(x)
    np.testing.assert_allclose(answer["elbo"], expected.elbo, rtol=1e-5)


def test_raw_or_averaged_weights_are_exported_as_asked(workdir, quick_save):
    weights = {
        kind: np.load(f"{export.export(workdir, kind)}/weight.npy")
        for kind in ("raw", "averaged", "auto")
    }
    assert np.all(weights["raw"] == 1)
    assert not np.any(weights["averaged"] == 1)
    np.testing.assert_array_equal(weights["auto"], weights["averaged"])


def test_versions_increase_and_nothing_else_is_left(workdir, quick_save):
    (workdir / "export" / "9").mkdir(parents=True)
    assert export.export(workdir) == str(workdir / "export" / "10")
    assert export.export(workdir) == str(workdir / "export" / "11")
    assert {p.name for p in (workdir / "export").iterdir()} == {"9", "10", "11"}


def test_a_version_that_appears_meanwhile_is_not_touched(tmp_path, monkeypatch):
    temporary = tmp_path / ".writing.1"
    temporary.mkdir()
    rename = type(temporary).rename

    def late(self, target):
        if target.name == "1":
            target.mkdir()
            (target / "theirs").touch()
        return rename(self, target)

    monkeypatch.setattr(type(temporary), "rename", late)
    assert export._publish(temporary, tmp_path).name == "2"
    assert (tmp_path / "1" / "theirs").exists()


def test_a_failed_export_leaves_no_version(workdir, monkeypatch):
    def full(model, path):
        path.mkdir()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "save", full)
    with pytest.raises(OSError, match="No space left"):
        export.export(workdir)
    assert list((workdir / "export").iterdir()) == []


def test_a_work_directory_without_a_checkpoint_is_an_error(tmp_path, tiny_dense):
    experiment.create(tmp_path, Experiment(tiny_dense))
    with pytest.raises(ValueError, match="no checkpoint yet"):
        export.export(tmp_path)
    assert not (tmp_path / "export").exists()
