# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Scores of single images, such as those that detect outliers, in CSV files.

The log p(x) of an image of another kind may be high, since the lowest levels fit any texture.
Havtorn et al., "Hierarchical VAEs Know What They Don't Know" (ICML 2021), use the upper levels:
`L>k` is the bound in which the k lowest levels are drawn from the prior. The log-likelihood ratio
log p(x) - L>k is large where the model needs its lowest levels to explain an image. For a model
with L levels, a file has one row per image with the columns

    index             position in the split
    label             class; empty if the data set has none
    log_p             importance-weighted bound on log p(x) with K samples, in nats
    bits_per_dim      the same in bits per dimension
    L>k, log_p-L>k    for k = 1, ..., L, with as many samples and the same noise, in nats

A .json file with the same name records the settings.
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

from matnet_tf.config import DataConfig, Experiment, ScoreConfig
from matnet_tf.config.serialization import from_dict, to_dict
from matnet_tf.data import loading
from matnet_tf.data.catalog import binarization_of, data_set_info
from matnet_tf.evaluation.protocol import (
    batch_seeds,
    bound_settings,
    check_finite,
    chosen_images,
    less_memory,
)
from matnet_tf.files import folder_for_work, open_file, read_json, write_whole
from matnet_tf.model.bounds import bits_per_dim
from matnet_tf.model.matnet import MatNet
from matnet_tf.progress import image_progress
from matnet_tf.runs import devices
from matnet_tf.runs.models import load_run
from matnet_tf.runs.workdir import read_unconditional
from matnet_tf.tracing import without_autograph

__all__ = ["auroc", "columns", "image_scores", "read_scores", "score", "scored_data"]

_NOT_SCORES = ("index", "label", "class", "file")  # The first columns of a file.
_COMPARABLE = ("model_digest", "num_samples")  # Settings that two files to compare must share.


def columns(num_levels: int) -> tuple[str, ...]:
    """Names the scores of a model with `num_levels` levels, in the order of the file."""
    pairs = ((f"L>{k}", f"log_p-L>{k}") for k in range(1, num_levels + 1))
    return ("log_p", "bits_per_dim", *(name for pair in pairs for name in pair))


def image_scores(
    model: MatNet,
    x: Any,
    num_samples: int = 100,
    seed: int | tf.Tensor = 0,
    chunk: int | None = None,
) -> dict[str, np.ndarray]:
    """Computes the scores of images.

    The noise of an image depends on its place in the batch, so among other images its scores
    differ by the error of a K-sample estimate. The noise is the same for all k.

    Args:
      model: A MatNet.
      x: Images `[B, H, W, C]`, float32 in [0, 1].
      num_samples: K.
      seed: Integer seed, or an int32 `[2]` tensor, for the samples.
      chunk: Image-samples per pass, which bounds the memory; `model.samples_per_pass` by default.

    Returns:
      Scores `[B]` by column, float64; in nats except `bits_per_dim`.

    Raises:
      ValueError: If the images do not match the model's config, or a number is out of range.
    """
    levels = model.config.num_levels
    bound = functools.partial(model.log_likelihood, x, num_samples, seed, chunk)
    log_p = bound()
    bins = model.hierarchy.likelihood.observation.bins
    found = {"log_p": log_p, "bits_per_dim": bits_per_dim(-log_p, model.config.image_shape, bins)}
    for k in range(1, levels + 1):
        upper = bound(num_inferred=levels - k)
        found |= {f"L>{k}": upper, f"log_p-L>{k}": log_p - upper}
    return found


def scored_data(run: DataConfig, changes: DataConfig | Mapping[str, Any]) -> DataConfig:
    """Chooses the data to score: the run's own with some fields changed, or another data set.

    Scores of two sets compare only if both were preprocessed in the same way. So another data set
    takes `dir`, `dequantize`, `draw_seed` and `binarization` from the run unless they are among
    the changes; a `binarization` of `auto` means that of the run's data set. If the run's images
    are stored in binary form, it is `dynamic`, which leaves binary images as they are. The
    names of the splits and the number of validation images belong to a data set and return to
    their defaults. Masks are dropped: scores are of whole images.

    Args:
      run: The data that the model was trained on.
      changes: Fields and their values, or a whole config, which is returned as it is.

    Raises:
      ValueError: If a field does not exist, or the values do not go together.
    """
    if isinstance(changes, DataConfig):
        return changes
    fields = to_dict(run.unmasked())
    if changes.get("name", run.name) != run.name:
        fields = {name: fields[name] for name in ("dir", "dequantize", "draw_seed")}
        binary = data_set_info(run.name).white == 1
        fields["binarization"] = "dynamic" if binary else binarization_of(run)
    return from_dict(DataConfig, fields | dict(changes))


