# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""A stand-in for TensorFlow Serving's `tensorflow_model_server`, for tests only.

The real server is in no package registry. The stand-in keeps the rules that an export can break: it
serves the newest version of a folder after its warm-up requests, fills in the defaults of a
signature, and speaks REST and gRPC with TensorFlow Serving's messages and error codes.

    python -m model_server --model_base_path=runs/a/export --rest_api_port=8501 --port=8500

It prints its ports in one JSON line when it is ready, and ends at SIGTERM.
"""

import argparse
import base64
import concurrent.futures
import http.server
import json
import os
import pathlib
import re
import signal
import sys
import threading
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2_grpc,
)
from tensorflow_serving.apis.model_service_pb2_grpc import ModelServiceServicer
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceServicer

WARM_UP = pathlib.Path("assets.extra", "tf_serving_warmup_requests")
PATH = re.compile(r"/v1/models/([^/:]+)(?:/versions/(\d+))?(/metadata|:predict)?")
INTER_OP_THREADS = 16
CODES = {code.value[0]: code for code in grpc.StatusCode}
HTTP = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.NOT_FOUND: 404,
}


def status_of(error):
    """The gRPC code and the message that a client receives for an exception."""
    if isinstance(error, tf.errors.OpError):
        return CODES[error.error_code], error.message
    # TensorFlow's Python session checks shapes and types before the graph runs.
    if isinstance(error, (ValueError, TypeError)):
        return grpc.StatusCode.INVALID_ARGUMENT, str(error)
    return grpc.StatusCode.INTERNAL, repr(error)


class Version:
    """A SavedModel in a session of its own, which ends when nobody uses the version any more."""

    def __init__(self, path):
        self.number = int(path.name)
        graph = tf.Graph()
        # With few threads, what is left of a small request waits behind a whole large one.
        options = tf.compat.v1.ConfigProto(inter_op_parallelism_threads=INTER_OP_THREADS)
        self._session = tf.compat.v1.Session(graph=graph, config=options)
        with graph.as_default():
            loaded = tf.compat.v1.saved_model.load(self._session, ["serve"], str(path))
        self.signatures = {n: s for n, s in loaded.signature_def.items() if not n.startswith("__")}

    def predict(self, signature_name, given):
        """Outputs by name, for inputs by name."""
        signature = self.signatures.get(signature_name)
        if signature is None:
            message = f'Serving signature key "{signature_name}" not found.'
            raise tf.errors.FailedPreconditionError(None, None, message)
        inputs = with_defaults(signature, given)
        return self._session.run(
            {name: info.name for name, info in signature.outputs.items()},
            {signature.inputs[name].name: value for name, value in inputs.items()},
        )

    def warm_up(self, path):
        """Replays the requests in the SavedModel's folder and returns their number."""
        file, count = path / WARM_UP, 0
        if file.exists():
            for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
                request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
                inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
                self.predict(request.model_spec.signature_name, inputs)
                count += 1
        return count


def with_defaults(signature, given):
    """All inputs of a signature; only inputs with defaults may be missing."""
    missing = [name for name in signature.inputs if name not in given]
    extra = [name for name in given if name not in signature.inputs]
    required = [name for name in missing if name not in signature.defaults]
    if extra or required:
        raise ValueError(
            f"input size does not match signature: {len(given)}!={len(signature.inputs)}. "
            f"Sent extra: {{{','.join(extra)}}}. Missing but required: {{{','.join(required)}}}."
        )
    defaults = {name: tf.make_ndarray(signature.defaults[name]) for name in missing}
    return {name: np.asarray(value) for name, value in (defaults | given).items()}


class Versions:
    """The version that is served, and the folder where the next one appears."""

    def __init__(self, folder, name):
        self._folder, self._name = pathlib.Path(folder), name
        self._served = None

    def get(self, name, number=None):
        """The served version, if it has this name and number."""
        version = self._served
        if name != self._name or not version or number not in (None, version.number):
            which = "Latest" if number is None else f"Specific({number})"
            message = f"Servable not found for request: {which}({name})"
            raise tf.errors.NotFoundError(None, None, message)
        return version

    def refresh(self):
        """Loads the newest version of the folder if it is not served yet."""
        numbers = [int(p.name) for p in self._folder.iterdir() if p.name.isdecimal()]
        newest = max(numbers, default=None)
        if newest is None or (self._served and self._served.number == newest):
            return
        path, started = self._folder / str(newest), time.monotonic()
        version = Version(path)
        loaded = time.monotonic()
        count = version.warm_up(path)
        self._served = version
        took = f"{loaded - started:.2f} s, {count} warm-up requests in"
        took += f" {time.monotonic() - loaded:.2f} s"
        print(f"version {newest} loaded in {took}", file=sys.stderr, flush=True)


