# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Trains a model in a work directory, or resumes there."""

from __future__ import annotations

import contextlib
import math
import os
import time
from typing import Any

import tensorflow as tf

from matnet_tf.config import Experiment, TrainConfig
from matnet_tf.data import loading
from matnet_tf.data.loading import Split
from matnet_tf.model.elbo_model import ElboModel
from matnet_tf.model.metrics import TrainingDiverged
from matnet_tf.runs import devices
from matnet_tf.runs.averages import Averaging
from matnet_tf.runs.checkpoints import Checkpoints
from matnet_tf.runs.models import build_model, initialize
from matnet_tf.runs.workdir import (
    check_workdir,
    create_workdir,
    hold_workdir,
    read_experiment,
    read_metrics,
)
from matnet_tf.tracing import without_autograph
from matnet_tf.training.callbacks import (
    Checkpointing,
    PeakMemory,
    ProgressBar,
    Schedules,
    Speed,
    Stops,
)
from matnet_tf.training.run_clock import RunClock
from matnet_tf.training.summaries import Summaries

__all__ = ["train"]

_PICTURE_SEED = 0


@without_autograph
def train(
    experiment: Experiment, workdir: str | os.PathLike, started: float | None = None
) -> dict[str, Any]:
    """Trains a model in a work directory, or resumes there from the last checkpoint.

    Every step sees the same images and noise whether or not the run was interrupted before it: on
    one CPU device the weights equal those of an undisturbed run bit for bit.

    Args:
      experiment: What to train, on what and how.
      workdir: Folder for config.json, metrics.csv, checkpoints and TensorBoard summaries.
      started: `time.monotonic()` when the program started, from which `max_seconds` counts.

    Returns:
      record: `step`, `seconds` (all sessions), `images_per_second` (this session), `elbo` (nats,
      mean over the last checkpoint interval), `skipped`, `rollbacks` (how often it went back to a
      checkpoint) and `interrupted` (whether a signal ended it).

    Raises:
      ValueError: If data or devices are missing or do not fit, the directory is in use or belongs
        to another experiment or other images, or training diverges again and again.
      OSError: If a checkpoint cannot be written; `devices.WorkerLost` if another worker is gone.
      MemoryError: If a step needs more memory than its device has; it says what to try.
    """
    started = time.monotonic() if started is None else started
    worker, strategy = devices.this_worker(), devices.strategy_for(experiment.train.devices)
    _check_strategy(experiment.train, strategy)
    _choose_operations(experiment.train)
    split = loading.load_for(experiment.model, experiment.data, "train")
    held_out = experiment.data.validation_images
    validation = loading.load(experiment.data, "validation") if held_out else None
    identity = split.identity()
    check_workdir(workdir, experiment, identity)
    with contextlib.ExitStack() as stack:
        stack.enter_context(devices.translate_lost_worker(worker))
        stack.enter_context(split.images.reading())
        # Data and model come before the directory: if they fail, nothing is left behind.
        with strategy.scope():
            model = build_model(experiment)
            _start_from(experiment.init, model, workdir)
        if worker.is_chief:
            stack.enter_context(hold_workdir(workdir))
            _say_if_longer(workdir, experiment.train)
            create_workdir(workdir, experiment, identity)
        return _Session(experiment, workdir, model, split, validation, started, worker).run()


def _start_from(source: str, model: ElboModel, workdir: str | os.PathLike) -> None:
    """Takes over weights of a trained model, unless the work directory has begun already."""
    if not source or os.path.exists(os.path.join(workdir, "config.json")):
        return
    kept = initialize(model, source)
    took = len(model.bound_weights) - len(kept)
    print(f"init: {took} of {len(model.bound_weights)} weights are those of {source}", flush=True)
    if kept:
        print(f"init: new, as they do not fit: {', '.join(kept)}", flush=True)


def _say_if_longer(workdir: str | os.PathLike, train: TrainConfig) -> None:
    """Says what happens to the schedules of a run that gets more steps than it had."""
    if not os.path.exists(os.path.join(workdir, "config.json")):
        return
    before = read_experiment(workdir).train.steps
    if train.steps > before:
        print(
            f"train.steps is now {train.steps}, after {before}: the schedules follow the new "
            f"length, so the learning rate of step {before} is that of progress "
            f"{before / train.steps:.2f}",
            flush=True,
        )


