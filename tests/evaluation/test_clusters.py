# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Clusters against labels: the numbers, the table and the record."""

import csv
import dataclasses
import json

import numpy as np
import pytest
from sklearn.cluster import KMeans
from work_directories import save_checkpoint, write_run

from matnet_tf.config import ClusterConfig, DataConfig, Experiment, ModelConfig, Scale
from matnet_tf.data import loading
from matnet_tf.evaluation import clusters
from matnet_tf.evaluation.clusters import agreement, cluster, entropy
from matnet_tf.evaluation.protocol import batch_seeds
from matnet_tf.runs.models import build_model, load_run
from matnet_tf.runs.workdir import create_workdir

pytestmark = pytest.mark.usefixtures("module_eagerly")
PLAIN = ModelConfig((8, 8, 1), (Scale(1, 8, 3, 1),), top_latents=3, top_units=8)
MIXED = dataclasses.replace(PLAIN, mixture_components=5, mixture_spread=1.0)
IMAGES = 130  # One batch and a part of the next.
SETTINGS = ClusterConfig(images=IMAGES, seed=4, groups=2, num_samples=3)


@pytest.fixture(scope="module")
def clustered(tmp_path_factory, module_eagerly):
    """A run with a mixture whose components hold different images, and the record."""
    folder, experiment = tmp_path_factory.mktemp("mixed"), Experiment(MIXED)
    create_workdir(folder, experiment)
    model = build_model(experiment)
    model.hierarchy.top_down.latent_scale.assign(3.0)
    save_checkpoint(folder, model)
    return folder, cluster(folder, SETTINGS)


@pytest.fixture(scope="module")
def seen(clustered):
    """The model, the images, their labels and their indices."""
    split = loading.load(DataConfig(), "test")
    chosen = np.sort(np.random.RandomState(4).permutation(297)[:IMAGES])
    x = np.concatenate(list(split.evaluation_dataset(IMAGES, chosen)))
    return load_run(clustered[0]).model, x, split.labels[chosen], chosen


@pytest.fixture(scope="module")
def plain(tmp_path_factory, module_eagerly):
    """A work directory of a model without a mixture."""
    return write_run(tmp_path_factory.mktemp("plain"), Experiment(PLAIN))


def rows_of(workdir):
    with (workdir / "clusters.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def column(workdir, name, kind=int):
    return np.array([kind(row[name]) for row in rows_of(workdir)])


def by_hand(labels, found):
    """Purity, and mutual information over the mean entropy, from counts."""
    counts = np.array(
        [[np.sum((labels == a) & (found == b)) for b in set(found)] for a in set(labels)]
    )
    p = counts / len(labels)
    rows, columns = p.sum(1, keepdims=True), p.sum(0, keepdims=True)
    held = p > 0
    information = np.sum(p[held] * np.log(p[held] / (rows * columns)[held]))
    mean = -(np.sum(rows * np.log(rows)) + np.sum(columns * np.log(columns))) / 2
    return counts.max(axis=0).sum() / len(labels), information / mean


# The numbers.


def test_purity_and_mutual_information_are_those_by_hand():
    labels = np.array([0, 0, 0, 1, 1, 2])
    for found, purity, nmi in (
        (labels, 1.0, 1.0),
        ([5, 5, 5, 3, 3, 9], 1.0, 1.0),  # Other names.
        (np.zeros(6, int), 3 / 6, 0.0),
        # As many clusters as items: pure, but more is said than the labels know.
        (np.arange(6), 1.0, 2 * 1.0114042647 / (1.0114042647 + np.log(6))),
        # A tie in each cluster counts one of the two labels.
        ([0, 0, 1, 0, 0, 1], (2 + 1) / 6, None),
        ([1, 1, 0, 0, 2, 2], (2 + 1 + 1) / 6, None),
    ):
        measured = agreement(labels, np.array(found))
        assert measured["purity"] == pytest.approx(purity)
        if nmi is not None:
            assert measured["nmi"] == pytest.approx(nmi, abs=1e-9)
        if len(set(found)) > 1:
            assert tuple(measured.values()) == pytest.approx(by_hand(labels, np.array(found)))
    labels, found = np.divmod(np.arange(12), 3)
    assert agreement(labels, found) == {"purity": 0.25, "nmi": pytest.approx(0, abs=1e-12)}
    random = np.random.RandomState(0)
    labels = random.randint(0, 10, 400)
    found = np.where(random.rand(400) < 0.6, labels // 2, random.randint(0, 8, 400))
    assert tuple(agreement(labels, found).values()) == pytest.approx(by_hand(labels, found))


def test_entropies_are_in_nats_and_0_log_0_is_0():
    p = np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [1 / 3] * 3], np.float32)
    np.testing.assert_allclose(entropy(p), [np.log(2), 0, np.log(3)], rtol=1e-6)
    p = np.array([[0.5, 0.5], [1.0, 0.0], [0.9, 0.1]], np.float32)
    found = clusters._results(ClusterConfig(), 2, p, {}, np.array([0, 1, 1]))["mixture"]
    each = [np.log(2), 0, -0.9 * np.log(0.9) - 0.1 * np.log(0.1)]
    assert found["mean_entropy"] == pytest.approx(np.mean(each), rel=1e-6)
    mean = np.array([0.8, 0.2])
    assert found["entropy_of_mean"] == pytest.approx(-np.sum(mean * np.log(mean)), rel=1e-6)
    # The tie goes to the first component, so all three images are in it.
    assert found["used_clusters"] == 1 and found["purity"] == pytest.approx(2 / 3)


