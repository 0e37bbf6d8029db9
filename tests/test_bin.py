# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The programs as users run them: train, kill, resume, evaluate, draw, export, and errors."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
FLAGS = (
    "--flagfile=configs/digits.flags",
    "--model.stages=1:12:2:1",
    "--model.top_units=8",
    "--train.steps=60",
    "--train.steps_per_execution=10",
    "--train.checkpoint_every=20",
    "--train.summary_images=2",
)


def start(program: str, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, f"bin/{program}", *arguments],
        cwd=ROOT,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(program: str, *arguments: str) -> tuple[int, str, str]:
    process = start(program, *arguments)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def last_json(out: str) -> dict:
    return json.loads(out.splitlines()[-1])


def checkpoint_values(workdir) -> dict[str, np.ndarray]:
    import tensorflow as tf

    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(workdir / "checkpoints"))
    names = [n for n in reader.get_variable_to_shape_map() if n.startswith("variables/")]
    return {name: reader.get_tensor(name) for name in names}


@pytest.mark.slow
def test_a_run_killed_by_sigkill_resumes_to_the_weights_of_an_undisturbed_one(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    status, out, err = run("train", *FLAGS, f"--workdir={whole}")
    assert status == 0, err
    assert last_json(out)["step"] == 60
    process = start("train", *FLAGS, f"--workdir={killed}")
    deadline = time.monotonic() + 200
    while not list(killed.glob("checkpoints/ckpt-20.index")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    status, out, err = run("train", *FLAGS, f"--workdir={killed}")
    assert status == 0, err
    ours, theirs = checkpoint_values(killed), checkpoint_values(whole)
    assert ours.keys() == theirs.keys() and len(ours) > 20
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name)
    steps = [line.split(",")[0] for line in (killed / "metrics.csv").read_text().splitlines()]
    assert steps == ["step", "20", "40", "60"]

    status, out, err = run("evaluate", f"--workdir={whole}", "--num_samples=3", "--images=40")
    assert status == 0, err
    record = last_json(out)
    assert record["num_samples"] == 3 and record["images"]["count"] == 40
    assert json.loads((whole / "evaluation.json").read_text()) == [record]
    status, out, err = run("figures", f"--workdir={whole}")
    assert status == 0, err
    assert {p.name for p in (whole / "figures").iterdir()} >= {"samples.png", "kl_area.png"}
    status, out, err = run("export", f"--workdir={whole}")
    assert status == 0, err
    assert (whole / "export" / "1" / "saved_model.pb").is_file()


# What is wrong with the command line alone shows before TensorFlow is imported.
BAD = [
    ("train", ["--workdir=W", "--train.stesp=3"], "train.steps"),
    ("train", ["--workdir=W", "--model.stages=3:8:2:1", "--model.image_shape=8,8,1"], "possible"),
    ("evaluate", ["--workdir=W", "--num_samples=0"], "num_samples must be at least 1; got 0"),
    ("score", ["--workdir=W", "--num_samples=0"], "ScoreConfig.num_samples must be at least 1"),
    ("cluster", ["--workdir=W", "--groups=0"], "ClusterConfig.groups must be at least 1; got 0"),
    ("evaluate", ["--workdir=W"], "is not a work directory"),
    ("score", ["--workdir=W", "--data.name=mnist"], "is not a work directory"),
    ("figures", ["--workdir=W"], "is not a work directory"),
    ("cluster", ["--workdir=W"], "is not a work directory"),
    ("export", ["--workdir=W"], "is not a work directory"),
    pytest.param(
        *("train", ["--workdir=W", "--data.name=mnist", "--data.dir=W"], "bin/prepare --data.name"),
        marks=pytest.mark.slow,
    ),
]


@pytest.mark.parametrize(("program", "arguments", "expected"), BAD, ids=lambda value: str(value))
def test_bad_input_ends_with_one_line_and_status_2(program, arguments, expected, tmp_path):
    arguments = [a.replace("=W", f"={tmp_path}/none") for a in arguments]
    status, out, err = run(program, *arguments)
    assert status == 2
    lines = [line for line in err.splitlines() if line.startswith(f"bin/{program}: error:")]
    assert len(lines) == 1 and expected in lines[0]
    assert "Traceback" not in err and out == ""
    assert not list(pathlib.Path(tmp_path).glob("none/*.csv"))
