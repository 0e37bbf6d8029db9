# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Work directories: who may train there, on which images, and what is refused."""

import dataclasses
import errno
import fcntl
import json
import os
import subprocess
import sys

import pytest
import tensorflow as tf
from work_directories import write_run

from matnet_tf.config import Experiment, ModelConfig, Scale, TrainConfig
from matnet_tf.data import loading
from matnet_tf.data.batching import MemoryImages, StreamedImages
from matnet_tf.runs import checkpoints
from matnet_tf.runs.models import load_run
from matnet_tf.runs.workdir import (
    create_workdir,
    hold_workdir,
    read_experiment,
    read_metrics,
    training_images,
    write_metrics,
)
from matnet_tf.training import train

SETTINGS = Experiment(
    ModelConfig((8, 8, 1), (Scale(1, 8, 2, 1),), top_latents=2, top_units=4),
    train=TrainConfig(steps=2, batch_size=8, summary_images=0),
)


def test_a_directory_in_use_is_refused_and_one_of_a_dead_process_is_not(tmp_path):
    holder = """
import sys
from matnet_tf.runs.workdir import hold_workdir
with hold_workdir(sys.argv[1]):
    print("ready", flush=True)
    sys.stdin.read()
"""
    command = [sys.executable, "-c", holder, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"ready\n"
        message = f"{tmp_path} is in use by another matnet train: process {other.pid} of "
        with pytest.raises(ValueError, match=message), hold_workdir(tmp_path):
            pass
        other.kill()
        other.wait()
    for _ in range(2):  # The first releases it, too.
        with hold_workdir(tmp_path):
            pass


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_on_a_file_system_without_locks_it_warns_once_and_goes_on(
    tmp_path, monkeypatch, capsys, recwarn, code
):
    def none(file, operation):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", none)
    (tmp_path / "lock").write_text("left over by a process killed on another machine")
    with hold_workdir(tmp_path), hold_workdir(tmp_path):
        lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and f"the file system of {tmp_path} has no locks" in lines[0]
    assert not recwarn


def test_no_lock_is_written_through_a_link_or_waited_for_in_a_pipe(tmp_path):
    outside, lock = tmp_path / "outside", tmp_path / "run" / "lock"
    outside.write_text("theirs")
    lock.parent.mkdir()
    for make in (lambda: lock.symlink_to(outside), lambda: os.mkfifo(lock)):
        make()
        with pytest.raises(OSError, match=f"'{lock}'"), hold_workdir(lock.parent):
            pass
        lock.unlink()
    assert outside.read_text() == "theirs"


@pytest.mark.parametrize("name", ["run[1]", "a\\b", "what?", "all*", "\udcff"])
def test_paths_that_tensorflow_cannot_read_again_are_refused_before_training(name, tmp_path):
    with pytest.raises(ValueError, match="must not contain .* of a pattern|must be UTF-8"):
        train.train(SETTINGS, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_training_images_that_changed_are_refused(tmp_path):
    first = {"count": 3, "digest": "aa"}
    create_workdir(tmp_path, SETTINGS, first)
    assert training_images(tmp_path) == first
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(ValueError, match="images of digits have changed .* now 3 .* bb, then 3"):
        create_workdir(tmp_path, SETTINGS, {"count": 3, "digest": "bb"})
    with pytest.raises(ValueError, match="have changed"):
        train.train(SETTINGS, tmp_path)
    assert (tmp_path / "config.json").read_bytes() == before
    assert not (tmp_path / "checkpoints").exists()


def test_the_identity_of_a_split_depends_on_its_images_alone():
    split = loading.load(SETTINGS.data, "train")
    again = loading.load(dataclasses.replace(SETTINGS.data, binarization="none"), "train")
    assert split.identity() == again.identity()
    assert split.identity()["count"] == 1500
    changed = split.images.array.copy()
    changed[-1, 0, 0, 0] ^= 1
    other = dataclasses.replace(split, images=MemoryImages(changed))
    assert other.identity()["digest"] != split.identity()["digest"]
    flat = MemoryImages(changed.reshape(1500, 4, 16, 1))
    assert flat.digest() != other.images.digest()
    few = changed[:2]
    streamed = StreamedImages(tf.data.Dataset.from_tensor_slices(few), 2)
    assert streamed.digest() == MemoryImages(few).digest()


def test_what_is_no_work_directory_is_named(tmp_path):
    with pytest.raises(ValueError, match="is not a work directory: it has no config.json"):
        load_run(tmp_path)
    path = tmp_path / "config.json"
    for text in ("{", "[]", "\xff", "[Infinity]", 100_000 * "[", json.dumps({"format_version": 4})):
        path.write_text(text, encoding="latin-1")
        with pytest.raises(ValueError, match="is not a config written by matnet train"):
            load_run(tmp_path)
    path.unlink()
    create_workdir(tmp_path, SETTINGS)
    with pytest.raises(ValueError, match="has no checkpoint of a trained model yet"):
        load_run(tmp_path)
    with pytest.raises(ValueError, match="keeps no averaged weights"):
        load_run(tmp_path, "averaged")
    record = json.loads(path.read_text())
    for version in (3, 99, "4", None):
        path.write_text(json.dumps(record | {"format_version": version}))
        with pytest.raises(ValueError, match=f"has format version {version!r}; .* reads 5$"):
            read_experiment(tmp_path)


def test_a_checkpoint_of_another_version_is_not_read(tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "FORMAT_VERSION", 6)
        write_run(tmp_path, SETTINGS, step=9)
    with pytest.raises(ValueError, match="no checkpoint in .* is readable"):
        load_run(tmp_path)
    expected = "ckpt-9 is not readable (it has format version 6, this package reads 5)"
    assert expected in capsys.readouterr().err


def test_a_directory_that_cannot_be_written_is_one_error():
    with pytest.raises(OSError, match="/proc"):
        create_workdir("/proc/no/such", SETTINGS)


def test_numbers_that_are_whole_are_written_without_a_point(tmp_path):
    rows = [{"step": 4, "elbo": -1.5}, {"step": 8.0, "val_elbo": 1 / 3}]
    write_metrics(tmp_path, rows)
    expected = "step,elbo,val_elbo\n4,-1.5,\n8,,0.333333333\n"
    assert (tmp_path / "metrics.csv").read_text() == expected
    assert read_metrics(tmp_path)[0] == rows[0]


def test_metrics_of_another_form_are_refused(tmp_path):
    path = tmp_path / "metrics.csv"
    for text in (
        *("step,elbo\n4,-1.5,3\n", "step,elbo\n4,low\n", "elbo\n-1.5\n", "step\n4.5\n"),
        *("step,elbo\nnan,1\n", "step\n\xff\n", f"step,elbo\n4,{200_000 * 'x'}\n"),
    ):
        path.write_text(text, encoding="latin-1")
        with pytest.raises(ValueError, match=f"^{path} is not a file that matnet train wrote; "):
            read_metrics(tmp_path)
