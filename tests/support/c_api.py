# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""A program that runs a SavedModel by TensorFlow's C API alone: nothing of it can run Python.

    python c_api.py LIBRARIES EXPORT < requests > answers

Both are pickled lists. A request is a pair: arrays by the tensors that they feed (operation:index),
and the tensors to fetch by output. An answer has an array by output, or is an error's message.
"""

import ctypes
import pickle
import sys

import numpy as np

DTYPES = {1: np.float32, 2: np.float64, 3: np.int32, 4: np.uint8}  # of TF_DataType
CODES = {np.dtype(dtype): code for code, dtype in DTYPES.items()}
RESULTS = {  # of functions that do not return a pointer
    **dict.fromkeys(("TF_GetCode", "TF_TensorType", "TF_NumDims"), ctypes.c_int),
    **dict.fromkeys(("TF_Dim", "TF_TensorByteSize"), ctypes.c_int64),
}


class Output(ctypes.Structure):
    """The C API's name of a tensor in a graph."""

    _fields_ = [("oper", ctypes.c_void_p), ("index", ctypes.c_int)]


class Session:
    """A SavedModel in a session of the C API."""

    def __init__(self, libraries, path):
        ctypes.CDLL(f"{libraries}/libtensorflow_framework.so.2", ctypes.RTLD_GLOBAL)
        self._library = ctypes.CDLL(f"{libraries}/libtensorflow_cc.so.2")
        self._status, self._graph = self._call("TF_NewStatus"), self._call("TF_NewGraph")
        tags = (ctypes.c_char_p * 1)(b"serve")
        options = self._call("TF_NewSessionOptions")
        self._session = self._call(
            "TF_LoadSessionFromSavedModel",
            *(options, None, path.encode(), tags, 1, self._graph, None, self._status),
        )
        self._check()

    def run(self, inputs, outputs):
        """Returns an array by output."""
        given = (ctypes.c_void_p * len(inputs))(*map(self._to_tensor, inputs.values()))
        found = (ctypes.c_void_p * len(outputs))()
        feeds, fetches = self._places(inputs.keys()), self._places(outputs.values())
        counts = ctypes.c_int(len(inputs)), ctypes.c_int(len(outputs))
        self._call(
            "TF_SessionRun",
            *(self._session, None, feeds, given, counts[0], fetches, found, counts[1]),
            *(None, 0, None, self._status),
        )
        self._check()
        return {k: self._to_array(ctypes.c_void_p(t)) for k, t in zip(outputs, found, strict=True)}

    def _call(self, name, *arguments):
        function = getattr(self._library, name)
        function.restype = RESULTS.get(name, ctypes.c_void_p)
        result = function(*arguments)
        return result if name in RESULTS else ctypes.c_void_p(result)

    def _check(self):
        if self._call("TF_GetCode", self._status):
            message = self._call("TF_Message", self._status)
            raise RuntimeError(ctypes.string_at(message.value).decode())

    def _places(self, names):
        places = (Output * len(names))()
        for place, name in zip(places, names, strict=True):
            operation, index = name.split(":")
            found = self._call("TF_GraphOperationByName", self._graph, operation.encode())
            place.oper, place.index = found.value, int(index)
        return places

    def _to_tensor(self, value):
        dims = (ctypes.c_int64 * value.ndim)(*value.shape)
        size = ctypes.c_size_t(value.nbytes)
        tensor = self._call("TF_AllocateTensor", CODES[value.dtype], dims, value.ndim, size)
        ctypes.memmove(self._call("TF_TensorData", tensor), value.tobytes(), value.nbytes)
        return tensor.value

    def _to_array(self, tensor):
        dtype = DTYPES[self._call("TF_TensorType", tensor)]
        axes = range(self._call("TF_NumDims", tensor))
        shape = [self._call("TF_Dim", tensor, axis) for axis in axes]
        size = self._call("TF_TensorByteSize", tensor)
        data = ctypes.string_at(self._call("TF_TensorData", tensor).value, size)
        return np.frombuffer(data, dtype).reshape(shape)


def main(libraries, export):
    """Answers the requests on standard input."""
    session, answers = Session(libraries, export), []
    for inputs, outputs in pickle.load(sys.stdin.buffer):
        try:
            answers.append(session.run(inputs, outputs))
        except RuntimeError as error:
            answers.append(str(error))
    assert "tensorflow" not in sys.modules
    pickle.dump(answers, sys.stdout.buffer)


if __name__ == "__main__":
    main(*sys.argv[1:])