# gRPC.


def make_grpc_server(versions, port):
    """A gRPC server, not started yet, and its port."""
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(32))
    services = Services(versions)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(services, server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(services, server)
    return server, server.add_insecure_port(f"127.0.0.1:{port}")


def signature_map(version):
    """The signatures of a version, as a SignatureDefMap."""
    signatures = get_model_metadata_pb2.SignatureDefMap()
    for key, signature in version.signatures.items():
        signatures.signature_def[key].CopyFrom(signature)
    return signatures


def status(versions, name):
    """The served version of a model, as a GetModelStatusResponse."""
    answer = get_model_status_pb2.GetModelStatusResponse()
    state = get_model_status_pb2.ModelVersionStatus.State.AVAILABLE
    answer.model_version_status.add(version=versions.get(name).number, state=state)
    return answer


def answered(answer):
    """A service's method whose exceptions become the status of the call."""

    def method(self, request, context):
        try:
            return answer(self, request)
        except Exception as error:  # The server goes on after any request.
            return context.abort(*status_of(error))

    return method


def which(spec):
    return spec.name, spec.version.value if spec.HasField("version") else None


class Services(PredictionServiceServicer, ModelServiceServicer):
    def __init__(self, versions):
        self._versions = versions

    @answered
    def Predict(self, request):
        version = self._versions.get(*which(request.model_spec))
        inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
        name = request.model_spec.signature_name or "serving_default"
        answer = predict_pb2.PredictResponse()
        for key, value in version.predict(name, inputs).items():
            answer.outputs[key].CopyFrom(tf.make_tensor_proto(value))
        return answer

    @answered
    def GetModelMetadata(self, request):
        signatures = signature_map(self._versions.get(*which(request.model_spec)))
        answer = get_model_metadata_pb2.GetModelMetadataResponse()
        answer.metadata["signature_def"].Pack(signatures)
        return answer

    @answered
    def GetModelStatus(self, request):
        return status(self._versions, request.model_spec.name)


# REST, with inputs as columns.


def make_http_server(versions, port):
    """An HTTP server, not started yet."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            try:
                code, answer = 200, answer_rest(versions, self.path, body)
            except Exception as error:  # The server goes on after any request.
                code, message = status_of(error)
                code, answer = HTTP.get(code, 500), {"error": message}
            data = json.dumps(answer).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_GET

        def log_message(self, *_):
            """Logs nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    return server


def answer_rest(versions, path, body):
    found = PATH.fullmatch(path)
    if not found:
        raise ValueError(f"Malformed request: {path}")
    name, number, what = found[1], int(found[2]) if found[2] else None, found[3]
    if what == ":predict":
        return predict_rest(versions.get(name, number), json.loads(body))
    if what is None:
        return as_json(status(versions, name))
    return {"metadata": {"signature_def": as_json(signature_map(versions.get(name, number)))}}


def as_json(message):
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


def predict_rest(version, request):
    name = request.get("signature_name", "serving_default")
    if name not in version.signatures:
        raise ValueError(f'Serving signature name: "{name}" not found in signature def')
    inputs = {}
    for key, info in version.signatures[name].inputs.items():
        # Unlike gRPC, REST asks for inputs with a default too.
        if key not in request["inputs"]:
            raise ValueError(f"Missing named input: {key} in 'inputs' object.")
        inputs[key] = from_json(request["inputs"][key], tf.as_dtype(info.dtype))
    outputs = {key: value.tolist() for key, value in version.predict(name, inputs).items()}
    # A single output comes without its name.
    return {"outputs": outputs if len(outputs) > 1 else next(iter(outputs.values()))}


def from_json(value, dtype):
    if dtype == tf.string:
        return np.array([base64.b64decode(part["b64"]) for part in value], object)
    return np.array(value, dtype.as_numpy_dtype)


def main():
    """Serves until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model_base_path", required=True)
    parser.add_argument("--model_name", default="matnet")
    parser.add_argument("--port", type=int, default=0, help="of gRPC; 0 for any")
    parser.add_argument("--rest_api_port", type=int, default=0)
    parser.add_argument("--file_system_poll_wait_seconds", type=float, default=1.0)
    args = parser.parse_args()

    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    served = Versions(args.model_base_path, args.model_name)
    served.refresh()
    http_server = make_http_server(served, args.rest_api_port)
    grpc_server, port = make_grpc_server(served, args.port)
    threading.Thread(target=http_server.serve_forever, daemon=True).start()
    grpc_server.start()
    print(json.dumps({"rest": http_server.server_address[1], "grpc": port}), flush=True)
    while not ended.wait(args.file_system_poll_wait_seconds):
        served.refresh()
    http_server.shutdown()
    grpc_server.stop(5).wait()


if __name__ == "__main__":
    main()
