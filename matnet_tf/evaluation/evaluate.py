# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The importance-weighted bound on log p(x) over a split (the paper's evaluation, Sec. 3).

`importance_weighted_bound` measures any model on any data set. `evaluate` measures the model of a
work directory and writes

    evaluation.json             a list with one record per evaluation
    evaluation/<key>/           bounds of every image, one file per batch, written as they come
        settings.json           everything the bounds depend on; the key is its digest

All bounds are in nats. XLA compiles them on a GPU only: on two busy cores it gave 0.75 to 0.9 times
the image-samples per second of plain graphs for dense models, and 0.56 for convolutional ones.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import pathlib
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from matnet_tf.config import EvaluateConfig
from matnet_tf.data import loading
from matnet_tf.evaluation.protocol import (
    batch_seeds,
    bound_settings,
    check_finite,
    chosen_images,
    less_memory,
)
from matnet_tf.evaluation.records import BatchFiles, PerImage, append_record, damaged, read_records
from matnet_tf.files import write_whole
from matnet_tf.model.bounds import bits_per_dim, nested_bounds, nested_counts
from matnet_tf.model.elbo_model import ElboModel
from matnet_tf.model.importance import bounds_on_replicas, log_weights_on_replicas
from matnet_tf.model.input_checks import EMPTY
from matnet_tf.progress import image_progress
from matnet_tf.runs import devices
from matnet_tf.runs.models import load_run
from matnet_tf.runs.workdir import read_experiment
from matnet_tf.tracing import without_autograph

__all__ = ["ELBO_SAMPLES", "evaluate", "importance_weighted_bound"]

_WAIT_SECONDS = 0.5
ELBO_SAMPLES = 5  # Draws of the latents over which the ELBO of an image is averaged.


def importance_weighted_bound(
    model: ElboModel,
    dataset: Iterable[Any],
    num_samples: int,
    seed: int = 0,
    chunk: int | None = None,
) -> PerImage:
    """Computes the importance-weighted bound and the ELBO of every image of a data set.

    The bottom-up pass of the bound runs once per image. The noise of a batch depends only on the
    seed, the position of its first image, the batch size and the chunk. The bound for fewer
    samples uses the first ones.

    Args:
      model: A MatNet, or a conditional model, whose bound is on log p(x_u | x_k).
      dataset: Batches of images `[B, H, W, C]`, of `(images, labels)`, or of dictionaries with
        `image`; for a conditional model, of dictionaries with `image` and `mask`.
      num_samples: K.
      seed: Integer seed for the samples.
      chunk: Image-samples per top-down pass, which bounds the memory; by default the model's
        `samples_per_pass`.

    Returns:
      The bounds in nats, one entry per image, in the data set's order.

    Raises:
      ValueError: If images do not match the model's config, there are none, K or the chunk is
        below 1, or a bound is not finite.
    """
    groups = _groups(_batches(model, dataset), model.distribute_strategy.num_replicas_in_sync)
    measured = [_measure_group(model, group, num_samples, seed, chunk) for group in groups]
    return _concatenate([part for parts in measured for part in parts])