@without_autograph
def score(
    workdir: str | os.PathLike,
    config: ScoreConfig,
    data_config: DataConfig | Mapping[str, Any] | None = None,
    output: str | os.PathLike = "",
    inliers: str | os.PathLike = "",
) -> dict[str, Any]:
    """Scores images with the trained model of a work directory and writes a row for each.

    Images, noise and `log_p` are those of an evaluation with the same settings. The noise of an
    image depends on its position among the scored images and on the batch size.

    Args:
      workdir: A work directory of `matnet train`.
      config: Which images to score, how many samples, which weights.
      data_config: The data set, if not the run's own: see `scored_data`.
      output: CSV file to write; by default `scores/<data name>_<split>.csv` in the work directory.
      inliers: CSV file with scores by the same model of images that are not outliers; with it the
        record has `auroc`, by column.

    Returns:
      The record in the .json file beside the CSV file.

    Raises:
      ValueError: If the work directory, the data, the subset, the file names or the inliers cannot
        be used, the model is conditional or does not fit the images, or a score is not finite.
      OSError: If the files cannot be written; older ones stay as they were, and nothing is left.
    """
    run, split = _images(workdir, config.split, data_config or {})
    chosen = chosen_images(config, split.num_images)
    path = _path(output or _default_path(workdir, run.data.name, config.split), inliers)
    loaded = load_run(workdir, config.weights)
    record = bound_settings(config, loaded, run.data.name, split, len(chosen))
    others = _comparable(inliers, record, run.model.num_levels) if inliers else None
    with folder_for_work(path.parent):
        advice = less_memory(config, loaded.model)
        with devices.tensor_float_32(config.tf32), devices.translate_out_of_memory(advice):
            values, seconds = _measure(loaded.model, split, chosen, config)
        record |= {"seconds": seconds, "scores": str(path)}
        if others:
            record |= {"inliers": os.fspath(inliers), "auroc": _auroc(values, others)}
        _write(path, record, _table(split.columns(chosen), values))
    return record


