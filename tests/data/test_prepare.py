# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""TFDS data directories: what is put there, replaced, found, downloaded and cleared away."""

import dataclasses
import os
import pathlib
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

import filelock
import numpy as np
import pytest
import tensorflow_datasets as tfds
from source_files import (
    CIFAR_SHAPE,
    cifar_files,
    cut,
    mnist_files,
    pixels,
    save_images,
    write_idx,
)

from matnet_tf.config import DataConfig
from matnet_tf.data import loading, tfds_reader, tfds_writer
from matnet_tf.data import prepare as prepare_module
from matnet_tf.data.prepare import prepare
from matnet_tf.data.tfds_writer import find

tfds.disable_progress_bar()


@pytest.fixture
def mnist(tmp_path):
    return mnist_files(tmp_path / "mnist")


def config(name, tmp_path):
    return DataConfig(name=name, dir=str(tmp_path / "tfds"))


def stored(name, tmp_path, split):
    """Examples as any user of TFDS reads them."""
    builder = tfds.builder(name, data_dir=str(tmp_path / "tfds"))
    return list(tfds.as_numpy(builder.as_dataset(split=split)))


def contents(folder):
    return sorted(path.name for path in folder.iterdir())


def assert_nothing_written(tmp_path):
    assert not (tmp_path / "tfds").exists()


# Whole or not at all.


def test_the_data_set_is_one_that_tfds_itself_reads(mnist, tmp_path):
    made = prepare(config("mnist", tmp_path), str(mnist))
    assert made.folder == tmp_path / "tfds" / "mnist" / "3.0.1"
    assert str(made) == f"mnist: 13 train, 7 test images of 28x28x1 in {made.folder}"
    for split, count in (("train", 13), ("test", 7)):
        found = {e["image"].tobytes(): e["label"] for e in stored("mnist", tmp_path, split)}
        assert found == {image.tobytes(): i % 10 for i, image in enumerate(pixels(count))}
    assert contents(tmp_path / "tfds") == ["mnist"]
    # Classes, colour and text, and the features of TFDS's own builder.
    made = prepare(config("cifar10", tmp_path), str(cifar_files(tmp_path / "cifar")))
    builder = tfds.builder_cls("cifar10")
    assert made.folder.name == str(builder.VERSION)
    features = tfds.builder_from_directory(str(made.folder)).info.features
    expected = builder(data_dir=str(tmp_path / "other")).info.features
    assert features.get_tensor_info() == expected.get_tensor_info()
    names = "airplane automobile bird cat deer dog frog horse ship truck"
    assert features["label"].names == names.split()
    images = np.concatenate([pixels(number, CIFAR_SHAPE) for number in range(1, 6)])
    examples = stored("cifar10", tmp_path, "train")
    assert len(examples) == 15
    for example in examples:
        number = int(example["id"].decode().removeprefix("train_"))
        np.testing.assert_array_equal(example["image"], images[number])
        assert example["label"] == np.repeat(np.arange(1, 6), np.arange(1, 6))[number]


def test_a_fault_in_the_source_leaves_no_data_set(mnist, tmp_path):
    cut(mnist / "t10k-images-idx3-ubyte", 100)
    with pytest.raises(ValueError, match="truncated"):
        prepare(config("mnist", tmp_path), str(mnist))
    # Damage behind the header is only found when the image is written.
    save_images(tmp_path / "source", pixels(5, (32, 32, 3)))
    cut(tmp_path / "source" / "3.png", 1500)
    with pytest.raises(ValueError, match="3.png: it cannot be read"):
        prepare(config("image_folder", tmp_path), str(tmp_path / "source"))
    assert_nothing_written(tmp_path)


