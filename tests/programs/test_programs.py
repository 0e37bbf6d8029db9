# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The programs as users run them: train, kill, resume, evaluate, score, draw, export."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from matnet_tf import cli, evaluation, imputation

ROOT = pathlib.Path(__file__).resolve().parents[2]
FLAGS = (
    "--preset=digits",
    "--model.scales=1:12:2:1",
    "--model.top_units=8",
    "--train.steps=60",
    "--train.steps_per_execution=10",
    "--train.checkpoint_every=20",
    "--train.summary_images=0",
)


def weights_of(workdir) -> dict[str, np.ndarray]:
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(workdir / "checkpoints"))
    names = [n for n in reader.get_variable_to_shape_map() if n.startswith("variables/")]
    return {name: reader.get_tensor(name) for name in names}


def train_and_kill(workdir) -> None:
    """Trains with bin/train and kills it after the first checkpoint."""
    process = subprocess.Popen(
        [sys.executable, "bin/train", *FLAGS, f"--workdir={workdir}"],
        cwd=ROOT,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 200
    while not list(workdir.glob("checkpoints/ckpt-20.index")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_weights_of_an_undisturbed_one(tmp_path, capsys):
    whole, killed = tmp_path / "whole", tmp_path / "killed"

    def run(*arguments) -> str:
        assert cli.main(arguments) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    train_and_kill(killed)
    for workdir in (killed, whole):
        record = json.loads(run("train", *FLAGS, "--json", f"--workdir={workdir}").splitlines()[-1])
        assert record["step"] == 60
    ours, expected = weights_of(killed), weights_of(whole)
    assert ours.keys() == expected.keys() and len(ours) > 20
    for name, value in expected.items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name)
    steps = [line.split(",")[0] for line in (killed / "metrics.csv").read_text().splitlines()]
    assert steps == ["step", "20", "40", "60"]

    out = run("evaluate", f"--workdir={whole}", "--num_samples=3", "--images=40", "--json")
    record = json.loads(out.splitlines()[-1])
    assert record["num_samples"] == 3 and record["images"]["count"] == 40
    assert json.loads((whole / "evaluation.json").read_text()) == [record]
    out = run("score", f"--workdir={whole}", "--num_samples=2", "--images=30", "--json")
    rows = (whole / "scores" / "digits_test.csv").read_text().splitlines()
    assert len(rows) == 31 and json.loads(out.splitlines()[-1])["num_samples"] == 2
    paths = run("figures", f"--workdir={whole}").split()
    assert {p.name for p in map(pathlib.Path, paths)} >= {"samples.png", "kl_area.png"}
    assert all(map(os.path.isfile, paths))
    out = run("export", f"--workdir={whole}")
    assert pathlib.Path(out.strip(), "saved_model.pb").is_file()


@pytest.mark.slow
def test_prepare_prints_what_it_made_and_refuses_in_one_line(tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    for number in range(3):
        keras.utils.save_img(tmp_path / f"photos/{number}.png", np.full((8, 6, 1), number))
    source, where = f"--source={tmp_path / 'photos'}", f"--data.dir={tmp_path / 'tfds'}"
    flags = ("prepare", "--data.name=image_folder", source, where)
    for more, status, message in (
        ((), 0, "image_folder: 2 train, 1 test images of 8x6x1 in "),
        ((), 2, "1.0.0 exists already; --overwrite replaces it"),
        (("--size=64",), 2, "--size must read HEIGHTxWIDTH, such as 64x64; got '64'"),
        (("--overwrite", "--size=4x12"), 0, "2 train, 1 test images of 4x12x1 in "),
    ):
        assert cli.main([*flags, *more]) == status
        out, err = capsys.readouterr()
        assert message in (err if status else out)
        assert (err.count("\n"), out) == (1, "") if status else out.count("\n") == 3


@pytest.mark.slow
def test_own_pictures_need_names_and_folders_only(tmp_path, capsys):
    photos, tfds, run = tmp_path / "photos", tmp_path / "tfds", tmp_path / "run"
    for number in range(12):
        levels = np.random.default_rng(number).integers(0, 256, (12, 10, 3))
        path = photos / ("cats" if number % 2 else "dogs") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        keras.utils.save_img(path, levels, scale=False)

    def run_program(*arguments) -> list[str]:
        assert cli.main(arguments) == 0, capsys.readouterr().err
        return capsys.readouterr().out.splitlines()

    data = ("--data.name=image_folder", f"--data.dir={tfds}")
    lines = run_program("prepare", *data, f"--source={photos}")
    assert lines[1] == "classes: cats, dogs" and "11 train, 1 test images of 12x10x3" in lines[-1]
    workdir, small = f"--workdir={run}", ("--model.size=small", "--train.checkpoint_every=2")
    lines = run_program("train", *data, workdir, *small, "--train.steps=2")
    assert "image_folder has 8-bit colour images of 12x10x3: a small model" in lines[0]
    assert "--model.scales=6x5:16:4:1 --model.likelihood=logistic" in lines[0]
    assert lines[-1].startswith("trained to step 2 in ")
    # The directory alone resumes, and a finished run goes on with more steps.
    assert run_program("train", workdir)[-1].startswith("trained to step 2 in ")
    lines = run_program("train", workdir, "--train.steps=4")
    assert "train.steps is now 4, after 2: the schedules follow the new length" in lines[0]
    assert lines[-1].startswith("trained to step 4 in ")
    with pytest.raises(AssertionError, match="train.steps: 3, not 4"):
        run_program("train", workdir, "--train.steps=3")
    lines = run_program("evaluate", workdir, "--num_samples=2", "--images=1")
    assert "bits for each of 360 values: K=2, all 1 test images of image_folder, raw" in lines[-1]
    run_program("score", workdir, "--num_samples=2", "--split=train")
    header, *rows = (run / "scores" / "image_folder_train.csv").read_text().splitlines()
    assert header.startswith("index,label,class,file,log_p")
    assert {tuple(row.split(",")[1:4]) for row in rows} <= {
        (
            str(int(n % 2 == 0)),
            "dogs" if n % 2 == 0 else "cats",
            f"{'dogs' if n % 2 == 0 else 'cats'}/{n}.png",
        )
        for n in range(12)
    }
    moved = f"--data.dir={tfds.rename(tmp_path / 'moved')}"
    lines = run_program("cluster", workdir, moved, "--split=train")
    assert lines[2].startswith("k-means on pixels: 2 of 2 used, purity ")
    assert (run / "clusters.csv").read_text().startswith("index,label,class,file,")
    assert len(run_program("figures", workdir, moved)) == 6


@pytest.mark.slow
def test_a_program_prints_its_own_lines_only(tmp_path):
    quiet = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], "HOME": os.environ["HOME"]}
    command = [sys.executable, "-m", "matnet_tf", "train", "--data.name=digits"]
    command += [f"--workdir={tmp_path / 'run'}", "--model.size=small", "--train.steps=1"]
    done = subprocess.run(
        command, env=quiet, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    first, last = done.stdout.splitlines()
    assert first.startswith("train: digits has binary images of 8x8x1: a small model, ")
    assert last.startswith("trained to step 1 in ")
    progress = [line for line in done.stderr.splitlines() if line.strip()]
    assert progress and all(re.match(r" *\d+%\|", line) for line in progress), done.stderr
    assert "left" not in progress[0]  # What has not been measured is not promised.


def test_programs_hand_over_their_flags_and_their_status(tmp_path, capsys, monkeypatch):
    (tmp_path / "config.json").write_text("{}")
    calls = []

    def stand_in(room, name, function, result):
        fake = types.SimpleNamespace(**{function: lambda *given: (calls.append(given), result)[1]})
        monkeypatch.setattr(room, name, fake, raising=False)

    run = f"--workdir={tmp_path}"
    stand_in(imputation, "impute", "impute_files", {"skipped": ["b.png"]})
    images = ["impute", run, "--images=a.png,b.png", "--rectangles=0:0:2x2", "--output=x"]
    assert cli.main([*images, "--json"]) == 1
    workdir, files, settings, output = calls.pop()
    assert (workdir, files, output) == (str(tmp_path), ("a.png", "b.png"), "x")
    assert settings.rectangles == ("0:0:2x2",)
    assert capsys.readouterr().out == '{"skipped": ["b.png"]}\n'
    stand_in(imputation, "impute", "impute_files", {"skipped": []})
    assert cli.main([*images, "--json"]) == 0

    stand_in(evaluation, "scores", "score", {"auroc": {"log_p": 0.5}})
    capsys.readouterr()
    assert cli.main(["score", run, "--data.name=mnist", "--inliers=a.csv", "--json"]) == 0
    _, settings, changes, output, inliers = calls.pop()
    assert (changes, output, inliers, settings.num_samples) == ({"name": "mnist"}, "", "a.csv", 100)
    assert capsys.readouterr().out == '{"auroc": {"log_p": 0.5}}\n'

    stand_in(evaluation, "clusters", "cluster", {"files": ["a", "b"]})
    assert cli.main(["cluster", run, "--groups=3", "--json"]) == 0
    assert capsys.readouterr().out == '{"files": ["a", "b"]}\n'
    assert calls.pop()[1].groups == 3
