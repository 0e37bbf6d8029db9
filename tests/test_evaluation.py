# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The importance-weighted bound over a split, and what an evaluation leaves behind."""

import json
import shutil
import subprocess
import sys
import time
import types

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import logsumexp
from work_directories import save_checkpoint, write_run

from matnet_tf import data, evaluation, evaluation_files, experiment
from matnet_tf.bounds import nested_bounds, nested_counts
from matnet_tf.config import DataConfig, EvaluateConfig, Experiment, ModelConfig, Stage
from matnet_tf.evaluation import evaluate, importance_weighted_bound
from matnet_tf.measurement import batch_seeds
from matnet_tf.model import MatNet

RECORD_FIELDS = {
    *("split", "images", "binarization", "weights", "checkpoint_step", "num_samples", "nll"),
    *("nll_se", "neg_elbo", "neg_elbo_se", "nll_by_num_samples", "bits_per_dim", "kl"),
    *("tuned_on_test", "seconds", "image_samples_per_second", "package_version", "commit"),
    *("elbo_samples", "seed", "batch_size", "chunk", "data", "model_digest", "key"),
    *("dequantization", "elbo_bits_per_dim", "dims", "data_digest"),
}
TIMINGS = ("seconds", "image_samples_per_second")
SETTINGS = Experiment(
    ModelConfig((8, 8, 1), (Stage(1, 16, 4, 1),), top_latents=4, top_units=16),
    DataConfig(validation_images=30),
)
QUICK = EvaluateConfig(num_samples=12, images=24, batch_size=6, chunk=72)


def binary_images(count, seed=0):
    return (np.random.RandomState(seed).rand(count, 8, 8, 1) < 0.3).astype(np.float32)


def log_mean_exp(log_weights):
    return logsumexp(log_weights.astype(np.float64), axis=0) - np.log(len(log_weights))


@pytest.fixture(scope="module", autouse=True)
def fewer_draws():
    """Two of them have a mean, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "ELBO_SAMPLES", 2)
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory, reused_models):
    """A work directory with an untrained model for the digits; not to be changed."""
    return write_run(tmp_path_factory.mktemp("trained"), SETTINGS)


@pytest.fixture(scope="module")
def evaluated(trained, tmp_path_factory):
    """A work directory with the record of one evaluation, `QUICK`; not to be changed."""
    folder = shutil.copytree(trained, tmp_path_factory.mktemp("evaluated") / "run")
    return folder, evaluate(folder, QUICK)


@pytest.fixture
def workdir(trained, tmp_path):
    """A work directory of the test's own, without an evaluation."""
    return shutil.copytree(trained, tmp_path / "run")


@pytest.fixture
def evaluated_workdir(evaluated, tmp_path):
    """A work directory of the test's own, and the record of `QUICK` in it."""
    return shutil.copytree(evaluated[0], tmp_path / "run"), evaluated[1]


@pytest.fixture
def batches_measured(monkeypatch):
    """Sizes of the batches whose log-weights are computed, as they come."""
    seen, log_weights = [], MatNet.log_weights_on_replicas

    def recorded(model, batches, *arguments):
        seen.extend(x.shape[0] for (x,) in batches)
        return log_weights(model, batches, *arguments)

    monkeypatch.setattr(MatNet, "log_weights_on_replicas", recorded)
    return seen


def without_timings(record):
    return {name: value for name, value in record.items() if name not in TIMINGS}


def records_of(workdir):
    return json.loads((workdir / "evaluation.json").read_text())


# The bound.


def test_bounds_are_reported_for_powers_of_ten_and_for_k():
    assert nested_counts(1) == (1,)
    assert nested_counts(100) == (1, 10, 100)
    assert nested_counts(2500) == (1, 10, 100, 1000, 2500)


