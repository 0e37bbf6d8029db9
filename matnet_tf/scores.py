# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Scores of single images, such as those by which outliers are found, in CSV files.

A model gives images of another kind a log p(x) that may be high, since its lowest levels fit
textures of any kind. Havtorn et al., "Hierarchical VAEs Know What They Don't Know" (ICML 2021),
look at the upper levels: `L>k` is the bound in which the k lowest levels are drawn from the prior,
and the difference log p(x) - L>k, their log-likelihood ratio, is large where the model needs its
lowest levels to explain an image. For a model with L levels a file has a row per image, with

    index             position in the split
    label             class; empty where the data set has none
    log_p             importance-weighted bound on log p(x), K samples, in nats
    bits_per_dim      the same in bits per dimension
    L>k, log_p-L>k    for k = 1, ..., L, from as many samples, with the same noise, in nats

and beside it, under the same name, a .json that says of what they are scores.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import io
import json
import os
import pathlib
import re
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from matnet_tf import data, experiment
from matnet_tf.bounds import bits_per_dim
from matnet_tf.config import DataConfig, Experiment, ScoreConfig
from matnet_tf.files import folder_for_work, write_whole
from matnet_tf.graphs import as_written
from matnet_tf.measurement import batch_seeds, check_finite, chosen_images, settings_of
from matnet_tf.model import MatNet
from matnet_tf.progress import ImageProgress
from matnet_tf.serialization import from_dict, to_dict

__all__ = ["auroc", "columns", "image_scores", "read_scores", "score", "scored_data"]

_ABOUT = ("index", "label")  # The columns that are not scores.
_COMPARABLE = ("model_digest", "num_samples")  # What scores of two sets must have in common.


def columns(num_levels: int) -> tuple[str, ...]:
    """Names of the scores of a model with so many levels, in the order of the file."""
    pairs = ((f"L>{k}", f"log_p-L>{k}") for k in range(1, num_levels + 1))
    return ("log_p", "bits_per_dim", *(name for pair in pairs for name in pair))


def image_scores(
    model: MatNet,
    x: Any,
    num_samples: int = 100,
    seed: int | tf.Tensor = 0,
    chunk: int | None = None,
) -> dict[str, np.ndarray]:
    """The scores of images, `{column: [B]}` in float64; in nats but for `bits_per_dim`.

    The noise of an image depends on its place in the batch, so its scores among other images
    differ by the error of a K-sample estimate. That of the latents is the same for all k.

    Args:
      model: a MatNet.
      x: images `[B, H, W, C]`.
      num_samples: K.
      seed: of the samples.
      chunk: image-samples per pass, which bounds the memory; `model.samples_per_pass` by default.

    Raises:
      ValueError: if the images are not as the model's config says, or a number is out of range.
    """
    levels = model.config.num_levels
    bound = functools.partial(model.log_likelihood, x, num_samples, seed, chunk)
    log_p = bound()
    bits = bits_per_dim(-log_p, model.config.image_shape, model.likelihood.pixels.bins)
    found = {"log_p": log_p, "bits_per_dim": bits}
    for k in range(1, levels + 1):
        upper = bound(num_inferred=levels - k)
        found |= {f"L>{k}": upper, f"log_p-L>{k}": log_p - upper}
    return found


def scored_data(run: DataConfig, changes: DataConfig | Mapping[str, Any]) -> DataConfig:
    """The data that are scored: the run's own with some fields changed, or another data set.

    Scores of two sets compare only if their images became the model's input in the same way. So
    for a set of another name `dir`, `dequantize` and `draw_seed` are the run's unless they are
    among the changes, and so is `binarization`, where `auto` stands for that of the run's data
    set. Where that set is stored in binary form it is `dynamic`, which draws other sets and leaves
    binary ones as they are. The names of the splits and the number of validation images belong to
    a data set, and go back to the defaults. Masks are not carried over: scores are of whole images.

    Args:
      run: the data that the model was trained on.
      changes: fields and their values, or all of them as a config, which is taken as it is.

    Raises:
      ValueError: if there is no such field, or the values do not go together.
    """
    if isinstance(changes, DataConfig):
        return changes
    fields = to_dict(run.unmasked())
    if changes.get("name", run.name) != run.name:
        fields = {name: fields[name] for name in ("dir", "dequantize", "draw_seed")}
        binary = data.known(run.name).white == 1
        fields["binarization"] = "dynamic" if binary else data.binarization_of(run)
    return from_dict(DataConfig, fields | dict(changes))


