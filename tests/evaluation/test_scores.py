# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""A row of scores for every image of a data set, and what is left if that goes wrong."""

import csv
import dataclasses
import json
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import logsumexp
from source_files import pixels, save_images
from test_auroc import NAMES, write_scores
from work_directories import save_checkpoint

from matnet_tf.config import DataConfig, EvaluateConfig, Experiment, ModelConfig, Scale, ScoreConfig
from matnet_tf.data import loading
from matnet_tf.data.prepare import prepare
from matnet_tf.evaluation import scores
from matnet_tf.evaluation.evaluate import evaluate
from matnet_tf.evaluation.scores import auroc, image_scores, score
from matnet_tf.runs.models import build_model, load_run
from matnet_tf.runs.workdir import create_workdir, source_commit

pytestmark = [pytest.mark.usefixtures("module_eagerly"), pytest.mark.slow]
MODEL = ModelConfig((8, 8, 1), (Scale(1, 12, 3, 2),), top_latents=3, top_units=8)
LEVELS = 3
# Two samples in a pass of the first two batches, and all four in one of the last.
QUICK = ScoreConfig(num_samples=4, images=9, batch_size=4, chunk=8)


@pytest.fixture(scope="module")
def run(tmp_path_factory, module_eagerly):
    """A work directory with a model whose posteriors are far from its priors; not to be changed."""
    folder, experiment = tmp_path_factory.mktemp("run"), Experiment(MODEL, DataConfig())
    create_workdir(folder, experiment)
    model = build_model(experiment)
    for variable in model.trainable_variables:
        variable.assign(2 * variable)
    save_checkpoint(folder, model)
    return folder


@pytest.fixture(scope="module")
def model(run):
    """The model of `run`."""
    return load_run(run).model


