# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Keras callbacks of `bin/train`: schedules, progress, stops, checkpoints with their rows."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from matnet_tf import experiment
from matnet_tf.config import TrainConfig
from matnet_tf.data import Split
from matnet_tf.schedules import Settings, progress_at, settings_at
from matnet_tf.summaries import Summaries

__all__ = ["Checkpointing", "Progress", "Schedules", "Stops"]

# The last checkpoint must fall within a wall-clock budget, too.
_LAST_CHECKPOINT_SECONDS = 2.0
_BAR_SECONDS, _LINE_SECONDS = 1.0, 30.0  # on a terminal, and in a log
_VALIDATION_BATCH = 250


class Progress(keras.callbacks.Callback):
    """Measures time and speed, keeps a progress bar on stderr, and knows when to stop.

    Between two executions all workers of a job agree on the time and on whether to stop.

    Args:
      config: how long the run is.
      seconds: variable with the seconds of the sessions before; it is kept up to date.
      started: `time.monotonic()` at the start of this session.
      agreement: see `devices.Agreement`.
      shows: whether this process shows the bar.
    """

    def __init__(
        self,
        config: TrainConfig,
        seconds: tf.Variable,
        started: float,
        agreement: Callable[[float, bool], tuple[float, bool]],
        shows: bool = True,
    ):
        super().__init__()
        self.config = config
        self.told_to_stop = False  # this process; `interrupted` if any was
        self.interrupted = False
        self._agreement = agreement
        self._shows = shows
        self._before = seconds
        self._earlier = float(seconds.numpy())
        self._started = started
        self._first = None  # (time, step) after the first execution, which compiles
        self._shown = 0.0
        self._step = 0
        self._agreed = self.seconds()

    def seconds(self) -> float:
        """Wall-clock seconds of all sessions."""
        return self._earlier + time.monotonic() - self._started

    def agree(self) -> None:
        """Lets the workers of the job agree on the time and on whether to stop."""
        self._agreed, self.interrupted = self._agreement(self.seconds(), self.told_to_stop)

    def save(self) -> None:
        """Puts the seconds so far into the variable that checkpoints hold."""
        self._before.assign(self.seconds())

    def fraction(self, step: int) -> float:
        """Progress in [0, 1], see `TrainConfig`."""
        return progress_at(self.config, step, self._agreed + _LAST_CHECKPOINT_SECONDS)

    def over_budget(self) -> bool:
        """Whether the wall-clock budget, if there is one, is spent."""
        budget = self.config.max_seconds
        return budget > 0 and self._agreed + _LAST_CHECKPOINT_SECONDS >= budget

    def images_per_second(self) -> float:
        """Mean speed of this session, without its first execution."""
        if self._first is None or self._step == self._first[1]:
            return 0.0
        steps = self._step - self._first[1]
        return steps * self.config.batch_size / (time.monotonic() - self._first[0])

    def on_train_begin(self, logs=None):
        if self._step != int(self.model.step.numpy()):
            self._first = None  # Training begins, or has gone back: it is measured from here.

    def on_train_batch_end(self, batch, logs=None):
        now = time.monotonic()
        if self._first is None:
            self._step = int(self.model.step.numpy())
            self._first = (now, self._step)
        else:
            self._step += self.config.steps_per_execution
        if not self._shows:
            return
        if now - self._shown >= (_BAR_SECONDS if sys.stderr.isatty() else _LINE_SECONDS):
            self._shown = now
            self._show(logs)

    def on_train_end(self, logs=None):
        if self._shows and sys.stderr.isatty():
            print(file=sys.stderr, flush=True)

    def _show(self, logs):
        fraction = self.fraction(self._step)
        done = int(20 * fraction)
        left = self.seconds() * (1 - fraction) / max(fraction, 1e-9)
        start, end = ("\r", "") if sys.stderr.isatty() else ("", "\n")
        elbo = float(logs["elbo"]) if logs else float("nan")
        print(
            f"{start}step {self._step}/{self.config.steps} [{'=' * done}{' ' * (20 - done)}] "
            f"{100 * fraction:3.0f}%  elbo {elbo:.2f} nats  "
            f"{self.images_per_second():.0f} images/s  {_clock(left)} left ",
            end=end,
            file=sys.stderr,
            flush=True,
        )


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(min(seconds, 359999)), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"


class Schedules(keras.callbacks.Callback):
    """Sets learning rate, beta_1, KL weight and the stage that trains before every execution.

    Args:
      config: the schedules.
      progress: how far the run is.
      rate_factor: variable by which the learning rate is multiplied.
    """

    def __init__(self, config: TrainConfig, progress: Progress, rate_factor: tf.Variable):
        super().__init__()
        self.config = config
        self.progress = progress
        self.rate_factor = rate_factor
        self.current: Settings | None = None

    def on_train_batch_begin(self, batch, logs=None):
        step = int(self.model.step.numpy())
        progress, stages = self.progress.fraction(step), self.model.config.conditional_stages
        settings = settings_at(self.config, step, progress, stages)
        rate = settings.learning_rate * float(self.rate_factor.numpy())
        settings = settings._replace(learning_rate=rate)
        if settings == self.current:
            return
        self.current = settings
        self.model.training_stage = settings.training_stage
        self.model.optimizer.learning_rate = settings.learning_rate
        self.model.optimizer.beta_1.assign(settings.beta_1)
        self.model.kl_weight.assign(settings.kl_weight)


