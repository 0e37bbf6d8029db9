#!/usr/bin/env python3
# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Sends requests to a served MatNet over gRPC; needs `tensorflow-serving-api` (extra `serving`).

    python examples/grpc_client.py status
    python examples/grpc_client.py log_likelihood_serialized images=@a.png images=@b.png
    python examples/grpc_client.py sample num=4 temperature=0.9 seed=7
    python examples/grpc_client.py encode images=@images.npy

Inputs are `name=value`. A value is JSON, or `@` and the path of a NumPy array (.npy) or of a PNG or
JPEG image; several images make a batch. Missing inputs have their defaults. Prints the outputs as
JSON. Exit status: 0, 1 if the server refuses or cannot be reached, 2 for a wrong command line.
"""

import json
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import command_line
import grpc
import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

TIMEOUT = 600  # seconds per request
MOST_BYTES = 1 << 30  # per message; the default of gRPC is 4 MiB


class GrpcClient:
    """A model on a server. Errors are `grpc.RpcError`s with the server's message.

    Args:
      address: Address of the server, such as localhost:8500.
      model: Name of the model on the server.
      version: Version number; the newest by default.
    """

    def __init__(self, address="localhost:8500", model="matnet", version=None):
        sizes = [(f"grpc.max_{way}_message_length", MOST_BYTES) for way in ("send", "receive")]
        self._channel = grpc.insecure_channel(address, options=sizes)
        self._service = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._model, self._version = model, version
        self._signatures = None

    def status(self):
        """Returns the states of the model's versions, as the server reports them."""
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = self._model
        service = model_service_pb2_grpc.ModelServiceStub(self._channel)
        answer = service.GetModelStatus(request, timeout=TIMEOUT)
        return json_format.MessageToDict(answer, preserving_proto_field_name=True)

    def signatures(self):
        """Returns the SignatureDefs by name."""
        if self._signatures is None:
            request = get_model_metadata_pb2.GetModelMetadataRequest()
            self._name(request.model_spec)
            request.metadata_field.append("signature_def")
            answer = self._service.GetModelMetadata(request, timeout=TIMEOUT)
            found = get_model_metadata_pb2.SignatureDefMap()
            answer.metadata["signature_def"].Unpack(found)
            self._signatures = found.signature_def
        return self._signatures

    def predict(self, signature="serving_default", **inputs):
        """Returns the outputs of a signature by name, as arrays.

        Args:
          signature: Name of the signature.
          **inputs: Arrays, or what NumPy converts to arrays; bytes where the signature takes files.
        """
        request = predict_pb2.PredictRequest()
        self._name(request.model_spec)
        request.model_spec.signature_name = signature
        known = self.signatures()[signature].inputs if signature in self.signatures() else {}
        for name, value in inputs.items():
            dtype = tf.as_dtype(known[name].dtype) if name in known else None
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value, dtype))
        answer = self._service.Predict(request, timeout=TIMEOUT)
        return {name: tf.make_ndarray(value) for name, value in answer.outputs.items()}

    def _name(self, spec):
        spec.name = self._model
        if self._version is not None:
            spec.version.value = self._version


def file(path):
    """Returns the bytes of an image file, for a `..._serialized` signature."""
    return pathlib.Path(path).read_bytes()


def read(path):
    """Returns a file's array, or an image; and whether it is one of several."""
    if path.endswith(".npy"):
        return np.load(path, allow_pickle=False), False
    return file(path), True


def main(arguments=None):
    """Prints the server's answer and returns the exit status."""
    line, default = __doc__.splitlines()[0], "localhost:8500"
    given = command_line.parsed(line, "--address", default, read, arguments)
    client = GrpcClient(given.where, given.model, given.version)
    try:
        if given.signature == "status":
            answer = client.status()
        else:
            outputs = client.predict(given.signature, **given.inputs)
            answer = {name: value.tolist() for name, value in outputs.items()}
    except grpc.RpcError as error:
        print(f"grpc_client: {error.code().name}: {error.details()}", file=sys.stderr)
        return 1
    except (TypeError, ValueError) as error:  # A value does not fit the type of its input.
        print(f"grpc_client: {error}", file=sys.stderr)
        return 2
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
