# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Measures a server of an exported model under load: speed, memory, bad requests, a new version.

    python benchmarks/serving.py --workdir runs/digits

Starts the stand-in of tests/support/model_server in its own process on a copy of the newest export,
and sends gRPC requests from several threads, each of which waits for its answer:

    speed        `serving_default` at batch 1 and 32: requests per second, median, 99th percentile
    saturation   ten minutes of both sizes, with 1,000 malformed requests among them. Each of those
                 must get an error that names the mistake, each good one the answer that it gets
                 alone (within TOLERANCE), and the server's memory must not grow
    version      a second version appears under load: no request may fail, and the second version
                 must be served in the end; `served` has the seconds of each change

Prints one JSON line, with the size of the export and its load time too. Exits with 1 if a request
failed, an answer was wrong, or the memory grew by more than GROWTH after the first minute.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"


sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "examples"))
import grpc
import numpy as np
from grpc_client import GrpcClient

ROOT = pathlib.Path(__file__).resolve().parent.parent
TOLERANCE = 1e-5
GROWTH = 0.05  # of the memory
BATCHES = (1, 32)
KINDS = 5  # requests per size, each with other images, so that mixed up answers are noticed
CLIENTS = 4
PATIENCE = 600  # seconds for a second version to be loaded and warmed up under load


def malformed(image_shape: list[int]) -> list[tuple[str, dict, str]]:
    """Returns signatures, inputs, and what the error has to say."""
    good = np.zeros((2, *image_shape), np.float32)
    return [
        ("serving_default", {"images": good[:, 1:]}, "images"),
        ("serving_default", {"images": good[0]}, "images"),
        ("serving_default", {"images": good + 2}, "images must be"),
        ("serving_default", {"images": good * np.nan}, "images must be"),
        ("serving_default", {"images": good[:0]}, "images must have"),
        ("serving_default_serialized", {"images": [b"no picture"]}, "images_as_PNG_or_JPEG"),
        ("log_likelihood", {"images": good, "num_samples": np.int32(0)}, "num_samples must lie"),
        ("log_likelihood", {"images": good, "num_samples": np.int32(10**6)}, "num_samples must"),
        ("reconstruct", {"images": good, "num_inferred": np.int32(-1)}, "num_inferred must lie"),
        ("encode", {"images": good, "seed": np.int32(-1)}, "seed must lie in"),
        ("encode", {}, "Missing but required: {images}"),
        ("sample", {"num": np.int32(0)}, "num must lie in"),
        ("nothing", {"images": good}, '"nothing" not found'),
    ]