def test_a_nested_bound_is_that_of_the_first_samples_wherever_the_pieces_end():
    log_weights = np.random.RandomState(0).normal(-90, 20, size=(47, 5))
    for sizes in ([47], [1, 46], [10, 37], [3, 3, 3, 38], [46, 1]):
        pieces = np.split(log_weights, np.cumsum(sizes)[:-1])
        bounds = nested_bounds(pieces, (1, 10, 20, 47))
        assert list(bounds) == [1, 10, 20, 47]
        for k, bound in bounds.items():
            np.testing.assert_allclose(bound, log_mean_exp(log_weights[:k]), rtol=1e-12)


def test_the_bound_is_the_log_mean_exp_of_the_model_s_log_weights(eagerly):
    stages = (Stage(1, 5, 2, 1), Stage(4, 3, 2, 1))
    model = MatNet(ModelConfig((8, 8, 1), stages, top_latents=2, top_units=4))
    x = binary_images(6)
    dataset = tf.data.Dataset.from_tensor_slices(x).batch(4)
    bounds = importance_weighted_bound(model, dataset, num_samples=26, seed=3, chunk=52)
    assert list(bounds.log_likelihood) == [1, 10, 26]
    pieces = [
        list(model.log_weights(x[first : first + 4], 26, batch_seeds(3, first)[0], chunk=52))
        for first in (0, 4)
    ]
    assert [len(batch) for batch in pieces] == [2, 1]  # 13 and 26 samples a pass
    for k, bound in bounds.log_likelihood.items():
        expected = [log_mean_exp(np.concatenate(batch)[:k]) for batch in pieces]
        np.testing.assert_allclose(bound, np.concatenate(expected), rtol=1e-12)


@pytest.fixture(scope="module")
def measured():
    """A model whose posterior is far from its own guess, images, and their bounds."""
    stages = (Stage(1, 16, 4, 1), Stage(4, 8, 2, 1))
    model = MatNet(ModelConfig((8, 8, 1), stages, top_latents=4, top_units=16, latent_scale=1.0))
    for variable in model.trainable_variables:
        variable.assign(1.5 * variable)
    x = binary_images(40)
    tf.config.run_functions_eagerly(True)
    try:
        return model, x, importance_weighted_bound(model, [x], num_samples=100)
    finally:
        tf.config.run_functions_eagerly(False)


def test_the_elbo_is_a_mean_over_draws(measured, eagerly):
    model, x, bounds = measured
    assert list(bounds.kl) == list(model.config.level_names)
    assert bounds.elbo.shape == bounds.kl["00_top"].shape == (40,)
    other = model.elbo(np.tile(x, (50, 1, 1, 1)), seed=100).elbo.numpy().reshape(50, 40)
    spread = other.std(axis=0, ddof=1)
    error = spread * np.sqrt(1 / evaluation.ELBO_SAMPLES + 1 / 50)
    assert np.all(np.abs(bounds.elbo - other.mean(axis=0)) < 5 * error)
    top_kl = model.elbo(x).kl["00_top"]  # The same for every draw.
    np.testing.assert_allclose(bounds.kl["00_top"], top_kl, rtol=1e-5)


def test_the_bound_rises_from_the_elbo_with_the_number_of_samples(measured):
    bounds = measured[2]
    elbo, one, ten, hundred = (
        values.mean() for values in (bounds.elbo, *bounds.log_likelihood.values())
    )
    assert one < ten < hundred
    spread = (bounds.log_likelihood[1] - bounds.elbo).std() / np.sqrt(40)
    assert abs(one - elbo) < 4 * spread
    assert elbo < ten


@pytest.fixture
def model(reused_models):
    return experiment.build_model(SETTINGS)


def quick_bound(model, batches):
    """As `QUICK` measures it, and with the same graphs if the batches are of six images."""
    return importance_weighted_bound(model, batches, 12, chunk=72)


