# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Requests that TensorFlow Serving runs before a version goes live, one per signature.

They need TensorFlow Serving's messages, from the package tensorflow-serving-api (the extra
`serving`).
"""

from __future__ import annotations

import pathlib

import tensorflow as tf

from matnet_tf.model.elbo_model import ElboModel
from matnet_tf.serving.signatures import Signature, signatures_of

__all__ = ["FILE", "available", "write"]

FILE = "tf_serving_warmup_requests"  # TensorFlow Serving looks for this name in assets.extra.
_MODEL = "matnet"  # The server ignores it.


def available() -> bool:
    """Returns whether TensorFlow Serving's messages are installed."""
    try:
        import tensorflow_serving.apis  # noqa: F401
    except ImportError:
        return False
    return True


def write(folder: pathlib.Path, model: ElboModel) -> None:
    """Writes a model's requests, a TFRecord file of PredictionLog messages, into `folder`.

    Raises:
      ImportError: Unless `available`.
      OSError: If the file cannot be written.
    """
    from tensorflow_serving.apis import prediction_log_pb2

    try:
        with tf.io.TFRecordWriter(str(folder / FILE)) as file:
            for name, signature in signatures_of(model).items():
                log = prediction_log_pb2.PredictionLog()
                request = log.predict_log.request
                request.model_spec.name = _MODEL
                request.model_spec.signature_name = name
                for key, value in _example(model, signature).items():
                    request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
                file.write(log.SerializeToString())
    except tf.errors.OpError as error:
        raise OSError(f"{folder / FILE} could not be written: {error.message}") from None


def _example(model: ElboModel, signature: Signature) -> dict[str, tf.Tensor]:
    """Valid inputs of a signature for one black image, whose pixels a mask hides."""
    black = tf.zeros(model.config.image_shape, tf.uint8)
    files = {}
    if tf.string in [spec.dtype for spec in signature.specs.values()]:
        files = {"images": tf.io.encode_png(black), "mask": tf.io.encode_png(black[..., :1])}
    inputs = {}
    for name, spec in signature.specs.items():
        if spec.dtype == tf.string:
            inputs[name] = files[name][tf.newaxis]
        elif spec.shape.rank is None:
            inputs[name] = tf.constant(signature.defaults.get(name, 0), spec.dtype)
        else:
            inputs[name] = tf.zeros([1, *spec.shape[1:]], spec.dtype)
    return inputs
