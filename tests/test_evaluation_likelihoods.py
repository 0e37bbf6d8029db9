# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""What an evaluation records of models of 8-bit and of dequantized images."""

import dataclasses
import shutil

import numpy as np
import pytest

from matnet_tf import data, evaluation, experiment
from matnet_tf.config import DataConfig, EvaluateConfig, Experiment, ModelConfig, Stage
from matnet_tf.evaluation import evaluate, importance_weighted_bound

QUICK = EvaluateConfig(num_samples=3, images=4)
SIZE = 8 * 8
LOCAL = {"autoregressive": True, "autoregressive_layers": 2, "autoregressive_filters": 4}
KINDS = {
    "normal": {"likelihood": "normal"},
    "whitened": {"likelihood": "normal", "likelihood_scale": "scalar", "whitening": True},
    "logistic": {"likelihood": "logistic"},
    "local logistic": {"likelihood": "logistic", **LOCAL},
}


def settings_of(kind):
    model = ModelConfig((8, 8, 1), (Stage(1, 6, 2, 1),), top_latents=2, top_units=4, **KINDS[kind])
    normal = model.likelihood == "normal"
    return Experiment(model, DataConfig(binarization="none", dequantize=normal, draw_seed=5))


def save(folder, settings, images):
    """A work directory with an untrained model that has seen some training images."""
    experiment.create(folder, settings)
    model = experiment.build_model(settings)
    model.adapt(data.load(settings.data, "train").evaluation_dataset(images, range(images)))
    model.step.assign(3)
    experiment.Checkpoints(model, folder).save()


SLOW = ("normal", "logistic")  # The other two are these and more.
PARAMS = [pytest.param(k, marks=[pytest.mark.slow] if k in SLOW else []) for k in KINDS]


@pytest.fixture(scope="module", autouse=True)
def one_draw():
    """The mean over draws has a test elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "ELBO_SAMPLES", 1)
        yield


@pytest.fixture(scope="module", params=PARAMS)
def evaluated(request, tmp_path_factory, module_eagerly, reused_models):
    """The kind, a work directory of it, and its record."""
    folder = tmp_path_factory.mktemp("evaluated")
    save(folder, settings_of(request.param), 200)
    return request.param, folder, evaluate(folder, QUICK)


def in_bits(nats):
    return nats / (SIZE * np.log(2))


def test_bits_per_dimension_are_those_of_the_8_bit_image(evaluated):
    kind, _, record = evaluated
    # A unit of a density holds 2**8 levels; a mass is that of a level already.
    more = 8 if KINDS[kind]["likelihood"] == "normal" else 0
    assert record["bits_per_dim"] == pytest.approx(in_bits(record["nll"]) + more, rel=1e-9)
    parts = record["elbo_bits_per_dim"]
    assert set(parts) == {"latents", "pixels"}
    assert parts["latents"] == pytest.approx(in_bits(sum(record["kl"].values())), rel=1e-9)
    assert parts["latents"] >= 0
    assert sum(parts.values()) == pytest.approx(in_bits(record["neg_elbo"]) + more, rel=1e-9)
    # An untrained model is no better than a fair die of 256 sides, and not much worse.
    assert 5 < record["bits_per_dim"] < 14


def test_the_record_says_how_its_images_were_drawn(evaluated):
    kind, _, record = evaluated
    assert record["binarization"] == {"method": "none", "seed": None}
    uniform = {"method": "uniform", "seed": 5}
    dequantized = KINDS[kind]["likelihood"] == "normal"
    assert record["dequantization"] == (
        uniform if dequantized else {"method": "none", "seed": None}
    )


def test_the_record_is_that_of_the_library_on_the_same_images(evaluated):
    _, folder, record = evaluated
    loaded = experiment.load(folder)
    files = sorted((folder / "evaluation" / record["key"]).glob("*.npz"))
    chosen = np.concatenate([np.load(path)["images"] for path in files])
    dataset = data.load(loaded.experiment.data, "test").evaluation_dataset(len(chosen), chosen)
    bounds = importance_weighted_bound(loaded.model, dataset, 3)
    assert record["nll"] == pytest.approx(-bounds.log_likelihood[3].mean(), rel=1e-5)
    assert record["neg_elbo"] == pytest.approx(-bounds.elbo.mean(), rel=1e-5)


def test_other_statistics_of_whitening_are_another_evaluation(evaluated, tmp_path):
    kind, folder, record = evaluated
    if kind != "whitened":
        pytest.skip("it has no statistics")
    workdir = shutil.copytree(folder, tmp_path / "run")
    shutil.rmtree(workdir / "checkpoints")
    save(workdir, settings_of(kind), 100)
    other = evaluate(workdir, QUICK)
    assert other["model_digest"] != record["model_digest"] and other["nll"] != record["nll"]


def test_another_dequantization_is_another_evaluation(evaluated, tmp_path):
    kind, folder, record = evaluated
    if kind != "normal":
        pytest.skip("it is dequantized for the normal likelihood only")
    settings = settings_of(kind)
    other = dataclasses.replace(settings, data=dataclasses.replace(settings.data, draw_seed=6))
    save(tmp_path, other, 200)
    second = evaluate(tmp_path, QUICK)
    assert second["model_digest"] == record["model_digest"]
    assert second["key"] != record["key"] and second["nll"] != record["nll"]
    assert second["nll"] == pytest.approx(record["nll"], rel=0.05)