@pytest.mark.slow
def test_a_batch_does_not_depend_on_the_batches_around_it(model):
    x = binary_images(18)
    whole = quick_bound(model, [x[:6], x[6:12], x[12:]])
    start = quick_bound(model, [(x[:6], np.zeros(6))])
    other = quick_bound(model, [{"image": x[:6]}, x[12:]])
    for part in (start, other):
        np.testing.assert_array_equal(part.log_likelihood[12][:6], whole.log_likelihood[12][:6])
        np.testing.assert_array_equal(part.elbo[:6], whole.elbo[:6])
    same = quick_bound(model, [x[:6], x[:6]])
    assert np.all(same.elbo[:6] != same.elbo[6:]), "batches must have noise of their own"


def test_a_bound_that_is_not_finite_is_an_error_that_names_the_image(model):
    model.trainable_variables[0].assign(np.full(model.trainable_variables[0].shape, np.nan))
    with pytest.raises(ValueError, match="bound of image 0 must be finite; got nan"):
        quick_bound(model, [binary_images(6)])


def test_no_images_and_no_samples_are_errors(model):
    with pytest.raises(ValueError, match="data set is empty"):
        importance_weighted_bound(model, [], 5)
    with pytest.raises(ValueError, match="num_samples must be a whole number of at least 1; got 0"):
        importance_weighted_bound(model, [binary_images(3)], 0)


# The record.


def test_the_record_holds_every_field_and_is_what_the_file_holds(evaluated):
    workdir, record = evaluated
    assert set(record) == RECORD_FIELDS
    assert records_of(workdir) == [record]
    assert record["split"] == "test" and record["tuned_on_test"] is False
    assert record["images"] == {"count": 24, "of": 297, "subset_seed": 0}
    assert record["binarization"] == {"method": "dynamic", "seed": 0}
    assert record["dequantization"] == {"method": "none", "seed": None}
    assert record["weights"] == "raw" and record["checkpoint_step"] == 7
    assert list(record["nll_by_num_samples"]) == ["1", "10", "12"]
    assert record["nll_by_num_samples"]["12"] == record["nll"]
    assert record["dims"] == 64
    assert record["seconds"] > 0
    rate = record["image_samples_per_second"]
    assert rate == pytest.approx(24 * 12 / record["seconds"])


def test_the_numbers_of_the_record_follow_from_the_images_results(evaluated):
    workdir, record = evaluated
    paths = sorted((workdir / "evaluation" / record["key"]).glob("*.npz"))
    files = [np.load(path) for path in paths]
    bound, elbo, top = (
        np.concatenate([f[name] for f in files])
        for name in ("log_likelihood/12", "elbo", "kl/00_top")
    )
    assert len(bound) == 24
    assert all(np.all(f["dims"] == 64) for f in files)
    assert record["nll"] == pytest.approx(-np.sum(bound) / 24)
    assert record["neg_elbo"] == pytest.approx(-np.sum(elbo) / 24)
    variance = np.sum((bound - np.sum(bound) / 24) ** 2) / 23
    assert record["nll_se"] == pytest.approx(np.sqrt(variance / 24))
    variance = np.sum((elbo - np.sum(elbo) / 24) ** 2) / 23
    assert record["neg_elbo_se"] == pytest.approx(np.sqrt(variance / 24))
    assert record["kl"]["00_top"] == pytest.approx(np.sum(top) / 24)
    assert record["bits_per_dim"] == pytest.approx(record["nll"] / 64 / np.log(2))


def test_the_record_is_that_of_the_library_on_the_same_images(evaluated):
    workdir, record = evaluated
    loaded = experiment.load(workdir)
    key = workdir / "evaluation" / record["key"]
    chosen = np.concatenate([np.load(path)["images"] for path in sorted(key.glob("*.npz"))])
    dataset = data.load(loaded.experiment.data, "test").evaluation_dataset(6, chosen)
    bounds = importance_weighted_bound(loaded.model, dataset, 12, seed=0, chunk=72)
    assert record["nll"] == pytest.approx(-bounds.log_likelihood[12].mean(), rel=1e-6)
    assert record["neg_elbo"] == pytest.approx(-bounds.elbo.mean(), rel=1e-6)


