# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Builds the model of an experiment and loads the trained model of a work directory."""

from __future__ import annotations

import os
from typing import NamedTuple

import keras

from matnet_tf.config import Experiment, TrainConfig
from matnet_tf.model.conditional import ConditionalMatNet
from matnet_tf.model.elbo_model import ElboModel
from matnet_tf.model.matnet import MatNet
from matnet_tf.runs.checkpoints import Checkpoints
from matnet_tf.runs.optimizer import Adam
from matnet_tf.runs.workdir import read_experiment

__all__ = ["LoadedRun", "build_model", "load_run"]


class LoadedRun(NamedTuple):
    """A model loaded from a work directory, and where it comes from."""

    experiment: Experiment
    model: ElboModel
    step: int
    weights: str  # "raw" or "averaged"


def build_model(experiment: Experiment) -> ElboModel:
    """Builds and compiles the model of an experiment, with the optimizer's variables."""
    train = experiment.train
    kind = ConditionalMatNet if experiment.model.conditional_stages else MatNet
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(train.precision)
    try:
        model = kind(experiment.model, seed=experiment.seed)
        model.compile(
            optimizer=_make_optimizer(train),
            elbo_loss=train,
            jit_compile=train.jit_compile,
            steps_per_execution=train.execution_steps,
        )
    finally:
        keras.config.set_dtype_policy(before)
    return model


def _make_optimizer(train: TrainConfig) -> Adam:
    return Adam(
        train.learning_rate,
        beta_1=train.beta_1,
        beta_2=train.beta_2,
        epsilon=train.epsilon,
        weight_decay=train.weight_decay or None,
        name="adam",  # Part of the paths under which checkpoints store variables.
    )


def load_run(workdir: str | os.PathLike, weights: str = "auto") -> LoadedRun:
    """Loads the trained model of a work directory from its newest readable checkpoint.

    Args:
      workdir: A work directory of `matnet train`.
      weights: `raw`, `averaged` (their moving average), or `auto`: averaged if the run keeps one.

    Raises:
      ValueError: If there is no config.json or no readable checkpoint, or the run keeps no
        averages and `weights` asks for them.
    """
    experiment = read_experiment(workdir)
    decay = experiment.train.average_decay
    if weights == "averaged" and not decay:
        raise ValueError(
            f"{workdir} keeps no averaged weights: it was trained with train.average_decay 0"
        )
    model = build_model(experiment)
    checkpoints = Checkpoints(model, workdir, average_decay=decay)
    step = checkpoints.restore()
    if step == 0:
        raise ValueError(f"{workdir} has no checkpoint of a trained model yet: train first")
    if weights == "raw" or not decay:
        return LoadedRun(experiment, model, step, "raw")
    checkpoints.averages.assign()
    return LoadedRun(experiment, model, step, "averaged")
