# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Files are whole or absent, and a lock ends with the process that holds it."""

import errno
import os
import secrets
import subprocess
import sys

import pytest

from matnet_tf.files import (
    config_path,
    folder_for_work,
    lock_part,
    open_file,
    read_file,
    read_json,
    reason_of,
    unlock_part,
    write_whole,
)


def test_if_a_file_cannot_be_written_the_old_ones_stay_and_nothing_else(tmp_path, monkeypatch):
    path, other = tmp_path / "metrics.csv", tmp_path / "other"
    write_whole({path: b"old"})

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device: '.*metrics.csv'"):
        write_whole({path: b"new", other: b"more"})
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_no_link_is_written_through(tmp_path, monkeypatch):
    outside = tmp_path / "outside"
    outside.write_bytes(b"theirs")
    (tmp_path / "link").symlink_to(outside)
    write_whole({tmp_path / "link": b"ours"})  # The link is replaced, not what it points to.
    assert outside.read_bytes() == b"theirs" and (tmp_path / "link").read_bytes() == b"ours"
    monkeypatch.setattr(secrets, "token_hex", lambda size: "guessed")
    (tmp_path / ".guessed.tmp").symlink_to(outside)
    with pytest.raises(OSError, match="File exists|Too many levels"):
        write_whole({tmp_path / "a": b"ours"})
    assert outside.read_bytes() == b"theirs"


def test_only_files_are_opened(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("theirs")
    (tmp_path / "link").symlink_to(outside)
    os.mkfifo(tmp_path / "pipe")
    assert read_file(tmp_path / "link") == b"theirs"
    for name, mode, message in (
        ("pipe", "r", "It is not a file"),  # It would wait for a writer, and the next for a reader.
        ("pipe", "a", "No such device"),
        ("/dev/zero", "rb", "It is not a file"),
        ("link", "w", "Too many levels of symbolic links"),
        ("absent", "r", "No such file"),
    ):
        with pytest.raises(OSError, match=message):
            open_file(tmp_path / name, mode)
    assert outside.read_text() == "theirs"


def test_json_is_strict(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": [1, 2.5e3, null]}')
    assert read_json(path) == {"a": [1, 2500.0, None]}
    for text, message in (
        (100_000 * "[", "nested too deeply"),
        ("[Infinity]", "the number Infinity"),
        ("[-1e999]", "the number -1e999"),
        ("[NaN]", "the number NaN"),
        ("[", "Expecting value"),
        ("\xff", "codec can't decode"),
    ):
        path.write_text(text, encoding="latin-1")
        with pytest.raises(ValueError, match=message):
            read_json(path)


def test_only_a_folder_that_existed_before_is_left_empty(tmp_path):
    for name, there, filled in (("a", False, False), ("b", False, True), ("c", True, False)):
        path = tmp_path / name
        if there:
            path.mkdir()
        with folder_for_work(path):
            if filled:
                (path / "file").write_text("x")
        assert path.exists() == (there or filled)


HOLDER = """
import sys
from matnet_tf import files
file = open(sys.argv[1], "a")
print(files.lock_part(file, 3), flush=True)
sys.stdin.read()
"""


def test_locks_are_held_until_their_process_ends(tmp_path):
    path = tmp_path / "lock"
    command = [sys.executable, "-c", HOLDER, str(path)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "True\n"
        with path.open("a") as file:
            assert not lock_part(file, 3)
            assert lock_part(file, 2)
            unlock_part(file, 2)
            holder.kill()
            holder.wait()
            assert lock_part(file, 3)
    finally:
        holder.kill()
        holder.communicate()


def test_a_work_directory_has_a_config(tmp_path):
    with pytest.raises(ValueError, match="is not a work directory: it has no config.json"):
        config_path(tmp_path)
    (tmp_path / "config.json").touch()
    assert config_path(tmp_path) == tmp_path / "config.json"


def test_reasons_of_errors_are_one_short_line():
    for text, reason in {
        "{{function_node __wrapped__SaveV2}} /a/b.tmp; No space left on device [Op:SaveV2]": (
            "No space left on device"
        ),
        (
            "Graph execution error:\n\nDetected at node A defined at (most recent call last):\n"
            "  File b.py, line 1\n\ntruncated record at 9\n\t [[{{node A}}]] [Op:__inference_1]"
        ): "truncated record at 9",
        "not an image\nsecond line": "not an image",
        "x" * 300: "x" * 200,
        "": "ValueError",
    }.items():
        assert reason_of(ValueError(text)) == reason