class Stops(keras.callbacks.Callback):
    """Ends training at the wall-clock budget, or on SIGTERM; the epoch's end saves it."""

    def __init__(self, progress: Progress):
        super().__init__()
        self.progress = progress

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Within it SIGTERM asks for a stop instead of killing the process."""
        if threading.current_thread() is not threading.main_thread():
            yield  # Only the main thread may handle signals; elsewhere SIGTERM stays as it is.
            return
        previous = signal.signal(signal.SIGTERM, self._on_signal)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, previous)

    def _on_signal(self, number, frame):
        self.progress.told_to_stop = True

    def on_train_begin(self, logs=None):
        self.progress.agree()

    def on_train_batch_end(self, batch, logs=None):
        self.progress.agree()
        if self.progress.interrupted or self.progress.over_budget():
            self.model.stop_training = True


class Checkpointing(keras.callbacks.Callback):
    """At the end of each interval: a row of metrics, summaries, and a checkpoint.

    The row and the summaries come before the checkpoint. If a crash comes between, the resumed run
    drops the row and writes it again, with the same values. Of several workers one `writes`.
    """

    def __init__(
        self,
        config: TrainConfig,
        workdir: str | os.PathLike,
        checkpoints: experiment.Checkpoints,
        progress: Progress,
        summaries: Summaries,
        validation: Split | None,
        writes: bool = True,
    ):
        super().__init__()
        self.config = config
        self.workdir = workdir
        self.checkpoints = checkpoints
        self.progress = progress
        self.summaries = summaries
        self.validation = validation
        self.writes = writes
        self.go_on_from_checkpoint()

    def go_on_from_checkpoint(self) -> None:
        """Takes the rows and the metric as they were at the step that has been restored."""
        step = int(self.checkpoints.model.step.numpy())
        rows = experiment.metrics_rows(self.workdir)
        self.rows = [row for row in rows if row["step"] <= step]
        self._metric = [v.numpy() for v in self.checkpoints.model.bound_metric.variables]
        self._partial = step % self.config.checkpoint_every != 0

    def last_row(self) -> dict[str, Any]:
        return self.rows[-1] if self.rows else {}

    def on_epoch_begin(self, epoch, logs=None):
        if self._partial:
            # `fit` has reset the metric; the interval began before the interruption.
            for variable, value in zip(
                self.model.bound_metric.variables, self._metric, strict=True
            ):
                variable.assign(value)
            if self.rows and self.rows[-1]["step"] % self.config.checkpoint_every:
                self.rows.pop()
            self._partial = False

    def on_epoch_end(self, epoch, logs=None):
        step = int(self.model.step.numpy())
        self.rows.append(self._row(step))
        if self.writes:
            self._write(step)
        self.progress.save()
        self.checkpoints.save()

    def _write(self, step):
        experiment.write_metrics(self.workdir, self.rows)
        interval = -(-step // self.config.checkpoint_every)
        last = step >= self.config.steps or self.model.stop_training
        pictures = last or interval % self.config.pictures_every == 0
        with self._averaged():
            self.summaries.write(step, self.rows[-1], pictures and self.config.summary_images > 0)

    def _averaged(self):
        if self.model.optimizer.averages:
            return experiment.averaged_weights(self.model)
        return contextlib.nullcontext()

    def _row(self, step):
        metric = self.model.bound_metric
        saved = [v.numpy() for v in metric.variables]
        row = {
            "step": step,
            "seconds": round(self.progress.seconds(), 3),
            "images_per_second": round(self.progress.images_per_second(), 1),
            **{name: float(value) for name, value in metric.result().items()},
            "learning_rate": float(self.model.optimizer.learning_rate.numpy()),
            "kl_weight": float(self.model.kl_weight.numpy()),
            "skipped": int(self.model.skipped.numpy()),
        }
        if self.validation is not None and self.writes:
            row["val_elbo"] = self._validation_elbo()
            if self.model.optimizer.averages:
                with self._averaged():
                    row["val_elbo_averaged"] = self._validation_elbo()
        for variable, value in zip(metric.variables, saved, strict=True):
            variable.assign(value)
        return row

    def _validation_elbo(self):
        elbo = [
            self.model.elbo(*self.model.inputs_of(batch), seed=i).elbo.numpy()
            for i, batch in enumerate(self.validation.evaluation_dataset(_VALIDATION_BATCH))
        ]
        return float(np.mean(np.concatenate(elbo)))
