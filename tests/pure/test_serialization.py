# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Settings as dictionaries and JSON, and the differences between two experiments."""

import dataclasses
import json

import pytest

from matnet_tf.config import (
    ClusterConfig,
    DataConfig,
    ElboLoss,
    EvaluateConfig,
    Experiment,
    ImputeConfig,
    ModelConfig,
    Scale,
    ScoreConfig,
    TrainConfig,
)
from matnet_tf.config.serialization import differences, from_dict, to_dict

TUPLES = {
    "image_shape": (27, 28, 3),
    "scales": (Scale(1, 32, 8, 1), Scale((7, 14), 16, 2, 3)),
    "image_size": (64, 48),
    "occluder_size": (5, 7),
    "halvings": (0.5, 0.75),
    "missing_colour": (1, 2, 3),
    "rectangles": ("0:0:8x8", "4:8:20x20"),
    "recompute": ("7x7", "14x14"),
}
# Settings without which another value of a field is refused.
COMPANIONS = {
    "halvings": {"schedule": "halving"},
    "whitening": {"likelihood": "normal"},
    "mixture_weights": {"mixture_components": 2},
    "scales": {"image_shape": (28, 56, 1)},
    "image_shape": {"scales": (Scale(1, 8, 2, 1),)},
    "steps_per_execution": {"steps": 9, "checkpoint_every": 6},
    "mask": {"mask_file": "a"},
    "free_bits_until": {"free_bits": 0.25},
    **dict.fromkeys(("visible", "quadrant_order"), {"mask": "quadrants"}),
    **dict.fromkeys(("occluders", "occluder_size"), {"mask": "occluders"}),
    "known_share": {"mask": "pixels"},
    "half": {"mask": "half"},
    "mask_file": {"mask": "file"},
    "tolerance": {"missing_colour": (3,)},
}


def other_value(field):
    """Returns an allowed value of a field other than its default."""
    if field.name in TUPLES:
        return TUPLES[field.name]
    if field.metadata["choices"]:
        return next(c for c in reversed(field.metadata["choices"]) if c != field.default)
    default = field.default
    return {
        bool: lambda: not default,
        int: lambda: default + 2,
        float: lambda: default / 2 or 0.25,
        str: lambda: "/data/a folder",
    }[type(default)]()


MISSING = {"masks", "missing_colour", "transparent", "rectangles"}


def with_other_value(owner, field):
    keywords = {field.name: other_value(field), **COMPANIONS.get(field.name, {})}
    if owner is ImputeConfig and not MISSING & set(keywords):
        keywords["masks"] = "a"
    return owner(**keywords)


def test_every_field_survives_json():
    count = 0
    for owner in (ModelConfig, DataConfig, ElboLoss, TrainConfig, EvaluateConfig, ScoreConfig) + (
        *(ClusterConfig, ImputeConfig),
    ):
        for field in dataclasses.fields(owner):
            config = with_other_value(owner, field)
            again = from_dict(owner, json.loads(json.dumps(to_dict(config))))
            assert getattr(again, field.name) == other_value(field) != field.default
            assert repr(again) == repr(config)  # Types included: 1 is not 1.0, nor a list a tuple.
            count += 1
    assert count > 110


def test_json_is_plain_and_scales_are_in_their_short_form():
    scales = TUPLES["scales"]
    experiment = Experiment(
        ModelConfig((28, 56, 3), scales, conditional_stages=2),
        DataConfig("mnist", mask="occluders", occluder_size=(5, 7)),
        TrainConfig(steps=20, schedule="halving", halvings=(0.5, 0.75), stage_by_stage=0.5),
        seed=5,
    )
    tree = to_dict(experiment)
    assert json.loads(json.dumps(tree)) == tree
    assert list(tree) == ["model", "data", "train", "seed", "init"]
    assert tree["model"]["scales"] == ["1:32:8:1", "7x14:16:2:3"]
    assert tree["train"]["halvings"] == [0.5, 0.75]
    assert from_dict(Experiment, tree) == experiment


def test_fields_missing_from_json_take_their_defaults():
    expected = Experiment(train=TrainConfig(steps=3))
    assert from_dict(Experiment, {"train": {"steps": 3}}) == expected


def test_wrong_trees_are_refused_in_one_line():
    for cls, tree, message in (
        (Experiment, {"train": 3}, "Experiment.train must be a TrainConfig; got 3"),
        (Experiment, {"data": {"nam": "a"}}, "DataConfig has no field nam"),
        (TrainConfig, {"momentum": 0.1}, "TrainConfig has no field momentum"),
        (ModelConfig, {"scales": 3}, "ModelConfig.scales must be a list; got 3"),
        (ModelConfig, {"scales": ["7:64"]}, "a scale must read .*; got '7:64'"),
        (Experiment, [], r"Experiment must be a dictionary; got \[\]"),
    ):
        with pytest.raises(ValueError, match=f"^{message}$"):
            from_dict(cls, tree)


def test_differences_name_the_fields_that_differ():
    theirs = Experiment()
    ours = dataclasses.replace(theirs, train=TrainConfig(steps=5), seed=2)
    assert differences(ours, theirs) == ["train.steps: 5, not 10000", "seed: 2, not 0"]
    limited = Experiment(
        data=DataConfig(dir="/elsewhere"),
        train=TrainConfig(
            max_seconds=9.0,
            keep_checkpoints=7,
            devices=2,
            rollbacks=0,
            micro_batches=2,
            recompute=("all",),
        ),
    )
    assert differences(ours, ours) == differences(limited, theirs) == []
