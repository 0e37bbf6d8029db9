# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Classes found without labels: the components of a mixture prior against the true classes.

`cluster` assigns the images of a split to the components of the trained model of a work directory
(paper, Sec. 2.3 and Fig. 3), measures how well they agree with the labels, and compares with
k-means on pixels and on the top latents. In the work directory it leaves

    clusters.csv        a row per image
    clusters.json       the record: numbers, and of what they are
    figures/            classes.png and components.png: see `class_figures`

Of a model without a mixture it leaves the k-means clusters of the top latents, and no figure.
Nothing here learns from a label. But purity names each cluster by the labels of the very images
that are counted, so it grows with the number of clusters: compare equal numbers.
"""

from __future__ import annotations

import csv
import io
import json
import os
import pathlib
import warnings
from typing import Any, NamedTuple

import numpy as np

from matnet_tf import data, experiment
from matnet_tf.class_figures import write_class_figures
from matnet_tf.config import ClusterConfig, EvaluateConfig, ModelConfig
from matnet_tf.files import write_whole
from matnet_tf.graphs import as_written
from matnet_tf.measurement import batch_seeds, chosen_images, settings_of
from matnet_tf.model import MatNet
from matnet_tf.progress import ImageProgress

__all__ = ["agreement", "cluster", "entropy"]

_STARTS = 10  # Of k-means, of which the best is taken.
_BATCH = 100  # Images per bottom-up pass.


@as_written
def cluster(
    workdir: str | os.PathLike, config: ClusterConfig | None = None, data_dir: str = ""
) -> dict[str, Any]:
    """Assigns images to clusters, compares with their labels, and writes the files listed above.

    Args:
      workdir: where `bin/train` ran.
      config: which images, how many draws, which weights.
      data_dir: where the data lie, if not where the work directory's config says.

    Returns:
      The record, as it stands in clusters.json; entropies in nats. Purity and normalized mutual
      information are left out if the images have no labels.

    Raises:
      ValueError: if the work directory, the split or the subset cannot be used, its model is
        conditional, or the number of clusters is missing, given beside a mixture's own, or above
        the number of images.
      OSError: if files cannot be written.
    """
    config, workdir = config or ClusterConfig(), pathlib.Path(workdir)
    run = experiment.unconditional(workdir, "clustering", data_dir)
    number = _number_of_clusters(config, run.model)
    split = data.load_for(run.model, run.data, config.split)
    chosen = chosen_images(config, split.num_images)
    if number > len(chosen):
        raise ValueError(
            f"k-means needs at least as many images as clusters, {number}; got {len(chosen)}"
        )
    loaded = experiment.load(workdir, config.weights)
    seen = _look(loaded.model, split.evaluation_dataset(_BATCH, chosen), len(chosen), config)
    labels = _labels(split, chosen)
    baselines = {name: _kmeans(points, number, config.seed) for name, points in seen.points()}
    record = _settings(config, loaded, run.data.name, split, len(chosen))
    record |= _findings(config, number, seen.probabilities, baselines, labels)
    columns = _columns(seen.probabilities, baselines)
    return _write(workdir, config, loaded.model, seen, record, _csv(chosen, labels, columns))


def agreement(labels: np.ndarray, clusters: np.ndarray) -> dict[str, float]:
    """How well clusters agree with labels: purity and normalized mutual information.

    Purity is the share of the items that have the most frequent label of their cluster. The mutual
    information is divided by the mean of the two entropies; it is 0 for independent ones, and 1
    for two names of the same partition.

    Args:
      labels: integers `[N]`.
      clusters: integers `[N]`.

    Returns:
      `purity` and `nmi`, both in [0, 1].
    """
    # scikit-learn takes its time to import, and only clusters need it.
    from sklearn import metrics

    table = metrics.cluster.contingency_matrix(labels, clusters)
    nmi = metrics.normalized_mutual_info_score(labels, clusters)
    return {"purity": float(table.max(axis=0).sum() / len(labels)), "nmi": float(nmi)}


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """Entropy over the last axis, in nats."""
    p = np.asarray(probabilities, np.float64)
    # Where p is 0, p log p is 0.
    return -np.sum(p * np.log(np.where(p > 0, p, 1.0)), axis=-1)


# What the model sees in the images.


class _Seen(NamedTuple):
    """Images, and what the model makes of them."""

    x: np.ndarray  # [N, H, W, C], as the model reads them
    top: np.ndarray  # [N, top_latents]: means of q(z_0 | x)
    probabilities: np.ndarray | None  # [N, K]: q(component | x); None without a mixture

    def points(self) -> list[tuple[str, np.ndarray]]:
        """What k-means is fitted on, `[N, ...]` each, by name."""
        return [("pixels", self.x.reshape(len(self.x), -1)), ("top_latents", self.top)]


def _look(model: MatNet, dataset, count: int, config: ClusterConfig) -> _Seen:
    parts, position, progress = [], 0, ImageProgress("cluster", 0, count)
    for x in dataset:
        top = model.top_down.gaussian(model.watch(x).top).mean().numpy()
        if not np.isfinite(top).all():
            raise ValueError("the means of z_0 must be finite: the model's weights have gone wrong")
        seed, _ = batch_seeds(config.seed, position)
        mixture = model.config.mixture_components > 0
        parts.append([x, top, *([model.assign(x, config.num_samples, seed)] if mixture else [])])
        position += len(x)
        progress.show(position)
    x, top, *probabilities = (np.concatenate(part) for part in zip(*parts, strict=True))
    return _Seen(x, top, probabilities[0] if probabilities else None)


def _number_of_clusters(config: ClusterConfig, model: ModelConfig) -> int:
    """The mixture's components, or as many as were asked for."""
    if model.mixture_components and config.components:
        raise ValueError(
            f"ClusterConfig.components is for models without a mixture prior; this one has one of "
            f"{model.mixture_components} components; got {config.components}"
        )
    if not model.mixture_components and not config.components:
        raise ValueError(
            "this model has no mixture prior: say how many clusters k-means makes, "
            "ClusterConfig.components of at least 1; got 0"
        )
    return model.mixture_components or config.components


