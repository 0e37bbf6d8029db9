# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Training in other precisions: float32 where it must be, and a loss that is scaled in float16."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from matnet_tf import experiment, loss_scaling
from matnet_tf.config import Experiment, ModelConfig, Stage, TrainConfig

CONFIG = ModelConfig((8, 8, 1), (Stage(1, 8, 2, 1), Stage(4, 4, 2, 1)), top_latents=2, top_units=4)


def images(count=6):
    return (np.random.RandomState(0).rand(count, 8, 8, 1) < 0.3).astype(np.float32)


def model_in(precision, **train):
    settings = Experiment(CONFIG, train=TrainConfig(precision=precision, **train))
    return experiment.build_model(settings)


def test_the_precision_is_that_of_the_model_and_of_nothing_else():
    model = model_in("mixed_bfloat16")
    assert model.compute_dtype == "bfloat16" and model.loss_scale is None
    assert {v.dtype for v in model.trainable_variables} == {"float32"}
    assert keras.config.dtype_policy().name == "float32"
    bound = model.elbo(images())
    assert bound.elbo.dtype == tf.float32


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_twenty_steps_lead_to_nearly_the_same_bound(precision):
    bounds = []
    for kind in ("float32", precision):
        model = model_in(kind, learning_rate=3e-3)
        model.fit(images(40), batch_size=8, epochs=4, shuffle=False, verbose=0)
        # The first scales in float16 are too large.
        most = 5 if kind == "mixed_float16" else 0
        assert int(model.step.numpy()) == 20 and int(model.skipped.numpy()) <= most
        bounds.append(float(np.mean(model.elbo(images(40), seed=1).elbo)))
    assert bounds[0] == pytest.approx(bounds[1], rel=0.05)


def test_a_scale_that_overflows_skips_the_step_and_halves():
    model = model_in("mixed_float16")
    model.run_eagerly = True
    before = [v.numpy() for v in model.trainable_variables]
    model.loss_scale.scale.assign(2.0**24)
    model.train_step(1e3 * np.ones((6, 8, 8, 1), np.float32))
    assert int(model.skipped.numpy()) == 1
    assert float(model.loss_scale.scale.numpy()) == 2.0**23
    for variable, value in zip(model.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_the_scale_cancels_doubles_in_time_and_stays_in_its_range(monkeypatch):
    monkeypatch.setattr(loss_scaling, "_STEPS", 3)
    scale = model_in("mixed_float16").loss_scale
    assert float(scale.scaled(tf.constant(2.0))) == 2.0**16
    np.testing.assert_allclose(scale.unscaled([scale.scaled(tf.constant(0.3))])[0], 0.3)
    values = []
    for finite in (True, True, True, True, False, True, True, True):
        scale.update(tf.constant(finite))
        values.append(float(scale.scale.numpy()) / 2.0**15)
    assert values == [1, 1, 2, 2, 1, 1, 1, 2]
    scale.scale.assign(1.0)
    scale.update(tf.constant(False))
    assert float(scale.scale.numpy()) == 1.0


def test_the_scale_is_saved_with_the_weights(tmp_path):
    model = model_in("mixed_float16")
    model.loss_scale.scale.assign(4.0)
    experiment.Checkpoints(model, tmp_path).save()
    other = model_in("mixed_float16")
    experiment.Checkpoints(other, tmp_path).restore()
    assert float(other.loss_scale.scale.numpy()) == 4.0


def test_another_precision_is_another_experiment():
    from matnet_tf.serialization import differences

    ours = Experiment(CONFIG, train=TrainConfig(precision="mixed_bfloat16"))
    theirs = dataclasses.replace(ours, train=TrainConfig())
    assert differences(ours, theirs) == ["train.precision: mixed_bfloat16, not float32"]