def _check_strategy(train: TrainConfig, strategy: tf.distribute.Strategy) -> None:
    replicas = strategy.num_replicas_in_sync
    # Each replica but the last takes its share rounded up.
    if -(-train.batch_size // replicas) * (replicas - 1) >= train.batch_size:
        raise ValueError(
            f"TrainConfig.batch_size must leave an image to each of {replicas} devices, as every "
            f"multiple of {replicas} does; got {train.batch_size}"
        )


def _choose_operations(train: TrainConfig) -> None:
    if train.deterministic:  # For the rest of the process: TensorFlow has no way back.
        tf.config.experimental.enable_op_determinism()


def _less_memory(train: TrainConfig, strategy: tf.distribute.Strategy) -> str:
    """What to say where a step needs more memory than there is."""
    images = -(-train.batch_size // strategy.num_replicas_in_sync)
    tries = [f"TrainConfig.batch_size={train.batch_size // 2}"] if train.batch_size > 1 else []
    if not train.recompute:
        tries.insert(0, "TrainConfig.recompute=all")
    if train.micro_batches < images:
        tries.insert(0, f"TrainConfig.micro_batches={min(2 * train.micro_batches, images)}")
    return (
        f"out of memory with TrainConfig.batch_size={train.batch_size} and "
        f"micro_batches={train.micro_batches}: try {' or '.join(tries) or 'a smaller model'}"
    )


def _adapt(model: ElboModel, split: Split) -> None:
    """Computes the statistics of the training images, if the model whitens its images."""
    if model.config.whitening:
        print(f"whitening: covariance of {split.num_images} training images", flush=True)
        model.adapt(split.evaluation_dataset(1000).as_numpy_iterator())


def _images_to_draw(split: Split, validation: Split | None, num: int) -> Any:
    """Returns `num` validation images, or else training images, for the summaries' pictures."""
    if num == 0:
        return None
    source = validation or split
    num = min(num, source.num_images)
    return next(source.evaluation_dataset(num, indices=range(num)).as_numpy_iterator())


def _summaries(workdir: str | os.PathLike, pictured: Any) -> Summaries:
    """Returns the callback that writes a work directory's TensorBoard file."""
    # TensorBoard shows a run by the name of its folder below --logdir.
    folder = os.path.join(workdir, "tensorboard", os.path.basename(os.path.abspath(workdir)))
    return Summaries(folder, pictured, _PICTURE_SEED, lambda: read_metrics(workdir))


class _Session:
    """One session of training in a work directory, from its last checkpoint on."""

    def __init__(
        self,
        experiment: Experiment,
        workdir: str | os.PathLike,
        model: ElboModel,
        split: Split,
        validation: Split | None,
        started: float,
        worker: devices.Worker,
    ):
        self._experiment, self._workdir = experiment, workdir
        self._model, self._split = model, split
        train, chief = experiment.train, worker.is_chief
        self._checkpoints = Checkpoints(
            model, workdir, train.keep_checkpoints, chief, train.average_decay
        )
        self._back_at = None  # Step of the checkpoint that training last went back to.
        self._start_or_restore()
        pictured = _images_to_draw(split, validation, train.summary_images)
        summaries = _summaries(workdir, pictured)
        consensus = devices.WorkerConsensus(model.distribute_strategy, worker)
        self._clock = RunClock(train, self._checkpoints.seconds, started, consensus)
        self._speed = Speed(train)
        self._bar = ProgressBar(train, self._clock, self._speed, chief)
        self._stops = Stops(self._clock)
        self._checkpointing = Checkpointing(
            *(train, workdir, self._checkpoints, self._clock, self._speed),
            *(summaries, validation, chief),
        )
        # The order matters: later ones use what earlier ones have measured.
        self._callbacks = [
            Averaging(self._checkpoints.averages),
            self._speed,
            *([PeakMemory()] if chief else []),
            self._bar,
            Schedules(train, self._clock, self._checkpoints.rate_factor),
            self._stops,
            summaries,
            self._checkpointing,
        ]

    def _start_or_restore(self) -> None:
        step = self._checkpoints.restore()
        if step:
            print(f"resuming {self._workdir} at step {step}", flush=True)
            return
        _adapt(self._model, self._split)
        self._checkpoints.save()  # Training may have to go back to it.

    def run(self) -> dict[str, Any]:
        """Runs the remaining steps; goes back to a checkpoint if they diverge."""
        step = self._step()
        self._clock.agree()  # All workers must see the same budget as spent.
        if step >= self._experiment.train.steps or (step and self._clock.over_budget()):
            return self._record()
        advice = _less_memory(self._experiment.train, self._model.distribute_strategy)
        with (
            self._stops.listening(),
            contextlib.closing(self._bar),
            devices.translate_out_of_memory(advice),
        ):
            while step is not None:
                try:
                    self._fit(step)
                    step = None
                except TrainingDiverged as error:
                    step = self._roll_back(error)
        return self._record()

    def _step(self) -> int:
        return int(self._model.step.numpy())

    def _fit(self, step: int) -> None:
        """Runs from `step` to the end or a stop, one checkpoint interval per epoch."""
        train = self._experiment.train
        for length, count in segments(step, train.steps, train.checkpoint_every):
            dataset = self._split.training_dataset(
                train.batch_size, self._experiment.seed, first_step=step
            )
            self._model.fit(
                dataset,
                steps_per_epoch=length,
                epochs=count,
                callbacks=self._callbacks,
                verbose=0,
                shuffle=False,
            )
            step = self._step()
            if self._model.stop_training:
                break

    def _roll_back(self, error: TrainingDiverged) -> int:
        """Restores the last checkpoint before the skipped steps, halves the rate, returns the step.

        If training already went back to that checkpoint, it goes back to the one before.
        """
        self._checkpoints.remove_streak()
        factor = 0.5 * float(self._checkpoints.rate_factor.numpy())
        if factor < 0.5**self._experiment.train.rollbacks:
            raise error
        *earlier, newest = self._checkpoints.steps()
        if newest == self._back_at and earlier:
            self._checkpoints.remove(newest)
        self._back_at = step = self._checkpoints.restore()
        self._checkpoints.rate_factor.assign(factor)
        self._checkpointing.go_on_from_checkpoint()
        print(f"{error}. Going back to step {step}, at {factor:g} of the learning rate", flush=True)
        return step

    def _record(self) -> dict[str, Any]:
        return {
            "step": self._step(),
            "seconds": round(self._clock.seconds(), 1),
            "images_per_second": round(self._speed.images_per_second(), 1),
            "elbo": self._checkpointing.last_row().get("elbo"),
            "skipped": int(self._model.skipped.numpy()),
            "rollbacks": round(-math.log2(float(self._checkpoints.rate_factor.numpy()))),
            "interrupted": self._clock.interrupted,
        }


def segments(step: int, steps: int, every: int) -> list[tuple[int, int]]:
    """Splits the steps from `step` to `steps` at the multiples of `every`.

    Returns:
      `(steps per epoch, epochs)` of each call of `fit`: to the next multiple, whole intervals, and
      the rest.
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
