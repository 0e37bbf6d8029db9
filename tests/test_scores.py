# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""A row of scores for every image of a data set, and what is left when that goes wrong."""

import csv
import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import logsumexp
from source_files import pixels, save_images
from test_auroc import NAMES, write_scores
from work_directories import save_checkpoint

from matnet_tf import data, datasets, experiment, scores
from matnet_tf.config import DataConfig, EvaluateConfig, Experiment, ModelConfig, ScoreConfig, Stage
from matnet_tf.evaluation import evaluate
from matnet_tf.scores import auroc, image_scores, score

ROOT = pathlib.Path(__file__).resolve().parent.parent
MODEL = ModelConfig((8, 8, 1), (Stage(1, 12, 3, 2),), top_latents=3, top_units=8)
LEVELS = 3
# Two samples in a pass of the first two batches, and all four in one of the last.
QUICK = ScoreConfig(num_samples=4, images=9, batch_size=4, chunk=8)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A work directory with a model whose posteriors are far from its priors; not to be changed."""
    folder, settings = tmp_path_factory.mktemp("run"), Experiment(MODEL, DataConfig())
    experiment.create(folder, settings)
    model = experiment.build_model(settings)
    for variable in model.trainable_variables:
        variable.assign(2 * variable)
    save_checkpoint(folder, model)
    return folder


@pytest.fixture(scope="module")
def loaded(run, module_eagerly):
    """The model, loaded once for all tests, and without graphs, which take most of their time."""
    made = experiment.load(run)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "load", lambda workdir, weights: made)
        yield made


@pytest.fixture(scope="module")
def scored(run, loaded, tmp_path_factory):
    """A work directory with the scores of `QUICK`, and their record; not to be changed."""
    folder = shutil.copytree(run, tmp_path_factory.mktemp("scored") / "run")
    return folder, score(folder, QUICK)


@pytest.fixture
def workdir(run, tmp_path):
    """A work directory of the test's own, without scores."""
    return shutil.copytree(run, tmp_path / "run")


@pytest.fixture
def scored_workdir(scored, tmp_path):
    """A work directory of the test's own, with the scores of `QUICK`."""
    return shutil.copytree(scored[0], tmp_path / "run")


@pytest.fixture
def quick(loaded, monkeypatch):
    """The scores of an image take no time, for tests of what is around them."""

    def scores_at_once(model, x, *_):
        return {name: i + np.mean(x, (1, 2, 3)) for i, name in enumerate(NAMES)}

    monkeypatch.setattr(scores, "image_scores", scores_at_once)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """TFDS data directories of image folders: 8x8 pixels as the model has them, and others."""
    made = {}
    for name, shape in {"same": (8, 8, 1), "other": (6, 5, 1)}.items():
        base = tmp_path_factory.mktemp(name)
        for split, count in (("train", 3), ("test", 5)):
            save_images(base / "source" / split, pixels(count, shape))
        made[name] = {"name": "image_folder", "dir": str(base / "tfds")}
        datasets.prepare(DataConfig(**made[name]), str(base / "source"))
    return made


def table_of(path):
    """The header, and the rows as dictionaries of text."""
    with open(path, newline="") as file:
        reader = csv.DictReader(file)
        return reader.fieldnames, list(reader)


def column(rows, name):
    return np.array([float(row[name]) for row in rows])


# The numbers.


@pytest.mark.slow
def test_scores_are_log_mean_exps_of_the_model_s_log_weights(scored, loaded):
    rows, model = table_of(scored[0] / "scores" / "digits_test.csv")[1], loaded.model
    chosen = np.array([int(row["index"]) for row in rows])
    x = next(iter(data.load(DataConfig(), "test").evaluation_dataset(9, chosen)))
    for first in (0, 4, 8):
        batch = slice(first, first + 4)
        seed = tf.random.split(tf.random.fold_in(tf.zeros(2, tf.int32), first), 2)[0]

        def bound(num_inferred, batch=batch, seed=seed):
            pieces = model.log_weights(x[batch], 4, seed, 8, num_inferred)
            return logsumexp(np.concatenate(list(pieces)).astype(float), axis=0) - np.log(4)

        log_p = bound(LEVELS)
        np.testing.assert_allclose(column(rows, "log_p")[batch], log_p, rtol=1e-9)
        for k in (1, 2, 3):
            upper = bound(LEVELS - k)
            np.testing.assert_allclose(column(rows, f"L>{k}")[batch], upper, rtol=1e-9)
            ratio = column(rows, f"log_p-L>{k}")[batch]
            np.testing.assert_allclose(ratio, log_p - upper, rtol=1e-9)
            assert np.abs(ratio).min() > 0, "the levels must matter for the test to mean anything"
    bits = column(rows, "bits_per_dim")
    np.testing.assert_allclose(bits, -column(rows, "log_p") / (64 * np.log(2)), rtol=1e-12)


