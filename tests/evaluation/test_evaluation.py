# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The importance-weighted bound over a split, and the files of an evaluation."""

import errno
import fcntl
import json
import os
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

from matnet_tf.config import DataConfig, EvaluateConfig, Experiment, ModelConfig, Scale
from matnet_tf.data import loading
from matnet_tf.evaluation.evaluate import evaluate, importance_weighted_bound
from matnet_tf.evaluation.protocol import batch_seeds
from matnet_tf.evaluation.records import BatchFiles, PerImage
from matnet_tf.model.importance import log_weights_on_replicas
from matnet_tf.model.matnet import MatNet
from matnet_tf.runs.models import build_model, load_run

pytestmark = pytest.mark.usefixtures("module_eagerly")
MODULE = "matnet_tf.evaluation.evaluate"
RECORD_FIELDS = {
    *("split", "images", "binarization", "weights", "checkpoint_step", "num_samples", "nll"),
    *("nll_se", "neg_elbo", "neg_elbo_se", "nll_by_num_samples", "bits_per_dim", "kl"),
    *("tuned_on_test", "seconds", "image_samples_per_second", "package_version", "commit"),
    *("elbo_samples", "seed", "batch_size", "chunk", "data", "model_digest", "key"),
    *("tf32", "jit_compile"),
    *("dequantization", "elbo_bits_per_dim", "dims", "data_digest"),
}
TIMINGS = ("seconds", "image_samples_per_second")
EXPERIMENT = Experiment(
    ModelConfig((8, 8, 1), (Scale(1, 8, 3, 1),), top_latents=3, top_units=8),
    DataConfig(validation_images=30),
)
QUICK = EvaluateConfig(num_samples=12, images=24, batch_size=6, chunk=72)


def binary_images(count, seed=0):
    return (np.random.RandomState(seed).rand(count, 8, 8, 1) < 0.3).astype(np.float32)


def log_mean_exp(log_weights):
    return logsumexp(log_weights.astype(np.float64), axis=0) - np.log(len(log_weights))


