# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Clusters against labels: the numbers, the table and the pictures of a work directory."""

import csv
import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys

import matplotlib.image
import numpy as np
import pytest
from sklearn.cluster import KMeans
from source_files import pixels, save_images
from work_directories import save_checkpoint, write_run

from matnet_tf import class_figures, clusters, data, datasets, experiment, pictures
from matnet_tf.clusters import agreement, cluster, entropy
from matnet_tf.config import ClusterConfig, DataConfig, Experiment, ModelConfig, Stage
from matnet_tf.measurement import batch_seeds

ROOT = pathlib.Path(__file__).resolve().parent.parent
PLAIN = ModelConfig((8, 8, 1), (Stage(1, 12, 3, 2),), top_latents=3, top_units=8)
MIXED = dataclasses.replace(PLAIN, mixture_components=5, mixture_spread=1.0)
IMAGES = 130  # One batch and a part of the next.


@pytest.fixture(scope="module")
def mixed(tmp_path_factory, module_eagerly, reused_models):
    """A run with a mixture whose components hold different images; not to be changed."""
    folder, settings = tmp_path_factory.mktemp("mixed"), Experiment(MIXED)
    experiment.create(folder, settings)
    model = experiment.build_model(settings)
    model.top_down.latent_scale.assign(3.0)
    save_checkpoint(folder, model)
    return folder


@pytest.fixture(scope="module")
def clustered(mixed, tmp_path_factory):
    """A work directory that was looked at, and the record; not to be changed."""
    folder = shutil.copytree(mixed, tmp_path_factory.mktemp("clustered") / "run")
    return folder, cluster(folder, ClusterConfig(images=IMAGES, seed=4, groups=2, num_samples=3))


@pytest.fixture
def seen(clustered):
    """The model, the images, their labels and which they are; loaded for each test anew.

    Other tests build a model of equal settings, and so give this one its first weights back.
    """
    model = experiment.load(clustered[0]).model
    split = data.load(DataConfig(), "test")
    chosen = np.sort(np.random.RandomState(4).permutation(297)[:IMAGES])
    x = np.concatenate(list(split.evaluation_dataset(IMAGES, chosen)))
    return model, x, split.labels[chosen], chosen


@pytest.fixture(scope="module")
def unmixed(tmp_path_factory, module_eagerly, reused_models):
    """A run without a mixture; not to be changed."""
    return write_run(tmp_path_factory.mktemp("unmixed"), Experiment(PLAIN))


@pytest.fixture
def plain(unmixed, tmp_path):
    """A work directory of a model without a mixture."""
    return shutil.copytree(unmixed, tmp_path / "plain")


def rows_of(workdir):
    with (workdir / "clusters.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def column(workdir, name, kind=int):
    return np.array([kind(row[name]) for row in rows_of(workdir)])


def by_hand(labels, found):
    """Purity and mutual information over the mean entropy, from counts."""
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

NAMED = np.array([0, 0, 0, 1, 1, 2])
AGREEMENTS = {
    "the same": (NAMED, 1.0, 1.0),
    "other names": (np.array([5, 5, 5, 3, 3, 9]), 1.0, 1.0),
    "one cluster": (np.zeros(6, int), 3 / 6, 0.0),
    # As many clusters as items: pure, but more is said than the labels know.
    "one each": (np.arange(6), 1.0, 2 * 1.0114042647 / (1.0114042647 + np.log(6))),
    # A tie in the first cluster, and one in the second, count one of the two labels.
    "ties": (np.array([0, 0, 1, 0, 0, 1]), (2 + 1) / 6, None),
    "mixed": (np.array([1, 1, 0, 0, 2, 2]), (2 + 1 + 1) / 6, None),
}


@pytest.mark.parametrize(("found", "purity", "nmi"), AGREEMENTS.values(), ids=AGREEMENTS)
def test_purity_and_mutual_information_are_those_by_hand(found, purity, nmi):
    measured = agreement(NAMED, found)
    assert measured["purity"] == pytest.approx(purity)
    if nmi is not None:
        assert measured["nmi"] == pytest.approx(nmi, abs=1e-9)
    if len(set(found)) > 1:
        assert tuple(measured.values()) == pytest.approx(by_hand(NAMED, found))


def test_independent_clusters_say_nothing():
    labels, found = np.divmod(np.arange(12), 3)
    assert agreement(labels, found) == {"purity": 0.25, "nmi": pytest.approx(0, abs=1e-12)}


def test_random_clusters_agree_with_counts_by_hand():
    random = np.random.RandomState(0)
    labels = random.randint(0, 10, 400)
    found = np.where(random.rand(400) < 0.6, labels // 2, random.randint(0, 8, 400))
    assert tuple(agreement(labels, found).values()) == pytest.approx(by_hand(labels, found))


def test_entropies_are_in_nats_and_0_log_0_is_0():
    p = np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [1 / 3] * 3], np.float32)
    np.testing.assert_allclose(entropy(p), [np.log(2), 0, np.log(3)], rtol=1e-6)