@without_autograph
def evaluate(
    workdir: str | os.PathLike, config: EvaluateConfig, data_dir: str = "", num_devices: int = 0
) -> dict[str, Any]:
    """Measures the trained model of a work directory and adds a record to evaluation.json.

    An interrupted evaluation is resumed. A recorded one does not run again, except for batches
    whose files were lost or damaged since. Processes with the same work share it; the results
    depend neither on their number nor on the number of devices.

    Args:
      workdir: A work directory of `matnet train`.
      config: Which images to measure, how many samples, which weights.
      data_dir: Directory of the data, if it is not the one in the work directory's config.
      num_devices: Number of devices, see `devices.local_strategy`.

    Returns:
      The record in evaluation.json: nats per image, with standard errors over images.

    Raises:
      ValueError: If the work directory, its evaluation.json, the split, the subset or the devices
        cannot be used, or a bound is not finite.
      OSError: If results cannot be written.
      MemoryError: If a pass needs more memory than its device has; it says what to try.
    """
    workdir, strategy = pathlib.Path(workdir), devices.local_strategy(num_devices)
    run = read_experiment(workdir, data_dir)
    read_records(workdir)  # Fails now, rather than after the work, if no record can be added.
    split = loading.load(run.data, config.split)
    chosen = chosen_images(config, split.num_images)
    with strategy.scope():
        loaded = load_run(workdir, config.weights)
    settings = bound_settings(config, loaded, run.data.name, split, len(chosen))
    settings["elbo_samples"] = ELBO_SAMPLES
    folder = workdir / "evaluation" / (key := _key(settings))
    measure = functools.partial(_measure, loaded.model, split, chosen, config, folder)
    if recorded := [record for record in read_records(workdir) if record["key"] == key]:
        if damaged(folder, -(-len(chosen) // config.batch_size)):
            measure()
        print("evaluate: already in evaluation.json", file=sys.stderr)
        return recorded[0]
    folder.mkdir(parents=True, exist_ok=True)
    write_whole({folder / "settings.json": (json.dumps(settings, indent=2) + "\n").encode()})
    return append_record(workdir, _record(settings, *measure(), loaded.model) | {"key": key})


def _key(settings: dict[str, Any]) -> str:
    """Digests the settings: evaluations whose results may differ have different keys."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


# The bounds.


class _Batch(NamedTuple):
    """The inputs of one batch, and its place among the measured images."""

    position: int  # of the first image
    inputs: tuple[tf.Tensor, ...]

    @property
    def size(self) -> int:
        return self.inputs[0].shape[0]


def _batches(model: ElboModel, dataset: Iterable[Any]) -> Iterator[_Batch]:
    """Yields the checked batches of a data set."""
    position = 0
    for element in dataset:
        batch = _Batch(position, model.input_form.check(*model.input_form.unpack(element)))
        yield batch
        position += batch.size


def _groups(batches: Iterable[_Batch], replicas: int) -> Iterator[list[_Batch]]:
    """Groups batches of equal size, at most one for each replica."""
    group: list[_Batch] = []
    for batch in batches:
        if group and (len(group) == replicas or batch.size != group[0].size):
            yield group
            group = []
        group.append(batch)
    if group:
        yield group


def _measure_group(
    model: ElboModel, group: Sequence[_Batch], num_samples: int, seed: int, chunk: int | None
) -> list[PerImage]:
    """Computes the bounds of each batch, which do not depend on the others of the group."""
    inputs = [batch.inputs for batch in group]
    seeds = [batch_seeds(seed, batch.position) for batch in group]
    chunks = log_weights_on_replicas(model, inputs, num_samples, [s for s, _ in seeds], chunk)
    by_batch = zip(*chunks, strict=True)
    bounds = [nested_bounds(own, nested_counts(num_samples)) for own in by_batch]
    elbos = _mean_elbos(model, inputs, [s for _, s in seeds])
    found = []
    for batch, log_likelihood, (elbo, kl) in zip(group, bounds, elbos, strict=True):
        for values in (log_likelihood[num_samples], elbo):
            check_finite(values, batch.position)
        found.append(PerImage(log_likelihood, elbo, kl, _dims(batch.inputs)))
    return found


def _dims(inputs: tuple[Any, ...]) -> np.ndarray:
    """Counts the values that each bound is on, `[B]`: all of an image, or those a mask hides."""
    x, *masks = (np.asarray(part) for part in inputs)
    hidden = 1 - masks[0] if masks else np.ones_like(x[..., :1])
    return hidden.astype(np.float64).sum(axis=(1, 2, 3)) * x.shape[-1]


def _mean_elbos(
    model: ElboModel, inputs: Sequence[tuple[tf.Tensor, ...]], seeds: Sequence[tf.Tensor]
) -> list[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Averages ELBO `[B]` and KL `{level: [B]}` of each batch over `ELBO_SAMPLES` draws."""
    draws = [
        bounds_on_replicas(model, inputs, [tf.random.fold_in(seed, i) for seed in seeds])
        for i in range(ELBO_SAMPLES)
    ]

    def mean(values):
        return np.mean([value.numpy() for value in values], axis=0, dtype=np.float64)

    return [
        (
            mean([bound.elbo for bound in bounds]),
            {level: mean([bound.kl[level] for bound in bounds]) for level in bounds[0].kl},
        )
        for bounds in zip(*draws, strict=True)
    ]


def _concatenate(parts: Sequence[PerImage]) -> PerImage:
    if not parts:
        raise ValueError(EMPTY)

    def join(dictionaries):
        return {k: np.concatenate([d[k] for d in dictionaries]) for k in dictionaries[0]}

    return PerImage(
        join([part.log_likelihood for part in parts]),
        np.concatenate([part.elbo for part in parts]),
        join([part.kl for part in parts]),
        np.concatenate([part.dims for part in parts]),
    )


# Batches and their files.


def _measure(
    model: ElboModel,
    split: loading.Split,
    chosen: np.ndarray,
    config: EvaluateConfig,
    folder: pathlib.Path,
) -> tuple[PerImage, float]:
    """Computes the bounds of the chosen images; returns them and the seconds that they took.

    Several processes may call this at once, on one machine or on several: each batch is measured
    by one of them, and a process that is killed leaves its batches to the others.
    """
    size = config.batch_size
    with (
        BatchFiles(folder, -(-len(chosen) // size)) as results,
        image_progress("evaluate", len(chosen), results.num_images()) as progress,
        split.images.reading(),
        devices.tensor_float_32(config.tf32),
        devices.translate_out_of_memory(less_memory(config, model)),
    ):
        while missing := results.missing():
            wanted = np.concatenate([chosen[n * size : (n + 1) * size] for n in missing])
            batches = _batches(model, split.evaluation_dataset(size, wanted))
            claimed = (
                batch._replace(position=number * size)
                for number, batch in zip(missing, batches, strict=True)
                if results.claim(number)
            )
            if not _fill(results, claimed, model, chosen, config, progress):
                time.sleep(_WAIT_SECONDS)  # Other processes hold the remaining batches.
        progress.update(results.num_images() - progress.n)
        parts, seconds = zip(*(results.found[n] for n in sorted(results.found)), strict=True)
    return _concatenate(parts), sum(seconds)


def _fill(
    results: BatchFiles,
    batches: Iterable[_Batch],
    model: ElboModel,
    chosen: np.ndarray,
    config: EvaluateConfig,
    progress: tqdm,
) -> int:
    """Measures batches and saves their results; returns the number of batches."""
    replicas, count = model.distribute_strategy.num_replicas_in_sync, 0
    started = time.monotonic()
    for group in _groups(batches, replicas):
        parts = _measure_group(model, group, config.num_samples, config.seed, config.chunk or None)
        taken = (time.monotonic() - started) / len(group)
        for batch, part in zip(group, parts, strict=True):
            images = chosen[batch.position : batch.position + batch.size]
            results.save(batch.position // config.batch_size, part, images, taken)
            count += 1
        progress.update(results.num_images() - progress.n)
        started = time.monotonic()
    return count


# The record.


def _record(
    settings: dict[str, Any], bounds: PerImage, seconds: float, model: ElboModel
) -> dict[str, Any]:
    """Summarizes the bounds of all images."""
    num_samples, count = settings["num_samples"], settings["images"]["count"]
    nll = {k: -float(v.mean()) for k, v in bounds.log_likelihood.items()}
    neg_elbo = -float(bounds.elbo.mean())
    kl = {level: float(v.mean()) for level, v in bounds.kl.items()}
    bins = model.hierarchy.likelihood.observation.bins
    dims = float(bounds.dims.mean())
    bits = functools.partial(bits_per_dim, image_shape=(dims,))
    return settings | {
        "nll": nll[num_samples],
        "nll_se": _standard_error(bounds.log_likelihood[num_samples]),
        "neg_elbo": neg_elbo,
        "neg_elbo_se": _standard_error(bounds.elbo),
        "nll_by_num_samples": {str(k): value for k, value in nll.items()},
        "bits_per_dim": bits(nll[num_samples], bins=bins),
        "dims": dims,  # Mean number of values per image that the bound is on.
        # The parts add up to the ELBO's bits per dimension.
        "elbo_bits_per_dim": {
            "latents": bits(sum(kl.values())),
            "pixels": bits(neg_elbo - sum(kl.values()), bins=bins),
        },
        "kl": kl,
        "tuned_on_test": False,
        "seconds": seconds,
        "image_samples_per_second": num_samples * count / seconds,
    }


def _standard_error(values: np.ndarray) -> float | None:
    """Returns the standard error of the mean over images; None for a single image."""
    if len(values) < 2:
        return None
    return float(values.std(ddof=1) / np.sqrt(len(values)))
