# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Two processes train together; one is killed, and both resume."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import time

import pytest
from work_directories import assert_same_variables

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
FLAGS = [
    *("--preset=digits", "--model.scales=1:12:2:1", "--model.top_units=8"),
    *("--train.steps=60", "--train.steps_per_execution=5", "--train.checkpoint_every=20"),
    *("--train.summary_images=2", "--data.validation_images=50"),
]
PATIENCE = 300  # Seconds, on a busy machine.

pytestmark = pytest.mark.slow


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def start(workdir: pathlib.Path, logs: pathlib.Path) -> list[subprocess.Popen]:
    logs.mkdir(exist_ok=True)
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(2)]}
    processes = []
    for index in range(2):
        config = {"cluster": cluster, "task": {"type": "worker", "index": index}}
        with (logs / f"{index}").open("w") as log:
            processes.append(
                subprocess.Popen(
                    [
                        sys.executable,
                        "-m",
                        "matnet_tf",
                        "train",
                        *FLAGS,
                        "--json",
                        f"--workdir={workdir}",
                    ],
                    cwd=ROOT,
                    env=os.environ | {"TF_CONFIG": json.dumps(config)},
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )
    return processes


def finish(processes: list[subprocess.Popen], logs: pathlib.Path) -> list[dict]:
    codes = [process.wait(PATIENCE) for process in processes]
    texts = [(logs / f"{index}").read_text() for index in range(2)]
    assert codes == [0, 0], "\n".join(text[-2000:] for text in texts)
    return [json.loads(text.strip().splitlines()[-1]) for text in texts]


def test_a_killed_worker_ends_the_other_and_both_resume_to_the_same_weights(tmp_path):
    records = finish(start(tmp_path / "whole", tmp_path / "a"), tmp_path / "a")
    assert [record["step"] for record in records] == [60, 60]
    assert records[0]["elbo"] == records[1]["elbo"]

    survivor, killed = start(tmp_path / "parts", tmp_path / "b")
    deadline = time.monotonic() + PATIENCE
    while not (tmp_path / "parts/checkpoints/ckpt-20.index").exists():
        assert survivor.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    killed.kill()
    assert survivor.wait(PATIENCE) == os.EX_TEMPFAIL
    killed.wait()
    last = (tmp_path / "b" / "0").read_text().strip().splitlines()[-1]
    assert last.startswith("matnet train: error: worker 0 of 2: another worker of the job is gone")

    records = finish(start(tmp_path / "parts", tmp_path / "c"), tmp_path / "c")
    assert [record["step"] for record in records] == [60, 60]
    assert_same_variables(tmp_path / "whole", tmp_path / "parts")
    # Only one writes: there is one row per checkpoint.
    for run in ("whole", "parts"):
        rows = (tmp_path / run / "metrics.csv").read_text().splitlines()
        assert [row.split(",")[0] for row in rows] == ["step", "20", "40", "60"]
        assert not list((tmp_path / run).glob("**/*.tmp"))