def test_the_mean_of_log_p_is_what_an_evaluation_reports(scored_workdir):
    rows = table_of(scored_workdir / "scores" / "digits_test.csv")[1]
    record = evaluate(scored_workdir, EvaluateConfig(**dataclasses.asdict(QUICK)))
    assert record["nll"] == pytest.approx(-column(rows, "log_p").mean(), rel=1e-9)


def test_another_seed_gives_other_noise(loaded):
    x = next(iter(data.load(DataConfig(), "test").evaluation_dataset(4)))
    first, again, other = (image_scores(loaded.model, x, 2, seed) for seed in (3, 3, 4))
    assert list(first) == NAMES
    for name, values in first.items():
        np.testing.assert_array_equal(values, again[name])
        assert np.all(values != other[name]), name


# The files.


def test_a_row_has_index_label_and_scores(scored):
    workdir, record = scored
    header, rows = table_of(workdir / "scores" / "digits_test.csv")
    assert header == ["index", "label", *NAMES]
    indices = [int(row["index"]) for row in rows]
    expected = np.sort(np.random.RandomState(0).permutation(297)[:9])
    assert indices == expected.tolist()
    labels = data.load(DataConfig(), "test").labels
    assert [int(row["label"]) for row in rows] == labels[indices].tolist()
    assert {p.name for p in (workdir / "scores").iterdir()} == {
        "digits_test.csv",
        "digits_test.json",
    }


def test_the_record_says_of_what_the_scores_are(scored):
    workdir, record = scored
    assert record == json.loads((workdir / "scores" / "digits_test.json").read_text())
    assert record.pop("seconds") > 0 and record.pop("model_digest")
    assert record.pop("commit") == experiment.commit() and record.pop("package_version")
    digest = data.load(DataConfig(), "test").images.digest()
    assert record == {
        "data": "digits",
        "data_digest": digest,
        "split": "test",
        "images": {"count": 9, "of": 297, "subset_seed": 0},
        "binarization": {"method": "dynamic", "seed": 0},
        "dequantization": {"method": "none", "seed": None},
        "weights": "raw",
        "checkpoint_step": 7,
        "num_samples": 4,
        "seed": 0,
        "batch_size": 4,
        "chunk": 8,
        "scores": str(workdir / "scores" / "digits_test.csv"),
    }


@pytest.mark.usefixtures("quick")
def test_progress_is_on_stderr_and_nothing_on_stdout(workdir, capsys):
    score(workdir, QUICK)
    out, err = capsys.readouterr()
    assert out == "" and err.splitlines()[-1] == "score: 9/9 images, 0m00s left"


def test_another_data_set_is_scored_without_labels_and_binarized_as_the_runs(
    folders, workdir, loaded
):
    record = score(workdir, ScoreConfig(num_samples=2), folders["same"])
    assert record["scores"] == str(workdir / "scores" / "image_folder_test.csv")
    assert record["data"] == "image_folder"
    assert record["images"] == {"count": 5, "of": 5, "subset_seed": None}
    assert record["binarization"] == {"method": "dynamic", "seed": 0}
    rows = table_of(record["scores"])[1]
    assert [row["index"] for row in rows] == list("01234")
    assert {row["label"] for row in rows} == {""}
    config = DataConfig(**folders["same"], binarization="dynamic")
    x = next(iter(data.load(config, "test").evaluation_dataset(5)))
    assert set(np.unique(x)) == {0, 1}
    seed = tf.random.split(tf.random.fold_in(tf.zeros(2, tf.int32), 0), 2)[0]
    expected = loaded.model.log_likelihood(x, 2, seed)
    np.testing.assert_allclose(column(rows, "log_p"), expected, rtol=1e-9)


