# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""A SavedModel in a process without Python: `c_api/serve.c`, built and asked from here."""

import pathlib
import shutil
import struct
import subprocess

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

SOURCE = pathlib.Path(__file__).resolve().parent / "c_api" / "serve.c"
COMPILER = shutil.which("cc")


def build(folder):
    """Compiles the program against the libraries of the installed TensorFlow."""
    libraries = pathlib.Path(tf.sysconfig.get_lib())
    program = pathlib.Path(folder) / "serve"
    subprocess.run(
        [
            *(COMPILER, "-O1", "-Wall", "-Werror", "-o", program, SOURCE),
            *("-I", tf.sysconfig.get_include(), f"-Wl,-rpath,{libraries}"),
            *(libraries / f"libtensorflow_{part}.so.2" for part in ("cc", "framework")),
        ],
        check=True,
    )
    return program


def signature_defs(path):
    """The signatures of a SavedModel by name, as they stand in its file."""
    saved = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    return saved.meta_graphs[0].signature_def


class Refused(Exception):
    """An error that TensorFlow's C API answered: its code, and its message."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


class Session:
    """The program at work on one SavedModel."""

    def __init__(self, program, path):
        self._signatures = signature_defs(path)
        self._process = subprocess.Popen(
            [program, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PATH": "", "TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "1"},
        )

    def __call__(self, name, inputs):
        """What a signature gives for inputs by their names; what is left out has its default."""
        signature = self._signatures[name]
        defaults = {k: tf.make_ndarray(v) for k, v in signature.defaults.items()}
        given, outputs = defaults | inputs, sorted(signature.outputs)
        request = _number(len(given))
        for key, value in given.items():
            request += _place(signature.inputs[key]) + _tensor(np.asarray(value))
        request += _number(len(outputs))
        request += b"".join(_place(signature.outputs[key]) for key in outputs)
        self._process.stdin.write(request)
        self._process.stdin.flush()
        code, message = self._read_number(), self._read(self._read_number()).decode()
        if code:
            raise Refused(code, message)
        return {key: self._read_tensor() for key in outputs}

    def close(self):
        """Ends the program, and gives its exit status."""
        self._process.stdin.close()
        status = self._process.wait(60)
        self._process.stdout.close()
        return status

    def _read(self, size):
        found = self._process.stdout.read(size)
        assert len(found) == size, "the program ended"
        return found

    def _read_number(self):
        return struct.unpack("<q", self._read(8))[0]

    def _read_tensor(self):
        dtype, rank = tf.as_dtype(self._read_number()).as_numpy_dtype, self._read_number()
        shape = [self._read_number() for _ in range(rank)]
        return np.frombuffer(self._read(self._read_number()), dtype).reshape(shape)


def _number(value):
    return struct.pack("<q", value)


def _text(value):
    return _number(len(value)) + value


def _place(info):
    name, index = info.name.split(":")
    return _text(name.encode()) + _number(int(index))


def _tensor(value):
    head = [tf.as_dtype(value.dtype).as_datatype_enum, value.ndim, *value.shape]
    parts = [_number(n) for n in head]
    if value.dtype.kind in "OS":
        parts += [_text(bytes(string)) for string in value.ravel()]
    else:
        parts.append(_text(value.tobytes()))
    return b"".join(parts)
