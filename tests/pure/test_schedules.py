# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Schedules, against values computed by hand or by NumPy."""

import numpy as np

from matnet_tf.config import TrainConfig
from matnet_tf.training.dead_levels import dead_levels, warning
from matnet_tf.training.schedules import progress_at, settings_at, stage_at


def rates(config, progress):
    return [settings_at(config, 10**6, p).learning_rate for p in progress]


def test_progress_is_by_step_or_by_time_whichever_is_larger():
    config = TrainConfig(steps=100, max_seconds=10)
    assert progress_at(config, 20, 1.0) == 0.2
    assert progress_at(config, 20, 5.0) == 0.5
    assert progress_at(config, 20, 99.0) == 1.0
    assert progress_at(TrainConfig(steps=100), 20, 10**9) == 0.2


def test_the_warm_up_rises_linearly_to_the_learning_rate():
    config = TrainConfig(learning_rate=0.5, warmup_steps=4)
    found = [settings_at(config, step, 0.0).learning_rate for step in range(6)]
    np.testing.assert_allclose(found, [0.125, 0.25, 0.375, 0.5, 0.5, 0.5])


def test_the_rate_halves_and_then_falls_linearly_to_zero():
    config = TrainConfig(learning_rate=8.0, schedule="halving", halvings=(0.1, 0.2), decay_from=0.5)
    found = rates(config, [0.0, 0.1, 0.15, 0.2, 0.5, 0.75, 1.0])
    np.testing.assert_allclose(found, [8, 4, 4, 2, 2, 1, 0])


def test_the_cosine_follows_half_a_period():
    progress = np.linspace(0, 1, 7)
    found = rates(TrainConfig(learning_rate=3.0, schedule="cosine"), progress)
    np.testing.assert_allclose(found, 1.5 * (1 + np.cos(np.pi * progress)), atol=1e-12)


def test_beta_1_moves_half_way_to_its_limit_at_each_halving():
    config = TrainConfig(
        beta_1=0.8, beta_1_halving=True, schedule="halving", halvings=(0.1, 0.2, 0.3, 0.4, 0.5)
    )
    found = [settings_at(config, 0, p).beta_1 for p in (0, 0.1, 0.2, 0.3, 0.4, 0.5)]
    np.testing.assert_allclose(found, [0.8, 0.875, 0.9125, 0.93125, 0.940625, 0.9453125])


def test_the_kl_weight_rises_linearly_over_its_warm_up():
    for schedule in ("linear", "squared"):
        config = TrainConfig(kl_schedule=schedule, kl_warmup=0.5, kl_start=0.2)
        found = [settings_at(config, 0, p).kl_weight for p in (0, 0.25, 0.5, 0.9)]
        np.testing.assert_allclose(found, [0.2, 0.6, 1.0, 1.0])
    assert settings_at(TrainConfig(), 0, 0.0).kl_weight == 1.0


def test_free_bits_and_kl_balancing_fall_linearly_where_asked():
    config = TrainConfig(free_bits=0.3, free_bits_until=0.8, kl_balancing=0.4)
    found = [settings_at(config, 0, p)[3:5] for p in (0.0, 0.2, 0.4, 0.8, 1.0)]
    np.testing.assert_allclose(found, [(1, 1), (0.75, 0.5), (0.5, 0), (0, 0), (0, 0)], atol=1e-12)
    plain = [settings_at(TrainConfig(free_bits=0.3), 0, p)[3:5] for p in (0.0, 1.0)]
    assert plain == [(1, 0), (1, 0)]


def test_stages_train_one_after_another_and_then_together():
    config = TrainConfig(stage_by_stage=0.6)
    found = [stage_at(config, p, 3) for p in (0.0, 0.19, 0.21, 0.39, 0.41, 0.59, 0.6, 1.0)]
    assert found == [1, 1, 2, 2, 3, 3, 0, 0]
    assert [stage_at(TrainConfig(), p, 2) for p in (0.0, 0.5, 1.0)] == [0, 0, 0]
    whole = TrainConfig(stage_by_stage=1.0)
    assert [stage_at(whole, p, 2) for p in (0.0, 0.49, 0.5, 0.99, 1.0)] == [1, 1, 2, 2, 0]


def test_each_stage_that_trains_alone_has_a_warm_up():
    config = TrainConfig(learning_rate=2.0, stage_by_stage=0.5)
    progress = [0.0, 0.0125, 0.025, 0.2, 0.25, 0.2625, 0.3, 0.5, 0.75]
    found = [settings_at(config, 0, p, stages=2) for p in progress]
    np.testing.assert_allclose([s.learning_rate for s in found], [0, 1, 2, 2, 0, 1, 2, 2, 2])
    assert [s.training_stage for s in found] == [1, 1, 1, 1, 2, 2, 2, 0, 0]
    assert settings_at(TrainConfig(), 5, 0.5, stages=2).training_stage == 0


def test_levels_are_dead_that_stay_below_a_hundredth_of_a_nat_at_full_kl_weight():
    def row(top, below, weight=1.0):
        return {
            "step": 1,
            "kl": top + below,
            "kl/00_top": top,
            "kl/01_fc": below,
            "kl_weight": weight,
        }

    assert dead_levels([row(2, 0.001), row(2, 0.009)]) == ["01_fc"]
    for rows in ([], [row(2, 0.0)], [row(2, 0.02), row(2, 0.0)], [row(2, 0.0, 0.9), row(2, 0.0)]):
        assert dead_levels(rows) == []
    assert "1 of 2 levels" in warning(["01_fc"], 2) and "01_fc" in warning(["01_fc"], 2)
