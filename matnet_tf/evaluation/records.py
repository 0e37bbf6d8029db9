# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The files of an evaluation: bounds of every image, and evaluation.json."""

from __future__ import annotations

import hashlib
import io
import json
import pathlib
import sys
import zipfile
from typing import Any, NamedTuple

import numpy as np

from matnet_tf.files import (
    lock_part,
    locked,
    open_file,
    read_file,
    read_json,
    unlock_part,
    write_whole,
)

__all__ = ["BatchFiles", "PerImage", "append_record", "change_record", "damaged", "read_records"]

_DAMAGED = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)


class PerImage(NamedTuple):
    """Bounds on log p(x) of N images, float64, in nats."""

    log_likelihood: dict[int, np.ndarray]  # {K: [N]}: the K-sample bound, for nested K
    elbo: np.ndarray  # [N]: Eq. 5 with the KL of `Level.kl`, mean over ELBO_SAMPLES draws
    kl: dict[str, np.ndarray]  # {level: [N]}: mean over the same draws
    dims: np.ndarray  # [N]: number of values that the bound is on, all or those that are hidden


class BatchFiles:
    """The results of an evaluation, one file per batch, which several processes fill together.

    A process that measures a batch holds a lock on its number; the lock ends with the process. On
    a file system without locks, a batch may be measured twice.

    Args:
      folder: Folder of the files.
      count: Number of batches.
    """

    def __init__(self, folder: pathlib.Path, count: int):
        self.found: dict[int, tuple[PerImage, float]] = {}  # results and seconds by number
        self._folder, self._count = folder, count
        self._claims = open_file(folder / "claims", "a")
        self._has_locks = True  # As far as is known.

    def __enter__(self) -> BatchFiles:
        self.missing()
        return self

    def __exit__(self, *error: Any) -> None:
        self._claims.close()

    def num_images(self) -> int:
        """Counts the images of the batches found so far."""
        return sum(len(part.elbo) for part, _ in self.found.values())

    def missing(self) -> list[int]:
        """Lists the batches without a result, after reading what other processes have saved."""
        for number in range(self._count):
            if number not in self.found:
                self._read(number)
        return [number for number in range(self._count) if number not in self.found]

    def claim(self, number: int) -> bool:
        """Locks a batch; returns False if another process measures it or has measured it."""
        try:
            held = lock_part(self._claims, number)
        except OSError as error:
            if self._has_locks:
                print(f"evaluate: no locks in {self._folder} ({error.strerror})", file=sys.stderr)
            held, self._has_locks = True, False
        return held and not self._read(number)

    def save(self, number: int, part: PerImage, images: np.ndarray, seconds: float) -> None:
        """Writes the results of a batch and unlocks it; a crash leaves a whole file or none."""
        buffer = io.BytesIO()
        bounds = {f"log_likelihood/{k}": v for k, v in part.log_likelihood.items()}
        kl = {f"kl/{level}": v for level, v in part.kl.items()}
        arrays = {"images": images, "elbo": part.elbo, "dims": part.dims, "seconds": seconds}
        np.savez(buffer, **arrays, **bounds, **kl)
        content = buffer.getvalue()
        write_whole({_batch_file(self._folder, number): content + _checksum(content)})
        self.found[number] = part, seconds
        unlock_part(self._claims, number)

    def _read(self, number: int) -> bool:
        """Adds a batch to those found; returns False if there is no whole file of it."""
        path = _batch_file(self._folder, number)
        try:
            self.found[number] = _load_batch(path)
        except FileNotFoundError:
            return False
        except _DAMAGED as error:
            print(f"evaluate: {path} is damaged and is computed again: {error}", file=sys.stderr)
            path.unlink(missing_ok=True)
            return False
        return True


def damaged(folder: pathlib.Path, count: int) -> bool:
    """Returns whether any of the `count` batches of a finished evaluation cannot be read.

    A folder that was removed does not count as damaged.
    """
    if not folder.is_dir():
        return False
    for number in range(count):
        try:
            _load_batch(_batch_file(folder, number))
        except _DAMAGED:
            return True
    return False


def _batch_file(folder: pathlib.Path, number: int) -> pathlib.Path:
    return folder / f"{number:06d}.npz"


def _checksum(content: bytes) -> bytes:
    """What follows the content of a file: a zip file's own does not cover every bit."""
    return hashlib.sha256(content).digest()


def _load_batch(path: pathlib.Path) -> tuple[PerImage, float]:
    stored = read_file(path)
    content, checksum = stored[:-32], stored[-32:]
    if _checksum(content) != checksum:
        raise ValueError("its checksum does not fit")
    # NumPy would leave a damaged file open, so it reads from memory.
    with np.load(io.BytesIO(content)) as stored:
        arrays = dict(stored)

    def under(prefix):
        return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}

    bounds = {int(k): v for k, v in under("log_likelihood/").items()}
    part = PerImage(bounds, arrays["elbo"], under("kl/"), arrays["dims"])
    return part, float(arrays["seconds"])


def read_records(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """Reads the records of evaluation.json; returns an empty list if there is no such file.

    Raises:
      ValueError: If the file is not a list of records.
    """
    path = workdir / "evaluation.json"
    if not path.exists():
        return []
    try:
        records = read_json(path)
    except (OSError, ValueError) as error:
        records, reason = None, str(error)
    else:
        reason = "it is not a list of records with a key"
    if isinstance(records, list) and all(isinstance(r, dict) and "key" in r for r in records):
        return records
    raise ValueError(
        f"{path} is not a file written by matnet evaluate ({reason}); move it away to continue"
    )


def append_record(workdir: pathlib.Path, record: dict[str, Any]) -> dict[str, Any]:
    """Adds a record to evaluation.json, unless another process has added one with its key.

    Returns:
      The record with that key, as it is in the file.
    """
    with locked(workdir / "evaluation" / "lock"):
        records = read_records(workdir)
        for other in records:
            if other["key"] == record["key"]:
                return other
        text = json.dumps([*records, record], indent=2, allow_nan=False) + "\n"
        write_whole({workdir / "evaluation.json": text.encode()})
        return record


def change_record(workdir: pathlib.Path, record: dict[str, Any]) -> dict[str, Any]:
    """Puts a record in the place of the one with its key in evaluation.json, and returns it."""
    with locked(workdir / "evaluation" / "lock"):
        records = [
            record if other["key"] == record["key"] else other for other in read_records(workdir)
        ]
        text = json.dumps(records, indent=2, allow_nan=False) + "\n"
        write_whole({workdir / "evaluation.json": text.encode()})
    return record