def _labels(split: data.Split, chosen: np.ndarray) -> np.ndarray | None:
    # TFDS marks an example without a label by -1.
    if split.labels is None or (split.labels < 0).any():
        return None
    return split.labels[chosen]


def _kmeans(points: np.ndarray, number: int, seed: int) -> np.ndarray:
    """Clusters `[N]` of points `[N, n]`."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        # Of fewer distinct points than clusters, which the record shows by clusters not used.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return KMeans(number, n_init=_STARTS, random_state=seed).fit_predict(points)


# The record, and the files.


def _settings(
    config: ClusterConfig, loaded: experiment.Loaded, name: str, split: data.Split, count: int
) -> dict[str, Any]:
    """Under the names that other records have; without what has no effect here."""
    shared = {n: getattr(config, n) for n in ("split", "num_samples", "images", "seed", "weights")}
    settings = settings_of(EvaluateConfig(batch_size=_BATCH, **shared), loaded, name, split, count)
    unused = ["chunk"] if loaded.experiment.model.mixture_components else ["chunk", "num_samples"]
    return {name: value for name, value in settings.items() if name not in unused}


def _findings(
    config: ClusterConfig,
    number: int,
    probabilities: np.ndarray | None,
    baselines: dict[str, np.ndarray],
    labels: np.ndarray | None,
) -> dict[str, Any]:
    def about(clusters):
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
            **about(probabilities.argmax(axis=1)),
            "mean_entropy": float(entropy(probabilities).mean()),
            "entropy_of_mean": float(entropy(probabilities.mean(axis=0, dtype=np.float64))),
        }
    fitted = {"fitted_on": "these images", "n_init": _STARTS, "seed": config.seed}
    return found | {f"kmeans_{n}": fitted | about(clusters) for n, clusters in baselines.items()}


def _columns(
    probabilities: np.ndarray | None, baselines: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    if probabilities is None:
        return {"kmeans_top": baselines["top_latents"]}
    surest = probabilities.max(axis=1).astype(np.float64).round(6)
    return {"component": probabilities.argmax(axis=1), "probability": surest}


def _csv(indices: np.ndarray, labels: np.ndarray | None, columns: dict[str, np.ndarray]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["index", "label", *columns])
    labels = [""] * len(indices) if labels is None else labels.tolist()
    values = [column.tolist() for column in columns.values()]
    writer.writerows(zip(indices.tolist(), labels, *values, strict=True))
    return file.getvalue()


def _write(
    workdir: pathlib.Path,
    config: ClusterConfig,
    model: MatNet,
    seen: _Seen,
    record: dict[str, Any],
    table: str,
) -> dict[str, Any]:
    """Draws the figures, writes the table and the record, and gives the record with their paths."""
    paths = [workdir / "clusters.csv", workdir / "clusters.json"]
    drawn = []
    if seen.probabilities is not None:
        settings = (config.groups, config.seed)
        drawn = write_class_figures(
            workdir / "figures", model, seen.x, seen.probabilities, *settings
        )
    record = record | {"files": [*map(str, paths), *drawn]}
    text = json.dumps(record, indent=2, allow_nan=False) + "\n"
    write_whole(dict(zip(paths, (table.encode(), text.encode()), strict=True)))
    return record
