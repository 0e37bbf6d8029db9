# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Every field to JSON and back, and the message of every check."""

import dataclasses
import json
import re

import pytest

from matnet_tf.config import (
    DataConfig,
    EvaluateConfig,
    Experiment,
    ModelConfig,
    ScoreConfig,
    Stage,
    TrainConfig,
)
from matnet_tf.serialization import from_dict, from_json, to_json

# One value for every field, other than its default; `tests/test_flags.py` uses them too.
OTHER_VALUES = {
    ModelConfig: {
        "image_shape": (27, 28, 3),
        "stages": (Stage(1, 32, 8, 1), Stage((7, 7), 16, 2, 3)),
        "top_latents": 16,
        "top_units": 64,
        "image_filters": 8,
        "kernel_size": 5,
        "activation": "tanh",
        "update": "gru",
        "shared": True,
        "prior": "standard",
        "mixture_components": 5,
        "mixture_weights": "trained",
        "mixture_spread": 0.5,
        "top_everywhere": True,
        "conditional_stages": 2,
        "known_everywhere": False,
        "latent_scale": 0.5,
        "log_var_bound": 4.5,
        "normalization": "layer",
        "deterministic_paths": False,
        "merge_state": False,
        "likelihood": "logistic",
        "likelihood_scale": "channel",
        "whitening": True,
        "autoregressive": True,
        "autoregressive_layers": 3,
        "autoregressive_filters": 24,
        "autoregressive_kernel_size": 5,
    },
    DataConfig: {
        "name": "mnist",
        "dir": "/data/a folder",
        "binarization": "threshold",
        "dequantize": True,
        "draw_seed": 7,
        "validation_images": 100,
        "train_split": "train[:50%]",
        "test_split": "validation",
        "image_size": (64, 48),
        "mask": "occluders",
        "visible": 3,
        "quadrant_order": "random",
        "occluders": 2,
        "occluder_size": (5, 7),
        "known_share": 0.25,
        "half": "random",
        "mask_file": "/data/a mask.png",
    },
    TrainConfig: {
        "steps": 20,
        "batch_size": 25,
        "max_seconds": 600.5,
        "learning_rate": 3e-4,
        "warmup_steps": 10,
        "schedule": "cosine",
        "halvings": (0.5, 0.75),
        "decay_from": 0.5,
        "beta_1": 0.8,
        "beta_1_halving": True,
        "beta_2": 0.98,
        "epsilon": 1e-4,
        "weight_decay": 0.01,
        "clip_norm": 10.0,
        "skip_norm": 1e4,
        "max_skipped": 5,
        "rollbacks": 2,
        "average_decay": 0.999,
        "kl_schedule": "squared",
        "kl_warmup": 0.1,
        "kl_start": 0.2,
        "mixture_kl": "monte_carlo",
        "entropy_penalty": 0.4,
        "regularizer": "free_energy",
        "regularizer_start": 100,
        "regularizer_every": 2,
        "stage_by_stage": 0.75,
        "devices": 2,
        "micro_batches": 5,
        "precision": "mixed_float16",
        "jit_compile": True,
        "steps_per_execution": 10,
        "checkpoint_every": 50,
        "keep_checkpoints": 3,
        "summary_images": 4,
        "pictures_every": 2,
    },
    EvaluateConfig: {
        "split": "validation",
        "num_samples": 50,
        "images": 1000,
        "seed": 3,
        "weights": "raw",
        "batch_size": 20,
        "chunk": 500,
    },
    ScoreConfig: {
        "split": "train",
        "num_samples": 7,
        "images": 30,
        "seed": 4,
        "weights": "averaged",
        "batch_size": 10,
        "chunk": 70,
    },
    Experiment: {"seed": 5},
}
# Values that a field's other value needs beside it.
COMPANIONS = {
    "halvings": {"schedule": "halving"},
    "whitening": {"likelihood": "normal"},
    "mixture_weights": {"mixture_components": 2},
    **dict.fromkeys(("visible", "quadrant_order"), {"mask": "quadrants"}),
    "known_share": {"mask": "pixels"},
    "half": {"mask": "half"},
    "mask_file": {"mask": "file"},
    **dict.fromkeys(("occluders", "occluder_size"), {"mask": "occluders"}),
}
# Fields that are dataclasses themselves.
WITHOUT_OTHER = {(Experiment, name) for name in ("model", "data", "train")}
# Values that do not go together.
COMPATIBLE = {
    "model": {"prior": "learned", "whitening": False},
    "data": {"dequantize": False, "visible": 1, "quadrant_order": "fixed", "known_share": 0.5}
    | {"half": "left", "mask_file": ""},
    "train": {**COMPANIONS["halvings"], "micro_batches": 1},
}
# Nor do those of a model of whole images and those of a conditional one.
KINDS = {
    "whole": {
        "model": {"conditional_stages": 0},
        "data": {"mask": "none", "occluders": 3, "occluder_size": (20, 20)},
        "train": {"stage_by_stage": 0.0},
    },
    "conditional": {
        "model": {"mixture_components": 0, "mixture_weights": "uniform", "merge_state": True},
        "data": {},
        "train": {"entropy_penalty": 0.0},
    },
}
ROWS = [(owner, name) for owner, values in OTHER_VALUES.items() for name in values]