# The table and the record of a model with a mixture.


def test_the_table_has_the_surest_component_of_every_image(clustered, seen):
    workdir, (model, x, labels, chosen) = clustered[0], seen
    assert list(rows_of(workdir)[0]) == ["index", "label", "component", "probability"]
    np.testing.assert_array_equal(column(workdir, "index"), chosen)
    np.testing.assert_array_equal(column(workdir, "label"), labels)
    batches, expected = ((0, x[:100]), (100, x[100:])), []
    for first, batch in batches:
        seed, _ = batch_seeds(4, first)
        expected.append(model.assign(batch, num_samples=3, seed=seed))
    expected = np.concatenate(expected)
    component = column(workdir, "component")
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
    assert "chunk" not in record
    assert record["labels_used_in_fitting"] is False
    labels, component = column(workdir, "label"), column(workdir, "component")
    largest = max(np.bincount(labels)) / IMAGES
    assert record["labels"] == {"classes": 10, "largest_share": pytest.approx(largest)}
    mixture = record["mixture"]
    assert mixture["fitted_on"] == "training images"
    assert mixture["used_clusters"] == len(set(component))
    assert (mixture["purity"], mixture["nmi"]) == pytest.approx(by_hand(labels, component))
    assert 0 < mixture["mean_entropy"] < mixture["entropy_of_mean"] <= np.log(5)


