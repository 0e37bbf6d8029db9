# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Measures a server of an exported model under load: speed, memory, bad requests, a new version.

    python benchmarks/serving.py --workdir runs/digits

Starts the stand-in of tests/support/model_server in its own process on a copy of the newest export,
and sends gRPC requests from several threads, each of which waits for its answer:

    speed        `serving_default` at batch 1 and 32: requests per second, median, 99th percentile
    beside       batch 1 while another client asks for the most samples that one request may have:
                 the 99th percentile must be below SLOWER times that of batch 1 alone
    saturation   ten minutes of both sizes and of large requests, with 2,000 hostile ones among
                 them: of wrong shapes and values, for too much, and files that unpack to gigabytes.
                 Each of those must get an error that names the mistake, each good one the answer
                 that it gets alone (within TOLERANCE), and the server's memory must not grow
    version      a second version appears under load: no request may fail, and the second version
                 must be served in the end; `served` has the seconds of each change

Prints one JSON line, with the size of the export and its load time too. Exits with 1 if a request
failed, an answer was wrong, small requests waited too long beside large ones, or the memory grew by
more than GROWTH after the first minute.
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
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"


sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "examples"))
import grpc
import numpy as np
from grpc_client import GrpcClient

ROOT = pathlib.Path(__file__).resolve().parent.parent
TOLERANCE = 1e-5
GROWTH = 0.05  # of the memory
SLOWER = 5
BATCHES = (1, 32)
KINDS = 5  # requests per size, each with other images, so that mixed up answers are noticed
CLIENTS = 4
PATIENCE = 600  # seconds for a second version to be loaded and warmed up under load


