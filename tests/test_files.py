# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Files are whole or not there, and a lock goes with the process that held it."""

import errno
import os
import subprocess
import sys

import pytest

from matnet_tf.files import folder_for_work, lock, lock_part, unlock_part, write_whole


def test_a_file_that_cannot_be_written_leaves_the_old_ones_and_nothing_beside(
    tmp_path, monkeypatch
):
    path, other = tmp_path / "metrics.csv", tmp_path / "other"
    write_whole({path: b"old"})

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device: '.*metrics.csv'"):
        write_whole({path: b"new", other: b"more"})
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_folder_for_work_is_not_left_empty_and_one_that_was_there_stays(tmp_path):
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
print(files.lock(file), files.lock_part(file, 3), flush=True)
sys.stdin.read()
"""


def test_a_lock_is_held_until_its_process_is_gone(tmp_path):
    path = tmp_path / "lock"
    command = [sys.executable, "-c", HOLDER, str(path)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline().split() == ["True", "True"]
        with path.open("a") as file:
            assert not lock(file) and not lock_part(file, 3)
            assert lock_part(file, 2)
            unlock_part(file, 2)
            holder.kill()
            holder.wait()
            assert lock(file, wait=True) and lock(file) and lock_part(file, 3)
    finally:
        holder.kill()
        holder.communicate()
