# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Missing parts of image files, filled in by the conditional model of a work directory.

`impute_files` leaves in its output folder, for an image `NAME.png` or `NAME.jpg`,

    NAME_1.png, ..., NAME_K.png   completions; the pixels that are known are the file's own
    NAME_mean.png                 the mean of the completions, pixel by pixel

and for all of them

    contact_sheet.png   a row per image: what is known, completions, their mean
    imputations.json    the record: by which model, from which files, and what was skipped and why

Images are read upright: EXIF's orientation is applied, and the outputs have none. They are
converted to grey or colour, as the model's are. Those larger than the model's are filled window by
window (see `tiling`). An image's completions depend on the image, the settings and the model, and
not on the other images.
"""

from __future__ import annotations

import json
import os
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from matnet_tf import data, experiment, image_files, tiling
from matnet_tf.config import Experiment, ImputeConfig
from matnet_tf.contact_sheet import ContactSheet
from matnet_tf.files import folder_for_work, write_whole
from matnet_tf.graphs import as_written
from matnet_tf.progress import ImageProgress
from matnet_tf.serialization import to_dict
from matnet_tf.tiling import impute_picture
from matnet_tf.version import __version__

__all__ = ["impute_files", "impute_picture"]

_RECORD, _SHEET = "imputations.json", "contact_sheet.png"


@as_written
def impute_files(
    workdir: str | os.PathLike,
    images: str | os.PathLike | Sequence[str | os.PathLike],
    config: ImputeConfig,
    output: str | os.PathLike = "",
) -> dict[str, Any]:
    """Fills in the missing pixels of image files, and writes the files listed above.

    A file that cannot be read or is too small, or whose mask is not there, does not fit or leaves
    nothing to predict, is named on stderr and skipped; the others are done.

    Args:
      workdir: where `bin/train` ran, for a conditional model.
      images: PNG and JPEG files, and folders of them, or one of these.
      config: what is missing, how many completions, which weights.
      output: the folder; by default `imputations` in the work directory. Outputs of an earlier run
        there are replaced, for images of the same names.

    Returns:
      The record, as it stands in imputations.json.

    Raises:
      ValueError: if the work directory or its model cannot be used, files or masks are not there,
        outputs would overwrite each other or what is read, or no image could be filled in.
      OSError: if files cannot be written; those of an image are there whole, or as they were.
    """
    run, started = experiment.read(workdir), time.monotonic()
    _check_model(workdir, run)
    files, missing = image_files.find(images), image_files.Missing(config)
    folder = pathlib.Path(output or pathlib.Path(workdir) / "imputations")
    _check_outputs(folder, files, missing.files, config.num_samples)
    with folder_for_work(folder):
        loaded = experiment.load(workdir, config.weights)
        done, skipped, sheet = _fill_in(loaded, config, files, missing, folder)
        record = _settings(config, loaded) | {
            "images": done,
            "skipped": skipped,
            "contact_sheet": str(folder / _SHEET),
            "seconds": time.monotonic() - started,
        }
        _write_record(folder, record, sheet)
    return record


# The work.


class _Filled(NamedTuple):
    """An image, and what was made of it."""

    picture: np.ndarray  # uint8 [H, W, C]
    mask: np.ndarray  # bool [H, W], True where a pixel is known
    completions: np.ndarray  # uint8 [K, H, W, C]
    mean: np.ndarray  # uint8 [H, W, C]


def _fill_in(
    loaded: experiment.Loaded,
    config: ImputeConfig,
    files: list[pathlib.Path],
    missing: image_files.Missing,
    folder: pathlib.Path,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], ContactSheet]:
    """Records of the images that were done and of those skipped, and the sheet of the former."""
    done, skipped, sheet = [], [], ContactSheet(len(files))
    shape, progress = loaded.experiment.model.image_shape, ImageProgress("impute", 0, len(files))
    for number, path in enumerate(files, 1):
        try:
            picture, mask = _read(path, missing, shape)
        except ValueError as error:
            print(f"impute: {path} is skipped: {error}", file=sys.stderr)
            skipped.append({"file": str(path), "reason": str(error)})
        else:
            filled = _completed(loaded, config, path, picture, mask)
            sheet.add(path.name, *filled)
            outputs = _write_outputs(folder, path.stem, filled)
            done.append(_about(path, filled, shape) | {"outputs": outputs})
        progress.show(number)
    if not done:
        first = skipped[0]
        raise ValueError(
            f"none of the {len(files)} images could be filled in; the first, {first['file']}: "
            f"{first['reason']}"
        )
    return done, skipped, sheet


def _read(
    path: pathlib.Path, missing: image_files.Missing, shape: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """The picture, uint8 `[H, W, C]`, and its mask, bool `[H, W]`."""
    image = image_files.read(path)
    if image.height < shape[0] or image.width < shape[1]:
        raise ValueError(
            f"it has {image.height}x{image.width} pixels; the model needs at least "
            f"{shape[0]}x{shape[1]}"
        )
    return image_files.pixels(image, shape[2]), missing.mask(path, image)


def _completed(
    loaded: experiment.Loaded,
    config: ImputeConfig,
    path: pathlib.Path,
    picture: np.ndarray,
    mask: np.ndarray,
) -> _Filled:
    images = loaded.experiment.data
    binary = data.known(images.name).white == 1 or data.binarization_of(images) != "none"
    settings = (config.num_samples, config.temperature, config.seed, config.draw, binary)
    try:
        completions = impute_picture(loaded.model, picture, mask, *settings)
    except ValueError as error:  # One of the model's, not of the file's.
        raise ValueError(f"{path}: {error}") from None
    mean = np.rint(completions.mean(axis=0, dtype=np.float64)).astype(np.uint8)
    return _Filled(picture, mask, completions, mean)


def _settings(config: ImputeConfig, loaded: experiment.Loaded) -> dict[str, Any]:
    """Everything but the image that its completions are a function of."""
    return to_dict(config) | {
        "weights": loaded.weights,
        "checkpoint_step": loaded.step,
        "image_shape": list(loaded.experiment.model.image_shape),
        "package_version": __version__,
        "commit": experiment.commit(),
    }


def _about(path: pathlib.Path, filled: _Filled, shape: tuple[int, int, int]) -> dict[str, Any]:
    return {
        "file": str(path),
        "size": list(filled.mask.shape),
        "missing_pixels": int(np.count_nonzero(~filled.mask)),
        "tiles": len(tiling.plan(filled.mask, shape[:2])),
    }


# What is refused before any work.


def _check_model(workdir: str | os.PathLike, run: Experiment) -> None:
    if run.model.conditional_stages < 1:
        raise ValueError(
            f"{workdir} is of a model of whole images, which cannot fill in parts of them; "
            f"expected a conditional one, trained with --model.conditional_stages of at least 1; "
            f"got {run.model.conditional_stages}"
        )
    channels = run.model.image_shape[2]
    if channels not in (1, 3):
        raise ValueError(
            f"image files are grey or colour, for models of 1 or 3 channels; that of {workdir} "
            f"has {channels}"
        )


def _check_outputs(
    folder: pathlib.Path,
    files: list[pathlib.Path],
    masks: list[pathlib.Path],
    num_samples: int,
) -> None:
    """Refuses outputs that would overwrite each other, or what is read."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"the output must be a folder; got the file {folder}")
    owners = {}
    for path in files:
        other = owners.setdefault(path.stem, path)
        if other is not path:
            raise ValueError(
                f"{other} and {path} would both be written to {path.stem}_1.png: rename one, or "
                f"fill them in one after the other, with another --output"
            )
    inputs, resolved = {path.resolve() for path in (*files, *masks)}, folder.resolve()
    names = [name for stem in owners for name in _names(stem, num_samples)]
    for name in [*names, _SHEET]:
        if resolved / name in inputs:
            raise ValueError(
                f"the output {folder / name} would overwrite a file that is read: give another "
                f"--output"
            )