def test_an_existing_data_set_is_kept_unless_it_is_to_be_replaced(mnist, tmp_path):
    wanted = config("mnist", tmp_path)
    made = prepare(wanted, str(mnist))
    write_idx(mnist / "t10k-images-idx3-ubyte", np.zeros([5, 28, 28]))
    write_idx(mnist / "t10k-labels-idx1-ubyte", np.zeros(5))
    with pytest.raises(ValueError, match="3.0.1 exists already; --overwrite replaces it"):
        prepare(wanted, str(mnist))
    assert len(stored("mnist", tmp_path, "test")) == 7
    assert prepare(wanted, str(mnist), overwrite=True).folder == made.folder
    assert len(stored("mnist", tmp_path, "test")) == 5
    # A fault must not cost the existing set.
    cut(mnist / "t10k-images-idx3-ubyte", 100)
    with pytest.raises(ValueError, match="truncated"):
        prepare(wanted, str(mnist), overwrite=True)
    assert len(stored("mnist", tmp_path, "test")) == 5
    assert contents(tmp_path / "tfds") == ["mnist"]


def test_a_full_disk_is_one_error_and_leaves_nothing(mnist, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(OSError, match=f"mnist could not be written to {tmp_path}/tfds: File t"):
            prepare(config("mnist", tmp_path), str(mnist))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert_nothing_written(tmp_path)


def test_a_data_set_of_tiles_knows_the_size_of_its_pictures(tmp_path):
    save_images(tmp_path / "source", pixels(3, (12, 20, 3)))
    wanted = config("image_folder", tmp_path)
    prepare(wanted, str(tmp_path / "source"), crop=8)
    assert loading.load(wanted, "train").identity()["tiles_of"] == [12, 20]
    half = dataclasses.replace(wanted, image_size=(4, 4))
    assert loading.load(half, "train").tiles_of == (6, 10)
    prepare(wanted, str(tmp_path / "source"), size=(8, 8), overwrite=True)
    assert loading.load(wanted, "train").tiles_of is None


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("moves", [1, 2])
def test_a_preparation_killed_while_it_replaces_a_set_leaves_one(moves, mnist, tmp_path):
    place = prepare(config("mnist", tmp_path), str(mnist)).folder
    made = tmp_path / "tfds" / ".preparing_killed" / "mnist" / "3.0.1"
    shutil.copytree(place, made)
    (tmp_path / "tfds" / ".preparing_killed.lock").touch()
    (place / "old").write_text("")
    rename, left = pathlib.Path.rename, iter(range(moves))

    def until_killed(path, target):
        if next(left, None) is None:
            raise Killed
        return rename(path, target)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(pathlib.Path, "rename", until_killed)
        tfds_writer.publish(made, place, place)
        raise Killed
    # Before the second move the old set is whole, after it the new one is in its place.
    with pytest.raises(ValueError, match="3.0.1 exists already"):
        prepare(config("mnist", tmp_path), str(mnist))
    assert (place / "old").exists() == (moves == 1)
    assert contents(tmp_path / "tfds") == ["mnist"]
    assert len(stored("mnist", tmp_path, "test")) == 7


# Workspaces.


def test_folders_of_killed_preparations_are_removed(tmp_path):
    for files in (("mnist/3.0.1/half",), ()):
        folder = tmp_path / ".preparing_killed"
        for name in files:
            (folder / name).parent.mkdir(parents=True)
            (folder / name).touch()
        (tmp_path / ".preparing_killed.lock").touch()
        tfds_writer.remove_abandoned(tmp_path)
        assert contents(tmp_path) == []


def test_the_folder_of_a_running_preparation_stays(tmp_path):
    with tfds_writer.workspace(tmp_path) as running:
        (running / "half").touch()
        with tfds_writer.workspace(tmp_path) as other:
            tfds_writer.remove_abandoned(tmp_path)
            assert (running / "half").exists() and other.exists()
        assert contents(tmp_path) == [running.name, f"{running.name}.lock"]
    assert contents(tmp_path) == []


def test_file_systems_without_locks_work_and_keep_every_folder(tmp_path, monkeypatch):
    def no_locks(*_, **__):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(filelock.FileLock, "acquire", no_locks)
    with tfds_writer.workspace(tmp_path / "new") as running:
        (running.parent / f"{running.name}.lock").touch()
        tfds_writer.remove_abandoned(running.parent)
        assert running.exists()
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_a_killed_program_is_cleared_away_by_the_next(mnist, tmp_path):
    for kind, magic in (("images", [30000, 28, 28]), ("labels", 30000)):
        rank = 3 if kind == "images" else 1
        write_idx(mnist / f"train-{kind}-idx{rank}-ubyte.gz", np.zeros(magic))
    where = tmp_path / "tfds"
    code = (
        "from matnet_tf.config import DataConfig; from matnet_tf.data.prepare import prepare; "
        f"prepare(DataConfig(name='mnist', dir={str(where)!r}), {str(mnist)!r})"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as program:
        while not list(where.glob(".preparing_*/mnist/*")) and program.poll() is None:
            time.sleep(0.01)
        tfds_writer.remove_abandoned(where)  # It still runs.
        assert list(where.glob(".preparing_*/mnist/*"))
        program.kill()
    assert program.returncode == -signal.SIGKILL
    assert all(name.startswith(".preparing_") for name in contents(where))
    assert prepare(config("mnist", tmp_path), str(mnist_files(tmp_path / "small"))).splits
    assert contents(where) == ["mnist"]


# Names, strangers, downloads.


def test_a_data_set_of_a_stranger_runs_no_code(tmp_path, monkeypatch):
    folder = prepare(config("mnist", tmp_path), str(mnist_files(tmp_path / "mnist"))).folder
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass X: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    description = folder / "features.json"
    own = "tensorflow_datasets.core.features.image_feature.Image"
    text = description.read_text()
    assert own in text
    for name in ("evil.X", "tensorflow_datasets_evil.X"):
        description.write_text(text.replace(own, name))
        with pytest.raises(ValueError, match=f"has features of the class {name}: only those of TF"):
            loading.load(config("mnist", tmp_path), "train")
    assert not (tmp_path / "ran").exists()


def test_without_a_home_directory_the_data_directory_must_be_named(monkeypatch):
    def no_home(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(pathlib.Path, "expanduser", no_home)
    with pytest.raises(ValueError, match="there is no home directory for data sets: say where"):
        tfds_writer.data_dir("")


def test_what_cannot_be_prepared_is_refused(tmp_path):
    for name, arguments, message in (
        ("digits", {}, "digits is embedded"),
        ("svhn_cropped", {"source": "."}, "--source works for mnist, .*; got 'svhn_cropped'"),
        ("mnist", {"source": "/no/folder"}, "the source /no/folder does not exist"),
        ("mnist", {"size": (8, 8)}, "a size or crop goes with image_folder only"),
        ("omniglot28", {}, "omniglot28 needs --source=DIR, a folder with chardata.mat"),
        ("tiny_shakespeare", {}, "tiny_shakespeare has no feature `image`; it has text"),
        ("no_such_set", {}, "TFDS has no data set 'no_such_set'"),
    ):
        with pytest.raises(ValueError, match=message):
            prepare(config(name, tmp_path), **arguments)
    assert_nothing_written(tmp_path)


def test_without_a_network_a_download_fails_at_once(tmp_path, monkeypatch):
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    tried = []

    def unreachable(address, timeout):
        tried.append(address)
        assert timeout < 5
        raise OSError("no route")

    monkeypatch.setattr(socket, "create_connection", unreachable)
    # Images of varying size are no reason not to download a set.
    for name in ("mnist", "lsun/church_outdoor"):
        start = time.monotonic()
        with pytest.raises(ValueError, match=f"cannot download {name}: no connection to .*no rout"):
            prepare(config(name, tmp_path))
        assert time.monotonic() - start < 5
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    with pytest.raises(ValueError, match="no connection to proxy.example:3128"):
        prepare(config("mnist", tmp_path))
    expected = [("storage.googleapis.com", 443), ("dl.yf.io", 80), ("proxy.example", 3128)]
    assert tried == expected
    assert_nothing_written(tmp_path)


def test_a_silent_name_server_is_not_waited_for(tmp_path, monkeypatch):
    over = threading.Event()

    def look_up(*_):
        over.wait(30)
        raise OSError

    monkeypatch.setattr(socket, "create_connection", look_up)
    monkeypatch.setattr(prepare_module, "_PROBE_SECONDS", 0.1)
    with pytest.raises(ValueError, match=r"no connection to .* \(no answer in 0.1 s\)"):
        prepare(config("mnist", tmp_path))
    over.set()


def test_find_takes_the_newest_version_and_the_only_config(tmp_path):
    def make_empty_set(folder):
        folder.mkdir(parents=True)
        for name in ("dataset_info.json", "features.json"):
            (folder / name).write_text("{}")

    assert find("a", str(tmp_path)) is None
    for path in ("a/1.9.0", "a/1.10.0", "b/small/2.0.0", "a/3.0.0.incomplete"):
        make_empty_set(tmp_path / path)
    (tmp_path / "a" / "4.0.0").mkdir()
    assert find("a", str(tmp_path)) == tmp_path / "a" / "1.10.0"
    assert find("a:1.9.0", str(tmp_path)) == tmp_path / "a" / "1.9.0"
    assert find("a:2.0.0", str(tmp_path)) is None
    assert find("b", str(tmp_path)) == tmp_path / "b/small/2.0.0"
    make_empty_set(tmp_path / "b/large/2.0.0")
    with pytest.raises(ValueError, match="several configs of b; name one of b/large, b/small"):
        find("b", str(tmp_path))
    assert find("b/large", str(tmp_path)) == tmp_path / "b/large/2.0.0"


def test_torn_files_of_a_streamed_set_are_named_when_they_are_read(mnist, tmp_path, monkeypatch):
    monkeypatch.setattr(tfds_reader, "MEMORY_BYTES", 0)
    folder = prepare(config("mnist", tmp_path), str(mnist)).folder
    (path,) = folder.glob("*test.tfrecord*")
    content = path.read_bytes()
    middle = len(content) // 2
    for damaged, reason in (
        (content[:-9], "truncated record at"),
        (content[:middle] + b"damage" + content[middle + 6 :], "corrupted record at"),
        (content[: 16 + struct.unpack("<Q", content[:8])[0]], "contain 7 elements but .* only 1"),
    ):
        path.write_bytes(damaged)
        split = loading.load(config("mnist", tmp_path), "test")
        message = rf"data set in {folder} is damaged \(.*{reason}.*\); prepare it again"
        with pytest.raises(ValueError, match=message), split.images.reading():
            list(split.evaluation_dataset(3))
        with pytest.raises(ValueError, match=message):
            split.identity()


def test_a_damaged_data_set_is_named_in_one_line(mnist, tmp_path):
    folder = prepare(config("mnist", tmp_path), str(mnist)).folder
    for pattern, change in (
        ("*test.tfrecord*", lambda content: content[:-9]),
        ("*test.tfrecord*", lambda content: b""),
        ("*test.tfrecord*", None),
        ("*test.tfrecord*", os.mkfifo),
        ("features.json", lambda content: b'{"a": ' + 100_000 * b"["),
        ("features.json", lambda content: content.replace(b"{", b'{"a": Infinity, ', 1)),
        ("dataset_info.json", lambda content: b"\xff" + content),
        ("dataset_info.json", lambda content: content.replace(b'"7"', b'"8"')),
        ("features.json", lambda content: content.replace(b'"uint8"', b"3")),
    ):
        (path,) = folder.glob(pattern)
        content = path.read_bytes()
        path.unlink()
        if change is os.mkfifo:
            change(path)
        elif change:
            path.write_bytes(change(content))
            assert path.read_bytes() != content
        with pytest.raises(ValueError, match=rf"data set in {folder} is damaged \(.+\); prepare"):
            loading.load(config("mnist", tmp_path), "test")
        path.unlink(missing_ok=True)
        path.write_bytes(content)
    assert loading.load(config("mnist", tmp_path), "test").num_images == 7
