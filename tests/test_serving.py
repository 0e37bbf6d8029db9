# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The example clients against a server of the exported model, over REST and gRPC.

The server is the stand-in of `model_server`, unless MATNET_SERVING_URL names another, such as a
stock TensorFlow Serving at http://localhost:8501. It is then to serve the export of the work
directory MATNET_SERVING_WORKDIR (runs/digits) under the name MATNET_SERVING_MODEL (matnet), with
gRPC at MATNET_SERVING_GRPC (localhost:8500).
"""

import concurrent.futures
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time
from typing import Any, NamedTuple

import grpc_client
import numpy as np
import pytest
import requests
import rest_client
import tensorflow as tf
from served_models import DENSE, alone_in, answers, binary_images, calls, quantiles
from work_directories import write_run

from matnet_tf import experiment, export
from matnet_tf.config import Experiment, ModelConfig
from matnet_tf.signatures import signatures_of

pytestmark = pytest.mark.slow

TESTS = pathlib.Path(__file__).resolve().parent
EXAMPLES = TESTS.parent / "examples"
STOCK = os.environ.get("MATNET_SERVING_URL")
OURS_ALONE = pytest.mark.skipif(bool(STOCK), reason="it needs a server of its own")
PATIENCE = 300


class Server(NamedTuple):
    """Where a server is, and what it serves."""

    url: str
    address: str
    name: str
    workdir: pathlib.Path
    process: Any = None
    log: pathlib.Path | None = None

    def client(self, kind, **choices):
        if kind == "rest":
            return rest_client.RestClient(self.url, self.name, **choices)
        return grpc_client.GrpcClient(self.address, self.name, **choices)


def start(workdir, folder, *flags):
    """The stand-in, at work on the exports of a work directory."""
    log = folder / "server.log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "model_server", f"--model_base_path={workdir / 'export'}"),
                *("--file_system_poll_wait_seconds=0.2", *flags),
            ],
            cwd=TESTS,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    line = process.stdout.readline()
    assert line, log.read_text()
    ports = json.loads(line)
    url, address = f"http://localhost:{ports['rest']}", f"localhost:{ports['grpc']}"
    return Server(url, address, "matnet", workdir, process, log)


def stop(server):
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(60) == 0, server.log.read_text()
    server.process.stdout.close()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A work directory with one export; not to be changed."""
    config = ModelConfig((8, 8, 1), DENSE, top_latents=4, top_units=16, mixture_components=3)
    with alone_in("a work directory", tmp_path_factory) as folder:
        if not (folder / "run" / "export" / "1").exists():
            export.export(write_run(folder / "run", Experiment(config)))
    return folder / "run"


@pytest.fixture(scope="module")
def server(request, tmp_path_factory):
    if STOCK:
        get = os.environ.get
        yield Server(
            STOCK,
            get("MATNET_SERVING_GRPC", "localhost:8500"),
            get("MATNET_SERVING_MODEL", "matnet"),
            pathlib.Path(get("MATNET_SERVING_WORKDIR", "runs/digits")),
        )
        return
    own = start(request.getfixturevalue("exported"), tmp_path_factory.mktemp("log"))
    yield own
    stop(own)


@pytest.fixture(scope="module")
def model(server):
    return experiment.load(server.workdir).model


@pytest.fixture(scope="module")
def asked(model):
    """Requests, with what the Python model answers."""
    return answers(model, calls)


KINDS = pytest.mark.parametrize("kind", ["rest", "grpc"])
REFUSED = {"rest": rest_client.Refused, "grpc": grpc_client.grpc.RpcError}


def as_sent(kind, inputs):
    """Inputs as a client's caller would have them."""
    return {n: np.asarray(v).tolist() if kind == "rest" else v for n, v in inputs.items()}


def refusal(kind, client, signature, inputs):
    """The code and the words of the error that a request gets."""
    with pytest.raises(REFUSED[kind]) as caught:
        client.predict(signature, **as_sent(kind, inputs))
    error = caught.value
    if kind == "rest":
        return error.status, str(error)
    return error.code().name, error.details()


@KINDS
def test_every_signature_answers_what_the_model_answers(kind, server, model, asked):
    client = server.client(kind)
    for name, inputs, expected in asked:
        answer = client.predict(name, **as_sent(kind, inputs))
        assert set(answer) == set(expected)
        for key, value in expected.items():
            difference = np.abs(np.asarray(answer[key]) - value) / np.maximum(1, np.abs(value))
            assert np.quantile(difference, quantiles(model).get(key, 1)) < 1e-5, (name, key)
    assert set(client.signatures()) - {"__saved_model_init_op"} == set(signatures_of(model))