def malformed(signatures: dict, most: int) -> list[tuple[str, dict, str]]:
    """Returns signatures, inputs, and what the error has to say.

    Args:
      signatures: SignatureDefs by name.
      most: The most images times samples of a request.
    """
    height, width, channels = image_shape(signatures)
    good = np.zeros((2, height, width, channels), np.float32)
    latents = signatures["decode"].inputs
    shapes = {n: [dim.size for dim in latents[n].tensor_shape.dim][1:] for n in latents}
    z = {name: np.full((1, *shape), np.nan, np.float32) for name, shape in shapes.items()}
    many = {"images": np.repeat(good, most // 2 + 1, axis=0)}
    size = f"images must be files of {height}x{width} pixels"
    files = [
        (b"no picture", "images must be PNG or JPEG files"),
        (png(50_000, 50_000), size),
        (png(20_000, 20_000, more=2**18 * b"x"), "images must be files of at most"),
        (png(width, height, more=64 * texts(2**23)), "images must be files of at most"),
        (png(width, height)[:60], "images_as_PNG_or_JPEG"),
    ]
    return [
        ("serving_default", {"images": good[:, 1:]}, "images"),
        ("serving_default", {"images": good[0]}, "images"),
        ("serving_default", {"images": good + 2}, "images must be"),
        ("serving_default", {"images": good * np.nan}, "images must be"),
        ("serving_default", {"images": good + np.inf}, "images must be"),
        ("serving_default", {"images": good[:0]}, "images must have"),
        ("serving_default", many, f"images must have 1 to {most} rows"),
        *(("encode_serialized", {"images": [file]}, message) for file, message in files),
        ("log_likelihood", {"images": good, "num_samples": np.int32(0)}, "num_samples must lie"),
        ("log_likelihood", {"images": good, "num_samples": np.int32(2**30)}, "num_samples must"),
        ("log_likelihood", {"images": good, "num_samples": np.int32(most)}, "images times num_sa"),
        ("reconstruct", {"images": good, "num_inferred": np.int32(-1)}, "num_inferred must lie"),
        ("encode", {"images": good, "seed": np.int32(-1)}, "seed must lie in"),
        ("encode", {}, "Missing but required: {images}"),
        ("decode", z, "must be finite"),
        ("sample", {"num": np.int32(0)}, "num must lie in"),
        ("sample", {"temperature": np.float32(np.nan)}, "temperature must be"),
        ("nothing", {"images": good}, '"nothing" not found'),
    ]


def image_shape(signatures: dict) -> list[int]:
    """Returns height, width and channels of a model's images."""
    shape = signatures["serving_default"].inputs["images"].tensor_shape
    return [dim.size for dim in shape.dim][1:]


def png(width: int, height: int, more: bytes = b"") -> bytes:
    """Returns a PNG file without pixels; `more` are further chunks, or anything."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + more + chunk(b"IDAT", b"x")


def texts(length: int) -> bytes:
    """Returns a chunk with a compressed text of that length."""
    return chunk(b"zTXt", b"k\0\0" + zlib.compress(length * b"a"))


def chunk(name: bytes, data: bytes) -> bytes:
    """Returns a chunk of a PNG file."""
    crc = zlib.crc32(name + data)
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", crc)


class Load:
    """Threads that send requests, and what came of them.

    Args:
      address: Address of the server.
      batches: Numbers of images per request.
      most: The most images times samples of a request.
      spread: Seconds between malformed requests; 0 sends none.
      large: Whether one more thread asks for the most samples.
    """

    def __init__(
        self,
        address: str,
        batches: tuple[int, ...],
        most: int,
        spread: float = 0.0,
        large: bool = False,
    ):
        self._client, self._spread = GrpcClient(address), spread
        self._most, self._large = most, large
        self._shape = image_shape(self._client.signatures())
        random = np.random.default_rng(0)
        shapes = [(batch, *self._shape) for batch in batches] * KINDS
        requests = [random.integers(0, 2, shape).astype(np.float32) for shape in shapes]
        self._good = itertools.cycle([(images, self._elbo(images)) for images in requests])
        self._bad = itertools.cycle(malformed(self._client.signatures(), most))
        self.seconds, self.wrong, self.refused, self.large = [], [], 0, 0
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._next_bad = time.monotonic() + spread

    def run(self, seconds: float, go_on: Callable[[], bool] = lambda: True) -> float:
        """Sends requests for some seconds, or until `go_on` is false; returns the seconds taken."""
        started = time.monotonic()
        threads = [threading.Thread(target=self._work) for _ in range(CLIENTS)]
        threads += [threading.Thread(target=self._work_largely)] if self._large else []
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

    def _work_largely(self) -> None:
        images = np.zeros((1, *self._shape), np.float32)
        while not self._ended.is_set() and len(self.wrong) < 100:
            try:
                self._client.predict("log_likelihood", images=images, num_samples=self._most)
            except grpc.RpcError as error:
                self.wrong.append(f"{self._most} samples: {error.details()}")
            else:
                self.large += 1

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


def saturation(
    address: str, process: subprocess.Popen, most: int, seconds: float, count: int
) -> dict:
    """Sends load with `count` malformed requests in it, and watches the memory."""
    seen, load = [], Load(address, BATCHES, most, 0.95 * seconds / count, large=True)

    def go_on():
        seen.append(memory(process))
        return True

    taken = load.run(seconds, go_on)
    early, late = np.mean(seen[: len(seen) // 10][-5:]), np.mean(seen[-5:])
    return {
        "seconds": round(taken),
        "answered": len(load.seconds),
        "large_answered": load.large,
        "malformed_refused": load.refused,
        "wrong": load.wrong[:5],
        "memory_mib": [round(seen[i * (len(seen) - 1) // 10]) for i in range(11)],
        "growth": round(late / early - 1, 4),
    }


def new_version(address: str, folder: pathlib.Path, most: int, seconds: float) -> dict:
    """Makes a copy of version 1 appear as version 2 under load, which goes on after the change."""
    load, client, seen = Load(address, BATCHES, most), GrpcClient(address), []
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
    origin = json.loads((export / "assets.extra" / "export.json").read_text())
    most = origin["max_image_samples"]
    record = {"export_mib": round(sum(path.stat().st_size for path in files) / 2**20, 2)}
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary) / "export"
        shutil.copytree(export, folder / "1")
        process, address, logged = start(folder)
        try:
            record["start"] = re.search("version 1 .*", logged)[0]
            record["memory_mib"] = round(memory(process))
            for batch in BATCHES:
                load = Load(address, (batch,), most)
                record[f"batch_{batch}"] = load.summary(load.run(seconds / 20))
            load = Load(address, (1,), most, large=True)
            record["beside"] = load.summary(load.run(seconds / 20)) | {"large": load.large}
            record["saturation"] = saturation(address, process, most, seconds, count)
            record["version"] = new_version(address, folder, most, seconds / 20)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
    return record


def main() -> int:
    """Prints the figures and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--seconds", type=float, default=600, help="of saturation")
    parser.add_argument("--malformed", type=int, default=2000)
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
        and record["beside"]["p99_ms"] <= SLOWER * record["batch_1"]["p99_ms"]
        and [versions for _, versions in swapped["served"]] == [[1], [2]]
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