@pytest.fixture(scope="module")
def scored(run, tmp_path_factory):
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
def quick(monkeypatch):
    """Fakes the scores of an image, for tests of what is around them."""

    def scores_at_once(model, x, *_):
        return {name: i + np.mean(x, (1, 2, 3)) for i, name in enumerate(NAMES)}

    monkeypatch.setattr(scores, "image_scores", scores_at_once)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Flags of image folders prepared with TFDS: 8x8 pixels as the model has them, and others."""
    made = {}
    for name, shape in {"same": (8, 8, 1), "other": (6, 5, 1)}.items():
        base = tmp_path_factory.mktemp(name)
        for split, count in (("train", 3), ("test", 5)):
            save_images(base / "source" / split, pixels(count, shape))
        made[name] = {"name": "image_folder", "dir": str(base / "tfds")}
        prepare(DataConfig(**made[name]), str(base / "source"))
    return made


def table_of(path):
    """The header, and the rows as dictionaries of text."""
    with open(path, newline="") as file:
        reader = csv.DictReader(file)
        return reader.fieldnames, list(reader)


def column(rows, name):
    return np.array([float(row[name]) for row in rows])


# The numbers.


def test_scores_are_log_mean_exps_of_the_models_log_weights(scored, model, scored_workdir):
    header, rows = table_of(scored[0] / "scores" / "digits_test.csv")
    assert header == ["index", "label", "class", "file", *NAMES]
    chosen, split = (
        np.array([int(row["index"]) for row in rows]),
        loading.load(DataConfig(), "test"),
    )
    assert chosen.tolist() == np.sort(np.random.RandomState(0).permutation(297)[:9]).tolist()
    assert [int(row["label"]) for row in rows] == split.labels[chosen].tolist()
    x = next(iter(split.evaluation_dataset(9, chosen)))
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
    record = evaluate(scored_workdir, EvaluateConfig(**dataclasses.asdict(QUICK)))
    assert record["nll"] == pytest.approx(-column(rows, "log_p").mean(), rel=1e-9)


def test_another_seed_gives_other_noise(model):
    x = next(iter(loading.load(DataConfig(), "test").evaluation_dataset(4)))
    first, again, other = (image_scores(model, x, 2, seed) for seed in (3, 3, 4))
    assert list(first) == NAMES
    for name, values in first.items():
        np.testing.assert_array_equal(values, again[name])
        assert np.all(values != other[name]), name


# The files.


def test_the_record_has_the_settings(scored):
    workdir, record = scored[0], dict(scored[1])
    assert record == json.loads((workdir / "scores" / "digits_test.json").read_text())
    assert sorted(p.name for p in (workdir / "scores").iterdir())[0] == "digits_test.csv"
    assert record.pop("seconds") > 0 and record.pop("model_digest")
    assert record.pop("commit") == source_commit() and record.pop("package_version")
    assert record == {
        "data": "digits",
        "data_digest": loading.load(DataConfig(), "test").images.digest(),
        "split": "test",
        "images": {"count": 9, "of": 297, "subset_seed": 0},
        "binarization": {"method": "dynamic", "seed": 0},
        "dequantization": {"method": "none", "seed": None},
        **{"weights": "raw", "checkpoint_step": 7},
        **{"num_samples": 4, "seed": 0, "batch_size": 4, "chunk": 8},
        **{"tf32": False, "jit_compile": False},
        "scores": str(workdir / "scores" / "digits_test.csv"),
    }


def test_the_output_may_lie_anywhere_and_progress_is_on_stderr(quick, workdir, tmp_path, capsys):
    record = score(workdir, QUICK, output=tmp_path / "a.csv")
    assert record["scores"] == str(tmp_path / "a.csv")
    assert (tmp_path / "a.json").is_file() and not (workdir / "scores").exists()
    out, err = capsys.readouterr()
    assert out == "" and "score: 100%" in err and "9/9" in err
    for name, file in (("mnist", "mnist"), ("emnist/letters:3.1.0", "emnist-letters-3.1.0")):
        path = scores._default_path("run", name, "test")
        assert path == pathlib.Path(f"run/scores/{file}_test.csv")


def test_another_data_set_is_scored_without_labels_and_binarized_as_the_runs(
    folders, workdir, model
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
    x = next(iter(loading.load(config, "test").evaluation_dataset(5)))
    assert set(np.unique(x)) == {0, 1}
    seed = tf.random.split(tf.random.fold_in(tf.zeros(2, tf.int32), 0), 2)[0]
    expected = model.log_likelihood(x, 2, seed)
    np.testing.assert_allclose(column(rows, "log_p"), expected, rtol=1e-9)


def test_the_record_has_the_areas_against_inliers_that_compare(
    quick, folders, scored_workdir, tmp_path
):
    inliers, out = scored_workdir / "scores" / "digits_test.csv", tmp_path / "out.csv"
    config = dataclasses.replace(QUICK, images=0)
    record = score(scored_workdir, config, folders["same"], out, inliers)
    assert record["inliers"] == str(inliers) and list(record["auroc"]) == NAMES
    assert record["auroc"] == pytest.approx(auroc(out, inliers), rel=1e-12)
    assert json.loads(out.with_suffix(".json").read_text()) == record
    path = inliers.with_suffix(".json")
    theirs = json.loads(path.read_text())
    for name in ("num_samples", "model_digest"):
        path.write_text(json.dumps(theirs | {name: 5}))
        message = f"digits_test.csv do not compare: their {name} is 5, not "
        with pytest.raises(ValueError, match=message):
            score(scored_workdir, QUICK, output=out, inliers=inliers)
    path.unlink()  # Scores without a record are taken as they are.
    assert score(scored_workdir, QUICK, output=out, inliers=inliers)["auroc"]


# What goes wrong.


def test_wrong_input_gets_one_clear_line_and_leaves_nothing(folders, workdir, tmp_path):
    w, dequantized = workdir, {"dequantize": True, "binarization": "none"}
    one_level = write_scores(tmp_path / "in.csv", np.ones((2, 4)))
    logistic = dataclasses.replace(MODEL, likelihood="logistic")
    create_workdir(tmp_path / "logistic", Experiment(logistic, DataConfig(binarization="none")))
    conditional = dataclasses.replace(MODEL, conditional_stages=1)
    create_workdir(tmp_path / "conditional", Experiment(conditional, DataConfig(mask="half")))

    def changed(**changes):
        return dataclasses.replace(QUICK, **changes)

    for arguments, message in (
        ((w, QUICK, folders["other"]), r"\(6, 5, 1\), but model.image_shape is \(8, 8, 1\)"),
        ((w, QUICK, dequantized), "dequantize goes with ModelConfig.likelihood 'normal'"),
        ((w, QUICK, {"name": "mnist", "dir": str(w)}), "mnist is not prepared in"),
        ((w, QUICK, {"nam": "a"}), "DataConfig has no field nam"),
        ((w, QUICK, {"mask": "half"}), "a mask needs a conditional model; got 0 with"),
        ((w, changed(images=298)), "ScoreConfig.images must be at most"),
        ((w, changed(split="validation")), "validation_images is 0"),
        ((w, changed(weights="averaged")), "keeps no averaged weights"),
        ((w / "scores", QUICK), "is not a work directory"),
        ((tmp_path / "logistic", QUICK, {"binarization": "dynamic"}), "logistic .* binary"),
        ((tmp_path / "conditional", QUICK), "scoring needs a model of whole images; .*conditional"),
        ((w, QUICK, None, w / "out.json"), "output must be a file whose name ends in .csv; got"),
        ((w, QUICK, None, "", w / "in.csv"), "cannot read the scores in .*in.csv: No such file"),
        ((w, QUICK, None, "", one_level), "in.csv has scores by a model with 1 levels; expected 3"),
        ((w, QUICK, None, w / "in.csv", w / "." / "in.csv"), "would overwrite the inliers, .*in"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            score(*arguments)
        assert "\n" not in str(error.value)
        assert {path.name for path in w.iterdir()} == {"config.json", "checkpoints"}


def test_nothing_is_left_after_an_interrupt_an_error_or_a_bad_score(quick, workdir, monkeypatch):
    whole, calls = scores.image_scores, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) % 2 == 0:
            raise error
        return whole(*arguments)

    for error in (KeyboardInterrupt, OSError):
        with monkeypatch.context() as patch, pytest.raises(error):
            patch.setattr(scores, "image_scores", interrupted)
            score(workdir, QUICK)
        assert not (workdir / "scores").exists()
    spoilt = {"L>2": np.array([1.0, np.nan, 1.0, 1.0])}
    monkeypatch.setattr(scores, "image_scores", lambda *a: whole(*a) | spoilt)
    with pytest.raises(ValueError, match="bound of image 1 must be finite; got nan"):
        score(workdir, QUICK)
    assert not (workdir / "scores").exists()