def auroc(outliers: str | os.PathLike, inliers: str | os.PathLike) -> dict[str, float]:
    """Computes how well each score tells two files of `matnet score` apart.

    The area under the ROC curve is the probability that an outlier looks more like one than an
    inlier does, with ties counted by half: its log p(x) or its L>k is lower, or its bits per
    dimension or log p(x) - L>k higher.

    Args:
      outliers: CSV file of scores.
      inliers: CSV file of scores by the same model.

    Returns:
      The areas by column, in [0, 1].

    Raises:
      ValueError: If a file cannot be read, is not a file of scores, or the columns differ.
    """
    inner = read_scores(inliers)
    return _auroc(read_scores(outliers, (len(inner) - 2) // 2), inner)


def read_scores(path: str | os.PathLike, num_levels: int | None = None) -> dict[str, np.ndarray]:
    """Reads a file of scores.

    Args:
      path: CSV file written by `score`.
      num_levels: Number of levels that the model must have; None accepts any.

    Returns:
      Scores `[N]` by column, float64, without index and label.

    Raises:
      ValueError: If the file cannot be read, or is not a file of scores by such a model.
    """
    header, *rows = _rows(path) or [[]]
    levels = max(0, (len(header) - len(_NOT_SCORES) - 2) // 2)
    if tuple(header) != (*_NOT_SCORES, *columns(levels)) or not levels:
        raise ValueError(f"{path} is not a file of scores by matnet score: it has other columns")
    if num_levels not in (None, levels):
        raise ValueError(
            f"{path} has scores by a model with {levels} levels; expected {num_levels} levels"
        )
    values = _numbers([row[len(_NOT_SCORES) :] for row in rows])
    if values.shape != (len(rows), len(columns(levels))) or not np.isfinite(values).all():
        raise ValueError(f"{path} must have whole rows of finite scores, at least one")
    return dict(zip(columns(levels), values.T, strict=True))


def _numbers(rows: list[list[str]]) -> np.ndarray:
    """Converts cells to float64 `[rows, columns]`; returns an empty array if that fails."""
    try:
        return np.array([[float(cell) for cell in row] for row in rows])
    except ValueError:
        return np.empty(0)


def _rows(path: str | os.PathLike) -> list[list[str]]:
    try:
        with open_file(path, newline="", encoding="utf-8") as file:
            return list(csv.reader(file))
    except OSError as error:
        raise ValueError(f"cannot read the scores in {path}: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a file of scores by matnet score: {error}") from None


def _auroc(
    outliers: Mapping[str, np.ndarray], inliers: Mapping[str, np.ndarray]
) -> dict[str, float]:
    # scikit-learn is slow to import, and only this function needs it.
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
) -> tuple[Experiment, loading.Split]:
    """Reads the run, with the images to score as its data, and loads them."""
    run = read_unconditional(workdir, "scoring")
    # A new Experiment checks that data and model go together.
    run = dataclasses.replace(run, data=scored_data(run.data, changes))
    return run, loading.load_for(run.model, run.data, split)


def _measure(
    model: MatNet, split: loading.Split, chosen: np.ndarray, config: ScoreConfig
) -> tuple[dict[str, np.ndarray], float]:
    """Scores the chosen images; returns the scores and the seconds that they took."""
    parts, position, started = [], 0, time.monotonic()
    with image_progress("score", len(chosen)) as progress, split.images.reading():
        for x in split.evaluation_dataset(config.batch_size, chosen):
            seed, _ = batch_seeds(config.seed, position)
            parts.append(image_scores(model, x, config.num_samples, seed, config.chunk or None))
            for values in parts[-1].values():
                check_finite(values, position)
            position += len(x)
            progress.update(len(x))
    scores = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return scores, time.monotonic() - started


def _table(known: Mapping[str, list], values: Mapping[str, np.ndarray]) -> list[tuple[Any, ...]]:
    """Builds a row of names and a row for each of the chosen images."""
    scores = [column.tolist() for column in values.values()]
    return [(*_NOT_SCORES, *values), *zip(*known.values(), *scores, strict=True)]


# Files.


def _write(path: pathlib.Path, record: dict[str, Any], table: list[tuple[Any, ...]]) -> None:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(table)
    text = json.dumps(record, indent=2, allow_nan=False) + "\n"
    write_whole({path: file.getvalue().encode(), path.with_suffix(".json"): text.encode()})


def _default_path(workdir: str | os.PathLike, name: str, split: str) -> pathlib.Path:
    # A TFDS name may have a config after a slash, and a version after a colon.
    name = re.sub(r"[^\w.-]+", "-", name)
    return pathlib.Path(workdir) / "scores" / f"{name}_{split}.csv"


def _path(output: str | os.PathLike, inliers: str | os.PathLike) -> pathlib.Path:
    path = pathlib.Path(output)
    if path.suffix != ".csv" or path.is_dir():
        raise ValueError(f"the output must be a file whose name ends in .csv; got {path}")
    if inliers and path.resolve() == pathlib.Path(inliers).resolve():
        raise ValueError(f"the output would overwrite the inliers, {path}: give another output")
    return path


def _comparable(
    inliers: str | os.PathLike, record: Mapping[str, Any], num_levels: int
) -> dict[str, np.ndarray]:
    """Reads scores; refuses them if their record names another model or another K."""
    path = pathlib.Path(inliers)
    scores = read_scores(path, num_levels)
    try:
        theirs = read_json(path.with_suffix(".json"))
        differ = [name for name in _COMPARABLE if theirs[name] != record[name]]
    except (OSError, ValueError, KeyError, TypeError):
        return scores  # The table came without its record.
    if differ:
        ours, theirs = record[differ[0]], theirs[differ[0]]
        raise ValueError(
            f"the scores in {path} do not compare: their {differ[0]} is {theirs}, not {ours}"
        )
    return scores
