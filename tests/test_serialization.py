# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""What of two experiments differs, and what a dictionary of one holds."""

import dataclasses
import json

import pytest
from test_config import KINDS, every_field_changed

from matnet_tf.config import DataConfig, EvaluateConfig, Experiment, TrainConfig
from matnet_tf.serialization import differences, to_dict


def test_differences_name_the_fields_that_differ():
    theirs = Experiment()
    ours = dataclasses.replace(theirs, train=TrainConfig(steps=5), seed=2)
    assert differences(ours, theirs) == ["train.steps: 5, not 10000", "seed: 2, not 0"]
    assert differences(ours, ours) == []


def test_differences_overlook_settings_that_only_watch_or_bound_a_run():
    ours = Experiment(
        data=DataConfig(dir="/elsewhere"),
        train=TrainConfig(max_seconds=9.0, keep_checkpoints=7, devices=2, rollbacks=0),
    )
    assert differences(ours, Experiment()) == []


@pytest.mark.parametrize("kind", KINDS)
def test_to_dict_leaves_nothing_but_plain_values(kind):
    json.dumps(to_dict(every_field_changed(kind)))
    assert to_dict(EvaluateConfig())["num_samples"] == 2500