def test_the_entropies_are_those_of_the_components_probabilities():
    p = np.array([[0.5, 0.5], [1.0, 0.0], [0.9, 0.1]], np.float32)
    found = clusters._findings(ClusterConfig(), 2, p, {}, np.array([0, 1, 1]))["mixture"]
    each = [np.log(2), 0, -0.9 * np.log(0.9) - 0.1 * np.log(0.1)]
    assert found["mean_entropy"] == pytest.approx(np.mean(each), rel=1e-6)
    mean = np.array([0.8, 0.2])
    assert found["entropy_of_mean"] == pytest.approx(-np.sum(mean * np.log(mean)), rel=1e-6)
    # The tie goes to the first component, so all three images are in it.
    assert found["used_clusters"] == 1 and found["purity"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("name", ["pixels", "top_latents"])
def test_the_baselines_are_k_means_of_the_same_images(clustered, seen, name):
    model, x, labels, _ = seen
    means = model.infer(x).levels[0].posterior.mean()
    points = {"pixels": x.reshape(IMAGES, 64), "top_latents": means.numpy()}[name]
    expected = KMeans(5, n_init=10, random_state=4).fit(points).labels_
    record = clustered[1][f"kmeans_{name}"]
    assert record["fitted_on"] == "these images"
    assert (record["n_init"], record["seed"]) == (10, 4)
    assert record["used_clusters"] == len(set(expected))
    purity, nmi = by_hand(labels, expected)
    assert (record["purity"], record["nmi"]) == pytest.approx((purity, nmi), rel=1e-6)


@pytest.mark.slow
def test_the_same_settings_give_the_same_files_again(clustered, tmp_path):
    workdir, record = clustered
    again = shutil.copytree(workdir, tmp_path / "again")
    config = ClusterConfig(images=IMAGES, seed=4, groups=2, num_samples=3)
    other = cluster(again, config)
    assert other | {"files": record["files"]} == record
    for name in ("clusters.csv", "figures/classes.png", "figures/components.png"):
        assert (again / name).read_bytes() == (workdir / name).read_bytes()
    assert not list(again.glob("*.tmp"))


# Models without a mixture, images without labels.


def test_a_model_without_a_mixture_has_its_baselines_and_no_picture(plain):
    record = cluster(plain, ClusterConfig(images=40, components=3))
    assert record["mixture"] is None and "num_samples" not in record
    assert record["clusters"] == 3 and not (plain / "figures").exists()
    assert record["files"] == [str(plain / "clusters.csv"), str(plain / "clusters.json")]
    assert list(rows_of(plain)[0]) == ["index", "label", "kmeans_top"]
    found = column(plain, "kmeans_top")
    assert set(found) == {0, 1, 2}
    measured = record["kmeans_top_latents"]
    expected = by_hand(column(plain, "label"), found)
    assert (measured["purity"], measured["nmi"]) == pytest.approx(expected)


@pytest.mark.slow
def test_images_without_labels_have_assignments_and_pictures_alone(tmp_path):
    for split, count in (("train", 3), ("test", 9)):
        save_images(tmp_path / "source" / split, pixels(count, (8, 8, 1)))
    unlabelled = DataConfig("image_folder", str(tmp_path / "tfds"))
    datasets.prepare(unlabelled, str(tmp_path / "source"))
    workdir = write_run(tmp_path / "run", Experiment(MIXED, unlabelled))
    record = cluster(workdir)
    assert record["labels"] is None
    for name in ("mixture", "kmeans_pixels", "kmeans_top_latents"):
        assert "used_clusters" in record[name]
        assert not {"purity", "nmi"} & set(record[name])
    rows = rows_of(workdir)
    assert len(rows) == 9 and {row["label"] for row in rows} == {""}
    assert (workdir / "figures" / "components.png").is_file()


def test_examples_that_tfds_marks_as_without_a_label_are_not_a_class(plain, monkeypatch):
    load = data.load_for

    def unmarked(*arguments):
        split = load(*arguments)
        return dataclasses.replace(split, labels=np.full(split.num_images, -1))

    monkeypatch.setattr(data, "load_for", unmarked)
    record = cluster(plain, ClusterConfig(images=20, components=2))
    assert record["labels"] is None and "purity" not in record["kmeans_pixels"]
    assert {row["label"] for row in rows_of(plain)} == {""}


def test_fewer_distinct_images_than_clusters_show_in_the_record():
    points = np.repeat(np.eye(2), 5, axis=0)
    assert len(set(clusters._kmeans(points, 4, 0))) == 2


# The pictures.


def drawn(path):
    return np.rint(matplotlib.image.imread(path)[..., :3] * 255).astype(int)[::2, ::2]


def test_the_examples_are_the_surest_of_components_with_at_least_three_images():
    p = np.full((14, 4), 0.01)
    of = np.array([0, 0, 1, 1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3])
    sure = [0.9, 0.9, 0.5, 0.7, 0.7, 0.6, 0.8, 0.9, 0.8, 0.8, 0.801, 0.8, 0.8, 0.8]
    p[np.arange(14), of] = sure
    found = class_figures.example_images(p, groups=6)
    # 2 and 3 differ by less than a percent, and 3 has more images; 0 has two images only.
    assert list(found) == [3, 2, 1]
    assert [list(images) for images in found.values()] == [[10, 9, 11], [7, 6, 8], [3, 4, 5]]
    assert list(class_figures.example_images(p, groups=2)) == [3, 2]
    assert class_figures.example_images(p[:2], groups=6) == {}


def test_classes_show_held_out_images_above_what_is_left_of_their_top_levels(clustered, seen):
    workdir, (model, x, _, _) = clustered[0], seen
    component = column(workdir, "component")
    surest = column(workdir, "probability", float)
    picture = drawn(workdir / "figures" / "classes.png")
    side, top = 56, 20
    group = 3 * side + 2
    left = picture.shape[1] - 8 - 2 * group - 16
    assert picture.shape[0] == top + side + 8 + 3 * side + 2 + 8, "images, and top 1, 2 and 3 of 3"
    shown = []
    for start in (left, left + group + 16):
        row = picture[top : top + side, start : start + group]
        cells = [row[:, i * (side + 1) :][:, :side] for i in range(3)]
        found = []
        for cell in cells:
            same = [
                i for i, one in enumerate(x) if (pictures.image_grid(one[None], 1) == cell).all()
            ]
            assert same, "the picture is of no image"
            found.append(same[0])
        held = set(component[found])
        assert len(held) == 1
        ranked = np.sort(surest[component == held.pop()])[::-1][:3]
        np.testing.assert_allclose(surest[found], ranked)
        shown += found
    below = top + side + 8
    for kept in (1, 2, 3):
        expected = model.reconstruct(x[shown], kept, seed=4).numpy()
        for i, start in enumerate((left, left + group + 16)):
            grid = pictures.image_grid(expected[3 * i : 3 * i + 3], 3)
            found = picture[below : below + side, start : start + group]
            # Eager and graph may differ in the last bit, hence by one grey value.
            assert np.abs(found - grid).max() <= 1
        below += side + 1


def test_components_show_free_draws_of_the_most_used_ones(clustered, seen):
    workdir, (model, *_) = clustered[0], seen
    counts = np.bincount(column(workdir, "component"), minlength=5)
    used = [c for c in np.argsort(-counts, kind="stable") if counts[c]]
    draws = model.sample(10 * len(used), seed=4, component=np.repeat(used, 10)).numpy()
    grid = pictures.image_grid(draws, 10)
    picture = drawn(workdir / "figures" / "components.png")
    height, width = grid.shape[:2]
    assert picture.shape[0] == height + 16
    found = picture[8 : 8 + height, picture.shape[1] - 8 - width : -8]
    np.testing.assert_array_equal(found, grid)


@pytest.mark.parametrize(
    ("levels", "kept"),
    [
        (2, [1, 2]),
        (5, [1, 2, 4, 5]),
        (10, [1, 2, 4, 6, 8, 10]),
        (11, [1, 2, 4, 6, 8, 10]),
        (30, [1, 2, 4, 6, 8, 10]),
    ],
)
def test_the_rows_are_the_papers_as_far_as_the_model_has_levels(levels, kept):
    assert class_figures.kept_levels(levels) == kept


def test_without_three_images_of_a_component_there_is_no_picture_of_classes(seen, tmp_path):
    model, x, *_ = seen
    p = np.eye(5)[[0, 0, 1, 1]]
    # The picture of an earlier look would pass for one of this.
    (tmp_path / "classes.png").write_text("old")
    paths = class_figures.write_class_figures(tmp_path, model, x[:4], p)
    assert paths == [str(tmp_path / "components.png")]
    assert [path.name for path in tmp_path.iterdir()] == ["components.png"]


def test_labels_and_titles_say_what_is_shown(seen, monkeypatch, tmp_path):
    model, x, *_ = seen
    figures = []
    monkeypatch.setattr(pictures, "save", lambda figure, path: figures.append(figure))
    p = np.eye(5)[[0, 1, 1, 1, 4, 4, 4, 4]]
    class_figures.write_class_figures(tmp_path, model, x[:8], p)
    (classes,), (components,) = (figure.axes for figure in figures)
    assert [text.get_text() for text in classes.get_xticklabels()] == ["component 4", "component 1"]
    rows = ["images", *(f"keep top {k} of 3" for k in (1, 2, 3))]
    assert [text.get_text() for text in classes.get_yticklabels()] == rows
    rows = [f"component {c}, {count} assigned" for c, count in ((4, 4), (1, 3), (0, 1))]
    assert [text.get_text() for text in components.get_yticklabels()] == rows


# Bad input.

WRONG = {
    "given twice": (ClusterConfig(components=5), "one of 5 components; got 5"),
    "subset": (ClusterConfig(images=298), "ClusterConfig.images must be at most 297"),
    "few images": (ClusterConfig(images=4), "as many images as clusters, 5; got 4"),
    "split": (ClusterConfig(split="validation"), "no validation split"),
    "weights": (ClusterConfig(weights="averaged"), "keeps no averaged weights"),
}


@pytest.mark.parametrize(("config", "message"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_done_is_one_error_and_leaves_nothing(config, message, mixed):
    with pytest.raises(ValueError, match=message) as error:
        cluster(mixed, config)
    assert "\n" not in str(error.value)
    assert not list(mixed.glob("clusters*")) and not (mixed / "figures").exists()


def test_a_model_without_a_mixture_needs_a_number_of_clusters(plain):
    with pytest.raises(ValueError, match="ClusterConfig.components of at least 1; got 0"):
        cluster(plain)


def test_a_conditional_model_has_no_clusters(tmp_path):
    model = dataclasses.replace(PLAIN, conditional_stages=2)
    experiment.create(tmp_path, Experiment(model, DataConfig(mask="half")))
    with pytest.raises(ValueError, match="clustering needs a model of whole images; .*conditional"):
        cluster(tmp_path, ClusterConfig(components=3))
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_weights_that_have_gone_wrong_are_one_error(plain):
    model = experiment.build_model(experiment.read(plain))
    for variable in model.guide.trainable_variables:
        variable.assign(np.full(variable.shape, np.nan))
    save_checkpoint(plain, model, step=8)
    with pytest.raises(ValueError, match="means of z_0 must be finite"):
        cluster(plain, ClusterConfig(images=4, components=2))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        *((name, 0, "at least 1; got 0") for name in ("num_samples", "groups")),
        *((name, -1, "at least 0; got -1") for name in ("images", "components", "seed")),
        ("split", "all", "must be one of"),
        ("weights", "best", "must be one of"),
        ("groups", 1.5, "must be a whole number; got 1.5"),
    ],
)
def test_wrong_settings_name_the_field(name, value, message):
    with pytest.raises(ValueError, match=f"ClusterConfig.{name} .*{message}"):
        ClusterConfig(**{name: value})


@pytest.mark.slow
def test_the_program_prints_the_paths_and_the_record(mixed, tmp_path):
    workdir = shutil.copytree(mixed, tmp_path / "run")
    flags = ["--images=30", "--num_samples=2", "--groups=1", "--seed=1", "--weights=raw"]
    done = subprocess.run(
        [sys.executable, "bin/cluster", f"--workdir={workdir}", *flags],
        cwd=ROOT,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    *paths, record = done.stdout.splitlines()
    record = json.loads(record)
    assert paths == record["files"] and all(pathlib.Path(path).is_file() for path in paths)
    assert json.loads((workdir / "clusters.json").read_text()) == record
    assert (record["images"]["count"], record["num_samples"], record["seed"]) == (30, 2, 1)
