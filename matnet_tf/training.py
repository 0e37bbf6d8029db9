# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""`train(experiment, workdir)`: data, model, schedules, callbacks, fit, resume."""

from __future__ import annotations

import contextlib
import math
import os
import time
from typing import Any

import tensorflow as tf

from matnet_tf import data, devices, experiment
from matnet_tf.callbacks import Checkpointing, Progress, Schedules, Stops
from matnet_tf.conditional import ConditionalMatNet
from matnet_tf.config import Experiment, TrainConfig
from matnet_tf.data import Split
from matnet_tf.graphs import as_written
from matnet_tf.model import MatNet
from matnet_tf.monitoring import TrainingDiverged
from matnet_tf.summaries import Summaries

__all__ = ["train"]

_PICTURE_SEED = 0


@as_written
def train(
    config: Experiment, workdir: str | os.PathLike, started: float | None = None
) -> dict[str, Any]:
    """Trains a model in a work directory, or goes on where it stopped.

    A step sees the same images and noise, whether or not the run was interrupted before it: on one
    CPU device the weights are bit for bit those of an undisturbed run.

    Args:
      config: the experiment.
      workdir: where config.json, metrics.csv, checkpoints and TensorBoard summaries go.
      started: `time.monotonic()` of the program's start, from which `max_seconds` counts.

    Returns:
      record: `step`, `seconds` (of all sessions), `images_per_second` (of this one), `elbo` (nats,
      mean since the last row), `skipped`, `rollbacks` (how often it went back to a checkpoint) and
      `interrupted` (whether SIGTERM ended it).

    Raises:
      ValueError: if data or devices are missing or do not fit, the directory is in use, or of
        another experiment or other images, or training diverges time and again.
      OSError: if a checkpoint cannot be written. `devices.WorkerLost` is one, too.
    """
    started = time.monotonic() if started is None else started
    worker, strategy = devices.this_worker(), devices.strategy_for(config.train.devices)
    _check_strategy(config.train, strategy)
    split = data.load_for(config.model, config.data, "train")
    held_out = config.data.validation_images
    validation = data.load(config.data, "validation") if held_out else None
    identity = split.identity()
    experiment.check(workdir, config, identity)
    with contextlib.ExitStack() as stack:
        stack.enter_context(devices.lost_workers(worker))
        # Data and model come before the directory: one that cannot be had leaves nothing.
        with strategy.scope():
            model = experiment.build_model(config)
        if worker.is_chief:
            stack.enter_context(experiment.in_use(workdir))
            experiment.create(workdir, config, identity)
        return _Run(config, workdir, model, split, validation, started, worker).go()


