# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""A work directory whose file system becomes read-only: one line each, and nothing is lost."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest
from work_directories import write_run

from matnet_tf.config import Experiment, ModelConfig, Scale, TrainConfig
from matnet_tf.runs.workdir import read_metrics

ROOT = pathlib.Path(__file__).resolve().parents[2]
FLAGS = [
    *("--model.image_shape=8,8,1", "--model.scales=1:4:2:1", "--model.top_latents=2"),
    *("--model.top_units=4", "--train.steps=9", "--train.summary_images=0"),
]
EXPERIMENT = Experiment(
    ModelConfig((8, 8, 1), (Scale(1, 4, 2, 1),), top_latents=2, top_units=4),
    train=TrainConfig(steps=9, summary_images=0),
)

# Runs in a mount namespace of its own, so nobody else sees the mount, and it ends with the process.
SCRIPT = """
import json, shutil, subprocess, sys
from matnet_tf import cli

run, mount, *flags = sys.argv[1:]
subprocess.run(["mount", "-t", "tmpfs", "tmpfs", mount], check=True)
workdir = shutil.copytree(run, mount + "/run")
subprocess.run(["mount", "-o", "remount,ro", mount], check=True)
programs = {"train": flags, "evaluate": [], "score": [], "export": []}
statuses = [cli.main([name, "--workdir=" + workdir, *more]) for name, more in programs.items()]
subprocess.run(["mount", "-o", "remount,rw", mount], check=True)
statuses.append(cli.main(["train", "--workdir=" + workdir, *flags]))
shutil.copytree(workdir, run + "/after")
print(json.dumps(statuses))
"""


def can_mount() -> bool:
    if not shutil.which("unshare"):
        return False
    command = ["unshare", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not can_mount(), reason="needs Linux's mount namespaces")
def test_a_read_only_work_directory_gets_one_line_and_loses_nothing(tmp_path):
    run = write_run(tmp_path / "run", EXPERIMENT)
    (tmp_path / "mount").mkdir()
    python = [sys.executable, "-c", SCRIPT, str(run), str(tmp_path / "mount"), *FLAGS]
    command = ["unshare", "--map-root-user", "--mount", *python]
    environment = os.environ | {"HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [2, 2, 2, 2, 0]
    errors = [line for line in done.stderr.splitlines() if line.startswith("matnet ")]
    assert [line.split()[1] for line in errors] == ["train:", "evaluate:", "score:", "export:"]
    assert all("Read-only file system" in line for line in errors)
    assert "Traceback" not in done.stderr and "at step 7" in done.stdout
    assert [row["step"] for row in read_metrics(run / "after")] == [9]