@as_written
def score(
    workdir: str | os.PathLike,
    config: ScoreConfig,
    data_config: DataConfig | Mapping[str, Any] | None = None,
    output: str | os.PathLike = "",
    inliers: str | os.PathLike = "",
) -> dict[str, Any]:
    """Scores images with the trained model of a work directory, and writes a row for each.

    Images, noise and `log_p` are those of an evaluation with the same settings. The noise of an
    image depends on its place among the scored ones and on the size of their batches.

    Args:
      workdir: where `bin/train` ran.
      config: which images, how many samples, which weights.
      data_config: the data set, if not the run's own: see `scored_data`.
      output: the CSV to write; by default `scores/<data name>_<split>.csv` in the work directory.
      inliers: scores, by the same model, of images that are no outliers; with them the record
        has `auroc`, by column.

    Returns:
      The record, as it stands in the .json beside the CSV.

    Raises:
      ValueError: if the work directory, the data, the subset, the names of the files or the
        inliers cannot be used, the model is conditional or the images are not for it, or a score is
        not finite.
      OSError: if the files cannot be written; older ones are as they were, and nothing is left.
    """
    run, split = _images(workdir, config.split, data_config or {})
    chosen = chosen_images(config, split.num_images)
    path = _path(output or _default_path(workdir, run.data.name, config.split), inliers)
    loaded = experiment.load(workdir, config.weights)
    record = settings_of(config, loaded, run.data.name, split, len(chosen))
    others = _comparable(inliers, record, run.model.num_levels) if inliers else None
    with folder_for_work(path.parent):
        values, seconds = _measure(loaded.model, split, chosen, config)
        record |= {"seconds": seconds, "scores": str(path)}
        if others:
            record |= {"inliers": os.fspath(inliers), "auroc": _auroc(values, others)}
        _write(path, record, _table(chosen, split.labels, values))
    return record