@KINDS
def test_bytes_and_files_are_taken_and_what_is_left_out_has_its_default(kind, server, tmp_path):
    client, pixels = server.client(kind), np.uint8(255 * binary_images(2))
    module = rest_client if kind == "rest" else grpc_client
    paths = [tmp_path / f"{i}.png" for i in range(2)]
    for path, image in zip(paths, pixels, strict=True):
        path.write_bytes(tf.io.encode_png(image).numpy())
    given = {"images": binary_images(2), "num_samples": np.int32(100), "seed": np.int32(0)}
    expected = client.predict("log_likelihood", **as_sent(kind, given))
    files = [module.file(path) for path in paths]
    answers = [
        client.predict("log_likelihood_uint8", **as_sent(kind, {"images": pixels})),
        client.predict("log_likelihood_serialized", images=files),
    ]
    for answer in answers:
        for key in expected:
            np.testing.assert_array_equal(answer[key], expected[key])


def test_a_request_is_answered_by_the_same_bytes_again_and_in_any_batch(server):
    client, x = server.client("grpc"), binary_images(64)
    whole = client.predict("encode", images=x, seed=np.int32(3))
    for rows in (np.arange(64), [41], [3, 41, 5, 9, 60, 0, 2]):
        again = client.predict("encode", images=x[rows], seed=np.int32(3))
        assert all(again[key].tobytes() == whole[key][rows].tobytes() for key in whole)


X = binary_images(2)
BAD_INPUTS = [
    # signature, inputs, what the error has to say
    ("serving_default", {"images": X[:, :7]}, "images"),
    ("serving_default", {"images": X[..., 0]}, "images"),
    ("serving_default", {"images": X + 1}, "images must be finite and lie in"),
    ("serving_default", {"images": X * np.nan}, "images must be finite and lie in"),
    ("serving_default_uint8", {"images": np.uint8(X)[:, :, 1:]}, "images"),
    ("log_likelihood", {"images": X, "num_samples": np.int32(0)}, "num_samples must lie in"),
    ("log_likelihood", {"images": X, "num_samples": np.int32(10**6)}, "num_samples must lie in"),
    ("sample", {"num": np.int32(-1)}, "num must lie in [1, 10000]"),
    ("sample", {"temperature": np.float32(-1)}, "temperature must be at least 0"),
    ("encode", {"images": X, "more": np.int32(1)}, "more"),
    ("encode", {"seed": np.int32(1)}, "images"),
]


@KINDS
def test_bad_input_gets_an_error_that_names_it_and_the_server_goes_on(kind, server):
    client = server.client(kind)
    for signature, inputs, message in BAD_INPUTS:
        if kind == "rest" and "more" in inputs:
            continue  # What is no input is passed over.
        code, words = refusal(kind, client, signature, inputs)
        assert code in (400, "INVALID_ARGUMENT") and message in words, (signature, words)
    picture = {"b64": "bm8gcGljdHVyZQ=="} if kind == "rest" else b"no picture"
    code, words = refusal(kind, client, "encode_serialized", {"images": [picture]})
    assert code in (400, "INVALID_ARGUMENT") and "images_as_PNG_or_JPEG" in words
    assert np.shape(client.predict(images=X.tolist())["elbo"]) == (2,)


@KINDS
def test_what_is_not_there_is_named(kind, server):
    code, words = refusal(kind, server.client(kind), "nothing", {"images": X})
    assert code in (400, "FAILED_PRECONDITION") and "nothing" in words
    code, words = refusal(kind, server.client(kind, version=99), "encode", {"images": X})
    assert code in (404, "NOT_FOUND") and "99" in words
    absent = server._replace(name="absent").client(kind)
    code, words = refusal(kind, absent, "encode", {"images": X})
    assert code in (404, "NOT_FOUND") and "absent" in words


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[1]", b"{}", b'{"inputs": 1, "instances": [1]}', b'{"inputs": {"images": "a"}}']
    + [b'{"inputs": [[1, 2], [3]]}', b'{"instances": []}', b'{"signature_name": 3, "inputs": [1]}'],
)
def test_a_body_that_is_no_request_is_refused(body, server):
    answer = requests.post(f"{server.url}/v1/models/{server.name}:predict", data=body, timeout=60)
    assert answer.status_code == 400 and answer.json()["error"]


def test_rows_are_taken_and_given_too(server):
    body = {"instances": [{"images": image} for image in X.tolist()]}
    url = f"{server.url}/v1/models/{server.name}:predict"
    rows = requests.post(url, json=body, timeout=60).json()["predictions"]
    columns = server.client("rest").predict(images=X.tolist())
    for key, value in columns.items():
        np.testing.assert_array_equal([row[key] for row in rows], value)


# The clients as programs.


