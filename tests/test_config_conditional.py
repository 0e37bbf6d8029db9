# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The settings of conditional models: their levels, and what does not go together."""

import dataclasses
import re

import pytest

from matnet_tf.config import DataConfig, Experiment, ModelConfig, Stage, TrainConfig

TWO_STAGES = ModelConfig(stages=(Stage(1, 8, 2, 1), Stage(7, 8, 2, 2)), conditional_stages=2)
HALF = DataConfig(mask="half")
PRIORS = (
    "ModelConfig.conditional_stages takes every prior from merge modules that watch the known "
    "pixels: it goes with prior='learned', merge_state=True and no mixture; got "
)
REFUSED = [
    # call, message
    (
        lambda: ModelConfig(conditional_stages=-1),
        "ModelConfig.conditional_stages must be at least 0; got -1",
    ),
    (lambda: ModelConfig(conditional_stages=1.5), "conditional_stages must be a whole number; got"),
    (
        lambda: ModelConfig(conditional_stages=1, prior="standard"),
        f"{PRIORS}'standard', True and 0 components",
    ),
    (
        lambda: ModelConfig(conditional_stages=1, merge_state=False),
        f"{PRIORS}'learned', False and 0 components",
    ),
    (
        lambda: ModelConfig(conditional_stages=1, mixture_components=3),
        f"{PRIORS}'learned', True and 3 components",
    ),
    (
        lambda: ModelConfig(conditional_stages=2, likelihood="normal", whitening=True),
        "whitening mixes known pixels with hidden ones: it does not go with conditional_stages; "
        "got 2",
    ),
    (
        lambda: Experiment(TWO_STAGES),
        "a conditional model, ModelConfig.conditional_stages of at least 1, goes with "
        "DataConfig.mask, and only that does; got 2 with mask 'none'",
    ),
    (lambda: Experiment(data=HALF), "and only that does; got 0 with mask 'half'"),
    *(
        (
            lambda stages=stages, data=data: Experiment(
                ModelConfig(conditional_stages=stages), data, TrainConfig(stage_by_stage=0.5)
            ),
            "TrainConfig.stage_by_stage is for ModelConfig.conditional_stages of at least 2; got "
            f"0.5 with {stages}",
        )
        for stages, data in ((0, DataConfig()), (1, HALF))
    ),
]


@pytest.mark.parametrize(("call", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_what_does_not_go_together_is_refused_in_one_line(call, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_settings_that_go_together_are_accepted():
    ModelConfig(conditional_stages=1, likelihood="normal")
    ModelConfig(conditional_stages=3, likelihood="logistic", autoregressive=True)
    ModelConfig(conditional_stages=1, deterministic_paths=False, known_everywhere=False)
    Experiment(TWO_STAGES, HALF, TrainConfig(stage_by_stage=1.0))
    Experiment(dataclasses.replace(TWO_STAGES, conditional_stages=1), HALF)


def test_levels_of_all_stages_are_named_in_sorted_order():
    first = ("00_top", "01_fc", "02_7x7", "03_7x7")
    assert TWO_STAGES.level_names == (*first, "04_s2_top", "05_s2_fc", "06_s2_7x7", "07_s2_7x7")
    assert (TWO_STAGES.levels_per_stage, TWO_STAGES.num_levels) == (4, 8)
    one = dataclasses.replace(TWO_STAGES, conditional_stages=1)
    assert (one.level_names, one.levels_per_stage, one.num_levels) == (first, 4, 4)
    many = dataclasses.replace(TWO_STAGES, conditional_stages=30)
    assert many.level_names[0] == "000_top" and many.level_names[-1] == "119_s30_7x7"
    assert list(many.level_names) == sorted(many.level_names)
