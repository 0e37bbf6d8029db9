# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Keras callbacks of `matnet train`: schedules, progress bar, stops, checkpoints."""

from __future__ import annotations

import contextlib
import datetime
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from matnet_tf.config import TrainConfig
from matnet_tf.data.loading import Split
from matnet_tf.runs import devices
from matnet_tf.runs.checkpoints import Checkpoints
from matnet_tf.runs.workdir import read_metrics, write_metrics
from matnet_tf.training.dead_levels import dead_levels, warning
from matnet_tf.training.run_clock import RunClock
from matnet_tf.training.schedules import Settings, settings_at
from matnet_tf.training.summaries import Summaries

__all__ = ["Checkpointing", "PeakMemory", "ProgressBar", "Schedules", "Speed", "Stops"]

_VALIDATION_BATCH = 250
_STOPPING = (signal.SIGTERM, signal.SIGHUP)


class Speed(keras.callbacks.Callback):
    """Measures the mean speed of a session. Its first execution, which compiles, does not count."""

    def __init__(self, config: TrainConfig):
        super().__init__()
        self.step = 0
        self._config = config
        self._first = None  # Time and step after the first execution.

    def images_per_second(self) -> float:
        """Returns the mean speed; 0 before the second execution."""
        if self._first is None or self.step == self._first[1]:
            return 0.0
        steps = self.step - self._first[1]
        return steps * self._config.batch_size / (time.monotonic() - self._first[0])

    def on_train_begin(self, logs=None):
        if self.step != int(self.model.step.numpy()):
            self._first = None  # Training begins, or went back to a checkpoint.

    def on_train_batch_end(self, batch, logs=None):
        self.step = int(self.model.step.numpy())
        if self._first is None:
            self._first = (time.monotonic(), self.step)


class PeakMemory(keras.callbacks.Callback):
    """Prints the most memory that a GPU needed in the first execution of a session."""

    _shown = False

    def on_train_batch_end(self, batch, logs=None):
        if not self._shown and (peak := devices.peak_memory()) is not None:
            print(f"memory: at most {peak / 2**30:.2f} GiB on a GPU in the first step", flush=True)
        self._shown = True


class ProgressBar(keras.callbacks.Callback):
    """Shows progress on stderr: as a bar on a terminal, as a line every 30 seconds in a log.

    Args:
      config: The length of the run.
      clock: The clock of the run.
      speed: Measures the speed; it comes before this callback.
      shows: Whether to show anything. Exactly one of several workers does.
    """

    def __init__(self, config: TrainConfig, clock: RunClock, speed: Speed, shows: bool = True):
        super().__init__()
        self._config, self._clock, self._speed = config, clock, speed
        self._shows, self._bar = shows, None

    def close(self) -> None:
        """Shows the last state and ends the line."""
        if self._bar is not None:
            self._bar.n = self._clock.fraction(int(self.model.step.numpy()))
            self._bar.close()

    def on_train_begin(self, logs=None):
        if self._bar is not None:
            return
        live = sys.stderr.isatty()
        # Without tqdm's own estimate of the rest, which takes the compilation for training.
        bar_format = "{percentage:3.0f}%|{bar:20}| {elapsed}{postfix}"
        # The unit is progress, since a wall-clock budget may end the run before its last step.
        self._bar = tqdm(
            total=1.0,
            initial=self._clock.fraction(int(self.model.step.numpy())),
            disable=not self._shows,
            mininterval=1.0 if live else 30.0,
            miniters=0,
            bar_format=bar_format if live else bar_format + "\n",
        )

    def on_train_batch_end(self, batch, logs=None):
        step, elbo, speed = self._speed.step, logs["elbo"], self._speed.images_per_second()
        about = f"step {step}/{self._config.steps}, elbo {elbo:.2f} nats"
        if speed:
            left = datetime.timedelta(seconds=round(self._seconds_left(step, speed)))
            about += f", {speed:.0f} images/s, {left} left"
        self._bar.set_postfix_str(about, refresh=False)
        self._bar.update(self._clock.fraction(step) - self._bar.n)

    def _seconds_left(self, step: int, images_per_second: float) -> float:
        """Seconds to the last step, or to the end of the time limit if that comes first."""
        by_steps = (self._config.steps - step) * self._config.batch_size / images_per_second
        limit = self._config.max_seconds
        return max(0.0, min(by_steps, limit - self._clock.seconds())) if limit else by_steps


class Schedules(keras.callbacks.Callback):
    """Sets learning rate, beta_1, weights of the loss and training stage before every execution.

    Args:
      config: The schedules.
      clock: The clock of the run, for its progress.
      rate_factor: Variable by which the learning rate is multiplied.
    """

    def __init__(self, config: TrainConfig, clock: RunClock, rate_factor: tf.Variable):
        super().__init__()
        self._config, self._clock, self._rate_factor = config, clock, rate_factor
        self._current: Settings | None = None

    def on_train_batch_begin(self, batch, logs=None):
        step, model = int(self.model.step.numpy()), self.model
        progress, stages = self._clock.fraction(step), model.config.conditional_stages
        settings = settings_at(self._config, step, progress, stages)
        rate = settings.learning_rate * float(self._rate_factor.numpy())
        settings = settings._replace(learning_rate=rate)
        if settings == self._current:
            return
        self._current = settings
        model.training_stage = settings.training_stage
        model.optimizer.learning_rate = settings.learning_rate
        model.optimizer.current_beta_1.assign(settings.beta_1)
        model.kl_weight.assign(settings.kl_weight)
        model.free_bits_weight.assign(settings.free_bits_weight)
        model.kl_balance.assign(settings.kl_balance)