def run(kind, server, *arguments):
    return subprocess.run(
        [sys.executable, EXAMPLES / f"{kind}_client.py", where(kind, server), *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
    )


def where(kind, server):
    return f"--url={server.url}" if kind == "rest" else f"--address={server.address}"


def ends_with(kind, server, capsys, *arguments):
    """The exit status, and what it printed, of the program's main function."""
    module = rest_client if kind == "rest" else grpc_client
    try:
        status = module.main([where(kind, server), *arguments])
    except SystemExit as end:
        status = end.code
    return status, *capsys.readouterr()


@KINDS
def test_the_client_is_a_program(kind, server, tmp_path, capsys):
    model = f"--model={server.name}"
    (tmp_path / "a.png").write_bytes(tf.io.encode_png(np.uint8(255 * X[0])).numpy())
    done = run(kind, server, model, "serving_default_serialized", f"images=@{tmp_path / 'a.png'}")
    assert done.returncode == 0, done.stderr
    expected = server.client("grpc").predict(images=X[:1])
    np.testing.assert_allclose(json.loads(done.stdout)["elbo"], expected["elbo"], rtol=1e-6)
    status, out, err = ends_with(kind, server, capsys, model, "status")
    assert (status, err) == (0, "")
    states = json.loads(out)["model_version_status"]
    assert any(state["state"] == "AVAILABLE" for state in states)


@KINDS
@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["sample", "num=0"], 1, "num must lie in [1, 10000]"),
        (["sample", "num"], 2, "inputs are name=value; got 'num'"),
        (["sample", "num={"], 2, "num is neither JSON nor @ and a file"),
        (["encode_serialized", "images=@absent.png"], 2, "absent.png"),
        (["--model=absent", "sample"], 1, "absent"),
    ],
)
def test_the_program_says_what_is_wrong(kind, arguments, status, message, server, capsys):
    model = [] if "absent" in arguments[0] else [f"--model={server.name}"]
    found, out, err = ends_with(kind, server, capsys, *model, *arguments)
    assert (found, out) == (status, "") and message in err


@KINDS
def test_a_server_that_is_not_there_is_one_line(kind, capsys):
    nowhere = Server("http://localhost:9", "localhost:9", "matnet", pathlib.Path())
    status, out, err = ends_with(kind, nowhere, capsys, "sample")
    assert (status, out, err.count("\n")) == (1, "", 1) and ":9" in err.replace("port=", ":")


# Batches, and versions, of the stand-in.


@OURS_ALONE
def test_requests_in_a_batch_get_what_each_gets_alone(server, exported, tmp_path):
    workdir, x = shutil.copytree(exported, tmp_path / "run"), binary_images(40)
    (workdir / "export" / "1" / "assets.extra" / "tf_serving_warmup_requests").unlink()
    batching = start(workdir, tmp_path, "--enable_batching")
    alone, together = server.client("grpc"), batching.client("grpc")
    settings = {"num_samples": np.int32([5]), "seed": np.int32([9])}

    def ask(client, i):
        return client.predict("log_likelihood", images=x[i : i + 1], **settings)

    expected = [ask(alone, i) for i in range(40)]
    with concurrent.futures.ThreadPoolExecutor(40) as pool:
        found = list(pool.map(lambda i: ask(together, i), range(40)))
    for answer, value in zip(found, expected, strict=True):
        assert all(answer[key].tobytes() == value[key].tobytes() for key in value)
    inputs = {"images": x[:1], "num_samples": np.int32(5), "seed": np.int32(9)}
    code, words = refusal("grpc", together, "log_likelihood", inputs)
    assert code == "INVALID_ARGUMENT" and "must have at least one dimension" in words
    stop(batching)


def versions_of(client):
    states = client.status()["model_version_status"]
    return {int(state["version"]): state["state"] for state in states}


def wait_for(client, expected):
    until = time.monotonic() + PATIENCE
    while versions_of(client) != expected:
        assert time.monotonic() < until, versions_of(client)
        time.sleep(0.05)


@OURS_ALONE
def test_a_version_is_warmed_up_by_every_signature_before_it_is_served(server, model):
    assert f"{len(signatures_of(model))} warm-up requests" in server.log.read_text()


@OURS_ALONE
def test_versions_come_and_go_under_load_without_a_failed_request(exported, tmp_path):
    workdir = shutil.copytree(exported, tmp_path / "run")
    # They would take longer than all else.
    (workdir / "export" / "1" / "assets.extra" / "tf_serving_warmup_requests").unlink()
    server = start(workdir, tmp_path)
    ended, answered = threading.Event(), []
    first = server.client("grpc").predict("sample", num=3, seed=8)["images"]

    def load(kind):
        client = server.client(kind)
        while not ended.is_set():
            answered.append(np.shape(client.predict(images=X.tolist())["elbo"]) == (2,))

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        loads = [pool.submit(load, kind) for kind in ("rest", "grpc", "rest", "grpc")]
        client = server.client("grpc")
        wait_for(client, {1: "AVAILABLE"})
        # As an export does it: whole, under its name at once.
        shutil.copytree(workdir / "export" / "1", tmp_path / "next")
        (tmp_path / "next").rename(workdir / "export" / "2")
        wait_for(client, {2: "AVAILABLE"})
        (workdir / "export" / "3").mkdir()
        wait_for(client, {2: "AVAILABLE", 3: "END"})
        shutil.rmtree(workdir / "export" / "3")
        (workdir / "export" / "2").rename(tmp_path / "taken away")
        wait_for(client, {1: "AVAILABLE", 3: "END"})
        before = len(answered)
        while len(answered) < before + 8:
            time.sleep(0.05)
        ended.set()
        for future in loads:
            future.result(PATIENCE)
    assert all(answered)
    again = client.predict("sample", num=3, seed=8)["images"]  # After a reload of version 1.
    assert again.tobytes() == first.tobytes()
    stop(server)
