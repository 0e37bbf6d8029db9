# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Files that are whole or absent, folders that are not left empty, and locks between processes.

A pipe or a device in the place of a file is refused, not waited for.

The system releases a lock when the process that holds it ends, however it ends.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import math
import os
import pathlib
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import filelock

__all__ = [
    "config_path",
    "folder_for_work",
    "lock_part",
    "locked",
    "open_file",
    "printable",
    "read_file",
    "read_json",
    "reason_of",
    "remove_abandoned",
    "unlock_part",
    "workspace",
    "write_whole",
]

# What file systems without locks answer.
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP}
_MANY = 32  # More files go to the disk together, in a tenth of the time that each alone takes.
_LOCK = ".lock"  # Ends the name of the file that says that a workspace is in use.
# TensorFlow's messages contain the name of the operation.
_OPERATION = re.compile(r"\{\{.*?\}\}\s*|\s*\[Op:.*")


def config_path(workdir: str | os.PathLike) -> pathlib.Path:
    """Returns the path of the config.json of a work directory.

    Raises:
      ValueError: If there is none, so that the folder is not a work directory.
    """
    path = pathlib.Path(workdir, "config.json")
    if not path.is_file():
        raise ValueError(f"{workdir} is not a work directory: it has no config.json")
    return path


def open_file(path: str | os.PathLike, mode: str = "r", **keywords: Any) -> Any:
    """Opens a file as `open` does, but no pipe or device, and writes through no symbolic link.

    Raises:
      OSError: If it cannot be opened, or is something else than a file.
    """

    def opener(name, flags):
        flags |= os.O_NONBLOCK | (0 if mode.startswith("r") else os.O_NOFOLLOW)
        descriptor = os.open(name, flags, 0o666)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
        os.close(descriptor)
        raise OSError(errno.EINVAL, "It is not a file", name)

    return open(path, mode, opener=opener, **keywords)


def read_file(path: str | os.PathLike) -> bytes:
    """Returns the bytes of a file; raises as `open_file` does."""
    with open_file(path, "rb") as file:
        return file.read()


def printable(name: str | os.PathLike) -> str:
    """Returns the name of a file with a mark in place of bytes that are no UTF-8."""
    return os.fsencode(name).decode("utf-8", "replace")


def read_json(path: str | os.PathLike) -> Any:
    """Returns the tree in a JSON file.

    Raises:
      OSError: If it cannot be read.
      ValueError: If it is not JSON in UTF-8, is nested too deeply, or holds an infinite number or
        NaN, which JSON has not and Python would take.
    """
    text = read_file(path).decode("utf-8")
    try:
        return json.loads(text, parse_constant=_finite, parse_float=_finite)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"it holds the number {text}")
    return value


def write_whole(contents: Mapping[pathlib.Path, bytes]) -> None:
    """Writes files so that each is always whole, old or new, for readers and after a crash.

    All contents are on the disk before the first file is replaced, so a full disk leaves every file
    as it was. An error or an interrupt leaves no temporary file behind.

    Args:
      contents: The bytes of each file.

    Raises:
      OSError: If a file cannot be written; it names the file.
    """
    # A name that nobody can guess, so that no link waits there; short, as the file's may be long.
    temporary = {path: path.with_name(f".{secrets.token_hex(8)}.tmp") for path in contents}
    try:
        together = len(contents) > _MANY
        for path, content in contents.items():
            _write(temporary[path], content, path, sync=not together)
        if together:
            os.sync()
        for path in contents:
            os.replace(temporary[path], path)
    finally:
        for path in temporary.values():
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def _write(temporary: pathlib.Path, content: bytes, path: pathlib.Path, sync: bool) -> None:
    """Writes a temporary file, to the disk if it is synced; an error names the final path."""
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with os.fdopen(os.open(temporary, flags, 0o666), "wb") as file:
            file.write(content)
            if sync:
                file.flush()
                os.fsync(file.fileno())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