def auroc(outliers: str | os.PathLike, inliers: str | os.PathLike) -> dict[str, float]:
    """How well each score tells two files of `bin/score` apart: the area under the ROC curve.

    It is the probability that an outlier is more of one than an inlier is, ties counted by half:
    that its log p(x) or its L>k is lower, or its bits per dimension or log p(x) - L>k higher.

    Args:
      outliers: a CSV of scores.
      inliers: another, by the same model.

    Returns:
      The areas by column, in [0, 1].

    Raises:
      ValueError: if a file cannot be read, is none of scores, or they have other columns.
    """
    inner = read_scores(inliers)
    return _auroc(read_scores(outliers, (len(inner) - 2) // 2), inner)


def read_scores(path: str | os.PathLike, num_levels: int | None = None) -> dict[str, np.ndarray]:
    """The scores in a CSV, `{column: [N]}` in float64, without index and label.

    Args:
      path: of the file.
      num_levels: how many levels the model must have; None takes any number.

    Raises:
      ValueError: if the file cannot be read, or is not one of scores of such a model.
    """
    header, *rows = _rows(path) or [[]]
    levels = max(0, (len(header) - len(_ABOUT) - 2) // 2)
    if tuple(header) != (*_ABOUT, *columns(levels)) or not levels:
        raise ValueError(f"{path} is not a file of scores by bin/score: it has other columns")
    if num_levels not in (None, levels):
        raise ValueError(
            f"{path} has scores by a model with {levels} levels; expected {num_levels} levels"
        )
    values = _numbers([row[len(_ABOUT) :] for row in rows])
    if values.shape != (len(rows), len(columns(levels))) or not np.isfinite(values).all():
        raise ValueError(f"{path} must have finite scores of one or more images, and no cut row")
    return dict(zip(columns(levels), values.T, strict=True))


def _numbers(rows: list[list[str]]) -> np.ndarray:
    """The cells as float64 `[rows, columns]`, or nothing where they are no such table."""
    try:
        return np.array([[float(cell) for cell in row] for row in rows])
    except ValueError:
        return np.empty(0)


def _rows(path: str | os.PathLike) -> list[list[str]]:
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return list(csv.reader(file))
    except OSError as error:
        raise ValueError(f"cannot read the scores in {path}: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a file of scores by bin/score: {error}") from None


def _auroc(outliers: Mapping[str, np.ndarray], inliers: Mapping[str, np.ndarray]):
    # scikit-learn takes its time to import, and only this needs it.
    from sklearn.metrics import roc_auc_score

    areas = {}
    for name, inner in inliers.items():
        values = np.concatenate([outliers[name], inner])
        is_outlier = np.repeat([1, 0], [len(outliers[name]), len(inner)])
        rises = name == "bits_per_dim" or name.startswith("log_p-")
        areas[name] = float(roc_auc_score(is_outlier, values if rises else -values))
    return areas


# The work.


def _images(
    workdir: str | os.PathLike, split: str, changes: DataConfig | Mapping[str, Any]
) -> tuple[Experiment, data.Split]:
    """A run as if the images to score were its data, and these."""
    run = experiment.unconditional(workdir, "scoring")
    # As a whole, which checks that data and model go together.
    run = dataclasses.replace(run, data=scored_data(run.data, changes))
    return run, data.load_for(run.model, run.data, split)


def _measure(
    model: MatNet, split: data.Split, chosen: np.ndarray, config: ScoreConfig
) -> tuple[dict[str, np.ndarray], float]:
    """The scores of the chosen images, and the seconds that they took."""
    parts, position, started = [], 0, time.monotonic()
    progress = ImageProgress("score", 0, len(chosen))
    for x in split.evaluation_dataset(config.batch_size, chosen):
        seed, _ = batch_seeds(config.seed, position)
        parts.append(image_scores(model, x, config.num_samples, seed, config.chunk or None))
        for values in parts[-1].values():
            check_finite(values, position)
        position += len(x)
        progress.show(position)
    scores = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return scores, time.monotonic() - started


def _table(
    chosen: np.ndarray, labels: np.ndarray | None, values: Mapping[str, np.ndarray]
) -> list[tuple[Any, ...]]:
    """A row of names, and one for each of the chosen images."""
    classes = [""] * len(chosen) if labels is None else labels[chosen].tolist()
    scores = [column.tolist() for column in values.values()]
    return [(*_ABOUT, *values), *zip(chosen.tolist(), classes, *scores, strict=True)]


# Files.


def _write(path: pathlib.Path, record: dict[str, Any], table: list[tuple[Any, ...]]) -> None:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(table)
    text = json.dumps(record, indent=2, allow_nan=False) + "\n"
    write_whole({path: file.getvalue().encode(), path.with_suffix(".json"): text.encode()})


def _default_path(workdir: str | os.PathLike, name: str, split: str) -> pathlib.Path:
    # A TFDS name may have a config, after a slash, and a version, after a colon.
    name = re.sub(r"[^\w.-]+", "-", name)
    return pathlib.Path(workdir) / "scores" / f"{name}_{split}.csv"


def _path(output: str | os.PathLike, inliers: str | os.PathLike) -> pathlib.Path:
    path = pathlib.Path(output)
    if path.suffix != ".csv" or path.is_dir():
        raise ValueError(f"the output must be a file whose name ends in .csv; got {path}")
    if inliers and path.resolve() == pathlib.Path(inliers).resolve():
        raise ValueError(f"the inliers are {path}, which would be written: give another output")
    return path


def _comparable(
    inliers: str | os.PathLike, record: Mapping[str, Any], num_levels: int
) -> dict[str, np.ndarray]:
    """The scores in a file, unless its record says that another model, or K, made them."""
    path = pathlib.Path(inliers)
    scores = read_scores(path, num_levels)
    try:
        theirs = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        differ = [name for name in _COMPARABLE if theirs[name] != record[name]]
    except (OSError, ValueError, KeyError, TypeError):
        return scores  # A table that was brought here without its record.
    if differ:
        ours, theirs = record[differ[0]], theirs[differ[0]]
        raise ValueError(
            f"the scores in {path} do not compare: their {differ[0]} is {theirs}, not {ours}"
        )
    return scores