# The table and the record.


def test_the_table_has_the_most_likely_component_of_every_image(clustered, seen):
    workdir, (model, x, labels, chosen) = clustered[0], seen
    assert list(rows_of(workdir)[0]) == [
        *("index", "label", "class", "file", "component", "probability")
    ]
    np.testing.assert_array_equal(column(workdir, "index"), chosen)
    np.testing.assert_array_equal(column(workdir, "label"), labels)
    expected = [
        model.assign(batch, num_samples=3, seed=batch_seeds(4, first)[0])
        for first, batch in ((0, x[:100]), (100, x[100:]))
    ]
    expected, component = np.concatenate(expected), column(workdir, "component")
    assert len(set(component)) >= 3, "the fixture should use several components"
    np.testing.assert_array_equal(component, expected.argmax(axis=1))
    found = column(workdir, "probability", float)
    np.testing.assert_allclose(found, expected.max(axis=1), atol=1e-6)


def test_the_record_follows_from_the_table(clustered):
    workdir, record = clustered
    assert json.loads((workdir / "clusters.json").read_text()) == record
    assert record["images"] == {"count": IMAGES, "of": 297, "subset_seed": 4}
    assert (record["split"], record["weights"], record["checkpoint_step"]) == ("test", "raw", 7)
    assert record["binarization"] == {"method": "dynamic", "seed": 0}
    assert (record["num_samples"], record["seed"], record["clusters"]) == (3, 4, 5)
    assert {"data", "model_digest", "batch_size", "package_version", "commit"} <= set(record)
    assert "chunk" not in record and record["labels_used_in_fitting"] is False
    labels, component = column(workdir, "label"), column(workdir, "component")
    largest = max(np.bincount(labels)) / IMAGES
    assert record["labels"] == {"classes": 10, "largest_share": pytest.approx(largest)}
    mixture = record["mixture"]
    assert mixture["fitted_on"] == "training images"
    assert mixture["used_clusters"] == len(set(component))
    assert (mixture["purity"], mixture["nmi"]) == pytest.approx(by_hand(labels, component))
    assert 0 < mixture["mean_entropy"] < mixture["entropy_of_mean"] <= np.log(5)
    names = ["clusters.csv", "clusters.json", "figures/classes.png", "figures/components.png"]
    assert record["files"] == [str(workdir / name) for name in names]
    assert all((workdir / name).is_file() for name in names)


