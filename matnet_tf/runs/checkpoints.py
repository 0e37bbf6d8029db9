# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of a training run: everything that it resumes from.

A damaged checkpoint is passed over for the one before it. One from a streak of skipped steps, whose
weights may be ruined, gives way to the next and never pushes out one from before the streak.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import pathlib
import shutil
import sys

import tensorflow as tf

from matnet_tf.files import reason_of
from matnet_tf.model.elbo_model import ElboModel
from matnet_tf.runs.averages import WeightAverages
from matnet_tf.runs.workdir import FORMAT_VERSION

__all__ = ["Checkpoints"]

_VERSION = "format_version/.ATTRIBUTES/VARIABLE_VALUE"


class Checkpoints:
    """Saves and restores a model: weights and their averages, optimizer, counters and metric.

    Attributes:
      averages: Moving averages of the weights, see `WeightAverages`.
      seconds: Wall-clock seconds of all sessions so far, a float64 variable.
      rate_factor: Factor on the learning rate, a float64 variable. It halves whenever training
        goes back to a checkpoint.

    Args:
      model: A compiled model.
      workdir: The work directory.
      keep: Number of checkpoints to keep; in a streak of skipped steps there is one more.
      writes: Whether this process writes them. Exactly one of several workers does.
      average_decay: Decay of the averages per step; 0 keeps none.
    """

    def __init__(
        self,
        model: ElboModel,
        workdir: str | os.PathLike,
        keep: int = 2,
        writes: bool = True,
        average_decay: float = 0.0,
    ):
        self.model = model
        self.averages = WeightAverages(model, average_decay)
        self.seconds = tf.Variable(0.0, dtype=tf.float64)
        self.rate_factor = tf.Variable(1.0, dtype=tf.float64)
        self._writes, self._keep = writes, keep
        # Each replica holds a part of the metric. All workers take part in reading the sum, so it
        # is copied before the one that writes does so alone.
        metric = model.bound_metric.sums
        self._metric = [tf.Variable(v.numpy(), trainable=False) for v in metric]
        self._parts = {
            "variables": self._by_path(),
            "averages": {_key(path): v for path, v in self.averages.variables.items()},
            "seconds": self.seconds,
            "rate_factor": self.rate_factor,
            "format_version": tf.Variable(FORMAT_VERSION, dtype=tf.int64),
        }
        self._folder = pathlib.Path(workdir) / "checkpoints"
        self._unreadable: list[int] = []  # Steps of the checkpoints that `restore` passed over.
        self._in_streak: int | None = None  # Step of the one that the next one replaces.

    @functools.cached_property
    def _manager(self) -> tf.train.CheckpointManager:
        """Writes checkpoints and deletes none: `_delete_old` chooses."""
        checkpoint = tf.train.Checkpoint(**self._parts)
        return tf.train.CheckpointManager(checkpoint, str(self._folder), None)

    def _by_path(self) -> dict[str, tf.Variable]:
        """All variables by path: TensorFlow's own traversal misses those of layers in lists."""
        state = [(v, v.value) for v in [*self.model.weights, *self.model.optimizer.variables]]
        state += zip(self.model.bound_metric.sums, self._metric, strict=True)
        named = {_key(variable.path): saved for variable, saved in state}
        if len(named) != len(state):
            raise RuntimeError("two variables of the model have the same path")
        return named

    def save(self) -> None:
        """Writes a checkpoint of the current step. All workers must call it, though one writes.

        Older checkpoints are deleted only after the new one is complete.

        Raises:
          OSError: If it cannot be written, for example because the disk is full. The older ones
            are intact.
        """
        step = int(self.model.step.numpy())
        for copy, variable in zip(self._metric, self.model.bound_metric.sums, strict=True):
            copy.assign(variable.numpy())
        if not self._writes:
            return
        try:
            self._set_aside(step)
            self._manager.save(checkpoint_number=step)
        except (tf.errors.OpError, OSError) as error:
            self.remove(step)
            raise OSError(
                f"the checkpoint of step {step} could not be written: {reason_of(error)}; "
                f"earlier checkpoints are kept"
            ) from None
        self._delete_old(step)

    def _delete_old(self, step: int) -> None:
        """Deletes all but the newest `keep`, and the one of `step`, if that is in a streak."""
        if self._in_streak not in (None, step):
            self.remove(self._in_streak)
        self._in_streak = self._step_in_streak()
        others = [other for other in self.steps() if other != self._in_streak]
        for old in others[: -self._keep]:
            self.remove(old)

    def _step_in_streak(self) -> int | None:
        """The model's step if its last update was skipped, else None."""
        in_a_row = int(self.model.skipped_in_a_row.numpy())
        return int(self.model.step.numpy()) if in_a_row else None

    def remove_streak(self) -> None:
        """Deletes checkpoints of the present weights, which a streak of skipped steps left as is.

        The oldest one stays in any case.
        """
        model = self.model
        first = int(model.step.numpy()) - int(model.skipped_in_a_row.numpy())
        for step in self.steps()[1:]:
            if step >= first:
                self.remove(step)

    def _set_aside(self, step: int) -> None:
        """Renames unreadable checkpoints, and what is no file but has the name of one to write.

        An unreadable checkpoint would count among those to keep and push out a good one.
        """
        away = [path for bad in self._unreadable for path in self._folder.glob(f"ckpt-{bad}.*")]
        found = [*self._folder.glob("checkpoint"), *self._folder.glob(f"ckpt-{step}.*")]
        away += [path for path in found if not path.is_file() and path not in away]
        for path in away:
            path.rename(_free_name(path))
        self._unreadable = []
        temporary = self._folder / f"ckpt-{step}_temp"
        if temporary.is_symlink():  # TensorFlow would write through it.
            temporary.unlink()

    def remove(self, step: int) -> None:
        """Deletes the checkpoint of a step, or the files of an incomplete one."""
        for path in [*self._folder.glob(f"*-{step}.*"), *self._folder.glob(f"*-{step}_temp")]:
            with contextlib.suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _paths(self) -> dict[int, str]:
        """Checkpoints by step, found by their files: TensorFlow's own list may be damaged."""
        found = {}
        for path in self._folder.glob("ckpt-*.index"):
            number = path.stem.removeprefix("ckpt-")
            if number.isdecimal():
                found[int(number)] = str(path.with_suffix(""))
        return dict(sorted(found.items()))

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, readable or not, in rising order."""
        return list(self._paths())

    def restore(self, step: int | None = None) -> int:
        """Restores the newest readable checkpoint, or the one of a step.

        Returns:
          step: The step of the checkpoint; 0 if there is none.

        Raises:
          ValueError: If there are checkpoints and none is readable.
        """
        tried, self._unreadable = set(), []
        # A training beside may replace checkpoints meanwhile, so they are listed again each time.
        while paths := {
            number: path
            for number, path in self._paths().items()
            if number not in tried and step in (None, number)
        }:
            number, path = max(paths.items())
            tried.add(number)
            try:
                self._read(path)
            # A damaged file raises almost anything: OpError, IndexError, AssertionError.
            except Exception as error:
                self._pass_over(number, path, error)
                continue
            self._in_streak = self._step_in_streak()
            return int(self.model.step.numpy())
        if tried:
            raise ValueError(f"no checkpoint in {self._folder} is readable")
        return 0

    def _pass_over(self, number: int, path: str, error: Exception) -> None:
        """Says that a checkpoint is not readable, unless a training deletes it for a newer one."""
        if number not in self._paths():
            return
        print(
            f"checkpoint {path} is not readable ({reason_of(error)}); trying the one before it",
            file=sys.stderr,
        )
        self._unreadable.append(number)

    def _read(self, path: str) -> None:
        for part in self._folder.glob(f"{pathlib.Path(path).name}.*"):
            if not part.is_file():
                raise ValueError(f"{part.name} is not a file")
        reader = tf.train.load_checkpoint(path)
        version = int(reader.get_tensor(_VERSION)) if reader.has_tensor(_VERSION) else None
        if version != FORMAT_VERSION:
            raise ValueError(
                f"it has format version {version}, this package reads {FORMAT_VERSION}"
            )
        # A new object each time: one that failed to restore remembers the files for later.
        tf.train.Checkpoint(**self._parts).restore(path).assert_consumed()
        for copy, variable in zip(self._metric, self.model.bound_metric.sums, strict=True):
            variable.assign(copy)


def _key(path: str) -> str:
    return path.replace("/", ".")  # TensorFlow gives the slash a meaning of its own.


def _free_name(path: pathlib.Path) -> pathlib.Path:
    """Returns an unused path beside `path` that is not the name of a checkpoint."""
    name = f"unreadable_{path.name.replace('-', '_')}"
    names = itertools.chain([name], (f"{name}.{number}" for number in itertools.count(1)))
    return next(p for p in map(path.with_name, names) if not p.exists())
