# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Builds the model of an experiment and loads the trained model of a work directory."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import re
from typing import NamedTuple

import keras
import numpy as np

from matnet_tf import presets
from matnet_tf.config import Experiment, TrainConfig
from matnet_tf.config.serialization import to_dict
from matnet_tf.model.conditional import ConditionalMatNet
from matnet_tf.model.elbo_model import ElboModel
from matnet_tf.model.matnet import MatNet
from matnet_tf.runs.checkpoints import Checkpoints
from matnet_tf.runs.optimizer import Adam
from matnet_tf.runs.workdir import read_experiment
from matnet_tf.tracing import compiles_by_default

__all__ = [
    "LoadedRun",
    "build_model",
    "from_preset",
    "initialize",
    "load",
    "load_run",
    "model_digest",
]

_PRESET = "preset:"  # Begins the name of a preset where a path is possible, too.


class LoadedRun(NamedTuple):
    """A model loaded from a work directory, and where it comes from."""

    experiment: Experiment
    model: ElboModel
    step: int
    weights: str  # "raw" or "averaged"


def build_model(
    experiment: Experiment, precision: str = "", weights: pathlib.Path | None = None
) -> ElboModel:
    """Builds and compiles the model of an experiment, with the optimizer's variables.

    Args:
      experiment: The experiment.
      precision: Keras's dtype policy; by default that of training, `train.precision`.
      weights: File with the model's weights; None keeps the initial ones.

    Raises:
      ValueError: If the weights do not fit the model.
    """
    train = experiment.train
    kind = ConditionalMatNet if experiment.model.conditional_stages else MatNet
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision or train.precision)
    try:
        model = kind(experiment.model, seed=experiment.seed)
        if weights:  # Before `compile`: Keras would miss the optimizer's variables in the file.
            model.load_weights(weights)
        model.compile(
            optimizer=_make_optimizer(train),
            elbo_loss=train,
            jit_compile=_compiles(train),
            steps_per_execution=train.execution_steps,
        )
    finally:
        keras.config.set_dtype_policy(before)
    return model


def _compiles(train: TrainConfig) -> bool:
    if train.jit_compile == "auto":
        # XLA has not all operations in a deterministic form, and Keras turns it off.
        return compiles_by_default() and not train.deterministic
    return train.jit_compile


def _make_optimizer(train: TrainConfig) -> Adam:
    return Adam(
        train.learning_rate,
        beta_1=train.beta_1,
        beta_2=train.beta_2,
        epsilon=train.epsilon,
        weight_decay=train.weight_decay or None,
        name="adam",  # Part of the paths under which checkpoints store variables.
    )


def from_preset(name: str) -> MatNet | ConditionalMatNet:
    """Loads a trained model that comes with the package; `matnet presets` lists them.

    Args:
      name: Name of the preset.

    Raises:
      ValueError: If there is no such preset, or it has no trained model.
    """
    return load_run(presets.trained(name)).model


def initialize(model: ElboModel, source: str | os.PathLike) -> list[str]:
    """Takes over the weights of a trained model whose names and shapes fit.

    Args:
      model: The model that gets the weights; its optimizer and its counters stay as they are.
      source: `preset:NAME`, or what `load` takes.

    Returns:
      What does not fit and keeps its weights: their paths, in the model's order.

    Raises:
      ValueError: If the source cannot be loaded.
    """
    text = os.fspath(source)
    is_preset = text.startswith(_PRESET)
    theirs = from_preset(text.removeprefix(_PRESET)) if is_preset else load(source)
    found = {weight.path: weight for weight in theirs.bound_weights}
    kept = []
    for weight in model.bound_weights:
        other = found.get(weight.path)
        if other is not None and other.shape == weight.shape:
            weight.assign(other.numpy())
        else:
            kept.append(weight.path)
    return kept


def load(path: str | os.PathLike, weights: str = "auto") -> MatNet | ConditionalMatNet:
    """Loads a trained model.

    Args:
      path: A work directory of `matnet train`, one of its checkpoints
        (`WORKDIR/checkpoints/ckpt-1000`), a folder that `matnet publish` has written, or a
        `.keras` file that `model.save` has written.
      weights: Of a work directory or checkpoint, see `load_run`; a `.keras` file has one kind.

    Raises:
      ValueError: If there is no such file or folder, or it holds no trained model.
    """
    path = pathlib.Path(path)
    if path.suffix == ".keras":
        if not path.is_file():
            raise ValueError(f"there is no file {path}")
        return keras.models.load_model(path)
    if found := re.fullmatch(r"ckpt-(\d+)(\.index)?", path.name):
        return load_run(path.parent.parent, weights, int(found[1])).model
    if not path.is_dir():
        raise ValueError(f"expected a work directory, a checkpoint or a .keras file; got {path}")
    return load_run(path, weights).model


def load_run(
    workdir: str | os.PathLike, weights: str = "auto", step: int | None = None
) -> LoadedRun:
    """Loads the trained model of a work directory from its newest readable checkpoint.

    It computes in float32, whatever the precision in training was.

    Args:
      workdir: A work directory of `matnet train`, or a published folder (see `presets`).
      weights: `raw`, `averaged` (their moving average), or `auto`: averaged if the run keeps one.
      step: Step of the checkpoint; None for the newest.

    Raises:
      ValueError: If there is no config.json or no readable checkpoint, or the run keeps no
        averages and `weights` asks for them, or a file of a published folder is damaged.
    """
    if presets.is_published(workdir):
        return _load_published(pathlib.Path(workdir), weights)
    experiment = read_experiment(workdir)
    decay = experiment.train.average_decay
    if weights == "averaged" and not decay:
        raise ValueError(
            f"{workdir} keeps no averaged weights: it was trained with train.average_decay 0"
        )
    model = build_model(experiment, "float32")
    checkpoints = Checkpoints(model, workdir, average_decay=decay)
    found = checkpoints.restore(step)
    if found == 0 and step:
        raise ValueError(f"{workdir} has no checkpoint of step {step}")
    if found == 0:
        raise ValueError(f"{workdir} has no checkpoint of a trained model yet: train first")
    if weights == "raw" or not decay:
        return LoadedRun(experiment, model, found, "raw")
    checkpoints.averages.assign()
    return LoadedRun(experiment, model, found, "averaged")


def _load_published(folder: pathlib.Path, weights: str) -> LoadedRun:
    """Loads the model of a published folder, whose weights are of one kind."""
    experiment, file = read_experiment(folder), presets.checked_weights(folder)
    stored = presets.read_record(folder)["weights"]
    if weights not in ("auto", stored["kind"]):
        raise ValueError(f"{folder} holds {stored['kind']} weights only; got weights {weights!r}")
    try:
        model = build_model(experiment, "float32", file)
    except (ValueError, KeyError) as error:
        raise ValueError(f"{file} does not fit the model of config.json: {error}") from None
    return LoadedRun(experiment, model, stored["step"], stored["kind"])


def model_digest(model: ElboModel) -> str:
    """Digests the architecture and every weight that a bound depends on."""
    digest = hashlib.sha256(json.dumps(to_dict(model.config), sort_keys=True).encode())
    for variable in model.bound_weights:
        digest.update(np.ascontiguousarray(variable.numpy()).tobytes())
    return digest.hexdigest()[:16]
