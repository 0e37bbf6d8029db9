# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Fills in missing parts of image files with the conditional model of a work directory.

For an image `NAME.png` or `NAME.jpg`, `impute_files` writes to its output folder

    NAME_1.png, ..., NAME_K.png   completions; known pixels keep their values
    NAME_mean.png                 the pixel-wise mean of the completions

and for all of them

    contact_sheet.png   a row per image: what is known, completions, their mean
    imputations.json    the record: settings, model, files, and which files were skipped and why

Images are read upright: EXIF's orientation is applied, and the outputs have none. They are
converted to the model's channels, grey or colour. Images larger than the model's are filled window
by window (see `tiling`). An image's completions do not depend on the other images.
"""

from __future__ import annotations

import json
import math
import os
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from matnet_tf.config import Experiment, ImputeConfig
from matnet_tf.config.serialization import to_dict
from matnet_tf.data import image_files
from matnet_tf.files import folder_for_work, printable, read_json, write_whole
from matnet_tf.imputation import tiling
from matnet_tf.imputation.tiling import impute_picture
from matnet_tf.plots.completions import contact_row, contact_sheet
from matnet_tf.progress import image_progress
from matnet_tf.runs.models import LoadedRun, load_run
from matnet_tf.runs.workdir import read_experiment, source_commit, training_images
from matnet_tf.tracing import without_autograph
from matnet_tf.version import __version__

__all__ = ["impute_files"]

_RECORD, _SHEET = "imputations.json", "contact_sheet.png"
_MOST_ROWS = 24  # Images on the contact sheet.
_LIKE = 2.0  # Up to this factor between their sides, pictures count as of one scale.


@without_autograph
def impute_files(
    workdir: str | os.PathLike,
    images: str | os.PathLike | Sequence[str | os.PathLike],
    config: ImputeConfig,
    output: str | os.PathLike = "",
) -> dict[str, Any]:
    """Fills in the missing pixels of image files and writes the files listed above.

    A file is named on stderr and skipped if it cannot be read, is too small, or has no mask, a mask
    of another size, or a mask that leaves nothing to predict. The first picture whose scale is
    unlike that of the training images is named there, too.

    Args:
      workdir: A work directory of `matnet train`, with a conditional model.
      images: Picture files, and folders of them, or one of these.
      config: What is missing, how many completions, which weights.
      output: Folder to write to; by default `imputations` in the work directory. Outputs of an
        earlier run for images with the same names are replaced.

    Returns:
      The record in imputations.json.

    Raises:
      ValueError: If the work directory or its model cannot be used, files or masks do not exist,
        outputs would overwrite each other or an input, or no image could be filled in.
      OSError: If files cannot be written; those of one image are written together or not at all.
    """
    run, started = read_experiment(workdir), time.monotonic()
    _check_model(workdir, run)
    files, missing = image_files.find(images), image_files.Missing(config)
    folder = pathlib.Path(output or pathlib.Path(workdir) / "imputations")
    _check_outputs(folder, files, missing.files, config.num_samples)
    with folder_for_work(folder):
        loaded = load_run(workdir, config.weights)
        trained_on = training_images(workdir).get("tiles_of")
        done, skipped, rows = _impute_all(loaded, config, files, missing, folder, trained_on)
        record = _settings(config, loaded) | {
            "images": done,
            "skipped": skipped,
            "contact_sheet": str(folder / _SHEET),
            "seconds": time.monotonic() - started,
        }
        _write_record(folder, record, contact_sheet(rows, config.num_samples))
    return record


# The work.


class _Imputation(NamedTuple):
    """A picture and its completions."""

    picture: np.ndarray  # uint8 [H, W, C]
    mask: np.ndarray  # bool [H, W], True where a pixel is known
    completions: np.ndarray  # uint8 [K, H, W, C]
    mean: np.ndarray  # uint8 [H, W, C]


def _impute_all(
    loaded: LoadedRun,
    config: ImputeConfig,
    files: list[pathlib.Path],
    missing: image_files.Missing,
    folder: pathlib.Path,
    tiles_of: list[int] | None,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[tuple[str, np.ndarray]]]:
    """Fills in all files; returns records of those done and skipped, and the sheet's rows."""
    done, skipped, rows, note = [], [], [], ""
    shape = loaded.experiment.model.image_shape
    with image_progress("impute", len(files)) as progress:
        for path in files:
            try:
                _check_name(folder, path.stem, config.num_samples)
                image, picture, mask = _read(path, missing, shape)
            except ValueError as error:
                name = printable(path)
                progress.write(f"impute: {name} is skipped: {error}", file=sys.stderr)
                skipped.append({"file": name, "reason": str(error)})
            else:
                if not note and (note := _unlike(mask.shape, shape, tiles_of)):
                    progress.write(f"impute: {printable(path)} {note}", file=sys.stderr)
                imputation = _impute(loaded, config, path, picture, mask)
                outputs = _write_outputs(folder, path.stem, imputation, image)
                if len(rows) < _MOST_ROWS:
                    rows.append(contact_row(printable(path.name), *imputation))
                done.append(_describe(path, imputation, shape) | {"outputs": outputs})
            progress.update()
    if not done:
        first = skipped[0]
        raise ValueError(
            f"none of the {len(files)} images could be filled in; the first, {first['file']}: "
            f"{first['reason']}"
        )
    if len(done) > len(rows):
        print(f"impute: the contact sheet shows the first {len(rows)} images", file=sys.stderr)
    return done, skipped, rows


