# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes SavedModels, which run without this package; `signatures` says what they offer."""

from __future__ import annotations

import errno
import json
import os
import pathlib
import shutil
import sys

import tensorflow as tf

from matnet_tf.files import reason_of, remove_abandoned, workspace
from matnet_tf.model.elbo_model import ElboModel
from matnet_tf.runs.models import LoadedRun, load_run
from matnet_tf.runs.workdir import source_commit
from matnet_tf.serving import warmup
from matnet_tf.serving.input_checks import most_image_samples
from matnet_tf.serving.model_card import model_card
from matnet_tf.serving.signatures import signatures_of
from matnet_tf.tracing import without_autograph
from matnet_tf.version import __version__

__all__ = ["export", "save"]

_WORKSPACE = ".writing_"


@without_autograph
def export(workdir: str | os.PathLike, weights: str = "auto", max_image_samples: int = 0) -> str:
    """Writes the trained model of a work directory as a new version of its SavedModel.

    A version appears whole, with a number above all others, so a server that watches the folder
    never sees half of one. Its `assets.extra/` holds the run's config.json, export.json (which
    weights, their training step, and the limit of a request), model_card.md, and, if TensorFlow
    Serving's messages are installed, requests with which the server warms up.

    Args:
      workdir: A work directory of `matnet train`.
      weights: `raw`, `averaged`, or `auto`: averaged if the run keeps averages.
      max_image_samples: The most images times samples of a request; 0 for what suits the size of
        the images, see `signatures`.

    Returns:
      The path, `<workdir>/export/<version>`.

    Raises:
      ValueError: If the work directory cannot be used.
      OSError: If the files cannot be written. Nothing is left of them.
    """
    loaded = load_run(workdir, weights)
    most = max_image_samples or most_image_samples(loaded.model)
    folder = pathlib.Path(workdir) / "export"
    remove_abandoned(folder, _WORKSPACE)
    with workspace(folder, _WORKSPACE) as temporary:
        version = temporary / "version"
        save(loaded.model, version, most)
        _write_extra(version / "assets.extra", pathlib.Path(workdir), loaded, most)
        return str(_publish(version, folder))


def save(model: ElboModel, path: str | os.PathLike, max_image_samples: int = 0) -> None:
    """Writes a model as a SavedModel with the signatures of `signatures_of`, in a new folder.

    It holds the weights that the signatures read, and nothing of training.

    Raises:
      OSError: If it cannot be written.
    """
    holder = tf.Module()
    holder.weights = tuple(weight.value for weight in model.bound_weights)
    try:
        served = {
            name: signature.served()
            for name, signature in signatures_of(model, max_image_samples).items()
        }
        tf.saved_model.save(holder, str(path), signatures=served)
    except tf.errors.OpError as error:
        raise OSError(
            f"the SavedModel could not be written to {path}: {reason_of(error)}"
        ) from None


def _write_extra(folder: pathlib.Path, workdir: pathlib.Path, loaded: LoadedRun, most: int) -> None:
    folder.mkdir()
    shutil.copy(workdir / "config.json", folder)
    origin = {
        "weights": loaded.weights,
        "checkpoint_step": loaded.step,
        "max_image_samples": most,
        "package_version": __version__,
        "commit": source_commit(),
    }
    (folder / "export.json").write_text(json.dumps(origin, indent=2) + "\n", encoding="utf-8")
    (folder / "model_card.md").write_text(model_card(workdir, loaded, most), encoding="utf-8")
    if warmup.available():
        warmup.write(folder, loaded.model)
    else:
        print(
            "no warm-up requests: they need tensorflow-serving-api (the extra `serving`)",
            file=sys.stderr,
        )


def _publish(temporary: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """Renames a whole SavedModel to the next version, even if other processes do the same."""
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