@pytest.mark.usefixtures("quick")
def test_the_output_may_lie_anywhere(workdir, tmp_path):
    record = score(workdir, QUICK, output=tmp_path / "a.csv")
    assert record["scores"] == str(tmp_path / "a.csv")
    assert (tmp_path / "a.json").is_file() and not (workdir / "scores").exists()


@pytest.mark.parametrize(
    ("name", "file"),
    [("mnist", "mnist_test.csv"), ("emnist/letters:3.1.0", "emnist-letters-3.1.0_test.csv")],
)
def test_every_name_of_a_data_set_gives_one_file(name, file):
    assert scores._default_path("run", name, "test") == pathlib.Path("run/scores") / file


# Outliers.


@pytest.mark.usefixtures("quick")
def test_scores_compared_with_inliers_have_their_areas_in_the_record(
    folders, scored_workdir, tmp_path
):
    inliers = scored_workdir / "scores" / "digits_test.csv"
    config = dataclasses.replace(QUICK, images=0)
    record = score(scored_workdir, config, folders["same"], tmp_path / "out.csv", inliers)
    assert record["inliers"] == str(inliers)
    assert list(record["auroc"]) == NAMES
    assert record["auroc"] == pytest.approx(auroc(tmp_path / "out.csv", inliers), rel=1e-12)
    assert json.loads((tmp_path / "out.json").read_text()) == record


# What goes wrong.


def test_weights_that_are_not_there_are_refused(workdir, monkeypatch):
    def load(workdir, weights):
        raise ValueError(f"no {weights} weights")

    monkeypatch.setattr(experiment, "load", load)
    with pytest.raises(ValueError, match="no averaged weights"):
        score(workdir, settings(weights="averaged"))
    assert not (workdir / "scores").exists()


def settings(**changes):
    return dataclasses.replace(QUICK, **changes)


WRONG_CALLS = {
    "shape": (
        lambda w, f: score(w, QUICK, f["other"]),
        r"images of image_folder have shape \(6, 5, 1\), but model.image_shape is \(8, 8, 1\)",
    ),
    "dequantization": (
        lambda w, f: score(w, QUICK, {"dequantize": True, "binarization": "none"}),
        "dequantize goes with ModelConfig.likelihood 'normal'; got 'bernoulli'",
    ),
    "not prepared": (
        lambda w, f: score(w, QUICK, {"name": "mnist", "dir": str(w)}),
        "mnist is not prepared in .*; run: bin/prepare --data.name=mnist",
    ),
    "no field": (lambda w, f: score(w, QUICK, {"nam": "a"}), "DataConfig has no field nam"),
    "subset": (lambda w, f: score(w, settings(images=298)), "ScoreConfig.images must be at most"),
    "split": (lambda w, f: score(w, settings(split="validation")), "validation_images is 0"),
    "no run": (lambda w, f: score(w / "scores", QUICK), "is not a work directory"),
    "output": (
        lambda w, f: score(w, QUICK, output=w / "out.json"),
        "output must be a file whose name ends in .csv; got .*out.json",
    ),
    "missing inliers": (
        lambda w, f: score(w, QUICK, inliers=w / "in.csv"),
        "cannot read the scores in .*in.csv: No such file",
    ),
    "inliers of other levels": (
        lambda w, f: score(w, QUICK, inliers=write_scores(w / "in.csv", np.ones((2, 4)))),
        "in.csv has scores by a model with 1 levels; expected 3 levels",
    ),
    "inliers as output": (
        lambda w, f: score(w, QUICK, output=w / "in.csv", inliers=w / "." / "in.csv"),
        "the inliers are .*in.csv, which would be written: give another output",
    ),
}


@pytest.mark.usefixtures("loaded")
@pytest.mark.parametrize(("call", "message"), WRONG_CALLS.values(), ids=WRONG_CALLS)
def test_wrong_input_gets_one_clear_line_and_leaves_nothing(call, message, folders, workdir):
    with pytest.raises(ValueError, match=message) as error:
        call(workdir, folders)
    assert "\n" not in str(error.value)
    left = {path.name for path in workdir.iterdir()} - {"in.csv"}
    assert left == {"config.json", "checkpoints"}


