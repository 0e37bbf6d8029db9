# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Work directories of models that were not trained, and interruptions of those that are."""

import os
import pathlib
import signal

import numpy as np
import tensorflow as tf

from matnet_tf.runs.checkpoints import Checkpoints
from matnet_tf.runs.models import build_model
from matnet_tf.runs.workdir import create_workdir
from matnet_tf.training.callbacks import Stops


def save_checkpoint(workdir, model, step=7, average_decay=0.0):
    """Writes a checkpoint of the model, as if it had been trained for `step` steps."""
    model.step.assign(step)
    Checkpoints(model, workdir, average_decay=average_decay).save()


def write_run(workdir, settings, step=7):
    """Writes what training would leave, with the model's initial weights."""
    create_workdir(workdir, settings)
    save_checkpoint(workdir, build_model(settings), step, settings.train.average_decay)
    return workdir


def saved_variables(workdir) -> dict[str, np.ndarray]:
    """Weights, averages, optimizer and metric in the newest checkpoint, by path."""
    folder = pathlib.Path(workdir) / "checkpoints"
    steps = [int(path.stem.removeprefix("ckpt-")) for path in folder.glob("ckpt-*.index")]
    reader = tf.train.load_checkpoint(str(folder / f"ckpt-{max(steps)}"))
    names = reader.get_variable_to_shape_map()
    names = [name for name in names if name.startswith(("variables/", "averages/"))]
    return {name: reader.get_tensor(name) for name in names}


def assert_same_variables(workdir, other) -> None:
    """Asserts that the newest checkpoints of two runs are equal bit for bit."""
    ours, theirs = saved_variables(workdir), saved_variables(other)
    assert ours.keys() == theirs.keys() and len(ours) > 20
    for name, value in ours.items():
        np.testing.assert_array_equal(value, theirs[name], name)


def interrupt_at(monkeypatch, step, number=signal.SIGTERM):
    """Makes every training in this process receive a signal at a step."""
    original = Stops.on_train_batch_end

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.step.numpy()) == step:
            os.kill(os.getpid(), number)
        original(self, batch, logs)

    monkeypatch.setattr(Stops, "on_train_batch_end", on_train_batch_end)
