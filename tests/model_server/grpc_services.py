# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""TensorFlow Serving's gRPC services: predictions, metadata and the state of versions."""

import concurrent.futures

import grpc
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from model_server.errors import Refused, refused
from model_server.versions import DEFAULT_SIGNATURE

_THREADS = 32


def make_server(versions, port):
    """A gRPC server, not yet at work, and its port."""
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(_THREADS))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        _Prediction(versions), server
    )
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(_Model(versions), server)
    return server, server.add_insecure_port(f"127.0.0.1:{port}")


def metadata(versions, name, number=None):
    """The signatures of a version, as a GetModelMetadataResponse."""
    signatures = get_model_metadata_pb2.SignatureDefMap()
    answer = get_model_metadata_pb2.GetModelMetadataResponse()
    with versions.get(name, number) as version:
        for key, signature in version.signatures.items():
            signatures.signature_def[key].CopyFrom(signature)
        answer.model_spec.name, answer.model_spec.version.value = name, version.number
    answer.metadata["signature_def"].Pack(signatures)
    return answer


def status(versions, name):
    """The states of a model's versions, as a GetModelStatusResponse."""
    if name != versions.name:
        raise Refused(grpc.StatusCode.NOT_FOUND, f"Could not find any versions of model {name}")
    answer = get_model_status_pb2.GetModelStatusResponse()
    for number, state, error in versions.states():
        found = answer.model_version_status.add(version=number)
        found.state = get_model_status_pb2.ModelVersionStatus.State.Value(state)
        found.status.error_code = 2 if error else 0
        found.status.error_message = error
    return answer


def _answered(answer):
    """A method of a service whose errors become the call's status."""

    def method(self, request, context):
        try:
            return answer(self, request)
        except Exception as error:  # The server goes on, whatever a request has done.
            error = refused(error)
            return context.abort(error.code, str(error))

    return method


def _which(spec):
    return spec.name, spec.version.value if spec.HasField("version") else None


class _Prediction(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, versions):
        self._versions = versions

    @_answered
    def Predict(self, request):
        signature = request.model_spec.signature_name or DEFAULT_SIGNATURE
        with self._versions.get(*_which(request.model_spec)) as version:
            inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
            outputs = version.predict(signature, inputs, list(request.output_filter))
            answer = predict_pb2.PredictResponse()
            answer.model_spec.name = request.model_spec.name
            answer.model_spec.version.value = version.number
            answer.model_spec.signature_name = signature
        for name, value in outputs.items():
            answer.outputs[name].CopyFrom(tf.make_tensor_proto(value))
        return answer

    @_answered
    def GetModelMetadata(self, request):
        return metadata(self._versions, *_which(request.model_spec))


class _Model(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self, versions):
        self._versions = versions

    @_answered
    def GetModelStatus(self, request):
        return status(self._versions, request.model_spec.name)