def other(owner: type, name: str):
    """A config of the class whose field `name` has its other value."""
    return owner(**{name: OTHER_VALUES[owner][name], **COMPANIONS.get(name, {})})


def every_field_changed(kind: str) -> Experiment:
    """An experiment of one of `KINDS` in which all fields have their other value that may."""
    sections = {
        name: owner(**(OTHER_VALUES[owner] | COMPATIBLE[name] | KINDS[kind][name]))
        for name, owner in (("model", ModelConfig), ("data", DataConfig), ("train", TrainConfig))
    }
    return Experiment(**sections, **OTHER_VALUES[Experiment])


def test_the_table_has_every_field_with_a_value_other_than_its_default():
    fields = {(owner, f.name) for owner in OTHER_VALUES for f in dataclasses.fields(owner)}
    assert set(ROWS) | WITHOUT_OTHER == fields
    for owner, name in ROWS:
        assert getattr(other(owner, name), name) != getattr(owner(), name), name


@pytest.mark.parametrize(("owner", "name"), ROWS)
def test_every_field_survives_json(owner, name):
    config = other(owner, name)
    again = from_json(owner, to_json(config))
    assert again == config
    assert getattr(again, name) == OTHER_VALUES[owner][name]
    assert type(getattr(again, name)) is type(OTHER_VALUES[owner][name])


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_experiment_survives_json(kind):
    experiment = every_field_changed(kind)
    assert from_json(Experiment, to_json(experiment)) == experiment


@pytest.mark.parametrize("kind", KINDS)
def test_json_is_plain_and_stages_are_in_their_short_form(kind):
    tree = json.loads(to_json(every_field_changed(kind)))
    assert tree["model"]["stages"] == ["1:32:8:1", "7:16:2:3"]
    assert tree["train"]["halvings"] == [0.5, 0.75]
    assert list(tree) == ["model", "data", "train", "seed"]


def test_fields_missing_from_json_take_their_defaults():
    assert from_json(Experiment, '{"train": {"steps": 3}}') == Experiment(
        train=TrainConfig(steps=3)
    )


@pytest.mark.parametrize(
    ("text", "stage"),
    [
        ("7:64:4:5", Stage(7, 64, 4, 5)),
        (" 1:32:8:2 ", Stage(1, 32, 8, 2)),
        ("7x14:64:4:5", Stage((7, 14), 64, 4, 5)),
        ("7x7:64:4:5", Stage(7, 64, 4, 5)),
    ],
)
def test_stages_are_read_from_their_short_form_and_written_back(text, stage):
    assert Stage.parse(text) == stage
    assert Stage.parse(str(stage)) == stage


