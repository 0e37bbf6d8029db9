# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""TensorFlow Serving's REST interface: requests and answers as JSON."""

import base64
import binascii
import http.server
import json
import re

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from tensorflow_serving.apis import get_model_metadata_pb2

from model_server.errors import Refused, invalid, refused
from model_server.grpc_services import metadata, status
from model_server.versions import DEFAULT_SIGNATURE

_PREDICT = re.compile(r"/v1/models/([^/:]+)(?:/versions/(\d+))?:predict")
_METADATA = re.compile(r"/v1/models/([^/:]+)(?:/versions/(\d+))?/metadata")
_STATUS = re.compile(r"/v1/models/([^/:]+)(?:/versions/(\d+))?")
_NAMES = {"preserving_proto_field_name": True}
_HTTP = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
}


def make_server(versions, port):
    """An HTTP server, not yet at work."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self._answer(_get)

        def do_POST(self):
            self._answer(_post)

        def _answer(self, answer):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            try:
                code, text = 200, answer(versions, self.path, body)
            except Exception as error:  # The server goes on, whatever a request has done.
                error = refused(error)
                code, text = _HTTP.get(error.code, 500), json.dumps({"error": str(error)})
            data = text.encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            """Not a word of every request."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    return server


def _get(versions, path, _):
    if found := _METADATA.fullmatch(path):
        answer = metadata(versions, found[1], _number(found[2]))
        text = get_model_metadata_pb2.SignatureDefMap()
        answer.metadata["signature_def"].Unpack(text)
        signatures = {"signature_def": json_format.MessageToDict(text, **_NAMES)}
        spec = json_format.MessageToDict(answer.model_spec, **_NAMES)
        return json.dumps({"model_spec": spec, "metadata": signatures})
    if found := _STATUS.fullmatch(path):
        answer = status(versions, found[1])
        return json_format.MessageToJson(answer, **_NAMES)
    raise invalid(f"Malformed request: GET {path}")


def _post(versions, path, body):
    found = _PREDICT.fullmatch(path)
    if not found:
        raise invalid(f"Malformed request: POST {path}")
    with versions.get(found[1], _number(found[2])) as version:
        request = _parsed(body)
        name = request.get("signature_name", DEFAULT_SIGNATURE)
        if not isinstance(name, str) or name not in version.signatures:
            raise invalid(f'Serving signature name: "{name}" not found in signature def')
        infos = version.signatures[name].inputs
        if ("inputs" in request) == ("instances" in request):
            raise invalid("expecting exactly one of 'inputs' and 'instances'")
        if "instances" in request:
            outputs = version.predict(name, _of_rows(request["instances"], infos))
            return json.dumps({"predictions": _rows(outputs)})
        outputs = version.predict(name, _of_columns(request["inputs"], infos))
    values = {key: value.tolist() for key, value in outputs.items()}
    return json.dumps({"outputs": values if len(values) > 1 else next(iter(values.values()))})


def _number(text):
    return None if text is None else int(text)


def _parsed(body):
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise invalid(f"JSON Parse error: {error}") from None
    if not isinstance(request, dict):
        raise invalid("JSON Parse error: Is not object")
    return request


# JSON to tensors. Every input must be there, also those with a default.


def _of_columns(given, infos):
    if not isinstance(given, dict) or _is_base64(given):
        if len(infos) > 1:
            raise invalid("inputs is a plain value/list, but expecting an object")
        given = dict.fromkeys(infos, given)
    for name in infos:
        if name not in given:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
    return {name: _tensor(name, given[name], info.dtype) for name, info in infos.items()}


def _of_rows(given, infos):
    if not isinstance(given, list) or not given:
        raise invalid("No values in 'instances' array")
    if not isinstance(given[0], dict) or _is_base64(given[0]):
        if len(infos) > 1:
            raise invalid("instances is a plain list, but expecting list of objects")
        given = [dict.fromkeys(infos, row) for row in given]
    for row in given:
        if not isinstance(row, dict) or set(row) != set(infos):
            raise invalid(f"keys must be equal to: {','.join(infos)}")
    return {n: _tensor(n, [row[n] for row in given], info.dtype) for n, info in infos.items()}


def _is_base64(value):
    return isinstance(value, dict) and list(value) == ["b64"] and isinstance(value["b64"], str)


def _tensor(name, value, kind):
    kind = tf.as_dtype(kind)
    if kind == tf.string:
        return np.array(_decoded(value), object)
    try:
        array = np.array(value)
    except ValueError:
        raise invalid(f"Encountered list at unexpected size: {name}") from None
    whole = kind.is_integer
    if array.size == 0:
        return array.astype(kind.as_numpy_dtype)
    if array.dtype.kind not in ("iu" if whole else "iuf"):
        raise invalid(f"JSON Value of {name} is not of expected type: {kind.name}")
    if whole and not ((array >= kind.min) & (array <= kind.max)).all():
        raise invalid(f"JSON Value of {name} is out of the range of {kind.name}")
    return array.astype(kind.as_numpy_dtype)


def _decoded(value):
    if isinstance(value, list):
        return [_decoded(part) for part in value]
    if isinstance(value, str):
        return value.encode()
    if not _is_base64(value):
        raise invalid("JSON Value is not a string, nor an object with a base64-encoded one")
    try:
        return base64.b64decode(value["b64"], validate=True)
    except binascii.Error:
        raise invalid("Unable to base64 decode") from None


# Tensors to JSON.


def _rows(outputs):
    counts = {len(value) if value.ndim else None for value in outputs.values()}
    if None in counts or len(counts) != 1:
        raise Refused(grpc.StatusCode.INVALID_ARGUMENT, "Tensors have inconsistent batch size")
    values = {name: value.tolist() for name, value in outputs.items()}
    if len(values) == 1:
        return next(iter(values.values()))
    return [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