def test_a_single_image_has_no_standard_error(workdir, eagerly):
    record = evaluate(workdir, EvaluateConfig(num_samples=2, images=1))
    assert record["nll_se"] is None and record["neg_elbo_se"] is None
    assert record["chunk"] == experiment.load(workdir).model.samples_per_pass == 5000


def test_all_images_are_measured_where_no_subset_is_asked(workdir, eagerly):
    record = evaluate(workdir, EvaluateConfig(split="validation", num_samples=1))
    assert record["images"] == {"count": 30, "of": 30, "subset_seed": None}


def test_another_evaluation_is_added_and_the_same_one_is_not_run_again(
    evaluated_workdir, batches_measured, capsys, eagerly
):
    workdir, first = evaluated_workdir
    other = evaluate(workdir, EvaluateConfig(num_samples=2, images=5))
    assert records_of(workdir) == [first, other]
    batches_measured.clear()
    capsys.readouterr()
    assert evaluate(workdir, QUICK) == first
    assert batches_measured == []
    assert len(records_of(workdir)) == 2
    assert "already in evaluation.json" in capsys.readouterr().err


def test_other_weights_at_the_same_step_are_another_evaluation(evaluated_workdir):
    workdir, first = evaluated_workdir
    model = experiment.build_model(experiment.read(workdir))
    model.trainable_variables[0].assign(model.trainable_variables[0] * 2)
    save_checkpoint(workdir, model)
    second = evaluate(workdir, QUICK)
    assert second["key"] != first["key"] and second["nll"] != first["nll"]
    assert records_of(workdir) == [first, second]


# What goes wrong.


def test_a_subset_larger_than_the_split_is_refused_before_anything_is_written(workdir):
    with pytest.raises(ValueError, match="at most 297, the images of the test split; got 298"):
        evaluate(workdir, EvaluateConfig(images=298))
    assert not (workdir / "evaluation").exists()


def test_an_interrupted_evaluation_goes_on_and_gives_the_same_record(
    workdir, evaluated, batches_measured, monkeypatch, capsys
):
    save = evaluation_files.BatchFiles.save

    def interrupted(self, number, *arguments):
        if number == 2:
            raise KeyboardInterrupt
        save(self, number, *arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(evaluation_files.BatchFiles, "save", interrupted)
        evaluate(workdir, QUICK)
    assert batches_measured == [6, 6, 6]
    assert not (workdir / "evaluation.json").exists()
    batches_measured.clear()
    record = evaluate(workdir, QUICK)
    assert batches_measured == [6, 6], "only the remaining batches"
    assert "12 of 24 images were done already" in capsys.readouterr().err
    assert without_timings(record) == without_timings(evaluated[1])
    assert records_of(workdir) == [record]


@pytest.mark.parametrize("finished", [False, True])
def test_a_batch_whose_file_is_damaged_is_computed_again(
    evaluated_workdir, batches_measured, capsys, finished
):
    workdir, undisturbed = evaluated_workdir
    if not finished:
        (workdir / "evaluation.json").unlink()
    damaged = workdir / "evaluation" / undisturbed["key"] / "000003.npz"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:100])
    (damaged.parent / "000001.npz").unlink()
    assert without_timings(evaluate(workdir, QUICK)) == without_timings(undisturbed)
    assert batches_measured == [6, 6] and len(damaged.read_bytes()) == len(whole)
    assert "000003.npz is computed again" in capsys.readouterr().err
    assert (damaged.parent / "000001.npz").exists()


def test_a_finished_evaluation_whose_folder_was_removed_is_not_measured_again(
    evaluated_workdir, batches_measured
):
    workdir, undisturbed = evaluated_workdir
    shutil.rmtree(workdir / "evaluation")
    assert evaluate(workdir, QUICK) == undisturbed
    assert not batches_measured and not (workdir / "evaluation").exists()