def _check_name(folder: pathlib.Path, stem: str, num_samples: int) -> None:
    """Refuses a file whose outputs would have names that the file system does not take."""
    longest, most = max(_names(stem, num_samples), key=len), os.pathconf(folder, "PC_NAME_MAX")
    if len(os.fsencode(longest)) > most:
        raise ValueError(f"its name is too long: {longest} would have more than {most} bytes")


def _read(
    path: pathlib.Path, missing: image_files.Missing, shape: tuple[int, int, int]
) -> tuple[Image.Image, np.ndarray, np.ndarray]:
    """Reads a picture, its pixels, uint8 `[H, W, C]`, and its mask, bool `[H, W]`."""
    image = image_files.read(path)
    if image.height < shape[0] or image.width < shape[1]:
        raise ValueError(
            f"it has {image.height}x{image.width} pixels; the model needs at least "
            f"{shape[0]}x{shape[1]}"
        )
    return image, image_files.pixels(image, shape[2]), missing.mask(path, image)


def _unlike(size: tuple[int, int], shape: tuple[int, int, int], tiles_of: list[int] | None) -> str:
    """What to say of a picture whose scale is unlike that of the training images, or "".

    Args:
      size: Height and width of the picture, which is filled in at its own resolution.
      shape: Shape of the model's images, which are whole pictures if `tiles_of` is None.
      tiles_of: Height and width of the pictures that they are tiles of.
    """
    height, width = tiles_of or shape[:2]
    factor = math.sqrt(size[0] * size[1] / (height * width))
    if 1 / _LIKE <= factor <= _LIKE:
        return ""
    return (
        f"has {size[0]}x{size[1]} pixels, but the model was trained on "
        f"{'tiles of ' if tiles_of else ''}pictures of {height}x{width}: it does not know what "
        f"this one shows at its scale; resize such pictures first"
    )


def _impute(
    loaded: LoadedRun,
    config: ImputeConfig,
    path: pathlib.Path,
    picture: np.ndarray,
    mask: np.ndarray,
) -> _Imputation:
    """Fills in one picture."""
    settings = (config.num_samples, config.temperature, config.seed, config.draw)
    try:
        completions = impute_picture(loaded.model, picture, mask, *settings)
    except ValueError as error:  # The model is at fault, not the file: this ends the program.
        raise ValueError(f"{path}: {error}") from None
    mean = np.rint(completions.mean(axis=0, dtype=np.float64)).astype(np.uint8)
    return _Imputation(picture, mask, completions, mean)