@contextlib.contextmanager
def folder_for_work(path: pathlib.Path) -> Iterator[None]:
    """Creates a folder for the files of a block of code, and removes it if none were written."""
    created = not path.exists()
    path.mkdir(exist_ok=True)
    try:
        yield
    finally:
        if created:
            with contextlib.suppress(OSError):
                path.rmdir()


@contextlib.contextmanager
def workspace(directory: pathlib.Path, prefix: str) -> Iterator[pathlib.Path]:
    """Makes a temporary folder in a directory and removes it at the end.

    The directory is removed too if it did not exist before and stays empty. A lock file beside the
    folder, which the system unlocks when the process ends, tells `remove_abandoned` that the folder
    is in use.

    Args:
      directory: The directory.
      prefix: How the name of the folder begins; the rest is random.
    """
    existed = directory.exists()
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{prefix}{secrets.token_hex(8)}"
    lock_file = path.with_suffix(_LOCK)
    try:
        with locked(lock_file):
            path.mkdir()
            yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        with contextlib.suppress(OSError):
            lock_file.unlink()
        if not existed:
            with contextlib.suppress(OSError):  # It is not empty.
                directory.rmdir()


def remove_abandoned(
    directory: pathlib.Path, prefix: str, first: Callable[[pathlib.Path], None] = lambda path: None
) -> None:
    """Removes the workspaces of killed processes; those of running ones stay.

    Args:
      directory: The directory.
      prefix: As in `workspace`.
      first: Called with each folder before it is removed.
    """
    for lock_file in directory.glob(f"{prefix}*{_LOCK}"):
        path = lock_file.with_suffix("")
        # A folder in use raises filelock.Timeout, an OSError; another user's, a PermissionError.
        with contextlib.suppress(OSError), locked(lock_file, timeout=0) as held:
            if held:
                first(path)
                shutil.rmtree(path, ignore_errors=True)
                lock_file.unlink()


@contextlib.contextmanager
def locked(path: str | os.PathLike, timeout: float = -1) -> Iterator[bool]:
    """Holds a lock on a file, which it creates, inside a with statement.

    Args:
      path: The file.
      timeout: Seconds to wait for another process; -1 waits for as long as it takes.

    Yields:
      False if the file system has no locks, so that nothing is held.

    Raises:
      filelock.Timeout: If another process holds the lock.
      OSError: If the file cannot be written.
    """
    # filelock's substitute, a marker file, would outlive a process killed on another machine.
    lock = filelock.FileLock(path, timeout=timeout, fallback_to_soft=False)
    try:
        lock.acquire()
    except NotImplementedError:
        pass  # How filelock 3 says that there are no locks.
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    try:
        yield lock.is_locked
    finally:
        lock.release()


def lock_part(file: Any, number: int) -> bool:
    """Locks one of the numbered parts of a file for this process, until `unlock_part`.

    Args:
      file: A file object, open for writing.
      number: Number of the part, from 0.

    Returns:
      False if another process holds the lock.

    Raises:
      OSError: If the file system has no locks.
    """
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
    except (BlockingIOError, PermissionError):
        return False
    return True


def unlock_part(file: Any, number: int) -> None:
    """Releases the lock of a part; does nothing if the file system has no locks."""
    with contextlib.suppress(OSError):
        fcntl.lockf(file, fcntl.LOCK_UN, 1, number)


def reason_of(error: BaseException) -> str:
    """Returns why a file could not be read or written, in one short line.

    Args:
      error: An error of the system, of TensorFlow or of another library.
    """
    lines = _OPERATION.sub("", str(error)).strip().splitlines()
    if lines and lines[0].startswith("Graph execution error"):
        # The message follows the places in the code where the operation was made.
        lines = [line for line in lines if line and not line[0].isspace()][-1:]
    # TensorFlow puts the system's message last, after a long path.
    words = lines[0].rsplit("; ", 1)[-1] if lines else ""
    return words[:200] or type(error).__name__
