# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The Slurm job, run with stand-ins for Slurm's commands."""

import json
import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Two nodes with one task each.
SCONTROL = """#!/bin/sh
echo "$@" >> "$CALLS"
[ "$1" = show ] && printf 'node-a\\nnode-b\\n'
exit 0
"""
SRUN = """#!/bin/sh
shift
for rank in 0 1; do SLURM_PROCID=$rank "$@" || status=$?; done
exit ${status:-0}
"""
PROGRAM = """#!/bin/sh
echo "$TF_CONFIG" "$@" >> "$SEEN"
exit $STATUS
"""


@pytest.fixture
def slurm(tmp_path):
    for name, text in (("scontrol", SCONTROL), ("srun", SRUN), ("python", PROGRAM)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)

    def submit(status, *arguments):
        names = {name: str(tmp_path / name.lower()) for name in ("CALLS", "SEEN")}
        own = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHON": str(tmp_path / "python")}
        job = {"SLURM_JOB_NODELIST": "node-[a-b]", "SLURM_JOB_ID": "17", "STATUS": str(status)}
        command = ["bash", "examples/train_slurm.sh", *arguments]
        environment = os.environ | own | names | job
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True)
        seen = (tmp_path / "seen").read_text().splitlines()
        return done.returncode, seen, (tmp_path / "calls").read_text().splitlines()

    return submit


def test_the_slurm_job_gives_every_node_its_place_in_the_cluster(slurm):
    status, seen, calls = slurm(0, "--flagfile=a b.flags", "--workdir=/shared/a")
    assert status == 0 and calls == ["show hostnames node-[a-b]"]
    assert len(seen) == 2
    for index, line in enumerate(seen):
        config, end = json.JSONDecoder().raw_decode(line)
        assert config["cluster"] == {"worker": ["node-a:12355", "node-b:12355"]}
        assert config["task"] == {"type": "worker", "index": index}
        assert line[end:] == " bin/train --flagfile=a b.flags --workdir=/shared/a"


def test_the_slurm_job_is_queued_again_only_when_it_may_resume(slurm):
    status, _, calls = slurm(75, "--workdir=/shared/a")
    assert status == 75 and calls[-1] == "requeue 17"
    status, _, calls = slurm(2, "--workdir=/shared/a")
    assert status == 2 and calls[-1] == "show hostnames node-[a-b]"