class Load:
    """Threads that send requests, and what came of them.

    Args:
      address: Address of the server.
      batches: Numbers of images per request.
      spread: Seconds between malformed requests; 0 sends none.
    """

    def __init__(self, address: str, batches: tuple[int, ...], spread: float = 0.0):
        self._client, self._spread = GrpcClient(address), spread
        shape = self._client.signatures()["serving_default"].inputs["images"].tensor_shape
        self._shape = [dim.size for dim in shape.dim][1:]
        random = np.random.default_rng(0)
        shapes = [(batch, *self._shape) for batch in batches] * KINDS
        requests = [random.integers(0, 2, shape).astype(np.float32) for shape in shapes]
        self._good = itertools.cycle([(images, self._elbo(images)) for images in requests])
        self._bad = itertools.cycle(malformed(self._shape))
        self.seconds, self.wrong, self.refused = [], [], 0
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._next_bad = time.monotonic() + spread

    def run(self, seconds: float, go_on: Callable[[], bool] = lambda: True) -> float:
        """Sends requests for some seconds, or until `go_on` is false; returns the seconds taken."""
        started = time.monotonic()
        threads = [threading.Thread(target=self._work) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            while time.monotonic() < started + seconds and go_on():
                time.sleep(min(1.0, seconds / 10))
        finally:
            self._ended.set()
            for thread in threads:
                thread.join()
        return time.monotonic() - started

    def _work(self) -> None:
        while not self._ended.is_set() and len(self.wrong) < 100:
            with self._lock:
                now = time.monotonic()
                bad = next(self._bad) if self._spread and now >= self._next_bad else None
                self._next_bad += self._spread if bad else 0
                good = next(self._good)
            if bad:
                self._send_malformed(*bad)
            else:
                self._send(*good)

    def _elbo(self, images: np.ndarray) -> np.ndarray:
        return self._client.predict("serving_default", images=images)["elbo"]

    def _send(self, images: np.ndarray, expected: np.ndarray) -> None:
        started = time.monotonic()
        try:
            elbo = self._elbo(images)
        except grpc.RpcError as error:
            self.wrong.append(f"{len(images)} images: {error.details()}")
            return
        self.seconds.append(time.monotonic() - started)
        if not np.allclose(elbo, expected, TOLERANCE, TOLERANCE):
            self.wrong.append(f"{len(images)} images got {elbo}, not {expected}")

    def _send_malformed(self, signature: str, inputs: dict, message: str) -> None:
        try:
            self._client.predict(signature, **inputs)
        except grpc.RpcError as error:
            if message in error.details():
                with self._lock:
                    self.refused += 1
                return
            self.wrong.append(f"{signature} without {message!r}: {error.details()}")
        else:
            self.wrong.append(f"{signature} was answered: {message!r}")

    def summary(self, taken: float) -> dict[str, float]:
        """Returns requests per second, and the median and 99th percentile in milliseconds."""
        found = np.array(self.seconds) * 1000
        median, late = np.percentile(found, [50, 99])
        rate = round(len(found) / taken, 1)
        return {"requests_per_second": rate, "p50_ms": round(median, 1), "p99_ms": round(late, 1)}


def memory(process: subprocess.Popen) -> float:
    """Returns the server's resident memory in MiB."""
    if process.poll() is not None:
        raise SystemExit(f"the server ended with status {process.returncode}")
    text = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1024


def saturation(address: str, process: subprocess.Popen, seconds: float, count: int) -> dict:
    """Sends load with `count` malformed requests in it, and watches the memory."""
    seen, load = [], Load(address, BATCHES, spread=0.95 * seconds / count)

    def go_on():
        seen.append(memory(process))
        return True

    taken = load.run(seconds, go_on)
    early, late = np.mean(seen[: len(seen) // 10][-5:]), np.mean(seen[-5:])
    return {
        "seconds": round(taken),
        "answered": len(load.seconds),
        "malformed_refused": load.refused,
        "wrong": load.wrong[:5],
        "memory_mib": [round(seen[i * (len(seen) - 1) // 10]) for i in range(11)],
        "growth": round(late / early - 1, 4),
    }


def new_version(address: str, folder: pathlib.Path, seconds: float) -> dict:
    """Makes a copy of version 1 appear as version 2 under load, which goes on after the change."""
    load, client, seen = Load(address, BATCHES), GrpcClient(address), []
    shutil.copytree(folder / "1", folder / "copy")
    started = time.monotonic()

    def go_on():
        states = client.status()["model_version_status"]
        served = sorted(int(s["version"]) for s in states if s["state"] == "AVAILABLE")
        if not seen or served != seen[-1][1]:
            seen.append((round(time.monotonic() - started), served))
        if (folder / "copy").exists() and time.monotonic() > started + seconds:
            (folder / "copy").rename(folder / "2")
        return served != [2] or time.monotonic() < started + seen[-1][0] + seconds

    load.run(PATIENCE, go_on)
    return {"answered": len(load.seconds), "wrong": load.wrong[:5], "served": seen}


def start(folder: pathlib.Path) -> tuple[subprocess.Popen, str, str]:
    """Starts the server; returns its process, its address, and what it logged."""
    log = (folder.parent / "log").open("w+")
    process = subprocess.Popen(
        [sys.executable, "-m", "model_server", f"--model_base_path={folder}"],
        cwd=ROOT / "tests" / "support",
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
    )
    line = process.stdout.readline()
    log.seek(0)
    logged = log.read()
    if not line:
        raise SystemExit(logged)
    return process, f"localhost:{json.loads(line)['grpc']}", logged


def measure(export: pathlib.Path, seconds: float, count: int) -> dict:
    """Returns the figures of a server of one export."""
    files = [path for path in export.rglob("*") if path.is_file()]
    record = {"export_mib": round(sum(path.stat().st_size for path in files) / 2**20, 2)}
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary) / "export"
        shutil.copytree(export, folder / "1")
        process, address, logged = start(folder)
        try:
            record["start"] = re.search("version 1 .*", logged)[0]
            record["memory_mib"] = round(memory(process))
            for batch in BATCHES:
                load = Load(address, (batch,))
                record[f"batch_{batch}"] = load.summary(load.run(seconds / 20))
            record["saturation"] = saturation(address, process, seconds, count)
            record["version"] = new_version(address, folder, seconds / 20)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
    return record


def main() -> int:
    """Prints the figures and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--seconds", type=float, default=600, help="of saturation")
    parser.add_argument("--malformed", type=int, default=1000)
    args = parser.parse_args()
    versions = [p for p in (args.workdir / "export").iterdir() if p.name.isdecimal()]
    record = measure(max(versions, key=lambda p: int(p.name)), args.seconds, args.malformed)
    print(json.dumps(record))
    saturated, swapped = record["saturation"], record["version"]
    good = (
        not saturated["wrong"]
        and not swapped["wrong"]
        and saturated["malformed_refused"] >= args.malformed
        and saturated["growth"] <= GROWTH
        and [versions for _, versions in swapped["served"]] == [[1], [2]]
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
