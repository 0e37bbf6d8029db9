# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""What a request gets that cannot be answered."""

import grpc
import tensorflow as tf

_CODES = {code.value[0]: code for code in grpc.StatusCode}


class Refused(Exception):
    """An error for the client: a gRPC status code, and a line."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


def invalid(message):
    """The error for a request that is wrong in itself."""
    return Refused(grpc.StatusCode.INVALID_ARGUMENT, message)


def refused(error):
    """What the client gets for any error."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, tf.errors.OpError):
        return Refused(_CODES[error.error_code], error.message)
    # TensorFlow's Python session looks at shapes and types before the graph does.
    if isinstance(error, (ValueError, TypeError)):
        return invalid(str(error))
    return Refused(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")
