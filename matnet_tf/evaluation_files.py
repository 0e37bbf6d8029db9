# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""What evaluation leaves in a work directory: bounds of every image, and evaluation.json.

Also how the files of any work with a trained model appear: whole, in a folder that is not left
empty (`write_whole`, `folder_for_work`).
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import pathlib
import sys
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from matnet_tf import experiment

__all__ = [
    "PerImage",
    "append_record",
    "folder_for_work",
    "load_batches",
    "read_records",
    "save_batch",
    "write_whole",
]


class PerImage(NamedTuple):
    """Bounds on log p(x), image by image, float64, in nats."""

    log_likelihood: dict[int, np.ndarray]  # {K: [N]}: the K-sample bound, for nested K
    elbo: np.ndarray  # [N]: Eq. 5 with the KL in closed form, mean over ELBO_SAMPLES draws
    kl: dict[str, np.ndarray]  # {level: [N]}: mean over the same draws
    dims: np.ndarray  # [N]: values that the bound is on: the image's, or those that are hidden


def save_batch(path: pathlib.Path, part: PerImage, images: np.ndarray, seconds: float) -> None:
    """Writes the results of a batch, so that a crash leaves a whole file or none."""
    buffer = io.BytesIO()
    bounds = {f"log_likelihood/{k}": v for k, v in part.log_likelihood.items()}
    kl = {f"kl/{level}": v for level, v in part.kl.items()}
    arrays = {"images": images, "elbo": part.elbo, "dims": part.dims, "seconds": seconds}
    np.savez(buffer, **arrays, **bounds, **kl)
    write_whole({path: buffer.getvalue()})


def write_whole(contents: Mapping[pathlib.Path, bytes]) -> None:
    """Writes files so that a reader, or a crash, sees each as it was or whole.

    An error or an interrupt in the writing leaves all of them as they were, and nothing beside.
    """
    temporary = {path: path.with_name(f"{path.name}.{os.getpid()}.tmp") for path in contents}
    try:
        for path, content in contents.items():
            temporary[path].write_bytes(content)
        for path in contents:
            os.replace(temporary[path], path)
    finally:
        for path in temporary.values():
            path.unlink(missing_ok=True)


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


def load_batches(folder: pathlib.Path, most: int) -> list[tuple[PerImage, float]]:
    """The batches that are saved already, with their seconds, up to the first that is not."""
    found = []
    for number in range(most):
        path = folder / f"{number:06d}.npz"
        try:
            found.append(_load_batch(path))
        except FileNotFoundError:
            break
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            print(f"evaluate: {path} is computed again: {error}", file=sys.stderr)
            break
    return found


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


def append_record(workdir: pathlib.Path, record: dict[str, Any]) -> None:
    """Adds a record to evaluation.json; one evaluation at a time, and never half of a file."""
    with _locked(workdir):
        records = [*read_records(workdir), record]
        text = json.dumps(records, indent=2, allow_nan=False) + "\n"
        experiment.write_atomically(workdir / "evaluation.json", text)


@contextlib.contextmanager
def _locked(folder: pathlib.Path) -> Iterator[None]:
    """Holds a lock on a folder, which the system lets go of when the process ends."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
