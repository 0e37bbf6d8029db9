# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Learning rate, beta_1, weights of the loss and training stage, from step and progress.

Progress lies in [0, 1]; see `TrainConfig` for how it is measured. Since these are pure functions of
plain numbers, a resumed run follows the same schedule.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from matnet_tf.config import TrainConfig

__all__ = ["Settings", "progress_at", "settings_at", "stage_at"]

_STAGE_WARMUP = 0.1  # Share of the time in which a stage trains alone.
_REFERENCE_BETA_1 = 0.95  # Limit of the reference's beta_1, which moves half-way at each halving.


class Settings(NamedTuple):
    """Values of the schedules for the next steps."""

    learning_rate: float
    beta_1: float
    kl_weight: float
    free_bits_weight: float = 1.0
    kl_balance: float = 0.0
    training_stage: int = 0  # See `stage_at`.


def progress_at(config: TrainConfig, step: int, seconds: float) -> float:
    """Returns the progress in [0, 1] after `step` steps and `seconds` of wall-clock time."""
    by_step = step / config.steps
    by_time = seconds / config.max_seconds if config.max_seconds else 0.0
    return min(1.0, max(by_step, by_time))


def settings_at(config: TrainConfig, step: int, progress: float, stages: int = 0) -> Settings:
    """Returns the settings for the steps that follow `step`.

    Args:
      config: The schedules.
      step: Number of steps done, for the warm-up of the learning rate.
      progress: Progress in [0, 1], for everything else.
      stages: Number of stages of a conditional model; each has a warm-up when it trains alone.
    """
    halved = sum(progress >= h for h in config.halvings)
    beta_1 = config.beta_1
    if config.beta_1_halving:
        beta_1 = _REFERENCE_BETA_1 - (_REFERENCE_BETA_1 - beta_1) * 0.5**halved
    return Settings(
        config.learning_rate
        * _warmup(config, step)
        * _stage_warmup(config, progress, stages)
        * _shape(config, progress, halved)
        * _final_decay(config, progress),
        beta_1,
        _kl_weight(config, progress),
        _falling(config.free_bits_until, progress) if config.free_bits_until else 1.0,
        _falling(config.kl_balancing, progress) if config.kl_balancing else 0.0,
        stage_at(config, progress, stages),
    )


def stage_at(config: TrainConfig, progress: float, stages: int) -> int:
    """Returns the stage of a conditional model that trains alone, from 1; 0 if all train at once.

    Args:
      config: The schedules.
      progress: Progress in [0, 1].
      stages: Number of stages.
    """
    if progress >= config.stage_by_stage:
        return 0
    return min(stages, 1 + int(stages * progress / config.stage_by_stage))


def _warmup(config, step):
    return min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0


def _stage_warmup(config, progress, stages):
    # Adam's bias correction counts all steps, but the moments of a stage are zero when it begins to
    # train: its first updates would be up to six times too large.
    if not stages or progress >= config.stage_by_stage:
        return 1.0
    within = stages * progress / config.stage_by_stage % 1
    return min(1.0, within / _STAGE_WARMUP)


def _shape(config, progress, halved):
    if config.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    return 0.5**halved


def _final_decay(config, progress):
    if config.decay_from >= 1 or progress <= config.decay_from:
        return 1.0
    return (1 - progress) / (1 - config.decay_from)


def _falling(until, progress):
    return max(0.0, 1 - progress / until)


def _kl_weight(config, progress):
    if config.kl_schedule == "constant" or config.kl_warmup == 0:
        return 1.0
    risen = min(1.0, progress / config.kl_warmup)
    return config.kl_start + (1 - config.kl_start) * risen
