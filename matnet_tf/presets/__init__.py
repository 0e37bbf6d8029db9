# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The presets: recipes of training, and for some of them the model that the recipe gave.

    NAME.flags              the recipe: flags of `matnet train`
    NAME/                   the trained model, a published folder
        config.json         its experiment, as in a work directory
        model.weights.h5    its weights, in Keras's format
        record.json         its bound, how it was measured, where it comes from; see `read_record`
        images.npz          ten test images, whose bounds are in the record
        card.md             what it is, for people

A published folder is a work directory without checkpoints: programs read either.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import pathlib
from typing import Any

from matnet_tf.files import read_file, read_json, write_whole

__all__ = [
    "ALIASES",
    "FORMAT_VERSION",
    "checked_weights",
    "checkout",
    "is_published",
    "names",
    "read_record",
    "recipe",
    "sha256",
    "trained",
    "trained_names",
]

FORMAT_VERSION = 1  # Of record.json, and so of a published folder.
# Short names of trained models.
ALIASES = {"mnist": "mnist_deep_cpu_hour", "omniglot": "omniglot_deep"}
CONFIG, WEIGHTS, RECORD, IMAGES, CARD = (
    *("config.json", "model.weights.h5", "record.json", "images.npz", "card.md"),
)
_FOLDER = pathlib.Path(__file__).parent


def names() -> list[str]:
    """Returns the names of all presets."""
    return sorted(path.stem for path in _FOLDER.glob("*.flags"))


def trained_names() -> list[str]:
    """Returns the names of the presets with a trained model."""
    return [name for name in names() if is_published(_FOLDER / name)]


def recipe(name: str) -> str:
    """Returns the flagfile of a preset.

    Raises:
      ValueError: If there is no such preset; the message has the nearest name and the list.
    """
    name = ALIASES.get(name, name)
    return str(_FOLDER / f"{_known(name, names(), 'preset')}.flags")


def trained(name: str) -> pathlib.Path:
    """Returns the folder of a preset's trained model.

    Raises:
      ValueError: If there is no such preset, or it has no trained model.
    """
    name, kinds = ALIASES.get(name, name), trained_names()
    if name in names() and name not in kinds:
        raise ValueError(
            f"preset {name!r} is a recipe without a trained model: train it with matnet train "
            f"--preset={name}. Presets with one are {', '.join(kinds)}"
        )
    return _FOLDER / _known(name, kinds, "trained preset")


def _known(name: str, known: list[str], what: str) -> str:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ValueError(f"unknown {what} {name!r}; {hint}The {what}s are {', '.join(known)}")
    return name


def is_published(folder: str | os.PathLike) -> bool:
    """Returns whether a folder holds a published model, and so no checkpoints."""
    return (pathlib.Path(folder) / WEIGHTS).is_file()


def read_record(folder: str | os.PathLike) -> dict[str, Any]:
    """Reads the record of a published folder.

    Returns:
      `weights` (`kind`, `step`, `dtype`, `parameters`, `bytes`, `sha256`), `training` (`command`,
      `commit`, `hardware`, `minutes`), `evaluation` (a record of `matnet evaluate` on the whole
      split) and `per_image` (bounds of single images, and how they were measured).

    Raises:
      ValueError: If the file is missing or damaged, or has another format version.
    """
    path = pathlib.Path(folder) / RECORD
    try:
        record = read_json(path)
        version, _ = record["format_version"], record["weights"]["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not the record of a trained model: {error!r}") from None
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{path} has format version {version!r}; this package reads {FORMAT_VERSION}"
        )
    return record


def checked_weights(folder: str | os.PathLike) -> pathlib.Path:
    """Returns the weights file of a published folder, if it is the one of its record.

    Raises:
      ValueError: If it is damaged or of another model, or as in `read_record`.
    """
    path, expected = pathlib.Path(folder) / WEIGHTS, read_record(folder)["weights"]["sha256"]
    if (found := sha256(read_file(path))) != expected:
        raise ValueError(
            f"{path} is damaged or of another model: its SHA-256 begins with {found[:12]}, that "
            f"in {RECORD} with {expected[:12]}"
        )
    return path


def sha256(content: bytes) -> str:
    """Returns the SHA-256 of a file's content, in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def checkout(name: str, workdir: str | os.PathLike = "") -> str:
    """Copies the trained model of a preset to a work directory, unless it is there already.

    Args:
      name: Name of the preset.
      workdir: The work directory; by default `runs/preset_NAME`.

    Returns:
      The work directory.

    Raises:
      ValueError: If the preset has no trained model, or the directory belongs to another one.
    """
    source, folder = trained(name), pathlib.Path(workdir or f"runs/preset_{name}")
    contents = {path.name: path.read_bytes() for path in source.iterdir() if path.is_file()}
    present = folder / CONFIG
    if present.exists():
        record = folder / RECORD
        if not record.is_file() or record.read_bytes() != contents[RECORD]:
            raise ValueError(
                f"{folder} is the work directory of another model than preset {name!r}: use "
                f"another --workdir, or leave --preset out"
            )
    folder.mkdir(parents=True, exist_ok=True)
    missing = {folder / n: c for n, c in contents.items() if not (folder / n).exists()}
    # The config comes last: it makes the folder a work directory.
    write_whole(dict(sorted(missing.items(), key=lambda item: item[0].name == CONFIG)))
    return str(folder)
