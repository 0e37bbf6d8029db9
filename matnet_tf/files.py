# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Files that are whole or not there, folders that are not left empty, locks between processes.

The system lets go of a lock when the process that holds it ends, however that comes about.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = [
    "config_path",
    "folder_for_work",
    "lock",
    "lock_part",
    "reason_of",
    "unlock_part",
    "write_whole",
]

# What TensorFlow puts around its words: the operation.
_OPERATION = re.compile(r"\{\{.*?\}\}\s*|\s*\[Op:.*")


def config_path(workdir: str | os.PathLike) -> pathlib.Path:
    """The config.json of a work directory.

    Raises:
      ValueError: if there is none, so that it is no work directory.
    """
    path = pathlib.Path(workdir, "config.json")
    if not path.is_file():
        raise ValueError(f"{workdir} is not a work directory: it has no config.json")
    return path


def write_whole(contents: Mapping[pathlib.Path, bytes]) -> None:
    """Writes files so that a reader, or a crash, sees each as it was or whole.

    An error or an interrupt in the writing leaves all of them as they were, and nothing beside.

    Raises:
      OSError: that names the file that could not be written.
    """
    temporary = {path: path.with_name(f"{path.name}.{os.getpid()}.tmp") for path in contents}
    try:
        for path, content in contents.items():
            _write_through(temporary[path], content, path)
        for path in contents:
            os.replace(temporary[path], path)
    finally:
        for path in temporary.values():
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def _write_through(temporary: pathlib.Path, content: bytes, path: pathlib.Path) -> None:
    """Writes a file, to the disk itself; of a full one the error names the path meant."""
    try:
        temporary.write_bytes(content)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


@contextlib.contextmanager
def folder_for_work(path: pathlib.Path) -> Iterator[None]:
    """Makes a folder before the work whose files it is for, and removes it if there are none."""
    made = not path.exists()
    path.mkdir(exist_ok=True)
    try:
        yield
    finally:
        if made:
            with contextlib.suppress(OSError):
                path.rmdir()


def lock(file: Any, wait: bool = False) -> bool:
    """Locks an open file, or a folder, for this process until it is closed.

    Args:
      file: what has a descriptor, or a descriptor.
      wait: whether to wait until other processes have let go of it.

    Returns:
      held: False if another process holds it.

    Raises:
      OSError: if the file system has no locks.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def lock_part(file: Any, number: int) -> bool:
    """Locks one of the numbered parts of a file open for writing, until `unlock_part`.

    Returns:
      held: False if another process holds it.

    Raises:
      OSError: if the file system has no locks.
    """
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
    except (BlockingIOError, PermissionError):
        return False
    return True


def unlock_part(file: Any, number: int) -> None:
    """Lets go of a part; nothing happens where the file system has no locks."""
    with contextlib.suppress(OSError):
        fcntl.lockf(file, fcntl.LOCK_UN, 1, number)


def reason_of(error: BaseException) -> str:
    """Why a file could not be read or written, in one short line, as a library's error has it."""
    lines = _OPERATION.sub("", str(error)).strip().splitlines()
    # TensorFlow puts the system's own words last, behind a long path.
    words = lines[0].rsplit("; ", 1)[-1] if lines else ""
    return words[:200] or type(error).__name__