# Files.


def _names(stem: str, num_samples: int) -> list[str]:
    return [*(f"{stem}_{k}.png" for k in range(1, num_samples + 1)), f"{stem}_mean.png"]


def _write_outputs(folder: pathlib.Path, stem: str, filled: _Filled) -> list[str]:
    """Writes completions and mean, all or none, and gives their paths."""
    names = _names(stem, len(filled.completions))
    results = [*filled.completions, filled.mean]
    contents = {
        folder / name: image_files.png(result) for name, result in zip(names, results, strict=True)
    }
    write_whole(contents)
    return [str(path) for path in contents]


def _write_record(folder: pathlib.Path, record: dict[str, Any], sheet: ContactSheet) -> None:
    _remove_surplus(folder, record)
    text = json.dumps(record, indent=2, allow_nan=False) + "\n"
    write_whole({folder / _SHEET: image_files.png(sheet.draw()), folder / _RECORD: text.encode()})


def _remove_surplus(folder: pathlib.Path, record: dict[str, Any]) -> None:
    """Removes what the record there says of the same images by an earlier run that made more."""
    try:
        earlier = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        stems = {pathlib.Path(image["file"]).stem for image in earlier["images"]}
        most = int(earlier["num_samples"])
    except (OSError, ValueError, KeyError, TypeError):
        return  # There was none, or it is not ours.
    now = {pathlib.Path(image["file"]).stem for image in record["images"]}
    for stem in stems & now:
        for k in range(record["num_samples"] + 1, most + 1):
            if f"{stem}_{k}" not in now:  # An image that was read may lie here, too.
                (folder / f"{stem}_{k}.png").unlink(missing_ok=True)
