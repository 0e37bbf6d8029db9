# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The files of a work directory: its config, its metrics, its lock.

config.json      the resolved experiment with package version and commit, written first
metrics.csv      one row per checkpoint
checkpoints/     see `runs.checkpoints`
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import math
import os
import pathlib
import re
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import filelock

from matnet_tf import presets
from matnet_tf.config import Experiment
from matnet_tf.config.serialization import differences, from_dict, to_dict
from matnet_tf.files import (
    config_path,
    locked,
    open_file,
    read_file,
    read_json,
    reason_of,
    write_whole,
)
from matnet_tf.version import __version__

__all__ = [
    "FORMAT_VERSION",
    "check_workdir",
    "create_workdir",
    "hold_workdir",
    "read_experiment",
    "read_metrics",
    "read_unconditional",
    "source_commit",
    "training_images",
    "write_metrics",
]

# Version of config.json, and of checkpoints with the names of their variables. It changes whenever
# either does; other versions are refused.
FORMAT_VERSION = 5
_PATTERN = re.compile(r"[\[\]*?\\]")


def source_commit() -> str:
    """Returns the commit of the checkout that this package runs from, or `unknown`."""
    folder = pathlib.Path(__file__).resolve().parent
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        command = ["git", "-C", str(folder), "rev-parse", "--short=12", "HEAD"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
        return done.stdout.strip()
    return "unknown"


def check_workdir(
    workdir: str | os.PathLike, experiment: Experiment, images: dict[str, Any] | None = None
) -> None:
    """Checks that a work directory is new, or belongs to this experiment and these images.

    Args:
      workdir: The work directory; nothing in it changes.
      experiment: The experiment to train there.
      images: Identity of the training images, see `Split.identity`. None skips their check.

    Raises:
      ValueError: If it belongs to another experiment (the message names the fields that differ),
        or training there began on other images, or its path could not be read again.
    """
    _check_path(os.fspath(workdir))
    if not (pathlib.Path(workdir) / "config.json").exists():
        return
    if presets.is_published(workdir):
        raise ValueError(
            f"{workdir} holds a published model without the state of its training: it cannot be "
            f"resumed. Start from it in another work directory with init {workdir}"
        )
    changed = differences(experiment, read_experiment(workdir))
    if changed:
        raise ValueError(
            f"{workdir} is the work directory of another experiment; asked for "
            f"{'; '.join(changed)}. Use another --workdir, or the settings in its config.json"
        )
    before = training_images(workdir)
    if before and images and any(before[key] != images[key] for key in ("count", "digest")):
        raise ValueError(
            f"the training images of {experiment.data.name} have changed since {workdir} began: "
            f"now {images['count']} with digest {images['digest']}, then {before['count']} with "
            f"{before['digest']}. Restore those images, or use another --workdir"
        )


def _check_path(path: str) -> None:
    """Checks that TensorFlow can write checkpoints to a path, and find them there."""
    if found := _PATTERN.search(path):
        raise ValueError(
            f"the path of a work directory must not contain {found[0]!r}, which TensorFlow takes "
            f"for part of a pattern: it could not read its checkpoints; got {path}"
        )
    try:
        path.encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"the path of a work directory must be UTF-8, as all names of files are for "
            f"TensorFlow; got {path!r}"
        ) from None


