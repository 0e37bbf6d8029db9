# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The wall-clock time of a training run, and its progress, as all its workers agree on them."""

from __future__ import annotations

import time
from collections.abc import Callable

import tensorflow as tf

from matnet_tf.config import TrainConfig
from matnet_tf.training.schedules import progress_at

__all__ = ["RunClock"]

# The last checkpoint must fall within the wall-clock budget, too.
_LAST_CHECKPOINT_SECONDS = 2.0


class RunClock:
    """Knows how long a run has taken, how far it is and whether it was told to stop.

    Attributes:
      told_to_stop: Whether this process was told to stop.
      interrupted: Whether any worker was, as of the last `agree`.

    Args:
      config: The length of the run.
      seconds: Variable with the seconds of all sessions, which checkpoints hold.
      started: `time.monotonic()` at the start of this session.
      consensus: See `runs.devices.WorkerConsensus`.
    """

    def __init__(
        self,
        config: TrainConfig,
        seconds: tf.Variable,
        started: float,
        consensus: Callable[[float, bool], tuple[float, bool]],
    ):
        self.told_to_stop = False
        self.interrupted = False
        self._config, self._variable, self._consensus = config, seconds, consensus
        self._earlier = float(seconds.numpy())
        self._started = started
        self._agreed = self.seconds()

    def seconds(self) -> float:
        """Returns the wall-clock seconds of all sessions."""
        return self._earlier + time.monotonic() - self._started

    def save(self) -> None:
        """Puts the seconds so far into the variable that checkpoints hold."""
        self._variable.assign(self.seconds())

    def agree(self) -> None:
        """Makes all workers agree on the time and on whether to stop; all must call it."""
        self._agreed, self.interrupted = self._consensus(self.seconds(), self.told_to_stop)

    def fraction(self, step: int) -> float:
        """Returns the progress of the run in [0, 1], see `TrainConfig`."""
        return progress_at(self._config, step, self._agreed + _LAST_CHECKPOINT_SECONDS)

    def over_budget(self) -> bool:
        """Returns whether the wall-clock budget, if there is one, is spent."""
        budget = self._config.max_seconds
        return budget > 0 and self._agreed + _LAST_CHECKPOINT_SECONDS >= budget