def test_a_stage_knows_its_shape_and_label():
    assert (Stage(7, 1, 1, 1).shape, Stage(7, 1, 1, 1).label) == ((7, 7), "7x7")
    assert (Stage((4, 2), 1, 1, 1).shape, Stage((4, 2), 1, 1, 1).label) == ((4, 2), "4x2")
    assert (Stage(1, 1, 1, 1).dense, Stage(1, 1, 1, 1).label) == (True, "fc")
    assert not Stage((1, 2), 1, 1, 1).dense


def test_levels_are_named_top_down_in_sorted_order():
    config = ModelConfig(stages=(Stage(1, 8, 2, 1), Stage(7, 8, 2, 12)))
    assert config.num_levels == len(config.level_names) == 14
    assert config.level_names[:3] == ("00_top", "01_fc", "02_7x7")
    assert sorted(config.level_names) == list(config.level_names)


@pytest.mark.parametrize(
    ("image", "sizes"),
    [
        ((28, 28, 1), (7, 14)),
        ((28, 28, 1), (7, 28)),
        ((28, 28, 1), (1, 4)),
        ((31, 17, 3), (1, (8, 5), (16, 9))),
        ((8, 2, 1), ((4, 1), (8, 2))),
        ((5, 5, 5), (5,)),
    ],
)
def test_sizes_that_halving_reaches_are_accepted(image, sizes):
    config = ModelConfig(image, [Stage(size, 4, 2, 1) for size in sizes])
    assert [stage.size for stage in config.stages] == list(sizes)


def test_one_stage_and_lists_of_numbers_stand_for_tuples_of_stages():
    assert ModelConfig(stages=Stage(7, 4, 2, 1)).stages == (Stage(7, 4, 2, 1),)
    assert ModelConfig([28, 28, 1], [[7, 4, 2, 1]]).stages == (Stage(7, 4, 2, 1),)