def test_the_baselines_are_k_means_of_the_same_images(clustered, seen):
    model, x, labels, _ = seen
    means = model.infer(x).levels[0].posterior.mean().numpy()
    for name, points in {"pixels": x.reshape(IMAGES, 64), "top_latents": means}.items():
        expected = KMeans(5, n_init=10, random_state=4).fit(points).labels_
        record = clustered[1][f"kmeans_{name}"]
        assert record["fitted_on"] == "these images"
        assert (record["n_init"], record["seed"]) == (10, 4)
        assert record["used_clusters"] == len(set(expected))
        found = by_hand(labels, expected)
        assert (record["purity"], record["nmi"]) == pytest.approx(found, rel=1e-6)
    points = np.repeat(np.eye(2), 5, axis=0)  # Fewer distinct points than clusters.
    assert len(set(clusters._kmeans(points, 4, 0))) == 2


@pytest.mark.slow
def test_the_same_settings_give_the_same_files_again(clustered):
    workdir, record = clustered
    names = ("clusters.csv", "figures/classes.png", "figures/components.png")
    before = {name: (workdir / name).read_bytes() for name in names}
    assert cluster(workdir, SETTINGS) == record
    assert {name: (workdir / name).read_bytes() for name in names} == before
    assert not list(workdir.glob("*.tmp"))


@pytest.mark.slow
def test_without_a_mixture_there_are_baselines_alone_and_without_labels_no_agreement(
    plain, monkeypatch
):
    record = cluster(plain, ClusterConfig(images=40, components=3))
    assert record["mixture"] is None and "num_samples" not in record
    assert record["clusters"] == 3 and not (plain / "figures").exists()
    assert record["files"] == [str(plain / "clusters.csv"), str(plain / "clusters.json")]
    assert list(rows_of(plain)[0]) == ["index", "label", "class", "file", "kmeans_top"]
    found = column(plain, "kmeans_top")
    assert set(found) == {0, 1, 2}
    measured = record["kmeans_top_latents"]
    expected = by_hand(column(plain, "label"), found)
    assert (measured["purity"], measured["nmi"]) == pytest.approx(expected)

    # TFDS marks an example without a label by -1. There are as many clusters as classes.
    load, unlabelled = loading.load_for, {"labels": np.full(297, -1), "classes": ["a", "b"]}
    for known, number in ((unlabelled, 2), ({"labels": None, "classes": None}, 10)):
        with monkeypatch.context() as patch:
            patch.setattr(
                loading, "load_for", lambda *a, known=known: dataclasses.replace(load(*a), **known)
            )
            record = cluster(plain, ClusterConfig(images=20))
        assert record["labels"] is None and record["clusters"] == number
        for name in ("kmeans_pixels", "kmeans_top_latents"):
            assert record[name]["used_clusters"] == number and "purity" not in record[name]
        assert {row["label"] for row in rows_of(plain)} == {""}


@pytest.mark.slow
def test_what_cannot_be_done_is_one_error_and_leaves_nothing(tmp_path):
    mixed = write_run(tmp_path / "mixed", Experiment(MIXED))
    plain = write_run(tmp_path / "plain", Experiment(PLAIN))
    conditional = dataclasses.replace(PLAIN, conditional_stages=2)
    create_workdir(tmp_path / "conditional", Experiment(conditional, DataConfig(mask="half")))
    before = sorted(tmp_path.rglob("*"))
    for workdir, fields, message in (
        (mixed, {"components": 5}, "mixture of 5 components; got 5"),
        (mixed, {"images": 298}, "ClusterConfig.images must be at most 297"),
        (mixed, {"images": 4}, "as many images as clusters, 5; got 4"),
        (mixed, {"split": "validation"}, "no validation split"),
        (mixed, {"weights": "averaged"}, "keeps no averaged weights"),
        (tmp_path / "conditional", {}, "clustering needs a model of whole images; .*conditional"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            cluster(workdir, ClusterConfig(**fields))
        assert "\n" not in str(error.value)
    assert sorted(tmp_path.rglob("*")) == before
    model = build_model(Experiment(PLAIN))
    for variable in model.hierarchy.guide.trainable_variables:
        variable.assign(np.full(variable.shape, np.nan))
    save_checkpoint(plain, model, step=8)
    with pytest.raises(ValueError, match="means of z_0 must be finite"):
        cluster(plain, ClusterConfig(images=4, components=2))
