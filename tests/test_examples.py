# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The examples, run with stand-ins for what they run on."""

import json
import os
import pathlib
import re
import subprocess

import pytest
import served_models
import test_export_conditional as conditional

from matnet_tf import devices
from matnet_tf.signatures import signatures_of

ROOT = pathlib.Path(__file__).resolve().parent.parent

# What Slurm's own commands would do, in small: two nodes, one task each.
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
        done = subprocess.run(
            ["bash", "examples/train_slurm.sh", *arguments],
            cwd=ROOT,
            env=os.environ | own | names | job,
            capture_output=True,
            text=True,
        )
        seen = (tmp_path / "seen").read_text().splitlines()
        return done.returncode, seen, (tmp_path / "calls").read_text().splitlines()

    return submit


def test_the_slurm_job_gives_every_node_its_place_in_the_cluster(slurm, monkeypatch):
    status, seen, calls = slurm(0, "--flagfile=a b.flags", "--workdir=/shared/a")
    assert status == 0 and calls == ["show hostnames node-[a-b]"]
    for index, line in enumerate(seen):
        config, end = json.JSONDecoder().raw_decode(line)
        assert config["cluster"] == {"worker": ["node-a:12355", "node-b:12355"]}
        assert line[end:] == " bin/train --flagfile=a b.flags --workdir=/shared/a"
        monkeypatch.setenv("TF_CONFIG", json.dumps(config))
        assert devices.this_worker() == devices.Worker(index, 2)
    assert len(seen) == 2


def test_the_slurm_job_is_queued_again_only_when_it_may_resume(slurm):
    status, _, calls = slurm(75, "--workdir=/shared/a")
    assert status == 75 and calls[-1] == "requeue 17"
    status, _, calls = slurm(2, "--workdir=/shared/a")
    assert status == 2 and calls[-1] == "show hostnames node-[a-b]"


# Requests of the page on serving: signature and names of inputs, by interface.

SERVING = (ROOT / "examples" / "serving.md").read_text("utf-8")
OVER_REST = [
    (found[1] or "serving_default", re.findall(r'"(\w+)": ', found[2]))
    for found in re.finditer(r'`\{(?:"signature_name": "(\w+)", )?"inputs": \{(.*?)\}\}`', SERVING)
]
OVER_GRPC = [
    (found[1], re.findall(r"(\w+)=", found[2]))
    for found in re.finditer(r'^client\.predict\("(\w+)", (.*)\)$', SERVING, re.MULTILINE)
]


@pytest.mark.parametrize("requests", [OVER_REST, OVER_GRPC], ids=["rest", "grpc"])
def test_the_page_on_serving_has_a_request_for_every_signature(requests):
    completing = conditional.make_model(stages=conditional.DENSE)
    model = served_models.make_model("dense mixture")
    # Those of both are without the mask, which the page does not repeat.
    found = {n: s.specs for m in (completing, model) for n, s in signatures_of(m).items()}
    assert {n for n in found if not n.endswith(served_models.TWINS)} <= set(dict(requests))
    for name, inputs in requests:
        # Of latents the page shows two levels.
        expected = ["z_00_top", "z_01_fc"] if name == "decode" else found[name]
        assert sorted(inputs) == sorted(expected), name
