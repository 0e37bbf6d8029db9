# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Work directories of earlier versions: `old_runs/format_N`, each made by that version's code.

Beside what `bin/train` left there is `expected.npz`: images, and the bound that the code of that
version gave for them from its raw weights with seed 3.
"""

import json
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf

from matnet_tf import evaluation, experiment, formats, training
from matnet_tf.config import EvaluateConfig

RUNS = sorted((pathlib.Path(__file__).parent / "old_runs").iterdir())


@pytest.fixture(params=RUNS, ids=lambda run: run.name)
def run(request, tmp_path):
    return shutil.copytree(request.param, tmp_path / "run")


def version_of(workdir):
    return json.loads((workdir / "config.json").read_text())["format_version"]


def test_there_is_a_run_of_the_first_format():
    assert [version_of(run) for run in RUNS][0] == 1


def test_the_model_of_an_old_run_gives_the_bound_that_it_gave(run):
    expected = np.load(run / "expected.npz")
    loaded = experiment.load(run, "raw")
    assert loaded.step == expected["step"]
    bound = loaded.model.elbo(expected["x"], seed=3)
    np.testing.assert_allclose(bound.elbo, expected["elbo"], rtol=1e-5)
    np.testing.assert_allclose(bound.log_likelihood, expected["log_likelihood"], rtol=1e-5)


def test_an_old_run_is_evaluated_with_its_averaged_weights(run):
    record = evaluation.evaluate(run, EvaluateConfig(num_samples=2, images=3))
    assert record["weights"] == "averaged" and np.isfinite(record["nll"])


@pytest.mark.slow
def test_an_old_run_goes_on_and_is_of_this_format_afterwards(run):
    config = experiment.read(run)
    (step,) = (row["step"] for row in experiment.metrics_rows(run))
    assert training.train(config, run)["step"] == config.train.steps == step
    assert version_of(run) == formats.FORMAT_VERSION
    path = run / "config.json"
    path.write_text(path.read_text().replace('"steps": 4', '"steps": 8'))
    assert training.train(experiment.read(run), run)["step"] == 8
    assert [row["step"] for row in experiment.metrics_rows(run)] == [4, 8]
    reader = tf.train.load_checkpoint(str(run / "checkpoints" / "ckpt-8"))
    stored = reader.get_tensor("format_version/.ATTRIBUTES/VARIABLE_VALUE")
    assert stored == formats.FORMAT_VERSION


@pytest.mark.parametrize("version", [0, 99, "3", None])
def test_a_format_from_elsewhere_is_named(run, version):
    path = run / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": version}))
    with pytest.raises(ValueError, match=f"has format version {version!r}; this package reads 1"):
        experiment.read(run)


def test_a_checkpoint_of_a_later_format_is_not_read(run, capsys, monkeypatch):
    model = experiment.build_model(experiment.read(run))
    monkeypatch.setattr("matnet_tf.checkpoints.FORMAT_VERSION", formats.FORMAT_VERSION + 1)
    model.step.assign(9)
    experiment.Checkpoints(model, run).save()
    monkeypatch.undo()
    assert experiment.load(run, "raw").step == 4
    assert "ckpt-9 is not readable (format version 4, not 1 to 3)" in capsys.readouterr().err