def _settings(config: ImputeConfig, loaded: LoadedRun) -> dict[str, Any]:
    """Collects everything except the image that its completions depend on."""
    return to_dict(config) | {
        "weights": loaded.weights,
        "checkpoint_step": loaded.step,
        "image_shape": list(loaded.experiment.model.image_shape),
        "package_version": __version__,
        "commit": source_commit(),
    }


def _describe(
    path: pathlib.Path, imputation: _Imputation, shape: tuple[int, int, int]
) -> dict[str, Any]:
    return {
        "file": printable(path),
        "size": list(imputation.mask.shape),
        "missing_pixels": int(np.count_nonzero(~imputation.mask)),
        "tiles": len(tiling.plan(imputation.mask, shape[:2])),
    }


# Checks before the work.


def _check_model(workdir: str | os.PathLike, run: Experiment) -> None:
    if run.model.conditional_stages < 1:
        raise ValueError(
            f"the model of {workdir} is unconditional and cannot fill in images; expected one "
            f"trained with --model.conditional_stages of at least 1; got "
            f"{run.model.conditional_stages}"
        )
    channels = run.model.image_shape[2]
    if channels not in (1, 3):
        raise ValueError(
            f"image files are grey or colour, for models of 1 or 3 channels; the model of "
            f"{workdir} has {channels}"
        )


def _check_outputs(
    folder: pathlib.Path,
    files: list[pathlib.Path],
    masks: list[pathlib.Path],
    num_samples: int,
) -> None:
    """Refuses outputs that would overwrite each other or an input."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"the output must be a folder; got the file {folder}")
    owners = {}
    for path in files:
        other = owners.setdefault(path.stem, path)
        if other is not path:
            raise ValueError(
                f"{other} and {path} would both be written to {path.stem}_1.png: rename one, or "
                f"fill them in separately, with another --output"
            )
    inputs, resolved = {path.resolve() for path in (*files, *masks)}, folder.resolve()
    names = [name for stem in owners for name in _names(stem, num_samples)]
    for name in [*names, _SHEET]:
        if resolved / name in inputs:
            raise ValueError(
                f"the output {folder / name} would overwrite an input file: give another --output"
            )


# Files.


def _names(stem: str, num_samples: int) -> list[str]:
    return [*(f"{stem}_{k}.png" for k in range(1, num_samples + 1)), f"{stem}_mean.png"]


def _write_outputs(
    folder: pathlib.Path, stem: str, imputation: _Imputation, image: Image.Image
) -> list[str]:
    """Writes completions and mean, all or none, and returns their paths."""
    names = _names(stem, len(imputation.completions))
    results = [*imputation.completions, imputation.mean]
    contents = {
        folder / name: image_files.png(result, image)
        for name, result in zip(names, results, strict=True)
    }
    write_whole(contents)
    return [str(path) for path in contents]


def _write_record(folder: pathlib.Path, record: dict[str, Any], sheet: np.ndarray) -> None:
    _remove_surplus(folder, record)
    text = json.dumps(record, indent=2, allow_nan=False) + "\n"
    write_whole({folder / _SHEET: image_files.png(sheet), folder / _RECORD: text.encode()})


def _remove_surplus(folder: pathlib.Path, record: dict[str, Any]) -> None:
    """Removes completions of the same images by an earlier run that made more of them."""
    try:
        earlier = read_json(folder / _RECORD)
        stems = {pathlib.Path(image["file"]).stem for image in earlier["images"]}
        most = int(earlier["num_samples"])
    except (OSError, ValueError, KeyError, TypeError):
        return  # There is no earlier record, or it was not written here.
    now = {pathlib.Path(image["file"]).stem for image in record["images"]}
    for path in list(folder.glob("*_*.png")):
        stem, _, k = path.stem.rpartition("_")
        number = int(k) if k.isdecimal() else 0
        surplus = k == str(number) and record["num_samples"] < number <= most
        if surplus and stem in stems & now and path.stem not in now:  # It may be an input here.
            path.unlink(missing_ok=True)
