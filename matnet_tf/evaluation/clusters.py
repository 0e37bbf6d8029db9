# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Classes found without labels: the components of a mixture prior compared with true classes.

`cluster` assigns the images of a split to the components of a trained model (paper, Sec. 2.3 and
Fig. 3), measures how well they agree with the labels, and compares with k-means on pixels and on
the top latents. It writes to the work directory

    clusters.csv        a row per image
    clusters.json       the record: numbers and settings
    figures/            classes.png and components.png, see `plots.classes`

For a model without a mixture it writes the k-means clusters of the top latents, and no figures.
Nothing here learns from labels. Purity, however, names each cluster by the labels of the images
that it counts, so it grows with the number of clusters: compare equal numbers.
"""

from __future__ import annotations

import csv
import io
import json
import os
import pathlib
import warnings
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from matnet_tf.config import ClusterConfig, EvaluateConfig, ModelConfig
from matnet_tf.data import loading
from matnet_tf.evaluation.protocol import batch_seeds, bound_settings, chosen_images
from matnet_tf.files import write_whole
from matnet_tf.model.matnet import MatNet
from matnet_tf.plots.classes import write_class_figures
from matnet_tf.progress import image_progress
from matnet_tf.runs import devices
from matnet_tf.runs.models import LoadedRun, load_run
from matnet_tf.runs.workdir import read_unconditional
from matnet_tf.tracing import without_autograph

__all__ = ["agreement", "cluster", "entropy"]

_STARTS = 10  # Random starts of k-means; the best result counts.
_BATCH = 100  # Images per bottom-up pass.
_CLUSTERS = 10  # Of images without classes.


@without_autograph
def cluster(
    workdir: str | os.PathLike, config: ClusterConfig | None = None, data_dir: str = ""
) -> dict[str, Any]:
    """Assigns images to clusters, compares with their labels, and writes the files listed above.

    Args:
      workdir: A work directory of `matnet train`.
      config: Which images to assign, how many draws, which weights.
      data_dir: Directory of the data, if it is not the one in the work directory's config.

    Returns:
      The record in clusters.json; entropies in nats. Without labels it has no purity and no
      normalized mutual information.

    Raises:
      ValueError: If the work directory, the split or the subset cannot be used, the model is
        conditional, or the number of clusters conflicts with the mixture's or exceeds the number of
        images.
      OSError: If files cannot be written.
    """
    config, workdir = config or ClusterConfig(), pathlib.Path(workdir)
    run = read_unconditional(workdir, "clustering", data_dir)
    _check_components(config, run.model)
    split = loading.load_for(run.model, run.data, config.split)
    chosen = chosen_images(config, split.num_images)
    number = run.model.mixture_components or config.components
    number = number or min(len(split.classes or ()) or _CLUSTERS, len(chosen))
    if number > len(chosen):
        raise ValueError(
            f"k-means needs at least as many images as clusters, {number}; got {len(chosen)}"
        )
    loaded = load_run(workdir, config.weights)
    with split.images.reading(), devices.tensor_float_32(False):
        images = split.evaluation_dataset(_BATCH, chosen)
        encoded = _encode(loaded.model, images, len(chosen), config)
    labels = _labels(split, chosen)
    baselines = {name: _kmeans(points, number, config.seed) for name, points in encoded.points()}
    record = _settings(config, loaded, run.data.name, split, len(chosen))
    record |= _results(config, number, encoded.probabilities, baselines, labels)
    columns = _columns(encoded.probabilities, baselines)
    return _write(
        workdir, config, loaded.model, encoded, record, _csv(split.columns(chosen), columns)
    )


def agreement(labels: np.ndarray, clusters: np.ndarray) -> dict[str, float]:
    """Measures how well clusters agree with labels.

    Purity is the share of items with the most frequent label of their cluster. Normalized mutual
    information is divided by the mean of the two entropies: 0 for independent partitions, 1 for
    equal ones.

    Args:
      labels: Integers `[N]`.
      clusters: Integers `[N]`.

    Returns:
      `purity` and `nmi`, both in [0, 1].
    """
    # scikit-learn is slow to import, and only clusters need it.
    from sklearn import metrics

    table = metrics.cluster.contingency_matrix(labels, clusters)
    nmi = metrics.normalized_mutual_info_score(labels, clusters)
    return {"purity": float(table.max(axis=0).sum() / len(labels)), "nmi": float(nmi)}


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """Computes the entropy over the last axis, in nats."""
    p = np.asarray(probabilities, np.float64)
    # p log p is 0 where p is 0.
    return -np.sum(p * np.log(np.where(p > 0, p, 1.0)), axis=-1)


# Images and their encodings.


class _Encoded(NamedTuple):
    """Images and what the model infers from them."""

    x: np.ndarray  # [N, H, W, C], float32 in [0, 1]
    top: np.ndarray  # [N, top_latents]: means of q(z_0 | x)
    probabilities: np.ndarray | None  # [N, K]: q(component | x); None without a mixture

    def points(self) -> list[tuple[str, np.ndarray]]:
        """Lists the points `[N, n]` that k-means clusters, by name."""
        return [("pixels", self.x.reshape(len(self.x), -1)), ("top_latents", self.top)]


def _encode(model: MatNet, dataset: Iterable[Any], count: int, config: ClusterConfig) -> _Encoded:
    """Encodes `count` images of a data set, batch by batch."""
    hierarchy, parts, position = model.hierarchy, [], 0
    with image_progress("cluster", count) as progress:
        for x in dataset:
            top = hierarchy.top_down.gaussian(hierarchy.encode(x).top).mean().numpy()
            if not np.isfinite(top).all():
                raise ValueError(
                    "the means of z_0 must be finite: the model's weights have gone wrong"
                )
            part = [x, top]
            if model.config.mixture_components:
                seed, _ = batch_seeds(config.seed, position)
                part.append(model.assign(x, config.num_samples, seed))
            parts.append(part)
            position += len(x)
            progress.update(len(x))
    x, top, *probabilities = (np.concatenate(part) for part in zip(*parts, strict=True))
    return _Encoded(x, top, probabilities[0] if probabilities else None)


def _check_components(config: ClusterConfig, model: ModelConfig) -> None:
    if model.mixture_components and config.components:
        raise ValueError(
            f"ClusterConfig.components is for models without a mixture prior; this model has a "
            f"mixture of {model.mixture_components} components; got {config.components}"
        )


def _labels(split: loading.Split, chosen: np.ndarray) -> np.ndarray | None:
    # TFDS marks an example without a label by -1.
    if split.labels is None or (split.labels < 0).any():
        return None
    return split.labels[chosen]


def _kmeans(points: np.ndarray, number: int, seed: int) -> np.ndarray:
    """Clusters points `[N, n]`; returns the cluster of each, `[N]`."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        # scikit-learn warns of fewer distinct points than clusters; the record shows them.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return KMeans(number, n_init=_STARTS, random_state=seed % 2**32).fit_predict(points)