def create_workdir(
    workdir: str | os.PathLike, experiment: Experiment, images: dict[str, Any] | None = None
) -> None:
    """Creates a work directory for an experiment, or continues in an existing one.

    Args:
      workdir: The work directory.
      experiment: The experiment to train there.
      images: As in `check_workdir`.

    Raises:
      ValueError: As in `check_workdir`; then nothing in the directory changes.
    """
    check_workdir(workdir, experiment, images)
    path = pathlib.Path(workdir) / "config.json"
    record = {
        "format_version": FORMAT_VERSION,
        "package_version": __version__,
        "commit": source_commit(),
        "training_images": images,
        "experiment": to_dict(experiment),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or _record(workdir) != record:
        write_whole({path: (json.dumps(record, indent=2) + "\n").encode()})


@contextlib.contextmanager
def hold_workdir(workdir: str | os.PathLike) -> Iterator[None]:
    """Locks a work directory for one training process; the lock ends with the process.

    On a file system without locks it prints a warning and goes on.

    Raises:
      ValueError: If another process trains there.
      OSError: If the directory cannot be written.
    """
    path = pathlib.Path(workdir) / "lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    # Read first: filelock 3 empties the file, even if another process holds it.
    holder = read_file(path).decode(errors="replace").strip() if path.exists() else ""
    with contextlib.ExitStack() as stack:
        try:
            held = stack.enter_context(locked(path, timeout=0))
        except filelock.Timeout:
            raise ValueError(f"{workdir} is in use by another matnet train: {holder}") from None
        if not held:
            print(
                f"warning: the file system of {workdir} has no locks: do not start a second "
                f"matnet train there",
                flush=True,
            )
        # It only serves the message above.
        with contextlib.suppress(OSError), open_file(path, "w") as file:
            file.write(f"process {os.getpid()} of {socket.gethostname()}\n")
        yield


def read_experiment(workdir: str | os.PathLike, data_dir: str = "") -> Experiment:
    """Reads the experiment of a work directory.

    Args:
      workdir: A work directory of `matnet train`.
      data_dir: Where the data set lies now; "" is where it lay then.

    Raises:
      ValueError: If there is no readable config.json.
    """
    experiment = from_dict(Experiment, _record(workdir)["experiment"])
    data = dataclasses.replace(experiment.data, dir=data_dir or experiment.data.dir)
    return dataclasses.replace(experiment, data=data)


def read_unconditional(workdir: str | os.PathLike, what: str, data_dir: str = "") -> Experiment:
    """Like `read_experiment`, for programs that need an unconditional model.

    Args:
      workdir: A work directory of `matnet train`.
      what: What needs such a model; it begins the message.
      data_dir: As in `read_experiment`.

    Raises:
      ValueError: As in `read_experiment`, or if the model is conditional.
    """
    experiment = read_experiment(workdir, data_dir)
    if experiment.model.conditional_stages:
        raise ValueError(
            f"{what} needs a model of whole images; the one of {workdir} is conditional "
            f"(conditional_stages {experiment.model.conditional_stages})"
        )
    return experiment


def training_images(workdir: str | os.PathLike) -> dict[str, Any]:
    """Reads the identity of the training images, see `Split.identity`; empty if it is not there.

    Raises:
      ValueError: If config.json was not written by `create_workdir`.
    """
    found = _record(workdir).get("training_images") or {}
    kinds = {"count": int, "digest": str}
    valid = isinstance(found, dict) and all(isinstance(found.get(k), kinds[k]) for k in kinds)
    if found and not valid:
        raise ValueError(
            f"{workdir}/config.json is not a config written by matnet train: training_images is "
            f"{found!r}"
        )
    return found


def _record(workdir: str | os.PathLike) -> dict[str, Any]:
    """Reads config.json."""
    path = config_path(workdir)
    try:
        record = read_json(path)
        version, _ = record["format_version"], record["experiment"]
    except (ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {reason_of(error)}"
        raise ValueError(f"{path} is not a config written by matnet train: {reason}") from None
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{path} has format version {version!r}; this package reads {FORMAT_VERSION}"
        )
    return record


def read_metrics(workdir: str | os.PathLike) -> list[dict[str, float]]:
    """Reads the rows of metrics.csv, one per checkpoint, without their empty cells.

    Raises:
      ValueError: If the file has another form.
    """
    path = pathlib.Path(workdir) / "metrics.csv"
    if not path.is_file():
        return []
    try:
        with open_file(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        rows = [{k: float(v) for k, v in row.items() if v not in ("", None)} for row in rows]
        if all(row.get("step", math.nan).is_integer() for row in rows):
            return rows
    except (TypeError, ValueError, csv.Error):
        pass
    raise ValueError(f"{path} is not a file that matnet train wrote; move it away to continue")


def write_metrics(workdir: str | os.PathLike, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes metrics.csv as a whole, so that a crash leaves no partial row."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [",".join(columns)]
    lines += [",".join(_cell(row.get(name)) for name in columns) for row in rows]
    path = pathlib.Path(workdir) / "metrics.csv"
    write_whole({path: ("\n".join(lines) + "\n").encode()})


def _cell(value):
    if value is None:
        return ""
    return repr(int(value)) if float(value).is_integer() else f"{float(value):.9g}"
