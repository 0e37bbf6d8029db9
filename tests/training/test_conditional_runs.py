# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""A conditional run from end to end: trained stage by stage, stopped, resumed, measured, drawn."""

import numpy as np
import pytest
import tensorflow as tf
from work_directories import assert_same_variables, interrupt_at

from matnet_tf.config import (
    DataConfig,
    EvaluateConfig,
    Experiment,
    ModelConfig,
    Scale,
    TrainConfig,
)
from matnet_tf.data import loading
from matnet_tf.evaluation import evaluate
from matnet_tf.evaluation.protocol import chosen_images
from matnet_tf.plots.figures import write_figures
from matnet_tf.runs.models import load_run
from matnet_tf.runs.workdir import read_metrics
from matnet_tf.training import train
from matnet_tf.training.callbacks import Schedules
from matnet_tf.training.summaries import Summaries

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("module_eagerly")]

HIDDEN = 16  # Values of an image of which three quadrants are known.
EXPERIMENT = Experiment(
    ModelConfig((8, 8, 1), (Scale(1, 8, 2, 1),), 2, 4, conditional_stages=2),
    DataConfig(mask="quadrants", visible=3, quadrant_order="random", validation_images=20),
    TrainConfig(
        **{"steps": 8, "batch_size": 16, "steps_per_execution": 1, "checkpoint_every": 2},
        **{"stage_by_stage": 0.5, "average_decay": 0.9, "summary_images": 0},
    ),
)


@pytest.fixture
def stages(monkeypatch):
    """The stage that each step trains."""
    seen, original = [], Schedules.on_train_batch_begin

    def on_train_batch_begin(self, batch, logs=None):
        original(self, batch, logs)
        seen.append(self.model.training_stage)

    monkeypatch.setattr(Schedules, "on_train_batch_begin", on_train_batch_begin)
    return seen


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, module_eagerly):
    workdir = tmp_path_factory.mktemp("conditional")
    assert train.train(EXPERIMENT, workdir)["step"] == 8
    return workdir


def test_a_run_resumes_in_its_stage_to_the_same_weights(undisturbed, stages, tmp_path, monkeypatch):
    for step in (1, 3):
        with monkeypatch.context() as patch:
            interrupt_at(patch, step)
            record = train.train(EXPERIMENT, tmp_path)
        assert (record["step"], record["interrupted"]) == (step, True)
    assert train.train(EXPERIMENT, tmp_path)["step"] == 8
    assert stages == [1, 1, 2, 2, 0, 0, 0, 0]
    assert_same_variables(tmp_path, undisturbed)


def test_a_run_is_measured_on_hidden_values_and_drawn(undisturbed, tmp_path):
    rows = read_metrics(undisturbed)
    assert [row["step"] for row in rows] == [2, 4, 6, 8]
    assert all(np.isfinite(row["val_elbo"]) and row["kl/01_fc"] > 0 for row in rows)

    settings = EvaluateConfig(num_samples=12, images=40, batch_size=40)
    record = evaluate.evaluate(undisturbed, settings)
    kind = {"kind": "quadrants", "visible": 3, "order": "random", "seed": 0}
    assert (record["mask"], record["dims"]) == (kind, HIDDEN)
    assert record["bits_per_dim"] == pytest.approx(record["nll"] / (HIDDEN * np.log(2)))
    split, model = loading.load(EXPERIMENT.data, "test"), load_run(undisturbed).model
    chosen = chosen_images(settings, split.num_images)
    batch = next(iter(split.evaluation_dataset(40, chosen)))
    by_hand = -model.log_likelihood(batch["image"], batch["mask"], 12).mean()
    assert record["nll"] == pytest.approx(by_hand, rel=0.1)

    summaries = Summaries(tmp_path, {k: v[:2] for k, v in batch.items()}, 0, list)
    summaries.set_model(model)
    summaries.write(8, rows[-1], pictures=True)
    (event,) = tmp_path.glob("events.*")
    for tag in (b"completions", b"reconstructions", b"kl_area"):
        assert tag in event.read_bytes()
    paths = write_figures(undisturbed)
    names = ["completions", "reconstructions", "kl_area", "curves"]
    assert paths == [str(undisturbed / "figures" / f"{name}.png") for name in names]
    for path in paths:
        assert np.ptp(tf.io.decode_png(tf.io.read_file(path)).numpy()) > 128
    with pytest.raises(ValueError, match="bits.png needs a model of whole images; .* conditional"):
        write_figures(undisturbed, compare=[undisturbed])
