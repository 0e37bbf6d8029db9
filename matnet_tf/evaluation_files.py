# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""What evaluation leaves in a work directory: bounds of every image, and evaluation.json."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pathlib
import sys
import zipfile
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from matnet_tf.files import lock, lock_part, unlock_part, write_whole

__all__ = [
    "BatchFiles",
    "PerImage",
    "append_record",
    "damaged",
    "read_records",
]


class PerImage(NamedTuple):
    """Bounds on log p(x), image by image, float64, in nats."""

    log_likelihood: dict[int, np.ndarray]  # {K: [N]}: the K-sample bound, for nested K
    elbo: np.ndarray  # [N]: Eq. 5 with the KL in closed form, mean over ELBO_SAMPLES draws
    kl: dict[str, np.ndarray]  # {level: [N]}: mean over the same draws
    dims: np.ndarray  # [N]: values that the bound is on: the image's, or those that are hidden


_DAMAGED = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)


def damaged(folder: pathlib.Path, count: int) -> bool:
    """Whether any of `count` batches, which were whole once, cannot be read from a folder any more.

    It is none that is damaged where somebody has removed the folder.
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


class BatchFiles:
    """The results of an evaluation, one file per batch, which several processes fill together.

    A process that works at a batch holds a lock on its number, which the system lets go of when
    the process ends. Where the file system has no locks, a batch may be measured twice.

    Args:
      folder: where the files are.
      count: how many batches there are.
    """

    def __init__(self, folder: pathlib.Path, count: int):
        self.found: dict[int, tuple[PerImage, float]] = {}  # results and seconds by number
        self._folder, self._count = folder, count
        self._claims = (folder / "claims").open("a")

    def __enter__(self) -> BatchFiles:
        self.missing()
        return self

    def __exit__(self, *error: Any) -> None:
        self._claims.close()

    def missing(self) -> list[int]:
        """The batches that have no result yet; those of other processes are read on the way."""
        for number in range(self._count):
            if number not in self.found:
                self._read(number)
        return [number for number in range(self._count) if number not in self.found]

    def claim(self, number: int) -> bool:
        """Whether this process is to measure a batch: nobody else does, nor has done."""
        try:
            held = lock_part(self._claims, number)
        except OSError as error:
            print(f"evaluate: no locks in {self._folder} ({error.strerror})", file=sys.stderr)
            held = True
        return held and not self._read(number)

    def save(self, number: int, part: PerImage, images: np.ndarray, seconds: float) -> None:
        """Writes the results of a batch, so that a crash leaves a whole file or none."""
        buffer = io.BytesIO()
        bounds = {f"log_likelihood/{k}": v for k, v in part.log_likelihood.items()}
        kl = {f"kl/{level}": v for level, v in part.kl.items()}
        arrays = {"images": images, "elbo": part.elbo, "dims": part.dims, "seconds": seconds}
        np.savez(buffer, **arrays, **bounds, **kl)
        write_whole({self._path(number): buffer.getvalue()})
        self.found[number] = part, seconds
        unlock_part(self._claims, number)

    def _path(self, number: int) -> pathlib.Path:
        return _batch_file(self._folder, number)

    def _read(self, number: int) -> bool:
        """Whether a batch is done; it is then among those found."""
        try:
            self.found[number] = _load_batch(self._path(number))
        except FileNotFoundError:
            return False
        except _DAMAGED as error:
            print(f"evaluate: {self._path(number)} is computed again: {error}", file=sys.stderr)
            self._path(number).unlink(missing_ok=True)
            return False
        return True


def _load_batch(path: pathlib.Path) -> tuple[PerImage, float]:
    # From memory, since NumPy leaves a damaged file open.
    with np.load(io.BytesIO(path.read_bytes())) as stored:
        arrays = dict(stored)

    def under(prefix):
        return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}

    bounds = {int(k): v for k, v in under("log_likelihood/").items()}
    part = PerImage(bounds, arrays["elbo"], under("kl/"), arrays["dims"])
    return part, float(arrays["seconds"])


def read_records(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """The records of evaluation.json; none where there is no such file.

    Raises:
      ValueError: if the file is not a list of records.
    """
    path = workdir / "evaluation.json"
    if not path.exists():
        return []
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        records, reason = None, str(error)
    else:
        reason = "it is not a list of records with a key"
    if isinstance(records, list) and all(isinstance(r, dict) and "key" in r for r in records):
        return records
    raise ValueError(f"{path} is not a file of bin/evaluate ({reason}); move it away to go on")


def append_record(workdir: pathlib.Path, record: dict[str, Any]) -> dict[str, Any]:
    """Adds a record to evaluation.json, unless another process has added one of its key.

    One evaluation at a time, and never half of a file.

    Returns:
      The record of that key, as it stands there.
    """
    with _locked(workdir):
        records = read_records(workdir)
        for other in records:
            if other["key"] == record["key"]:
                return other
        text = json.dumps([*records, record], indent=2, allow_nan=False) + "\n"
        write_whole({workdir / "evaluation.json": text.encode()})
        return record


@contextlib.contextmanager
def _locked(folder: pathlib.Path) -> Iterator[None]:
    """Holds a lock on a folder, which the system lets go of when the process ends."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        lock(descriptor, wait=True)
        yield
    finally:
        os.close(descriptor)
