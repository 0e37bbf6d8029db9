# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Who may train in a work directory, and on which images."""

import dataclasses
import errno
import fcntl
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from matnet_tf import data, datasets, experiment, training
from matnet_tf.config import Experiment, ModelConfig, Stage, TrainConfig

SETTINGS = Experiment(
    ModelConfig((8, 8, 1), (Stage(1, 8, 2, 1),), top_latents=2, top_units=4),
    train=TrainConfig(steps=2, batch_size=8, summary_images=0),
)


def test_a_directory_in_use_is_refused_and_one_of_a_dead_process_is_not(tmp_path):
    holder = """
import fcntl, sys
lock = open(sys.argv[1], "a+")
fcntl.flock(lock, fcntl.LOCK_EX)
lock.write("process 7 of elsewhere")
lock.flush()
print("ready", flush=True)
sys.stdin.read()
"""
    command = [sys.executable, "-c", holder, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with (
            pytest.raises(ValueError, match="in use by another bin/train: process 7 of elsewhere"),
            experiment.in_use(tmp_path),
        ):
            pass
        other.kill()
        other.wait()
    with experiment.in_use(tmp_path):
        assert f"process {os.getpid()} of " in (tmp_path / "lock").read_text()
    with experiment.in_use(tmp_path):  # It has let go.
        pass


def test_where_the_file_system_has_no_locks_it_says_so_and_goes_on(tmp_path, monkeypatch, capsys):
    def none(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    with experiment.in_use(tmp_path):
        pass
    assert "cannot be locked (No locks available)" in capsys.readouterr().out


def test_images_that_changed_since_the_run_began_are_refused(tmp_path, monkeypatch):
    first = {"count": 3, "digest": "aa"}
    experiment.create(tmp_path, SETTINGS, first)
    assert json.loads((tmp_path / "config.json").read_text())["training_images"] == first
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(ValueError, match="images of digits have changed .* now 3 .* bb, then 3"):
        experiment.create(tmp_path, SETTINGS, {"count": 3, "digest": "bb"})
    with pytest.raises(ValueError, match="have changed"):
        training.train(SETTINGS, tmp_path)
    assert (tmp_path / "config.json").read_bytes() == before
    assert not (tmp_path / "checkpoints").exists()


def test_a_directory_from_before_images_were_noted_takes_them_on(tmp_path):
    experiment.create(tmp_path, SETTINGS)
    path = tmp_path / "config.json"
    record = json.loads(path.read_text())
    del record["training_images"]
    path.write_text(json.dumps(record))
    images = {"count": 3, "digest": "aa"}
    experiment.create(tmp_path, SETTINGS, images)
    assert json.loads(path.read_text())["training_images"] == images


def test_the_identity_of_a_split_is_in_its_values_alone():
    split = data.load(SETTINGS.data, "train")
    again = data.load(dataclasses.replace(SETTINGS.data, binarization="none"), "train")
    assert split.identity() == again.identity()
    assert split.identity()["count"] == 1500
    changed = split.images.array.copy()
    changed[-1, 0, 0, 0] ^= 1
    other = dataclasses.replace(split, images=datasets.MemoryImages(changed))
    assert other.identity()["digest"] != split.identity()["digest"]
    flat = datasets.MemoryImages(changed.reshape(1500, 4, 16, 1))
    assert flat.digest() != other.images.digest()


def test_streamed_images_are_known_by_their_first():
    import tensorflow as tf

    values = np.arange(2 * 4, dtype=np.uint8).reshape(2, 2, 2, 1)
    streamed = datasets.StreamedImages(tf.data.Dataset.from_tensor_slices(values), 2)
    assert streamed.digest() == datasets.MemoryImages(values).digest()


@pytest.mark.skipif(not pathlib.Path("/proc/self/mounts").exists(), reason="needs Linux")
def test_a_directory_that_cannot_be_written_is_one_error(monkeypatch):
    with pytest.raises(OSError, match="/proc"):
        experiment.create("/proc/no/such", SETTINGS)
