# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Evaluations of models of 8-bit and of dequantized images, and evaluations on two devices."""

import dataclasses
import shutil

import numpy as np
import pytest
from work_directories import write_run

from matnet_tf.config import DataConfig, EvaluateConfig, Experiment, ModelConfig, Scale
from matnet_tf.data import loading
from matnet_tf.evaluation.evaluate import evaluate
from matnet_tf.runs.checkpoints import Checkpoints
from matnet_tf.runs.models import build_model
from matnet_tf.runs.workdir import create_workdir

QUICK = EvaluateConfig(num_samples=3, images=4)
LOCAL = {"autoregressive": True, "autoregressive_layers": 2, "autoregressive_filters": 4}
KINDS = {
    "whitened": {"likelihood": "normal", "likelihood_scale": "scalar", "whitening": True},
    "local logistic": {"likelihood": "logistic", **LOCAL},
    "mixed pixels": {"likelihood": "logistic_mixture", "likelihood_components": 3},
}


def experiment_of(kind):
    model = ModelConfig((8, 8, 1), (Scale(1, 6, 2, 1),), top_latents=2, top_units=4, **KINDS[kind])
    normal = model.likelihood == "normal"
    return Experiment(model, DataConfig(binarization="none", dequantize=normal, draw_seed=5))


def save(folder, experiment, images):
    """Writes a work directory with an untrained model adapted to some training images."""
    create_workdir(folder, experiment)
    model = build_model(experiment)
    model.adapt(
        loading.load(experiment.data, "train").evaluation_dataset(images, np.arange(images))
    )
    model.step.assign(3)
    Checkpoints(model, folder).save()


def in_bits(nats):
    return nats / (8 * 8 * np.log(2))


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("kind", KINDS)
def test_bits_per_dimension_are_those_of_the_8_bit_image(kind, tmp_path):
    experiment, normal = experiment_of(kind), KINDS[kind]["likelihood"] == "normal"
    save(tmp_path / "run", experiment, 200)
    record = evaluate(tmp_path / "run", QUICK)
    # A unit of a density holds 2**8 levels; a mass is already that of a level.
    more = 8 if normal else 0
    assert record["bits_per_dim"] == pytest.approx(in_bits(record["nll"]) + more, rel=1e-9)
    parts = record["elbo_bits_per_dim"]
    assert set(parts) == {"latents", "pixels"}
    assert parts["latents"] == pytest.approx(in_bits(sum(record["kl"].values())), rel=1e-9)
    assert sum(parts.values()) == pytest.approx(in_bits(record["neg_elbo"]) + more, rel=1e-9)
    # An untrained model is no better than a fair die of 256 sides, and not much worse.
    assert 5 < record["bits_per_dim"] < 14 and parts["latents"] >= 0
    assert record["binarization"] == {"method": "none", "seed": None}
    noise = {"method": "uniform", "seed": 5} if normal else {"method": "none", "seed": None}
    assert record["dequantization"] == noise
    if not normal:
        return
    # Other whitening statistics, and other noise, are other evaluations.
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    save(tmp_path / "run", experiment, 100)
    other = evaluate(tmp_path / "run", QUICK)
    assert other["model_digest"] != record["model_digest"] and other["nll"] != record["nll"]
    data = dataclasses.replace(experiment.data, draw_seed=6)
    save(tmp_path / "seed", dataclasses.replace(experiment, data=data), 100)
    second = evaluate(tmp_path / "seed", QUICK)
    assert second["data_digest"] == other["data_digest"]
    assert second["key"] != other["key"] and second["nll"] != other["nll"]
    assert second["nll"] == pytest.approx(other["nll"], rel=0.2)


@pytest.mark.slow
def test_bounds_of_images_do_not_depend_on_the_number_of_devices(tmp_path, two_devices):
    model = ModelConfig((8, 8, 1), (Scale(1, 8, 2, 1),), top_latents=2, top_units=4)
    write_run(tmp_path / "one", Experiment(model))
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    config = EvaluateConfig(num_samples=4, images=14, batch_size=6, chunk=24)
    one, two = (evaluate(tmp_path / n, config, num_devices=d) for n, d in (("one", 1), ("two", 2)))
    assert one["key"] == two["key"]
    for number in range(3):
        name = f"evaluation/{one['key']}/{number:06d}.npz"
        with np.load(tmp_path / "one" / name) as ours, np.load(tmp_path / "two" / name) as theirs:
            for array in set(ours.files) - {"seconds"}:
                np.testing.assert_array_equal(ours[array], theirs[array])