class Stops(keras.callbacks.Callback):
    """Stops training on SIGTERM or SIGHUP, or when the wall-clock budget is spent."""

    def __init__(self, clock: RunClock):
        super().__init__()
        self._clock = clock

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Makes SIGTERM and SIGHUP ask for a stop, inside a with statement, instead of killing.

        Signals that are ignored, as `nohup` makes SIGHUP, stay ignored.
        """
        if threading.current_thread() is not threading.main_thread():
            yield  # Python lets only the main thread handle signals.
            return
        numbers = [n for n in _STOPPING if signal.getsignal(n) != signal.SIG_IGN]
        previous = {number: signal.signal(number, self._on_signal) for number in numbers}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _on_signal(self, number, frame):
        self._clock.told_to_stop = True

    def on_train_begin(self, logs=None):
        self._clock.agree()

    def on_train_batch_end(self, batch, logs=None):
        self._clock.agree()
        if self._clock.interrupted or self._clock.over_budget():
            self.model.stop_training = True


class Checkpointing(keras.callbacks.Callback):
    """Writes a metrics row, summaries and a checkpoint at the end of each epoch.

    An epoch is a checkpoint interval, or the rest of one. Row and summaries come before the
    checkpoint: after a crash in between, the resumed run drops the row and writes it again with the
    same values.

    Args:
      config: The checkpoint interval and what comes with it.
      workdir: The work directory.
      checkpoints: Checkpoints, already restored.
      clock: The clock of the run.
      speed: Measures the speed.
      summaries: Writes to TensorBoard.
      validation: The validation split, or None.
      writes: Whether this process writes the row and the summaries. Exactly one of several workers
        does.
    """

    def __init__(
        self,
        config: TrainConfig,
        workdir: str | os.PathLike,
        checkpoints: Checkpoints,
        clock: RunClock,
        speed: Speed,
        summaries: Summaries,
        validation: Split | None,
        writes: bool = True,
    ):
        super().__init__()
        self._config, self._workdir, self._checkpoints = config, workdir, checkpoints
        self._clock, self._speed, self._summaries = clock, speed, summaries
        self._validation, self._writes = validation, writes
        self._reported: list[str] = []  # Dead levels of the last warning.
        self.go_on_from_checkpoint()

    def go_on_from_checkpoint(self) -> None:
        """Takes the metrics rows and the metric as they were at the restored step."""
        model = self._checkpoints.model
        step = int(model.step.numpy())
        self._rows = [row for row in read_metrics(self._workdir) if row["step"] <= step]
        self._sums = [variable.numpy() for variable in model.bound_metric.sums]
        self._is_partial = step % self._config.checkpoint_every != 0

    def last_row(self) -> dict[str, Any]:
        """Returns the newest metrics row; empty before the first."""
        return self._rows[-1] if self._rows else {}

    def on_epoch_begin(self, epoch, logs=None):
        if not self._is_partial:
            return
        self._is_partial = False
        partial = self.last_row().get("step", 0) % self._config.checkpoint_every
        row = self._rows.pop() if partial else {}
        # The interval began before the interruption, and `fit` has reset its metric.
        for variable, value in zip(self.model.bound_metric.sums, self._sums, strict=True):
            variable.assign(value)
        self.model.bound_metric.non_finite.assign(row.get("non_finite", 0.0))

    def on_epoch_end(self, epoch, logs=None):
        step = int(self.model.step.numpy())
        self._rows.append(self._row(step))
        if self._writes:
            self._write(step)
        self._clock.save()
        self._checkpoints.save()

    def _write(self, step):
        write_metrics(self._workdir, self._rows)
        interval = -(-step // self._config.checkpoint_every)
        last = step >= self._config.steps or self.model.stop_training
        pictures = last or interval % self._config.pictures_every == 0
        with self._checkpoints.averages.in_place():
            self._summaries.write(step, self._rows[-1], pictures)
        dead = dead_levels(self._rows)
        if dead and dead != self._reported:
            print(warning(dead, self.model.config.num_levels), flush=True)
        self._reported = dead

    def _row(self, step):
        model = self.model
        means = model.bound_metric.result()
        del means["loss"]  # It repeats the ELBO.
        row = {
            "step": step,
            "seconds": round(self._clock.seconds(), 3),
            "images_per_second": round(self._speed.images_per_second(), 1),
            **{name: float(value) for name, value in means.items()},
            "learning_rate": float(model.optimizer.learning_rate.numpy()),
            "kl_weight": float(model.kl_weight.numpy()),
            "skipped": int(model.skipped.numpy()),
        }
        if self._validation is not None and self._writes:
            row["val_elbo"] = self._validation_elbo()
            if self._checkpoints.averages:
                with self._checkpoints.averages.in_place():
                    row["val_elbo_averaged"] = self._validation_elbo()
        return row

    def _validation_elbo(self):
        unpack = self.model.input_form.unpack
        elbo = [
            self.model.elbo(*unpack(batch), seed=i).elbo.numpy()
            for i, batch in enumerate(self._validation.evaluation_dataset(_VALIDATION_BATCH))
        ]
        return float(np.mean(np.concatenate(elbo)))
