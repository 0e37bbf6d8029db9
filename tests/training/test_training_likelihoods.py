# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Whole trainings in graphs: whitened and mixed pixels; two samples, value by value."""

import numpy as np
import pytest
from work_directories import assert_same_variables, interrupt_at

from matnet_tf.config import DataConfig, Experiment, ModelConfig, Scale, TrainConfig
from matnet_tf.data import loading
from matnet_tf.likelihoods.whitening import Whitening
from matnet_tf.runs.models import load_run
from matnet_tf.runs.workdir import read_metrics
from matnet_tf.training import train

pytestmark = pytest.mark.slow

LOCAL = {"autoregressive": True, "autoregressive_layers": 2, "autoregressive_filters": 4}
KINDS = {
    "whitened": {"likelihood": "normal", "likelihood_scale": "channel", "whitening": True},
    "local logistic": {"likelihood": "logistic", **LOCAL},
    "mixed pixels": {"likelihood": "logistic_mixture", "likelihood_components": 3},
}


def tiny(kind) -> Experiment:
    model = ModelConfig((8, 8, 1), (Scale(1, 12, 2, 1),), top_latents=2, top_units=4, **KINDS[kind])
    normal = model.likelihood == "normal"
    samples = {} if normal else {"num_samples": 2, "gradient": "doubly_reparametrized"}
    train = TrainConfig(
        **{"steps": 6, "batch_size": 16, "steps_per_execution": 2, "checkpoint_every": 4},
        **{"average_decay": 0.9, "summary_images": 2, "pictures_every": 1, **samples},
    )
    data = DataConfig(binarization="none", dequantize=normal, validation_images=20)
    return Experiment(model, data, train)


@pytest.fixture(scope="module", params=KINDS)
def undisturbed(request, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed")
    record = train.train(tiny(request.param), workdir)
    assert record["step"] == 6 and record["skipped"] == 0
    return request.param, workdir


def test_a_run_leaves_finite_rows_and_pictures(undisturbed):
    workdir = undisturbed[1]
    rows = read_metrics(workdir)
    assert [row["step"] for row in rows] == [4, 6]
    for row in rows:
        np.testing.assert_allclose(row["elbo"], row["log_likelihood"] - row["kl"], rtol=1e-4)
        assert np.isfinite(row["val_elbo"]) and np.isfinite(row["val_elbo_averaged"])
    events = list((workdir / "tensorboard" / workdir.name).glob("events.*"))
    assert events and all(b"reconstructions" in path.read_bytes() for path in events)


def test_a_run_stopped_by_sigterm_resumes_to_the_same_weights(undisturbed, tmp_path, monkeypatch):
    kind, workdir = undisturbed
    with monkeypatch.context() as patch:
        interrupt_at(patch, 2)
        assert train.train(tiny(kind), tmp_path)["interrupted"]

    def adapt(self, dataset):
        raise AssertionError("the statistics are in the checkpoint")

    monkeypatch.setattr(Whitening, "adapt", adapt)
    assert train.train(tiny(kind), tmp_path)["step"] == 6
    assert_same_variables(tmp_path, workdir)


def test_the_statistics_of_whitening_are_those_of_the_training_split(undisturbed):
    kind, workdir = undisturbed
    if kind != "whitened":
        pytest.skip("it has no statistics")
    layer = load_run(workdir).model.hierarchy.likelihood.observation.whitening_layer
    split = loading.load(tiny(kind).data, "train")
    x = next(iter(split.evaluation_dataset(split.num_images))).numpy().reshape(1480, 64)
    assert int(layer.num_images.numpy()) == 1480, "validation images must not count"
    np.testing.assert_allclose(layer.location, x.mean(0), atol=1e-5)
    covariance = np.cov(x.T.astype(np.float64), bias=True) + layer.epsilon * np.eye(64)
    matrix = layer.matrix.numpy().astype(np.float64)
    # Pixels that are always white have hardly any variance, of which float32 keeps two digits.
    np.testing.assert_allclose(matrix @ covariance @ matrix, np.eye(64), atol=0.02)
    expected = -0.5 * np.linalg.slogdet(covariance)[1]
    np.testing.assert_allclose(layer.log_det, expected, rtol=1e-3)
