# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""A SavedModel of a model, which runs without this package; see `signatures` for what it offers."""

from __future__ import annotations

import errno
import json
import os
import pathlib
import shutil
import sys

import tensorflow as tf

from matnet_tf import experiment, warm_up
from matnet_tf.files import reason_of
from matnet_tf.graphs import as_written
from matnet_tf.hierarchy import Hierarchy
from matnet_tf.model_card import model_card
from matnet_tf.signatures import signatures_of
from matnet_tf.version import __version__

__all__ = ["export", "save"]


@as_written
def export(workdir: str | os.PathLike, weights: str = "auto") -> str:
    """Writes the trained model of a work directory as a new version of its SavedModel.

    A version appears whole, under a number above all others, so a server that watches the folder
    never sees half of one. Its `assets.extra/` holds the run's config.json, export.json (which
    weights, of which step), model_card.md, and requests that TensorFlow Serving warms up with, if
    its messages are installed.

    Args:
      workdir: where `bin/train` ran.
      weights: `raw`, `averaged`, or `auto`: averaged where there are such.

    Returns:
      The path, `<workdir>/export/<version>`.

    Raises:
      ValueError: if the work directory cannot be used.
      OSError: if the files cannot be written; nothing is left of them then.
    """
    loaded = experiment.load(workdir, weights)
    folder = pathlib.Path(workdir) / "export"
    folder.mkdir(exist_ok=True)
    temporary = folder / f".writing.{os.getpid()}"
    try:
        save(loaded.model, temporary)
        _write_extra(temporary / "assets.extra", pathlib.Path(workdir), loaded)
        return str(_publish(temporary, folder))
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_extra(folder: pathlib.Path, workdir: pathlib.Path, loaded: experiment.Loaded) -> None:
    """Writes what goes with a SavedModel."""
    folder.mkdir()
    shutil.copy(workdir / "config.json", folder)
    origin = {
        "weights": loaded.weights,
        "checkpoint_step": loaded.step,
        "package_version": __version__,
        "commit": experiment.commit(),
    }
    (folder / "export.json").write_text(json.dumps(origin, indent=2) + "\n", encoding="utf-8")
    (folder / "model_card.md").write_text(model_card(workdir, loaded), encoding="utf-8")
    if warm_up.available():
        warm_up.write(folder, loaded.model)
    else:
        print(
            "no warm-up requests: they need tensorflow-serving-api (the extra `serving`)",
            file=sys.stderr,
        )


def save(model: Hierarchy, path: str | os.PathLike) -> None:
    """Writes any model as a SavedModel with the signatures of `signatures`, in a new folder.

    It holds the weights that they read, and neither optimizer nor training counters.

    Raises:
      OSError: if it cannot be written.
    """
    holder = tf.Module()
    holder.weights = tuple(weight.value for weight in model.bound_weights)
    try:
        served = {name: signature.served() for name, signature in signatures_of(model).items()}
        tf.saved_model.save(holder, str(path), signatures=served)
    except tf.errors.OpError as error:
        raise OSError(
            f"the SavedModel could not be written to {path}: {reason_of(error)}"
        ) from None


# Versions.


def _publish(temporary: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """Renames a whole SavedModel to the next version, also while others do the same."""
    while True:
        versions = [int(p.name) for p in folder.iterdir() if p.name.isdecimal()]
        target = folder / str(1 + max(versions, default=0))
        try:
            temporary.rename(target)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
        else:
            return target
