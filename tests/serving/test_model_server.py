# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The example clients against a server of an export, over REST and gRPC.

The server is the stand-in `model_server`, unless MATNET_SERVING_URL names another, such as a stock
TensorFlow Serving at http://localhost:8501. That one has to serve the export of the work directory
MATNET_SERVING_WORKDIR (runs/digits) as the model MATNET_SERVING_MODEL (matnet), with gRPC at
MATNET_SERVING_GRPC (localhost:8500).
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
from typing import NamedTuple

import grpc_client
import model_server
import numpy as np
import pytest
import rest_client
import tensorflow as tf
from served_models import answered, assert_close, inputs_of

from matnet_tf.runs.models import load_run
from matnet_tf.serving.signatures import signatures_of

pytestmark = pytest.mark.serving

EXAMPLES = pathlib.Path(rest_client.__file__).parent
STOCK = os.environ.get("MATNET_SERVING_URL")
PATIENCE = 300  # seconds


class Server(NamedTuple):
    """Where a server is, and what it serves."""

    url: str
    address: str
    name: str
    workdir: pathlib.Path
    log: pathlib.Path | None = None

    def client(self, kind, **choices):
        if kind == "rest":
            return rest_client.RestClient(self.url, self.name, **choices)
        return grpc_client.GrpcClient(self.address, self.name, **choices)


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
    workdir = request.getfixturevalue("served_mixture").workdir
    command = [sys.executable, model_server.__file__, f"--model_base_path={workdir / 'export'}"]
    log = tmp_path_factory.mktemp("log") / "server.log"
    with (
        log.open("w") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors) as process,
    ):
        line = process.stdout.readline()
        assert line, log.read_text()
        ports = json.loads(line)
        url, address = f"http://localhost:{ports['rest']}", f"localhost:{ports['grpc']}"
        yield Server(url, address, "matnet", workdir, log)
        process.send_signal(signal.SIGTERM)
    assert process.returncode == 0, log.read_text()


@pytest.fixture(scope="module")
def model(server):
    return load_run(server.workdir).model


@pytest.fixture(scope="module")
def images(model):
    return inputs_of(model, 2)["images"]


KINDS = pytest.mark.parametrize("kind", ["rest", "grpc"])
REFUSED = rest_client.Refused, grpc_client.grpc.RpcError


def as_sent(kind, inputs):
    """Inputs as a user of a client has them: REST takes nested lists."""
    return {n: np.asarray(v).tolist() if kind == "rest" else v for n, v in inputs.items()}


def refusal(kind, client, signature, inputs):
    """The code and the message of the error that a request gets."""
    with pytest.raises(REFUSED) as caught:
        client.predict(signature, **as_sent(kind, inputs))
    error = caught.value
    return (error.status, str(error)) if kind == "rest" else (error.code().name, error.details())


@KINDS
def test_every_signature_returns_what_the_model_returns(kind, server, model):
    client = server.client(kind)
    for name, inputs, expected in answered(model):
        assert_close(client.predict(name, **as_sent(kind, inputs)), expected, name)
    assert set(client.signatures()) - {"__saved_model_init_op"} == set(signatures_of(model))


@KINDS
def test_bytes_and_files_are_taken_and_missing_inputs_have_defaults(kind, server, images, tmp_path):
    client, pixels = server.client(kind), np.uint8(255 * images)
    module = rest_client if kind == "rest" else grpc_client
    paths = [tmp_path / f"{i}.png" for i in range(2)]
    for path, image in zip(paths, pixels, strict=True):
        path.write_bytes(tf.io.encode_png(image).numpy())
    given = {"images": images, "num_samples": np.int32(100), "seed": np.int32(0)}
    expected = client.predict("log_likelihood", **as_sent(kind, given))
    files = [module.file(path) for path in paths]
    pixels = as_sent(kind, {"images": pixels})
    assert_close(client.predict("log_likelihood_uint8", **pixels), expected)
    assert_close(client.predict("log_likelihood_serialized", images=files), expected)


@KINDS
def test_bad_input_is_an_error_that_names_it_and_the_server_goes_on(kind, server, images):
    client = server.client(kind)
    cases = [
        ("serving_default", {"images": images[:, :3]}, "images"),
        ("serving_default", {"images": images * np.nan}, "images must be 0 or 1"),
        ("log_likelihood", {"images": images, "num_samples": np.int32(0)}, "num_samples must lie"),
        ("sample", {"num": np.int32(-1)}, "num must lie in [1, 10000]"),
        ("encode", {"seed": np.int32(1)}, "images"),
        ("nothing", {"images": images}, "nothing"),
    ]
    for signature, inputs, message in cases:
        code, words = refusal(kind, client, signature, inputs)
        assert code in (400, "INVALID_ARGUMENT", "FAILED_PRECONDITION") and message in words
    picture = {"b64": "bm8gcGljdHVyZQ=="} if kind == "rest" else b"no picture"
    code, words = refusal(kind, client, "encode_serialized", {"images": [picture]})
    assert code in (400, "INVALID_ARGUMENT") and "images must be PNG or JPEG files" in words
    for absent in (server.client(kind, version=99), server._replace(name="absent").client(kind)):
        code, words = refusal(kind, absent, "encode", {"images": images})
        assert code in (404, "NOT_FOUND") and ("99" in words or "absent" in words)
    assert np.shape(client.predict(images=images.tolist())["elbo"]) == (2,)


# The clients as programs.


def where(kind, server):
    return f"--url={server.url}" if kind == "rest" else f"--address={server.address}"


@KINDS
def test_the_client_is_a_program(kind, server, images, tmp_path):
    (tmp_path / "a.png").write_bytes(tf.io.encode_png(np.uint8(255 * images[0])).numpy())
    arguments = f"--model={server.name}", "serving_default_serialized"
    done = subprocess.run(
        [
            *(sys.executable, EXAMPLES / f"{kind}_client.py", where(kind, server), *arguments),
            f"images=@{tmp_path / 'a.png'}",
        ],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert done.returncode == 0, done.stderr
    expected = server.client("grpc").predict(images=images[:1])
    np.testing.assert_allclose(json.loads(done.stdout)["elbo"], expected["elbo"], rtol=1e-5)


@KINDS
def test_the_program_says_what_is_wrong(kind, server, capsys):
    def run(*arguments):
        module = rest_client if kind == "rest" else grpc_client
        try:
            status = module.main([*arguments])
        except SystemExit as end:
            status = end.code
        return status, *capsys.readouterr()

    here = where(kind, server), f"--model={server.name}"
    nowhere = server._replace(url="http://localhost:9", address="localhost:9")
    for arguments, status, message in [
        ((*here, "sample", "num=0"), 1, "num must lie in [1, 10000]"),
        ((*here, "sample", "num"), 2, "'num'"),
        ((*here, "sample", "num={"), 2, "num"),
        ((*here, "encode_serialized", "images=@absent.png"), 2, "absent.png"),
        ((where(kind, server), "--model=absent", "sample"), 1, "absent"),
        ((where(kind, nowhere), "sample"), 1, "9"),
    ]:
        found, out, err = run(*arguments)
        assert (found, out) == (status, "") and message in err, arguments
    status, out, err = run(*here, "status")
    states = [state["state"] for state in json.loads(out)["model_version_status"]]
    assert (status, err) == (0, "") and "AVAILABLE" in states


@pytest.mark.skipif(bool(STOCK), reason="needs the stand-in")
def test_a_version_is_warmed_up_by_every_signature_before_it_is_served(server, model):
    assert f"{len(signatures_of(model))} warm-up requests" in server.log.read_text()
