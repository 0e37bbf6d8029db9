# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""TFDS data directories: what is put there, replaced, found, downloaded and cleared away."""

import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from source_files import (
    assert_nothing_written,
    config,
    cut,
    mnist_files,
    pixels,
    stored,
    write_idx,
)

from matnet_tf import data, datasets
from matnet_tf.datasets import storage
from matnet_tf.datasets.png import encode_png

tfds.disable_progress_bar()
ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture
def mnist(tmp_path):
    return mnist_files(tmp_path / "mnist")


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_png_is_read_back_exactly(channels):
    image = pixels(1, (5, 7, channels))[0]
    np.testing.assert_array_equal(tf.io.decode_png(encode_png(image), channels), image)


def test_png_refuses_what_it_cannot_hold():
    with pytest.raises(ValueError, match=r"uint8 image.*float64 \[2, 2, 5\]"):
        encode_png(np.zeros([2, 2, 5]))


def test_a_data_set_that_is_there_is_kept_unless_it_is_to_be_replaced(mnist, tmp_path):
    wanted = config("mnist", tmp_path)
    made = datasets.prepare(wanted, str(mnist))
    write_idx(mnist / "t10k-images-idx3-ubyte", np.zeros([5, 28, 28]))
    write_idx(mnist / "t10k-labels-idx1-ubyte", np.zeros(5))
    with pytest.raises(ValueError, match="is there already; --overwrite replaces it"):
        datasets.prepare(wanted, str(mnist))
    assert len(stored("mnist", tmp_path, "test")) == 7
    assert datasets.prepare(wanted, str(mnist), overwrite=True).folder == made.folder
    assert len(stored("mnist", tmp_path, "test")) == 5
    # A fault must not cost the set that was there.
    cut(mnist / "t10k-images-idx3-ubyte", 100)
    with pytest.raises(ValueError, match="truncated"):
        datasets.prepare(wanted, str(mnist), overwrite=True)
    assert len(stored("mnist", tmp_path, "test")) == 5
    assert [p.name for p in (tmp_path / "tfds").iterdir()] == ["mnist"]


def contents(folder):
    return sorted(p.name for p in folder.iterdir())


def test_what_a_killed_preparation_has_left_is_removed(mnist, tmp_path):
    abandoned = tmp_path / "tfds" / ".preparing_killed"
    for content in (("mnist/3.0.1/half", "lock"), ("half",), ()):
        abandoned.mkdir(parents=True)
        for path in content:
            (abandoned / path).parent.mkdir(parents=True, exist_ok=True)
            (abandoned / path).write_text("")
        datasets.prepare(config("mnist", tmp_path), str(mnist), overwrite=True)
        assert contents(tmp_path / "tfds") == ["mnist"]


def test_a_preparation_that_runs_keeps_its_folder(mnist, tmp_path):
    with storage.workspace(tmp_path / "tfds") as running:
        (running / "half").write_text("")
        datasets.prepare(config("mnist", tmp_path), str(mnist))
        assert (running / "half").exists()
        assert contents(tmp_path / "tfds") == [running.name, "mnist"]
    assert contents(tmp_path / "tfds") == ["mnist"]


class Killed(BaseException):
    """What stands for the end of the process."""