def test_images_of_another_kind_than_the_likelihood_s_are_refused(tmp_path):
    model = dataclasses.replace(MODEL, likelihood="logistic")
    experiment.create(tmp_path, Experiment(model, DataConfig(binarization="none")))
    with pytest.raises(ValueError, match="likelihood logistic is for 8-bit images.* are binary"):
        score(tmp_path, QUICK, {"binarization": "dynamic"})


def test_a_conditional_model_is_refused(tmp_path):
    model = dataclasses.replace(MODEL, conditional_stages=1)
    experiment.create(tmp_path, Experiment(model, DataConfig(mask="half")))
    with pytest.raises(ValueError, match="scoring needs a model of whole images; .*conditional"):
        score(tmp_path, QUICK)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_masks_are_refused(workdir):
    with pytest.raises(ValueError, match="conditional_stages of at least 1, .* 0 with mask 'half'"):
        score(workdir, QUICK, {"mask": "half"})


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", ["num_samples", "model_digest"])
def test_inliers_whose_record_says_that_they_do_not_compare_are_refused(
    name, scored_workdir, tmp_path
):
    path = scored_workdir / "scores" / "digits_test.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: 5}))
    inliers = path.with_suffix(".csv")
    message = f"digits_test.csv do not compare: their {name} is 5, not "
    with pytest.raises(ValueError, match=message):
        score(scored_workdir, QUICK, output=tmp_path / "out.csv", inliers=inliers)
    path.unlink()  # Without a record there is nothing to hold against them.
    assert score(scored_workdir, QUICK, output=tmp_path / "out.csv", inliers=inliers)["auroc"]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_nothing_is_left_after_an_interrupt_or_an_error(error, workdir, monkeypatch):
    whole, calls = scores.image_scores, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise error
        return whole(*arguments)

    monkeypatch.setattr(scores, "image_scores", interrupted)
    with pytest.raises(error):
        score(workdir, QUICK)
    assert not (workdir / "scores").exists()


@pytest.mark.usefixtures("quick")
def test_a_score_that_is_not_finite_is_an_error_that_names_the_image(workdir, monkeypatch):
    whole = scores.image_scores
    spoilt = {"L>2": np.array([1.0, np.nan, 1.0, 1.0])}
    monkeypatch.setattr(scores, "image_scores", lambda *a: whole(*a) | spoilt)
    with pytest.raises(ValueError, match="bound of image 1 must be finite; got nan"):
        score(workdir, QUICK)
    assert not (workdir / "scores").exists()


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.usefixtures("quick")
def test_a_full_disk_leaves_older_scores_as_they_were(scored_workdir, monkeypatch):
    before, write = contents(scored_workdir / "scores"), pathlib.Path.write_bytes

    def full(path, content):
        if ".json" in path.name:
            write(path, content[:10])
            raise OSError(28, "No space left on device", str(path))
        return write(path, content)

    monkeypatch.setattr(pathlib.Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        score(scored_workdir, settings(seed=2))
    assert contents(scored_workdir / "scores") == before


def program(*arguments):
    command = [sys.executable, "bin/score", *arguments]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.slow
def test_the_program_scores_compares_and_ends_with_its_record(folders, workdir, tmp_path):
    inliers = workdir / "scores" / "digits_test.csv"
    done = program(f"--workdir={workdir}", "--num_samples=2", "--images=20")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["scores"] == str(inliers) and "auroc" not in record
    other = [f"--data.{name}={value}" for name, value in folders["same"].items()]
    common = (f"--workdir={workdir}", "--num_samples=2", *other)
    done = program(*common, f"--inliers={inliers}")
    assert done.returncode == 0, done.stderr
    *lines, last = done.stdout.splitlines()
    assert json.loads(last)["auroc"] == pytest.approx(
        auroc(workdir / "scores" / "image_folder_test.csv", inliers)
    )
    assert [line.split()[:2] for line in lines] == [["AUROC", name] for name in NAMES]
    done = program(*common, f"--inliers={tmp_path}/none.csv")
    assert (done.returncode, done.stdout) == (2, "")
    errors = [line for line in done.stderr.splitlines() if line.startswith("bin/score: error:")]
    assert errors == [
        f"bin/score: error: cannot read the scores in {tmp_path}/none.csv: No such file or "
        "directory"
    ]
