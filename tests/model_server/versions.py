# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Versions of a model: found in a folder, warmed up, served, and let go when nobody uses them."""

import contextlib
import pathlib
import sys
import threading
import time

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from model_server.errors import Refused, invalid, refused

DEFAULT_SIGNATURE = "serving_default"
_WARM_UP = pathlib.Path("assets.extra", "tf_serving_warmup_requests")


class Version:
    """A SavedModel in a session of its own."""

    def __init__(self, path, batching=None):
        self.number = int(path.name)
        self._graph = tf.Graph()
        options = tf.compat.v1.ConfigProto(inter_op_parallelism_threads=2)
        self._session = tf.compat.v1.Session(graph=self._graph, config=options)
        with self._graph.as_default():
            loaded = tf.compat.v1.saved_model.load(self._session, ["serve"], str(path))
        self.signatures = {
            name: signature
            for name, signature in loaded.signature_def.items()
            if not name.startswith("__")
        }
        self._batching = batching
        self._batchers = {}
        self._users = 0
        self._changed = threading.Condition()

    def predict(self, signature_name, given, output_filter=()):
        """The outputs by name, for inputs by name."""
        signature = self.signatures.get(signature_name)
        if signature is None:
            raise Refused(
                grpc.StatusCode.FAILED_PRECONDITION,
                f'Serving signature key "{signature_name}" not found.',
            )
        inputs = _with_defaults(signature, given)
        for name in output_filter:
            if name not in signature.outputs:
                raise invalid(f"output tensor alias not found in signature: {name}")
        wanted = {name: signature.outputs[name].name for name in output_filter or signature.outputs}

        def run(tensors):
            return self._session.run(
                wanted, {signature.inputs[k].name: v for k, v in tensors.items()}
            )

        if self._batching is None:
            return run(inputs)
        with self._changed:
            key = signature_name, tuple(wanted)
            if key not in self._batchers:
                self._batchers[key] = self._batching(run)
        return self._batchers[key](inputs)

    def warm_up(self, path):
        """Replays the requests that came with the SavedModel; gives their number."""
        file = path / _WARM_UP
        if not file.exists():
            return 0
        count = 0
        with tf.device("CPU"):
            records = [record.numpy() for record in tf.data.TFRecordDataset(str(file))]
        for record in records:
            request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
            inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
            # TensorFlow Serving, too, replays them in the session without batches.
            signature = self.signatures[request.model_spec.signature_name]
            self._session.run(
                {name: info.name for name, info in signature.outputs.items()},
                {signature.inputs[name].name: value for name, value in inputs.items()},
            )
            count += 1
        return count

    @contextlib.contextmanager
    def in_use(self):
        """Keeps the version from being let go meanwhile."""
        with self._changed:
            self._users += 1
        try:
            yield self
        finally:
            with self._changed:
                self._users -= 1
                self._changed.notify_all()

    def close(self):
        """Waits for those who use it."""
        with self._changed:
            self._changed.wait_for(lambda: self._users == 0)
        for batcher in self._batchers.values():
            batcher.close()
        self._session.close()


def _with_defaults(signature, given):
    """All inputs of a signature; defaults are there only if some inputs are missing."""
    missing = [name for name in signature.inputs if name not in given]
    extra = [name for name in given if name not in signature.inputs]
    required = [name for name in missing if name not in signature.defaults]
    if extra or required:
        raise invalid(
            f"input size does not match signature: {len(given)}!={len(signature.inputs)}. "
            f"Sent extra: {{{','.join(extra)}}}. Missing but required: {{{','.join(required)}}}."
        )
    defaults = {name: tf.make_ndarray(signature.defaults[name]) for name in missing}
    return {name: np.asarray(given.get(name, defaults.get(name))) for name in signature.inputs}


class Versions:
    """The newest version of a folder, which is looked at again and again."""

    def __init__(self, folder, name, poll_seconds=1.0, batching=None):
        self.name = name
        self._folder = pathlib.Path(folder)
        self._poll_seconds, self._batching = poll_seconds, batching
        self._lock = threading.Lock()
        self._served = None
        self._failed = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def start(self):
        """Serves what there is, and goes on watching."""
        self._refresh()
        self._thread.start()

    def stop(self):
        """Ends the watch."""
        self._stopped.set()
        self._thread.join()

    @contextlib.contextmanager
    def get(self, name, number=None):
        """A version to use, the newest by default."""
        with self._lock:
            version = self._served
            found = name == self.name and version and number in (None, version.number)
            user = version.in_use() if found else None
            if found:
                user.__enter__()
        if not found:
            which = "Latest" if number is None else f"Specific({number})"
            raise Refused(
                grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {which}({name})"
            )
        try:
            yield version
        finally:
            user.__exit__(None, None, None)

    def states(self):
        """`(version, state, error)` of all that were met: AVAILABLE, or END with an error."""
        with self._lock:
            served = [(self._served.number, "AVAILABLE", "")] if self._served else []
            return served + [(number, "END", error) for number, error in self._failed.items()]

    def _watch(self):
        while not self._stopped.wait(self._poll_seconds):
            self._refresh()

    def _refresh(self):
        numbers = [int(p.name) for p in self._folder.iterdir() if p.name.isdecimal()]
        newest = max(numbers, default=None)
        before = self._served
        if newest is None or newest in self._failed or (before and before.number == newest):
            return
        path, started = self._folder / str(newest), time.monotonic()
        try:
            version = Version(path, self._batching)
            loaded = time.monotonic()
            count = version.warm_up(path)
        except Exception as error:  # Whatever it is, the version before goes on.
            self._failed[newest] = str(refused(error))
            print(f"version {newest} could not be loaded: {error}", file=sys.stderr, flush=True)
            return
        with self._lock:
            self._served = version
        print(
            f"version {newest} loaded in {loaded - started:.2f} s, {count} warm-up requests in "
            f"{time.monotonic() - loaded:.2f} s",
            file=sys.stderr,
            flush=True,
        )
        if before:
            before.close()