@pytest.fixture(scope="module", autouse=True)
def fewer_draws():
    """The mean over draws is that of two."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"{MODULE}.ELBO_SAMPLES", 2)
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory, module_eagerly):
    """A work directory with an untrained model for the digits; not to be changed."""
    return write_run(tmp_path_factory.mktemp("trained"), EXPERIMENT)


@pytest.fixture(scope="module")
def evaluated(trained, tmp_path_factory):
    """A work directory with one evaluation, `QUICK`, and its record; not to be changed."""
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
    """Sizes of the batches whose log-weights are computed, in order."""
    seen = []

    def record(model, batches, *arguments):
        seen.extend(x.shape[0] for (x,) in batches)
        return log_weights_on_replicas(model, batches, *arguments)

    monkeypatch.setattr(f"{MODULE}.log_weights_on_replicas", record)
    return seen


def without_timings(record):
    return {name: value for name, value in record.items() if name not in TIMINGS}


def records_of(workdir):
    return json.loads((workdir / "evaluation.json").read_text())


# The bound.


@pytest.mark.slow
def test_the_bound_is_the_log_mean_exp_of_the_models_log_weights():
    scales = (Scale(1, 5, 2, 1), Scale(4, 3, 2, 1))
    model = MatNet(ModelConfig((8, 8, 1), scales, top_latents=2, top_units=4))
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


def test_the_elbo_is_a_mean_over_draws_and_the_bound_rises_from_it_with_k():
    scales = (Scale(1, 8, 4, 1), Scale(4, 4, 2, 1))
    model = MatNet(ModelConfig((8, 8, 1), scales, top_latents=4, top_units=8, latent_scale=1.0))
    for variable in model.trainable_variables:
        variable.assign(1.5 * variable)  # Posteriors far from the true ones.
    x = binary_images(40)
    bounds = importance_weighted_bound(model, [x], num_samples=100)
    assert list(bounds.kl) == list(model.config.level_names)
    assert bounds.elbo.shape == bounds.kl["00_top"].shape == (40,)
    other = model.elbo(np.tile(x, (50, 1, 1, 1)), seed=100).elbo.numpy().reshape(50, 40)
    error = other.std(axis=0, ddof=1) * np.sqrt(1 / 2 + 1 / 50)
    assert np.all(np.abs(bounds.elbo - other.mean(axis=0)) < 5 * error)
    top_kl = model.elbo(x).kl["00_top"]  # The same for every draw.
    np.testing.assert_allclose(bounds.kl["00_top"], top_kl, rtol=1e-5)
    one, ten, hundred = (values.mean() for values in bounds.log_likelihood.values())
    spread = (bounds.log_likelihood[1] - bounds.elbo).std() / np.sqrt(40)
    assert abs(one - bounds.elbo.mean()) < 4 * spread
    assert max(one, bounds.elbo.mean()) < ten < hundred


@pytest.mark.slow
def test_a_batch_does_not_depend_on_the_batches_around_it(module_eagerly):
    model, x = build_model(EXPERIMENT), binary_images(18)
    whole = importance_weighted_bound(model, [x[:6], x[6:12], x[12:]], 12)
    for batches in ([(x[:6], np.zeros(6))], [{"image": x[:6]}, x[12:]]):
        part = importance_weighted_bound(model, batches, 12)
        np.testing.assert_array_equal(part.log_likelihood[12][:6], whole.log_likelihood[12][:6])
        np.testing.assert_array_equal(part.elbo[:6], whole.elbo[:6])
    same = importance_weighted_bound(model, [x[:6], x[:6]], 12)
    assert np.all(same.elbo[:6] != same.elbo[6:]), "batches must have noise of their own"
    with pytest.raises(ValueError, match="data set is empty"):
        importance_weighted_bound(model, [], 5)
    with pytest.raises(ValueError, match="num_samples must be a whole number of at least 1; got 0"):
        importance_weighted_bound(model, [x], 0)
    model.trainable_variables[0].assign(np.full(model.trainable_variables[0].shape, np.nan))
    with pytest.raises(ValueError, match="bound of image 0 must be finite; got nan"):
        importance_weighted_bound(model, [x[:6]], 12)


# The record.


def test_the_record_has_every_field_and_its_numbers_follow_from_the_images(evaluated):
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
    assert record["image_samples_per_second"] == pytest.approx(24 * 12 / record["seconds"])
    files = [np.load(path) for path in sorted((workdir / "evaluation").glob("*/*.npz"))]
    bound, elbo, top, dims, chosen = (
        np.concatenate([f[name] for f in files])
        for name in ("log_likelihood/12", "elbo", "kl/00_top", "dims", "images")
    )
    assert len(bound) == 24 and np.all(dims == 64) and record["dims"] == 64
    for name, values in (("nll", bound), ("neg_elbo", elbo)):
        assert record[name] == pytest.approx(-np.sum(values) / 24)
        variance = np.sum((values - np.sum(values) / 24) ** 2) / 23
        assert record[f"{name}_se"] == pytest.approx(np.sqrt(variance / 24))
    assert record["kl"]["00_top"] == pytest.approx(np.sum(top) / 24)
    assert record["bits_per_dim"] == pytest.approx(record["nll"] / 64 / np.log(2))
    dataset = loading.load(EXPERIMENT.data, "test").evaluation_dataset(6, chosen)
    bounds = importance_weighted_bound(load_run(workdir).model, dataset, 12, seed=0, chunk=72)
    assert record["nll"] == pytest.approx(-bounds.log_likelihood[12].mean(), rel=1e-6)
    assert record["neg_elbo"] == pytest.approx(-bounds.elbo.mean(), rel=1e-6)


@pytest.mark.slow
def test_one_image_has_no_standard_error_and_without_a_subset_all_are_measured(workdir):
    record = evaluate(workdir, EvaluateConfig(num_samples=2, images=1))
    assert record["nll_se"] is None and record["neg_elbo_se"] is None
    assert record["chunk"] == load_run(workdir).model.samples_per_pass == 5000
    record = evaluate(workdir, EvaluateConfig(split="validation", num_samples=1))
    assert record["images"] == {"count": 30, "of": 30, "subset_seed": None}


@pytest.mark.slow
def test_another_evaluation_is_added_and_the_same_one_is_not_run_again(
    evaluated_workdir, batches_measured, capsys
):
    workdir, first = evaluated_workdir
    other = evaluate(workdir, EvaluateConfig(num_samples=2, images=5))
    assert records_of(workdir) == [first, other]
    batches_measured.clear()
    capsys.readouterr()
    assert evaluate(workdir, QUICK) == first
    assert batches_measured == [] and records_of(workdir) == [first, other]
    assert "already in evaluation.json" in capsys.readouterr().err
    shutil.rmtree(workdir / "evaluation")
    assert evaluate(workdir, QUICK) == first
    assert batches_measured == [] and not (workdir / "evaluation").exists()
    # Other weights at the same step are another evaluation.
    model = build_model(EXPERIMENT)
    model.trainable_variables[0].assign(model.trainable_variables[0] * 2)
    save_checkpoint(workdir, model)
    second = evaluate(workdir, QUICK)
    assert second["key"] != first["key"] and second["nll"] != first["nll"]
    assert records_of(workdir) == [first, other, second]


def test_the_data_directory_may_be_another_than_in_training(workdir, monkeypatch):
    asked, load = [], loading.load
    monkeypatch.setattr(loading, "load", lambda c, split: asked.append(c.dir) or load(c, split))
    evaluate(workdir, EvaluateConfig(num_samples=1, images=2), data_dir="/elsewhere")
    assert asked == ["/elsewhere"]


# What goes wrong.


@pytest.mark.slow
def test_an_interrupted_evaluation_goes_on_and_gives_the_same_record(
    workdir, evaluated, batches_measured, monkeypatch, capsys
):
    save = BatchFiles.save

    def interrupted(self, number, *arguments):
        if number == 2:
            raise KeyboardInterrupt
        save(self, number, *arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(BatchFiles, "save", interrupted)
        evaluate(workdir, QUICK)
    assert batches_measured == [6, 6, 6]
    assert not (workdir / "evaluation.json").exists()
    batches_measured.clear()
    capsys.readouterr()
    record = evaluate(workdir, QUICK)
    assert batches_measured == [6, 6], "only the remaining batches"
    err = capsys.readouterr().err
    assert "evaluate:  50%" in err and "12/24" in err and "24/24" in err
    assert without_timings(record) == without_timings(evaluated[1])
    assert records_of(workdir) == [record]


def test_on_a_file_system_without_locks_it_works_and_says_so_once(
    workdir, evaluated, monkeypatch, capsys
):
    def none(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    for name in ("flock", "lockf"):
        monkeypatch.setattr(fcntl, name, none)
    record = evaluate(workdir, QUICK)
    assert without_timings(record) == without_timings(evaluated[1])
    assert capsys.readouterr().err.count("evaluate: no locks in") == 1


@pytest.mark.parametrize("finished", [False, True])
def test_batches_whose_files_are_damaged_or_lost_are_computed_again(
    evaluated_workdir, batches_measured, capsys, finished
):
    workdir, undisturbed = evaluated_workdir
    if not finished:
        (workdir / "evaluation.json").unlink()
    damaged = workdir / "evaluation" / undisturbed["key"] / "000003.npz"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:100])
    (damaged.parent / "000001.npz").unlink()
    (damaged.parent / "000000.npz").unlink()
    os.mkfifo(damaged.parent / "000000.npz")
    assert without_timings(evaluate(workdir, QUICK)) == without_timings(undisturbed)
    assert batches_measured == [6, 6, 6] and len(damaged.read_bytes()) == len(whole)
    assert "000003.npz is damaged and is computed again" in capsys.readouterr().err
    assert (damaged.parent / "000001.npz").exists()


def test_every_flipped_bit_of_a_batch_is_noticed(tmp_path, capsys):
    values = np.arange(3.0)
    part = PerImage({1: values, 2: values}, values, {"00_top": values}, values)
    with BatchFiles(tmp_path, 1) as files:
        files.save(0, part, np.arange(3), 1.5)
    (path,) = tmp_path.glob("*.npz")
    whole = path.read_bytes()
    with BatchFiles(tmp_path, 1) as files:
        np.testing.assert_array_equal(files.found[0][0].log_likelihood[2], values)
    for position in range(0, len(whole), 13):
        changed = bytearray(whole)
        changed[position] ^= 1 << position % 8
        path.write_bytes(changed)
        with BatchFiles(tmp_path, 1) as files:
            assert files.missing() == [0], position


def test_what_cannot_be_evaluated_is_one_error_before_anything_is_written(workdir, tmp_path):
    for config, message in (
        (EvaluateConfig(images=298), "at most 297, the images of the test split; got 298"),
        (EvaluateConfig(weights="averaged"), "keeps no averaged weights"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate(workdir, config)
    with pytest.raises(ValueError, match="not a work directory"):
        evaluate(tmp_path, QUICK)
    for text in ("[{", "{}", "[1]", "\udcff", '[{"key": Infinity}]', 100_000 * "["):
        path = workdir / "evaluation.json"
        path.write_text(text, errors="surrogateescape")
        before = path.read_bytes()
        with pytest.raises(
            ValueError, match="evaluation.json is not a file written by matnet eval"
        ):
            evaluate(workdir, QUICK)
        assert path.read_bytes() == before
    assert not (workdir / "evaluation").exists()


@pytest.mark.slow
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
        monkeypatch.setattr(f"{MODULE}.time", clock)
        record = evaluate(workdir, QUICK)
    # Batches 0 and 2 at once; 1 came from the other process, and 3 after its death.
    assert waited[0] == [6, 6] and batches_measured == [6, 6, 6]
    assert without_timings(record) == without_timings(evaluated[1])
