# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of a training: all that it goes on from, found by their files, damaged ones too."""

from __future__ import annotations

import contextlib
import itertools
import os
import pathlib
import shutil
import sys

import tensorflow as tf

from matnet_tf.files import reason_of
from matnet_tf.formats import FORMAT_VERSION, checkpoint_version, name_in
from matnet_tf.hierarchy import Hierarchy

__all__ = ["Checkpoints"]

_VERSION = "format_version/.ATTRIBUTES/VARIABLE_VALUE"


class Checkpoints:
    """Saves and restores all that training goes on from: weights, optimizer, counters, metric.

    Variables are saved under their paths, since TensorFlow's own walk over the model would miss
    those of layers in lists.

    Args:
      model: a compiled model whose optimizer is built.
      workdir: the work directory.
      keep: how many checkpoints to keep.
      writes: whether this process writes them; of several workers one does.
    """

    def __init__(
        self, model: Hierarchy, workdir: str | os.PathLike, keep: int = 2, writes: bool = True
    ):
        self.model = model
        self._writes = writes
        self.seconds = tf.Variable(0.0, dtype=tf.float64)  # of training so far, start-ups included
        # What the learning rate is multiplied by: halved each time that training went back.
        self.rate_factor = tf.Variable(1.0, dtype=tf.float64)
        state = [*model.weights, *model.optimizer.variables]
        named = {v.path.replace("/", "."): v.value for v in state}
        # Replicas have parts of the metric, whose sum is saved: workers must take it together.
        metric = model.bound_metric.variables
        self._metric = [tf.Variable(v.numpy(), trainable=False) for v in metric]
        named |= {v.path.replace("/", "."): c for v, c in zip(metric, self._metric, strict=True)}
        if len(named) != len(state) + len(metric):
            raise RuntimeError("two variables of the model share a path")
        folder = pathlib.Path(workdir) / "checkpoints"
        self._named = named
        checkpoint = tf.train.Checkpoint(
            variables=named,
            seconds=self.seconds,
            rate_factor=self.rate_factor,
            format_version=tf.Variable(FORMAT_VERSION, dtype=tf.int64),
        )
        self._checkpoint, self._keep = checkpoint, keep
        self._unreadable: list[int] = []  # steps whose checkpoints `restore` passed over
        self._manager = tf.train.CheckpointManager(checkpoint, str(folder), max_to_keep=keep)

    def save(self) -> None:
        """Writes a checkpoint for the model's step; the older ones stay until it is whole.

        All workers must call it, though one writes.

        Raises:
          OSError: if it cannot be written, such as on a full disk; the older ones are intact.
        """
        step = int(self.model.step.numpy())
        for copy, variable in zip(self._metric, self.model.bound_metric.variables, strict=True):
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
                f"the one before it is kept"
            ) from None

    def _set_aside(self, step: int) -> None:
        """Renames what would be in the way: unreadable checkpoints, and folders instead of files.

        An unreadable one would count among the checkpoints to keep, and a good one would go.
        """
        folder = pathlib.Path(self._manager.directory)
        away = [p for bad in self._unreadable for p in folder.glob(f"ckpt-{bad}.*")]
        away += [p for p in folder.glob(f"ckpt-{step}.*") if p.is_dir() and p not in away]
        for path in away:
            path.rename(_free_name(path))
        if self._unreadable:
            left = list(self._paths().values())
            tf.compat.v1.train.update_checkpoint_state(str(folder), left[-1] if left else "", left)
            self._manager = tf.train.CheckpointManager(self._checkpoint, str(folder), self._keep)
            self._unreadable = []

    def remove(self, step: int) -> None:
        """Removes the checkpoint of a step, and what there is of one that was not finished."""
        folder = pathlib.Path(self._manager.directory)
        for path in [*folder.glob(f"*-{step}.*"), *folder.glob(f"*-{step}_temp")]:
            with contextlib.suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _paths(self) -> dict[int, str]:
        """Checkpoints by step, found by their files: the list that TensorFlow keeps may be torn."""
        found = {}
        for path in pathlib.Path(self._manager.directory).glob("ckpt-*.index"):
            number = path.stem.removeprefix("ckpt-")
            if number.isdecimal():
                found[int(number)] = str(path.with_suffix(""))
        return dict(sorted(found.items()))

    def steps(self) -> list[int]:
        """The steps that have a checkpoint, rising; whether it is readable, `restore` tells."""
        return list(self._paths())

    def restore(self) -> int:
        """Restores the newest readable checkpoint and gives its step; 0 if there is none.

        Raises:
          ValueError: if there are checkpoints, but none is readable.
        """
        paths, self._unreadable = self._paths(), []
        for step, path in reversed(paths.items()):
            try:
                self._read(path)
            # A damaged file shows as almost any error: OpError, IndexError, AssertionError.
            except Exception as error:
                print(
                    f"checkpoint {path} is not readable ({reason_of(error)}); trying the one "
                    f"before it",
                    file=sys.stderr,
                )
                self._unreadable.append(step)
                continue
            return int(self.model.step.numpy())
        if paths:
            raise ValueError(f"no checkpoint in {self._manager.directory} is readable")
        return 0

    def _read(self, path: str) -> None:
        reader = tf.train.load_checkpoint(path)
        names = reader.get_variable_to_shape_map()
        version = checkpoint_version(names)
        if _VERSION in names:
            version = int(reader.get_tensor(_VERSION))
        if version > FORMAT_VERSION:
            raise ValueError(f"format version {version}, not 1 to {FORMAT_VERSION}")
        if version == FORMAT_VERSION:
            self._checkpoint.restore(path).assert_consumed()
        else:
            variables = {name_in(version, name): v for name, v in self._named.items()}
            older = tf.train.Checkpoint(variables=variables, seconds=self.seconds)
            older.restore(path).assert_consumed()
        for copy, variable in zip(self._metric, self.model.bound_metric.variables, strict=True):
            variable.assign(copy)


def _free_name(path: pathlib.Path) -> pathlib.Path:
    """A name beside a path that no checkpoint has, and nothing else."""
    name = f"unreadable_{path.name.replace('-', '_')}"
    names = (f"{name}.{n}" if n else name for n in itertools.count())
    return next(p for p in (path.with_name(n) for n in names) if not p.exists())