# The record and the files.


def _settings(
    config: ClusterConfig, loaded: LoadedRun, name: str, split: loading.Split, count: int
) -> dict[str, Any]:
    """Collects the settings under the names of other records, without those that do not apply."""
    shared = {n: getattr(config, n) for n in ("split", "num_samples", "images", "seed", "weights")}
    settings = bound_settings(
        EvaluateConfig(batch_size=_BATCH, **shared), loaded, name, split, count
    )
    unused = {"chunk", "jit_compile"}
    if not loaded.experiment.model.mixture_components:
        unused.add("num_samples")
    return {name: value for name, value in settings.items() if name not in unused}


def _results(
    config: ClusterConfig,
    number: int,
    probabilities: np.ndarray | None,
    baselines: dict[str, np.ndarray],
    labels: np.ndarray | None,
) -> dict[str, Any]:
    """Compares the mixture's components and the k-means clusters with the labels."""

    def describe(clusters):
        used = {"used_clusters": len(np.unique(clusters))}
        return used if labels is None else used | agreement(labels, clusters)

    found = {"clusters": number, "labels_used_in_fitting": False, "labels": None, "mixture": None}
    if labels is not None:
        counts = np.unique(labels, return_counts=True)[1]
        found["labels"] = {
            "classes": len(counts),
            "largest_share": float(counts.max() / counts.sum()),
        }
    if probabilities is not None:
        found["mixture"] = {
            "fitted_on": "training images",
            **describe(probabilities.argmax(axis=1)),
            "mean_entropy": float(entropy(probabilities).mean()),
            "entropy_of_mean": float(entropy(probabilities.mean(axis=0, dtype=np.float64))),
        }
    fitted = {"fitted_on": "these images", "n_init": _STARTS, "seed": config.seed}
    return found | {f"kmeans_{n}": fitted | describe(clusters) for n, clusters in baselines.items()}


def _columns(
    probabilities: np.ndarray | None, baselines: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    if probabilities is None:
        return {"kmeans_top": baselines["top_latents"]}
    largest = probabilities.max(axis=1).astype(np.float64).round(6)
    return {"component": probabilities.argmax(axis=1), "probability": largest}


def _csv(known: dict[str, list], columns: dict[str, np.ndarray]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*known, *columns])
    values = [column.tolist() for column in columns.values()]
    writer.writerows(zip(*known.values(), *values, strict=True))
    return file.getvalue()


def _write(
    workdir: pathlib.Path,
    config: ClusterConfig,
    model: MatNet,
    encoded: _Encoded,
    record: dict[str, Any],
    table: str,
) -> dict[str, Any]:
    """Draws the figures, writes table and record, and returns the record with their paths."""
    paths = [workdir / "clusters.csv", workdir / "clusters.json"]
    drawn = []
    if encoded.probabilities is not None:
        drawn = write_class_figures(
            *(workdir / "figures", model, encoded.x, encoded.probabilities),
            *(config.groups, config.seed),
        )
    record = record | {"files": [*map(str, paths), *drawn]}
    text = json.dumps(record, indent=2, allow_nan=False) + "\n"
    write_whole(dict(zip(paths, (table.encode(), text.encode()), strict=True)))
    return record