NAN = float("nan")
REFUSED = [
    # call, message
    (lambda: Stage(0, 1, 1, 1), "Stage.size must be a positive int or a pair of them; got 0"),
    (lambda: Stage((7, 7, 7), 1, 1, 1), "Stage.size must be .* got (7, 7, 7)"),
    (lambda: Stage(7, 0, 1, 1), "Stage.filters must be a whole number of at least 1; got 0"),
    (lambda: Stage(7, 1, 2.5, 1), "Stage.latents must be .* got 2.5"),
    (lambda: Stage(7, 1, 1, -1), "Stage.modules must be .* got -1"),
    (lambda: Stage.parse("7:64:4"), "a stage must read size:filters:.* got '7:64:4'"),
    (lambda: Stage.parse("a:64:4:5"), "a stage must read .* got 'a:64:4:5'"),
    (lambda: Stage.parse("7x7x7:1:1:1"), "Stage.size must be .* got (7, 7, 7)"),
    (lambda: ModelConfig(top_latents=1.5), "ModelConfig.top_latents must be a whole number"),
    (lambda: ModelConfig(top_latents=True), "ModelConfig.top_latents must be a whole .* True"),
    (lambda: ModelConfig(latent_scale="1"), "ModelConfig.latent_scale must be a finite number"),
    (lambda: ModelConfig(latent_scale=NAN), "must be a finite number; got nan"),
    (lambda: ModelConfig(shared="yes"), "ModelConfig.shared must be a bool; got 'yes'"),
    (lambda: ModelConfig(update="lstm"), "ModelConfig.update must be one of .* got 'lstm'"),
    (lambda: ModelConfig(image_shape=28), "ModelConfig.image_shape must be a list; got 28"),
    (lambda: ModelConfig(image_shape=(28, 28)), "must be (height, width, channels), each >= 1;"),
    (lambda: ModelConfig(image_shape=(28, 28, 0)), "each >= 1; got (28, 28, 0)"),
    *(
        (lambda n=n: ModelConfig(**{n: 0}), f"ModelConfig.{n} must be at least 1; got 0")
        for n in ("top_latents", "top_units", "image_filters", "kernel_size")
    ),
    *(
        (lambda n=n: ModelConfig(**{n: 0.0}), f"ModelConfig.{n} must be positive; got 0.0")
        for n in ("latent_scale", "log_var_bound", "mixture_spread")
    ),
    (lambda: ModelConfig(mixture_components=-1), "mixture_components must be at least 0; got -1"),
    (
        lambda: ModelConfig(mixture_weights="trained"),
        "ModelConfig.mixture_weights='trained' needs mixture_components of at least 1; got 0",
    ),
    (
        lambda: Experiment(train=TrainConfig(entropy_penalty=0.4)),
        "TrainConfig.entropy_penalty is for a mixture prior, .* got 0.4 with none",
    ),
    (lambda: ModelConfig(stages=()), "ModelConfig.stages must be one or more of Stage; got ()"),
    (lambda: ModelConfig(stages=("7:1:1:1",)), "ModelConfig.stages must be one or more of Stage"),
    (
        lambda: ModelConfig(stages=(Stage(6, 8, 2, 1),)),
        "stage 6:8:2:1 has size 6x6, which halving .* image of size 28x28: possible heights "
        "[28, 14, 7, 4, 2, 1]",
    ),
    (
        lambda: ModelConfig(stages=(Stage(14, 8, 2, 1), Stage(7, 8, 2, 1))),
        "stage 14:8:2:1 has size 14x14, .* reach from stage 7:8:2:1 of size 7x7",
    ),
    (lambda: ModelConfig(stages=(Stage((7, 14), 8, 2, 1),)), "has size 7x14, which halving"),
    (lambda: ModelConfig(stages=(Stage(7, 8, 2, 1), Stage(1, 8, 2, 1))), "of size 1x1"),
    (
        lambda: ModelConfig(deterministic_paths=False, prior="standard"),
        "ModelConfig.deterministic_paths=False needs prior='learned'",
    ),
    (lambda: ModelConfig(likelihood="poisson"), "ModelConfig.likelihood must be one of .*poisson'"),
    (lambda: ModelConfig(likelihood_scale="row"), "ModelConfig.likelihood_scale must be one of"),
    *(
        (
            lambda kind=kind: ModelConfig(likelihood=kind, whitening=True),
            f"ModelConfig.whitening goes with likelihood 'normal'; got '{kind}'",
        )
        for kind in ("bernoulli", "logistic")
    ),
    (
        lambda: ModelConfig(likelihood="normal", autoregressive=True),
        "ModelConfig.autoregressive goes with likelihood 'bernoulli' or 'logistic'; got 'normal'",
    ),
    *(
        (
            lambda n=n: ModelConfig(autoregressive=True, autoregressive_kernel_size=n),
            f"ModelConfig.autoregressive_kernel_size must be odd and at least 3; got {n}",
        )
        for n in (0, 1, 4)
    ),
    (
        lambda: ModelConfig(autoregressive=True, autoregressive_layers=1),
        "ModelConfig.autoregressive_layers must be at least 2; got 1",
    ),
    (
        lambda: ModelConfig((28, 28, 5), autoregressive=True, autoregressive_filters=4),
        "ModelConfig.autoregressive_filters must be at least 5, one for each channel of the "
        "image; got 4",
    ),
    (
        lambda: ModelConfig(autoregressive_layers=2.5),
        "ModelConfig.autoregressive_layers must be a whole number; got 2.5",
    ),
    *(
        (
            lambda kind=kind: Experiment(
                ModelConfig(likelihood=kind), DataConfig(dequantize=True, binarization="none")
            ),
            f"DataConfig.dequantize goes with ModelConfig.likelihood 'normal'; got '{kind}'",
        )
        for kind in ("bernoulli", "logistic")
    ),
    *(
        (lambda n=n: TrainConfig(**{n: 0}), f"TrainConfig.{n} must be at least 1; got 0")
        for n in ("steps", "batch_size", "steps_per_execution", "checkpoint_every")
        + (
            "keep_checkpoints",
            "max_skipped",
            "pictures_every",
            "regularizer_every",
            "micro_batches",
        )
    ),
    *(
        (lambda n=n: TrainConfig(**{n: -1}), f"TrainConfig.{n} must be at least 0; got -1")
        for n in ("max_seconds", "warmup_steps", "clip_norm", "weight_decay", "kl_warmup")
        + ("summary_images", "entropy_penalty", "regularizer_start", "rollbacks", "devices")
    ),
    *(
        (lambda n=n: TrainConfig(**{n: 0.0}), f"TrainConfig.{n} must be positive; got 0.0")
        for n in ("learning_rate", "epsilon", "skip_norm")
    ),
    *(
        (lambda n=n: TrainConfig(**{n: 1.5}), f"TrainConfig.{n} must lie in [0, 1]; got 1.5")
        for n in ("decay_from", "kl_warmup", "kl_start", "stage_by_stage")
    ),
    *(
        (lambda n=n: TrainConfig(**{n: 1.0}), f"TrainConfig.{n} must lie in [0, 1); got 1.0")
        for n in ("beta_1", "beta_2", "average_decay")
    ),
    (
        lambda: TrainConfig(micro_batches=9, batch_size=8),
        "TrainConfig.micro_batches must be at most batch_size; got 9 and 8",
    ),
    (
        lambda: TrainConfig(micro_batches=2, jit_compile=True),
        "TrainConfig.jit_compile needs micro_batches 1; got 2",
    ),
    (lambda: TrainConfig(halvings=0.5), "TrainConfig.halvings must be a list; got 0.5"),
    (
        lambda: TrainConfig(schedule="halving", halvings=(0.7, 0.5)),
        "TrainConfig.halvings must rise within (0, 1); got (0.7, 0.5)",
    ),
    (lambda: TrainConfig(schedule="halving", halvings=(1.0,)), "must rise within (0, 1)"),
    (lambda: TrainConfig(schedule="halving"), "goes with schedule 'halving'; got () with"),
    (lambda: TrainConfig(halvings=(0.5,)), "goes with schedule 'halving'; .* with 'constant'"),
    (
        lambda: TrainConfig(steps_per_execution=3),
        "checkpoint_every must be a multiple of steps_per_execution; got 1000 and 3",
    ),
    *(
        (lambda n=n: EvaluateConfig(**{n: 0}), f"EvaluateConfig.{n} must be at least 1; got 0")
        for n in ("num_samples", "batch_size")
    ),
    *(
        (lambda n=n: EvaluateConfig(**{n: -1}), f"EvaluateConfig.{n} must be at least 0; got -1")
        for n in ("images", "seed", "chunk")
    ),
    (lambda: EvaluateConfig(split="all"), "EvaluateConfig.split must be one of"),
    (lambda: ScoreConfig(num_samples=0), "ScoreConfig.num_samples must be at least 1; got 0"),
    (lambda: ScoreConfig(weights="best"), "ScoreConfig.weights must be one of"),
    (lambda: Experiment(seed=-1), "Experiment.seed must be at least 0; got -1"),
    (lambda: Experiment(model=3), "Experiment.model must be a ModelConfig; got 3"),
    (lambda: from_dict(Experiment, {"train": 3}), "Experiment.train must be a TrainConfig; got 3"),
    (lambda: from_dict(Experiment, {"data": {"nam": "a"}}), "DataConfig has no field nam"),
    (lambda: from_dict(ModelConfig, {"stages": 3}), "ModelConfig.stages must be a list; got 3"),
    (lambda: from_json(Experiment, "[]"), "Experiment must be a dictionary; got []"),
    (lambda: from_json(Experiment, "{"), "Expecting property name"),
]


@pytest.mark.parametrize(("call", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_wrong_values_are_refused_in_one_line(call, message):
    with pytest.raises(ValueError) as caught:
        call()
    pattern = ".*".join(re.escape(part) for part in message.split(".*"))
    assert re.search(pattern, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)


def test_settings_that_go_together_are_accepted():
    ModelConfig(likelihood="normal", whitening=True, likelihood_scale="scalar")
    ModelConfig((28, 28, 3), likelihood="logistic", autoregressive=True, autoregressive_filters=3)
    for binarization in ("auto", "none"):
        data = DataConfig(dequantize=True, binarization=binarization)
        assert Experiment(ModelConfig(likelihood="normal"), data).data.dequantize
    assert EvaluateConfig(chunk=0).chunk == 0