def _check_strategy(train: TrainConfig, strategy: tf.distribute.Strategy) -> None:
    replicas = strategy.num_replicas_in_sync
    if train.jit_compile and replicas > 1:
        raise ValueError(
            f"TrainConfig.jit_compile is for one device; there are {replicas}: add "
            f"--train.jit_compile=false, or --train.devices=1"
        )
    # Each takes its part, rounded up, of what is left.
    if -(-train.batch_size // replicas) * (replicas - 1) >= train.batch_size:
        raise ValueError(
            f"TrainConfig.batch_size must leave an image to each of {replicas} devices, which "
            f"multiples of {replicas} do; got {train.batch_size}"
        )


def _adapt(model: MatNet | ConditionalMatNet, split: Split) -> None:
    """Gives a model that whitens the statistics of the training images."""
    if model.config.whitening:
        print(f"whitening: covariance of {split.num_images} training images", flush=True)
        model.adapt(split.evaluation_dataset(1000).as_numpy_iterator())


def _pictured(split: Split, validation: Split | None, num: int) -> Any:
    """A batch for the summaries' pictures: of the validation split, or else of the training."""
    if num == 0:
        return None
    source = validation or split
    num = min(num, source.num_images)
    return next(source.evaluation_dataset(num, indices=range(num)).as_numpy_iterator())


class _Run:
    """One session of training in a work directory, from its last checkpoint on."""

    def __init__(self, config, workdir, model, split, validation, started, worker):
        self.config = config
        self.workdir = workdir
        self.model = model
        self.split = split
        train, chief = config.train, worker.is_chief
        self.checkpoints = experiment.Checkpoints(model, workdir, train.keep_checkpoints, chief)
        self._back_at = None  # the step of the checkpoint that training last went back to
        self._start_or_restore()
        summaries = Summaries(
            os.path.join(os.fspath(workdir), "tensorboard"),
            _pictured(split, validation, train.summary_images),
            _PICTURE_SEED,
            lambda: experiment.metrics_rows(workdir),
        )
        agreement = devices.Agreement(model.distribute_strategy, worker)
        self.progress = Progress(train, self.checkpoints.seconds, started, agreement, chief)
        self.stops = Stops(self.progress)
        self.checkpointing = Checkpointing(
            train, workdir, self.checkpoints, self.progress, summaries, validation, chief
        )
        # In this order: the last looks at what the others have measured.
        self.callbacks = [
            self.progress,
            Schedules(train, self.progress, self.checkpoints.rate_factor),
            self.stops,
            summaries,
            self.checkpointing,
        ]

    def _start_or_restore(self) -> None:
        step = self.checkpoints.restore()
        if step:
            print(f"resuming {self.workdir} at step {step}", flush=True)
            return
        _adapt(self.model, self.split)
        self.checkpoints.save()  # Training may have to go back to it.

    def go(self) -> dict[str, Any]:
        """Runs the steps that are left, and goes back to a checkpoint where they diverge."""
        step = self._step()
        self.progress.agree()  # Workers must see the same budget as spent.
        if step >= self.config.train.steps or (step and self.progress.over_budget()):
            return self._record()
        with self.stops.listening():
            while step is not None:
                try:
                    self._fit(step)
                    step = None
                except TrainingDiverged as error:
                    step = self._roll_back(error)
        return self._record()

    def _step(self) -> int:
        return int(self.model.step.numpy())

    def _fit(self, step: int) -> None:
        """Runs from `step` to the end or a stop, a checkpoint interval at a time."""
        train = self.config.train
        for length, count in segments(step, train.steps, train.checkpoint_every):
            dataset = self.split.training_dataset(
                train.batch_size, self.config.seed, first_step=step
            )
            self.model.fit(
                dataset,
                steps_per_epoch=length,
                epochs=count,
                callbacks=self.callbacks,
                verbose=0,
                shuffle=False,
            )
            step = self._step()
            if self.model.stop_training:
                break

    def _roll_back(self, error: TrainingDiverged) -> int:
        """Restores the last checkpoint with half the learning rate and gives its step.

        Where that has not led to the next checkpoint, it was too late already: the one before.
        """
        factor = 0.5 * float(self.checkpoints.rate_factor.numpy())
        if factor < 0.5**self.config.train.rollbacks:
            raise error
        *earlier, newest = self.checkpoints.steps()
        if newest == self._back_at and earlier:
            self.checkpoints.remove(newest)
        self._back_at = step = self.checkpoints.restore()
        self.checkpoints.rate_factor.assign(factor)
        self.checkpointing.go_on_from_checkpoint()
        print(f"{error}. Going back to step {step}, at {factor:g} of the learning rate", flush=True)
        return step

    def _record(self) -> dict[str, Any]:
        row = self.checkpointing.last_row()
        return {
            "step": self._step(),
            "seconds": round(self.progress.seconds(), 1),
            "images_per_second": round(self.progress.images_per_second(), 1),
            "elbo": row.get("elbo"),
            "skipped": int(self.model.skipped.numpy()),
            "rollbacks": round(-math.log2(float(self.checkpoints.rate_factor.numpy()))),
            "interrupted": self.progress.interrupted,
        }


def segments(step: int, steps: int, every: int) -> list[tuple[int, int]]:
    """How to reach `steps` from `step` with checkpoints at the multiples of `every`.

    Returns:
      `(steps per epoch, epochs)` of each call of `fit`: to the next multiple, by whole intervals,
      and the rest.
    """
    found = []
    if step % every:
        length = min(every - step % every, steps - step)
        found.append((length, 1))
        step += length
    if (steps - step) // every:
        found.append((every, (steps - step) // every))
        step += found[-1][0] * found[-1][1]
    if step < steps:
        found.append((steps - step, 1))
    return found