@pytest.mark.parametrize("text", ["[{", "{}", "[1]", "\udcff"])
def test_a_damaged_evaluation_json_is_one_error_and_stays_as_it_is(workdir, text):
    path = workdir / "evaluation.json"
    path.write_text(text, errors="surrogateescape")
    before = path.read_bytes()
    with pytest.raises(ValueError, match="evaluation.json is not a file of bin/evaluate"):
        evaluate(workdir, QUICK)
    assert path.read_bytes() == before
    assert not (workdir / "evaluation").exists()


def test_a_full_disk_leaves_whole_files_only(workdir, monkeypatch):
    def full(source, target):
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(evaluation_files.os, "replace", full)
    kl = {"00_top": np.zeros(2)}
    part = evaluation.PerImage({1: np.zeros(2)}, np.zeros(2), kl, np.full(2, 64.0))
    with evaluation_files.BatchFiles(workdir, 1) as results:
        assert results.claim(0)
        with pytest.raises(OSError, match="No space left"):
            results.save(0, part, np.arange(2), 1.0)
    assert not list(workdir.glob("000000*"))


def test_processes_share_an_evaluation_and_a_killed_one_leaves_its_batches(
    workdir, evaluated, batches_measured, monkeypatch
):
    key = evaluated[1]["key"]
    folder = workdir / "evaluation" / key
    folder.mkdir(parents=True)
    holder = """
import fcntl, sys
claims = open(sys.argv[1], "a")
for number in (1, 3):
    fcntl.lockf(claims, fcntl.LOCK_EX, 1, number)
print("ready", flush=True)
sys.stdin.read()
"""
    command = [sys.executable, "-c", holder, str(folder / "claims")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        waited = []

        def wait(seconds):
            waited.append(list(batches_measured))
            if len(waited) == 1:
                shutil.copy(evaluated[0] / "evaluation" / key / "000001.npz", folder)
            else:
                other.kill()
                other.wait()

        clock = types.SimpleNamespace(sleep=wait, monotonic=time.monotonic)
        monkeypatch.setattr(evaluation, "time", clock)
        record = evaluate(workdir, QUICK)
    # Batches 0 and 2 at once; 1 came from the other process, and 3 when that was dead.
    assert waited[0] == [6, 6] and batches_measured == [6, 6, 6]
    assert without_timings(record) == without_timings(evaluated[1])


@pytest.mark.slow
def test_bounds_of_images_do_not_depend_on_the_number_of_devices(
    trained, evaluated, tmp_path, two_devices
):
    workdir = shutil.copytree(trained, tmp_path / "run")
    record = evaluate(workdir, QUICK, num_devices=2)
    assert record["key"] == evaluated[1]["key"]
    for number in range(4):
        name = f"evaluation/{record['key']}/{number:06d}.npz"
        with np.load(workdir / name) as two, np.load(evaluated[0] / name) as one:
            for array in set(two.files) - {"seconds"}:
                np.testing.assert_array_equal(two[array], one[array])


def test_validation_without_validation_images_is_an_error(tmp_path, tiny_dense):
    settings = Experiment(tiny_dense)
    experiment.create(tmp_path, settings)
    with pytest.raises(ValueError, match="validation_images is 0"):
        evaluate(tmp_path, EvaluateConfig(split="validation"))


def test_a_folder_that_is_no_work_directory_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="not a work directory"):
        evaluate(tmp_path, QUICK)


def test_the_data_directory_may_be_another_than_in_training(workdir, monkeypatch, eagerly):
    asked, load = [], data.load
    monkeypatch.setattr(data, "load", lambda c, split: asked.append(c.dir) or load(c, split))
    evaluate(workdir, EvaluateConfig(num_samples=1, images=2), data_dir="/elsewhere")
    assert asked == ["/elsewhere"]