@pytest.mark.parametrize("moves", [1, 2])
def test_a_preparation_killed_while_it_replaces_a_set_leaves_one(moves, mnist, tmp_path):
    place = datasets.prepare(config("mnist", tmp_path), str(mnist)).folder
    made = tmp_path / "tfds" / ".preparing_killed" / "mnist" / "3.0.1"
    shutil.copytree(place, made)
    (place / "old").write_text("")
    rename, left = pathlib.Path.rename, iter(range(moves))

    def until_killed(path, target):
        if next(left, None) is None:
            raise Killed
        return rename(path, target)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(pathlib.Path, "rename", until_killed)
        storage.publish(made, place, place)
        raise Killed
    # Before the second move the old set is whole, after it the new one is in its place.
    with pytest.raises(ValueError, match="3.0.1 is there already"):
        datasets.prepare(config("mnist", tmp_path), str(mnist))
    assert (place / "old").exists() == (moves == 1)
    assert contents(tmp_path / "tfds") == ["mnist"]
    assert len(stored("mnist", tmp_path, "test")) == 7


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("digits", {}, "digits is embedded"),
        ("svhn_cropped", {"source": "."}, "--source works for mnist.*; got 'svhn_cropped'"),
        ("mnist", {"size": (8, 8)}, "a size goes with image_folder only"),
        ("omniglot28", {}, "omniglot28 needs --source=DIR, a folder with chardata.mat"),
        ("tiny_shakespeare", {}, "tiny_shakespeare has no feature `image`; it has text"),
        ("no_such_set", {}, "TFDS has no data set 'no_such_set'"),
    ],
)
def test_what_cannot_be_prepared_is_refused(name, arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        datasets.prepare(config(name, tmp_path), **arguments)
    assert_nothing_written(tmp_path)


@pytest.mark.parametrize(
    ("name", "host"),
    [
        ("mnist", ("storage.googleapis.com", 443)),
        # Its images vary in size, which is no reason not to download them.
        ("lsun/church_outdoor", ("dl.yf.io", 80)),
    ],
)
def test_without_a_network_a_download_fails_at_once(name, host, tmp_path, monkeypatch):
    def unreachable(address, timeout):
        assert address == host and timeout < 5
        raise OSError("no route")

    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(socket, "create_connection", unreachable)
    start = time.monotonic()
    with pytest.raises(ValueError, match=f"cannot download {name}: no connection to .*no route"):
        datasets.prepare(config(name, tmp_path))
    assert time.monotonic() - start < 5
    assert_nothing_written(tmp_path)


def test_a_proxy_is_what_is_tried_where_there_is_one(tmp_path, monkeypatch):
    tried = []

    def unreachable(address, timeout):
        tried.append(address)
        raise OSError("refused")

    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setattr(socket, "create_connection", unreachable)
    with pytest.raises(ValueError, match="no connection to proxy.example:3128"):
        datasets.prepare(config("mnist", tmp_path))
    assert tried == [("proxy.example", 3128)]


def test_a_name_server_that_does_not_answer_is_not_waited_for(tmp_path, monkeypatch):
    over = threading.Event()

    def look_up(*_):
        over.wait(30)
        raise OSError

    monkeypatch.setattr(socket, "create_connection", look_up)
    monkeypatch.setattr("matnet_tf.datasets.importer._PROBE_SECONDS", 0.1)
    with pytest.raises(ValueError, match=r"no connection to .* \(no answer in 0.1 s\)"):
        datasets.prepare(config("mnist", tmp_path))
    over.set()


def make_empty_set(folder):
    folder.mkdir(parents=True)
    for name in ("dataset_info.json", "features.json"):
        (folder / name).write_text("{}")


def test_find_takes_the_newest_version_and_the_only_config(tmp_path):
    assert datasets.find("a", str(tmp_path)) is None
    for path in ("a/1.9.0", "a/1.10.0", "b/small/2.0.0", "a/3.0.0.incomplete"):
        make_empty_set(tmp_path / path)
    (tmp_path / "a" / "4.0.0").mkdir()
    assert datasets.find("a", str(tmp_path)) == tmp_path / "a" / "1.10.0"
    assert datasets.find("a:1.9.0", str(tmp_path)) == tmp_path / "a" / "1.9.0"
    assert datasets.find("a:2.0.0", str(tmp_path)) is None
    assert datasets.find("b", str(tmp_path)) == tmp_path / "b/small/2.0.0"
    make_empty_set(tmp_path / "b/large/2.0.0")
    with pytest.raises(ValueError, match="several configs of b; name one of b/large, b/small"):
        datasets.find("b", str(tmp_path))
    assert datasets.find("b/large", str(tmp_path)) == tmp_path / "b/large/2.0.0"


def run_prepare(*arguments):
    command = [sys.executable, str(ROOT / "bin" / "prepare"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_the_program_refuses_bad_flags_before_tensorflow_is_imported():
    start = time.monotonic()
    done = run_prepare("--data.name=image_folder", "--size=8by8")
    assert done.returncode == 2 and time.monotonic() - start < 2
    assert (
        done.stderr == "bin/prepare: error: --size must read HEIGHTxWIDTH, such as 64x64; "
        "got '8by8'\n"
    )


@pytest.mark.slow
def test_the_program_prepares_and_says_what_it_made(mnist, tmp_path):
    where = str(tmp_path / "tfds")
    arguments = ("--data.name=mnist", f"--source={mnist}", f"--data.dir={where}")
    done = run_prepare(*arguments)
    assert done.returncode == 0
    assert done.stdout == f"mnist: 13 train, 7 test images of 28x28x1 in {where}/mnist/3.0.1\n"
    again = run_prepare(*arguments)
    assert again.returncode == 2 and "Traceback" not in again.stderr
    assert again.stderr.splitlines()[-1].startswith("bin/prepare: error: ")


@pytest.mark.slow
def test_the_program_clears_away_what_it_left_when_it_was_killed(mnist, tmp_path):
    write_idx(mnist / "train-images-idx3-ubyte.gz", np.zeros([30000, 28, 28]))
    write_idx(mnist / "train-labels-idx1-ubyte.gz", np.zeros(30000))
    where = tmp_path / "tfds"
    arguments = ("--data.name=mnist", f"--source={mnist}", f"--data.dir={where}")
    command = [sys.executable, str(ROOT / "bin" / "prepare"), *arguments]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as program:
        while not list(where.glob(".preparing_*/mnist/*")) and program.poll() is None:
            time.sleep(0.01)
        program.kill()
    assert program.returncode == -signal.SIGKILL
    (left,) = where.iterdir()
    assert left.name.startswith(".preparing_")
    assert run_prepare(*arguments).returncode == 0
    assert contents(where) == ["mnist"]


DAMAGES = {
    "cut": ("*test.tfrecord*", lambda content: content[:-9]),
    "emptied": ("*test.tfrecord*", lambda content: b""),
    "gone": ("*test.tfrecord*", None),
    "no text": ("dataset_info.json", lambda content: b"\xff" + content),
    "other values": ("dataset_info.json", lambda content: content.replace(b'"7"', b'"8"')),
    "no type": ("features.json", lambda content: content.replace(b'"uint8"', b"3")),
}


@pytest.mark.parametrize(("pattern", "change"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_data_set_is_named_in_one_line(pattern, change, mnist, tmp_path):
    folder = datasets.prepare(config("mnist", tmp_path), str(mnist)).folder
    (path,) = folder.glob(pattern)
    content = path.read_bytes()
    path.unlink()
    if change:
        path.write_bytes(change(content))
        assert path.read_bytes() != content
    with pytest.raises(ValueError, match=rf"data set in {folder} is damaged \(.+\); prepare"):
        data.load(config("mnist", tmp_path), "test")


@pytest.mark.slow
def test_a_full_disk_is_one_error_and_leaves_nothing(mnist, tmp_path):
    where = tmp_path / "tfds"
    arguments = ("--data.name=mnist", f"--source={mnist}", f"--data.dir={where}")
    limit = "import os, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)); "
    program = [sys.executable, str(ROOT / "bin" / "prepare"), *arguments]
    command = [sys.executable, "-c", limit + "os.execv(sys.argv[1], sys.argv[1:])", *program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    expected = f"bin/prepare: error: mnist could not be written to {where}: File too large\n"
    assert expected in done.stderr  # TFDS's bars may follow.
    assert_nothing_written(tmp_path)
