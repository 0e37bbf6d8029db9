# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Numbers beyond what TensorFlow can hold: every field of every configuration refuses them."""

import dataclasses

import pytest

from matnet_tf.config import (
    ClusterConfig,
    DataConfig,
    EvaluateConfig,
    Experiment,
    ImputeConfig,
    ModelConfig,
    ScoreConfig,
    Stage,
    TrainConfig,
)

CONFIGS = (
    *(ModelConfig, DataConfig, TrainConfig, Experiment),
    *(EvaluateConfig, ScoreConfig, ClusterConfig, ImputeConfig),
)
NUMBERS = [
    (owner, entry)
    for owner in CONFIGS
    for entry in dataclasses.fields(owner)
    if entry.type in ("int", "float")
]


@pytest.mark.parametrize(
    ("owner", "entry"), NUMBERS, ids=lambda value: getattr(value, "name", None)
)
def test_numbers_beyond_all_limits_are_refused(owner, entry):
    name = f"{owner.__name__}.{entry.name}"
    for value in (10**400, -(10**400), float("nan"), float("inf"), True):
        with pytest.raises(ValueError, match=f"{name} must be a (finite|whole) number; got"):
            owner(**{entry.name: value})
    if entry.type == "int":
        most = 2**62 - 1 if entry.name.endswith("seed") else 2**31 - 1
        with pytest.raises(ValueError, match=f"{name} must be at most {most}; got {most + 1}"):
            owner(**{entry.name: most + 1})


def test_sizes_beyond_all_limits_are_refused():
    with pytest.raises(ValueError, match=r"Stage.filters must be .*; got 2147483648"):
        Stage(7, 2**31, 1, 1)
    with pytest.raises(ValueError, match=r"Stage.size must be .*; got 2147483648"):
        Stage(2**31, 1, 1, 1)
    with pytest.raises(ValueError, match=r"image_shape must be .*; got \(2147483648, 1, 1\)"):
        ModelConfig((2**31, 1, 1))
