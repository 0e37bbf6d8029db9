# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Load on a server of an exported model: speed, memory, malformed requests, a new version.

    python benchmarks/serving.py --workdir runs/digits

Starts the stand-in of tests/model_server, in a process of its own, on a copy of the newest export,
and asks it over gRPC from several threads, each of which waits for its answer before it asks again:

    speed        `serving_default` at batch 1 and 32: requests per second, median, 99th percentile
    saturation   ten minutes of it at both sizes, with 1,000 malformed requests among them; each
                 must get the error that names what is wrong, each good one the bytes that it gets
                 when it is alone, and the server's memory must stay where it is
    version      a second version appears under load: no request may fail, and the second is the
                 one that is served in the end; `served` has the seconds of each change

Prints one JSON line, which also has the size of the export and the time to load it. Exit status: 1
if a request went wrong or was lost, or the memory grew by more than GROWTH from the first minute's
end on.
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

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "examples"))
import grpc
import numpy as np
from grpc_client import GrpcClient

ROOT = pathlib.Path(__file__).resolve().parent.parent
GROWTH = 0.05  # of the memory: what allocators may still take after the first minute
BATCHES = (1, 32)
KINDS = 5  # requests of each size with other images, so that mixed up answers show
CLIENTS = 4
PATIENCE = 600  # seconds that a second version may take to be loaded and warmed up under load


def malformed(image_shape: list[int]) -> list[tuple[str, dict, str]]:
    """Signature, inputs, and what the error has to say."""
    good = np.zeros((2, *image_shape), np.float32)
    return [
        ("serving_default", {"images": good[:, 1:]}, "images"),
        ("serving_default", {"images": good[0]}, "images"),
        ("serving_default", {"images": good + 2}, "images must be"),
        ("serving_default", {"images": good * np.nan}, "images must be"),
        ("serving_default", {"images": good[:0]}, "images must be"),
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
    """Threads that ask, and what came of it."""

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

    def run(self, seconds: float, go_on=lambda: True) -> float:
        """Asks for a while, or until it need not go on; gives the seconds that it took."""
        started = time.monotonic()
        threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]
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

    def _ask(self) -> None:
        while not self._ended.is_set() and len(self.wrong) < 100:
            with self._lock:
                now = time.monotonic()
                bad = next(self._bad) if self._spread and now >= self._next_bad else None
                self._next_bad += self._spread if bad else 0
                good = next(self._good)
            if bad:
                self._ask_badly(*bad)
            else:
                self._ask_well(*good)

    def _elbo(self, images: np.ndarray) -> np.ndarray:
        return self._client.predict("serving_default", images=images)["elbo"]

    def _ask_well(self, images: np.ndarray, expected: np.ndarray) -> None:
        started = time.monotonic()
        try:
            elbo = self._elbo(images)
        except grpc.RpcError as error:
            self.wrong.append(f"{len(images)} images: {error.details()}")
            return
        self.seconds.append(time.monotonic() - started)
        if elbo.tobytes() != expected.tobytes():
            self.wrong.append(f"{len(images)} images got {elbo}, not {expected}")

    def _ask_badly(self, signature: str, inputs: dict, message: str) -> None:
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
        """Requests per second, and milliseconds of the median and the 99th percentile."""
        found = np.array(self.seconds) * 1000
        median, late = np.percentile(found, [50, 99])
        rate = round(len(found) / taken, 1)
        return {"requests_per_second": rate, "p50_ms": round(median, 1), "p99_ms": round(late, 1)}


def memory(process: subprocess.Popen) -> float:
    """MiB that the server has in memory."""
    if process.poll() is not None:
        raise SystemExit(f"the server ended with status {process.returncode}")
    text = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1024


def saturation(address: str, process: subprocess.Popen, seconds: float, count: int) -> dict:
    """Load for a long time with malformed requests in it."""
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
    """A copy of version 1 appears as version 2 under load, which goes on when it has gone over."""
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


def size_of(folder: pathlib.Path) -> float:
    """MiB of all files in it."""
    return round(sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / 2**20, 2)


def start(folder: pathlib.Path) -> tuple[subprocess.Popen, str, str]:
    """The server, its address, and what it said of its start."""
    log = (folder.parent / "log").open("w+")
    process = subprocess.Popen(
        [sys.executable, "-m", "model_server", f"--model_base_path={folder}"],
        cwd=ROOT / "tests",
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
    )
    line = process.stdout.readline()
    log.seek(0)
    said = log.read()
    if not line:
        raise SystemExit(said)
    return process, f"localhost:{json.loads(line)['grpc']}", said


def main() -> int:
    """Prints the figures of one server."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--seconds", type=float, default=600, help="of saturation")
    parser.add_argument("--malformed", type=int, default=1000)
    args = parser.parse_args()
    versions = [p for p in (args.workdir / "export").iterdir() if p.name.isdecimal()]
    newest = max(versions, key=lambda path: int(path.name))
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary) / "export"
        shutil.copytree(newest, folder / "1")
        process, address, said = start(folder)
        try:
            record = {"export_mib": size_of(newest), "start": re.search("version 1 .*", said)[0]}
            record["memory_mib"] = round(memory(process))
            for batch in BATCHES:
                load = Load(address, (batch,))
                record[f"batch_{batch}"] = load.summary(load.run(args.seconds / 20))
            record["saturation"] = saturation(address, process, args.seconds, args.malformed)
            record["version"] = new_version(address, folder, args.seconds / 20)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
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
