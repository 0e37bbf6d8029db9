# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""What a work directory is: its config, its model, its checkpoints, its metrics.

config.json      the resolved experiment, package version and commit, written first
metrics.csv      one row per checkpoint
checkpoints/     newest last; a corrupt one is passed over for the one before
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import os
import pathlib
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from matnet_tf.checkpoints import Checkpoints
from matnet_tf.conditional import ConditionalMatNet
from matnet_tf.config import Experiment, TrainConfig
from matnet_tf.files import config_path, lock, write_whole
from matnet_tf.formats import FORMAT_VERSION, upgraded
from matnet_tf.hierarchy import Hierarchy
from matnet_tf.model import MatNet
from matnet_tf.optimization import Adam
from matnet_tf.serialization import differences, from_dict, to_dict
from matnet_tf.version import __version__

__all__ = [
    "Checkpoints",
    "Loaded",
    "averaged_weights",
    "build_model",
    "check",
    "commit",
    "create",
    "in_use",
    "load",
    "metrics_rows",
    "read",
    "training_images",
    "unconditional",
    "write_metrics",
]


class Loaded(NamedTuple):
    """A model out of a work directory."""

    experiment: Experiment
    model: Hierarchy
    step: int
    weights: str  # "raw" or "averaged"


def commit() -> str:
    """The commit of the checkout that this package runs from, or `unknown`."""
    folder = pathlib.Path(__file__).resolve().parent
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        command = ["git", "-C", str(folder), "rev-parse", "--short=12", "HEAD"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
        return done.stdout.strip()
    return "unknown"


def check(
    workdir: str | os.PathLike, experiment: Experiment, images: dict[str, Any] | None = None
) -> None:
    """Checks that a work directory is new, or of this experiment and these training images.

    Args:
      workdir: the work directory, which is not touched.
      experiment: what is to be trained there.
      images: what tells the training images from others, see `Split.identity`; None does not
        look at them.

    Raises:
      ValueError: if it is of another experiment, whose fields that differ are named, or the
        images were others when training began.
    """
    if not (pathlib.Path(workdir) / "config.json").exists():
        return
    changed = differences(experiment, read(workdir))
    if changed:
        raise ValueError(
            f"{workdir} is the work directory of another experiment; asked for "
            f"{'; '.join(changed)}. Use another --workdir, or the settings in its config.json"
        )
    before = training_images(workdir)
    if before and images and before != images:
        raise ValueError(
            f"the training images of {experiment.data.name} have changed since {workdir} began: "
            f"now {images['count']} with digest {images['digest']}, then {before['count']} with "
            f"{before['digest']}. Bring those back, or use another --workdir"
        )


def create(
    workdir: str | os.PathLike, experiment: Experiment, images: dict[str, Any] | None = None
) -> None:
    """Makes a work directory for an experiment, or goes on with one.

    Args:
      workdir: the work directory.
      experiment: what is trained there.
      images: as in `check`.

    Raises:
      ValueError: as `check`, and then nothing is touched.
    """
    check(workdir, experiment, images)
    path = pathlib.Path(workdir) / "config.json"
    record = {
        "format_version": FORMAT_VERSION,
        "package_version": __version__,
        "commit": commit(),
        "training_images": images,
        "experiment": to_dict(experiment),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or _record(workdir) != record:
        write_whole({path: (json.dumps(record, indent=2) + "\n").encode()})


@contextlib.contextmanager
def in_use(workdir: str | os.PathLike) -> Iterator[None]:
    """Holds a work directory for one training; the system lets go of it when the process ends.

    Raises:
      ValueError: if another process trains there.
    """
    path = pathlib.Path(workdir) / "lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        try:
            held = lock(file)
        except OSError as error:
            print(f"{workdir} cannot be locked ({error.strerror}): train there once at a time")
            held = True
        if not held:
            file.seek(0)
            raise ValueError(f"{workdir} is in use by another bin/train: {file.read().strip()}")
        file.truncate(0)
        file.write(f"process {os.getpid()} of {socket.gethostname()}\n")
        file.flush()
        yield


def read(workdir: str | os.PathLike, data_dir: str = "") -> Experiment:
    """The experiment of a work directory.

    Args:
      workdir: where `bin/train` ran.
      data_dir: where its data lie now, if not where they lay then.

    Raises:
      ValueError: if there is no readable config.json.
    """
    run = from_dict(Experiment, _record(workdir)["experiment"])
    data = dataclasses.replace(run.data, dir=data_dir or run.data.dir)
    return dataclasses.replace(run, data=data)


def training_images(workdir: str | os.PathLike) -> dict[str, Any]:
    """Number and digest of the training images of a work directory; empty if it is an older one.

    Raises:
      ValueError: if the config.json is not one that `create` wrote.
    """
    found = _record(workdir).get("training_images") or {}
    kinds = {"count": int, "digest": str}
    whole = isinstance(found, dict) and all(isinstance(found.get(k), kinds[k]) for k in kinds)
    if found and not whole:
        raise ValueError(
            f"{workdir}/config.json is not a config written by bin/train: training_images is "
            f"{found!r}"
        )
    return found


def _record(workdir: str | os.PathLike) -> dict[str, Any]:
    """What is in config.json."""
    path = config_path(workdir)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        version, values = record["format_version"], record["experiment"]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a config written by bin/train: {error!r}") from None
    if version not in range(1, FORMAT_VERSION + 1):
        raise ValueError(
            f"{path} has format version {version!r}; this package reads 1 to {FORMAT_VERSION}"
        )
    return record | {"experiment": upgraded(values, version)}


def build_model(experiment: Experiment) -> Hierarchy:
    """The experiment's model, built and compiled, with its optimizer's variables made."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(experiment.train.precision)
    try:
        return _built(experiment)
    finally:
        keras.config.set_dtype_policy(before)


def _built(experiment: Experiment) -> Hierarchy:
    train = experiment.train
    kind = ConditionalMatNet if experiment.model.conditional_stages else MatNet
    model = kind(experiment.model, seed=experiment.seed)
    model.compile(
        optimizer=_optimizer(train),
        clip_norm=train.clip_norm,
        skip_norm=train.skip_norm,
        max_skipped=train.max_skipped,
        squared_kl=train.kl_schedule == "squared",
        approximate_kl=train.mixture_kl == "approximate",
        entropy_penalty=train.entropy_penalty,
        regularizer=train.regularizer,
        regularizer_start=train.regularizer_start,
        regularizer_every=train.regularizer_every,
        micro_batches=train.micro_batches,
        jit_compile=train.jit_compile,
        steps_per_execution=train.steps_per_execution,
    )
    model.optimizer.build(model.trainable_variables)
    return model


def _optimizer(train: TrainConfig) -> Adam:
    return Adam(
        train.learning_rate,
        beta_1=train.beta_1,
        beta_2=train.beta_2,
        epsilon=train.epsilon,
        weight_decay=train.weight_decay,
        average_decay=train.average_decay,
    )


@contextlib.contextmanager
def averaged_weights(model: Hierarchy) -> Iterator[None]:
    """Within it the model's weights are their moving averages."""
    variables = model.trainable_variables
    raw = [tf.identity(variable) for variable in variables]
    _assign_averages(model)
    try:
        yield
    finally:
        for variable, value in zip(variables, raw, strict=True):
            variable.assign(value)


def _assign_averages(model):
    averages = model.optimizer.averages
    for variable, average in zip(model.trainable_variables, averages, strict=True):
        variable.assign(average)


def unconditional(workdir: str | os.PathLike, what: str, data_dir: str = "") -> Experiment:
    """As `read`, for what has no meaning for a conditional model.

    Raises:
      ValueError: as `read`, or if the model is conditional.
    """
    experiment = read(workdir, data_dir)
    if experiment.model.conditional_stages:
        raise ValueError(
            f"{what} needs a model of whole images; the one of {workdir} is conditional "
            f"(conditional_stages {experiment.model.conditional_stages})"
        )
    return experiment


def load(workdir: str | os.PathLike, weights: str = "auto") -> Loaded:
    """The trained model of a work directory.

    Args:
      workdir: where `bin/train` ran.
      weights: `raw`, `averaged` (their moving average), or `auto`: averaged where there is one.

    Raises:
      ValueError: if there is no config, no readable checkpoint, or no average that was asked for.
    """
    experiment = read(workdir)
    model = build_model(experiment)
    has_average = bool(model.optimizer.averages)
    if weights == "averaged" and not has_average:
        raise ValueError(
            f"{workdir} keeps no averaged weights: it was trained with train.average_decay 0"
        )
    step = Checkpoints(model, workdir).restore()
    if step == 0:
        raise ValueError(f"{workdir} has no checkpoint yet: train first")
    averaged = has_average and weights in ("auto", "averaged")
    if averaged:
        _assign_averages(model)
    return Loaded(experiment, model, step, "averaged" if averaged else "raw")


def metrics_rows(workdir: str | os.PathLike) -> list[dict[str, float]]:
    """The rows of metrics.csv, one per checkpoint; cells that are empty are left out."""
    path = pathlib.Path(workdir) / "metrics.csv"
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [{k: float(v) for k, v in row.items() if v not in ("", None)} for row in rows]


def write_metrics(workdir: str | os.PathLike, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes metrics.csv whole, so that a crash leaves no half row."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [",".join(columns)]
    lines += [",".join(_cell(row.get(name)) for name in columns) for row in rows]
    path = pathlib.Path(workdir) / "metrics.csv"
    write_whole({path: ("\n".join(lines) + "\n").encode()})


def _cell(value):
    if value is None:
        return ""
    return repr(int(value)) if float(value).is_integer() else f"{float(value):.9g}"
