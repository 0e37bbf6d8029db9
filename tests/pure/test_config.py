# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Settings: what is refused, with which message, what is accepted, and the table of scales."""

import dataclasses
import re

import pytest

from matnet_tf.config import (
    ClusterConfig,
    DataConfig,
    ElboLoss,
    EvaluateConfig,
    Experiment,
    ImputeConfig,
    ModelConfig,
    Rectangle,
    Scale,
    ScoreConfig,
    TrainConfig,
)

CONFIGS = (
    *(ModelConfig, DataConfig, ElboLoss, TrainConfig, Experiment),
    *(EvaluateConfig, ScoreConfig, ClusterConfig, ImputeConfig),
)
TWO_STAGES = ModelConfig(scales=(Scale(1, 8, 2, 1), Scale(7, 8, 2, 2)), conditional_stages=2)
HALF = DataConfig(mask="half")


def refusal(function, *arguments, **keywords) -> str:
    """Returns the one line in which a call is refused."""
    with pytest.raises(ValueError) as caught:
        function(*arguments, **keywords)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def check_refusals(rows):
    """Checks rows of a class, keywords and an excerpt of the message; `...` stands for any text."""
    for owner, keywords, excerpt in rows:
        text = refusal(owner, **keywords)
        pattern = ".*".join(re.escape(part) for part in excerpt.split("..."))
        assert re.search(pattern, text), f"{owner.__name__}, {keywords}: {text}"


def test_numbers_that_tensorflow_cannot_hold_are_refused():
    numbers = [
        (owner, entry)
        for owner in CONFIGS
        for entry in dataclasses.fields(owner)
        if entry.type in ("int", "float")
    ]
    assert len(numbers) > 70
    for owner, entry in numbers:
        name = f"{owner.__name__}.{entry.name}"
        for value in (10**400, -(10**400), float("nan"), float("inf"), True, "1"):
            text = refusal(owner, **{entry.name: value})
            assert re.match(f"{name} must be a (finite|whole) number; got", text)
        if entry.type == "int":
            assert "whole" in refusal(owner, **{entry.name: 1.5})
            most = 2**62 - 1 if entry.name.endswith("seed") else 2**31 - 1
            text = refusal(owner, **{entry.name: most + 1})
            assert text.startswith(f"{name} must be at most") and text.endswith(f"{most + 1}")
    assert refusal(ModelConfig, (2**31, 1, 1)).endswith("each >= 1; got (2147483648, 1, 1)")


def test_numbers_out_of_range_are_refused():
    limits = {
        # value, limit -> class -> fields
        (0, "at least 1"): {
            ModelConfig: "top_latents top_units image_filters kernel_size autoregressive_filters",
            DataConfig: "visible occluders",
            ElboLoss: "max_skipped num_samples regularizer_every micro_batches",
            TrainConfig: "steps batch_size steps_per_execution checkpoint_every keep_checkpoints "
            "max_skipped pictures_every num_samples regularizer_every micro_batches",
            EvaluateConfig: "num_samples batch_size",
            ScoreConfig: "num_samples batch_size",
            ClusterConfig: "num_samples groups",
            ImputeConfig: "num_samples",
        },
        (-1, "at least 0"): {
            ModelConfig: "mixture_components conditional_stages",
            DataConfig: "draw_seed validation_images known_share",
            ElboLoss: "clip_norm entropy_penalty l2_penalty regularizer_start",
            TrainConfig: "max_seconds warmup_steps clip_norm summary_images entropy_penalty "
            "l2_penalty regularizer_start rollbacks devices decay_from kl_warmup kl_start "
            "stage_by_stage beta_1 beta_2 average_decay",
            EvaluateConfig: "images seed chunk",
            ClusterConfig: "images components seed",
            ImputeConfig: "tolerance temperature seed",
            Experiment: "seed",
        },
        (0.0, "above 0"): {
            ModelConfig: "latent_scale log_var_bound mixture_spread",
            ElboLoss: "skip_norm",
            TrainConfig: "learning_rate epsilon skip_norm",
        },
        (1.5, "at most 1"): {TrainConfig: "decay_from kl_warmup kl_start stage_by_stage"},
        (1.0, "below 1"): {
            DataConfig: "known_share",
            TrainConfig: "beta_1 beta_2 average_decay",
        },
        (4, "at most 3"): {DataConfig: "visible"},
        (256, "at most 255"): {ImputeConfig: "tolerance"},
        (1, "at least 2"): {ModelConfig: "autoregressive_layers"},
        (2, "at least 3"): {ModelConfig: "autoregressive_kernel_size"},
    }
    for (value, limit), classes in limits.items():
        for owner, names in classes.items():
            for name in names.split():
                expected = f"{owner.__name__}.{name} must be {limit}; got {value}"
                assert refusal(owner, **{name: value}) == expected


def test_values_of_the_wrong_kind_are_refused():
    check_refusals(
        [
            (ModelConfig, {"shared": "yes"}, "ModelConfig.shared must be a bool; got 'yes'"),
            (ModelConfig, {"update": "lstm"}, "ModelConfig.update must be one of ... got 'lstm'"),
            (ModelConfig, {"likelihood": "poisson"}, "likelihood must be one of ... got 'poisson'"),
            (ModelConfig, {"image_shape": 28}, "ModelConfig.image_shape must be a list; got 28"),
            (
                ModelConfig,
                {"image_shape": (28, 28)},
                "must be (height, width, channels), each >= 1",
            ),
            (ModelConfig, {"image_shape": (28, 28, 0)}, "each >= 1; got (28, 28, 0)"),
            (
                ModelConfig,
                {"scales": ()},
                "ModelConfig.scales must be one or more of Scale; got ()",
            ),
            (ModelConfig, {"scales": ("7:1:1:1",)}, "scales must be one or more of Scale; got ("),
            (DataConfig, {"name": ""}, "DataConfig.name must name a data set; got ''"),
            (DataConfig, {"name": 3}, "DataConfig.name must be a str; got 3"),
            (DataConfig, {"image_size": 64}, "DataConfig.image_size must be a list; got 64"),
            (DataConfig, {"mask": "circles"}, "DataConfig.mask must be one of ...; got 'circles'"),
            (ElboLoss, {"regularizer": "wake"}, "ElboLoss.regularizer must be one of ... 'wake'"),
            (TrainConfig, {"halvings": 0.5}, "TrainConfig.halvings must be a list; got 0.5"),
            (TrainConfig, {"precision": "mixed_float16"}, "TrainConfig.precision must be one of"),
            (EvaluateConfig, {"split": "all"}, "EvaluateConfig.split must be one of"),
            (ScoreConfig, {"weights": "best"}, "ScoreConfig.weights must be one of"),
            (Experiment, {"model": 3}, "Experiment.model must be a ModelConfig; got 3"),
        ]
    )
    pair = "height and width, whole numbers of at least 1; got "
    for size in ((64,), (64, 64, 3), (64, 0), (64.0, 64), (True, 64), ("64", "64")):
        text = refusal(DataConfig, image_size=size)
        assert text == f"DataConfig.image_size must be empty or {pair}{size}"
    for size in ((), (20,), (0, 20), (20, 20.5)):
        text = refusal(DataConfig, mask="occluders", occluder_size=size)
        assert text == f"DataConfig.occluder_size must be {pair}{size}"


def test_settings_that_do_not_go_together_are_refused():
    priors = "it goes with prior='learned', merge_state=True and no mixture; got "
    halving, stages = {"schedule": "halving"}, {"conditional_stages": 1}
    mixture = {"likelihood": "logistic_mixture"}
    check_refusals(
        [
            (
                ModelConfig,
                {"mixture_weights": "trained"},
                "ModelConfig.mixture_weights='trained' needs mixture_components of at least 1",
            ),
            (
                ModelConfig,
                {"deterministic_paths": False, "prior": "standard"},
                "ModelConfig.deterministic_paths=False needs prior='learned'",
            ),
            (
                ModelConfig,
                {"whitening": True},
                "whitening goes with likelihood 'normal'; got 'bern",
            ),
            (
                ModelConfig,
                {"likelihood": "normal", "autoregressive": True},
                "likelihood 'bernoulli', 'logistic' or 'logistic_mixture'; got 'normal'",
            ),
            (ModelConfig, {**mixture, "likelihood_scale": "scalar"}, "'pixel' ...; got 'scalar'"),
            (
                ModelConfig,
                {"autoregressive": True, "autoregressive_kernel_size": 4},
                "ModelConfig.autoregressive_kernel_size must be odd; got 4",
            ),
            (
                ModelConfig,
                {"image_shape": (28, 28, 5), "autoregressive": True, "autoregressive_filters": 4},
                "autoregressive_filters must be at least 5, one for each channel ...; got 4",
            ),
            (ModelConfig, {**stages, "prior": "standard"}, f"{priors}'standard', True and 0 comp"),
            (ModelConfig, {**stages, "merge_state": False}, f"{priors}'learned', False and 0 comp"),
            (ModelConfig, {**stages, "mixture_components": 3}, f"{priors}'learned', True and 3"),
            (
                ModelConfig,
                {**stages, "likelihood": "normal", "whitening": True},
                "whitening mixes known pixels with hidden ones: it does not go with conditional",
            ),
            (
                DataConfig,
                {"dequantize": True, "binarization": "dynamic"},
                "dequantize is for images that are not binarized; got binarization 'dynamic'",
            ),
            (DataConfig, {"test_split": "train"}, "test_split must differ; both are 'train'"),
            (
                DataConfig,
                {"mask": "half", "visible": 2},
                "visible goes with mask 'quadrants'; got 2",
            ),
            (DataConfig, {"known_share": 0.1}, "goes with mask 'pixels'; got 0.1 with 'none'"),
            (DataConfig, {"mask": "file"}, "DataConfig.mask 'file' needs a mask_file; got ''"),
            (
                TrainConfig,
                {"micro_batches": 9, "batch_size": 8},
                "TrainConfig.micro_batches must be at most batch_size; got 9 and 8",
            ),
            (
                TrainConfig,
                {**halving, "halvings": (0.7, 0.5)},
                "rise within (0, 1); got (0.7, 0.5)",
            ),
            (TrainConfig, {**halving, "halvings": (1.0,)}, "must rise within (0, 1)"),
            (
                TrainConfig,
                halving,
                "TrainConfig.halvings goes with schedule 'halving'; got () with",
            ),
            (TrainConfig, {"halvings": (0.5,)}, "schedule 'halving'; got (0.5,) with 'constant'"),
            (
                Experiment,
                {"train": TrainConfig(entropy_penalty=0.4)},
                "TrainConfig.entropy_penalty needs a mixture prior, ... got 0.4 with 0 components",
            ),
            (
                Experiment,
                {"data": DataConfig(dequantize=True)},
                "DataConfig.dequantize goes with ModelConfig.likelihood 'normal'; got 'bernoulli'",
            ),
            (
                Experiment,
                {"model": TWO_STAGES},
                "needs DataConfig.mask, ... got 2 with mask 'none'",
            ),
            (
                Experiment,
                {"data": HALF},
                "a mask needs a conditional model; got 0 with mask 'half'",
            ),
            (
                Experiment,
                {
                    "model": ModelConfig(conditional_stages=1),
                    "data": HALF,
                    "train": TrainConfig(stage_by_stage=0.5),
                },
                "stage_by_stage needs ModelConfig.conditional_stages of at least 2; got 0.5 with 1",
            ),
            (TrainConfig, {"free_bits_until": 0.5}, "needs free_bits above 0; got 0.5 without"),
            (ImputeConfig, {}, "exactly one of masks, missing_colour, transparent, ... got none"),
            (ImputeConfig, {"masks": "a", "rectangles": ("0:0:1x1",)}, "got masks and rectangles"),
            (
                ImputeConfig,
                {"masks": "a", "tolerance": 3},
                "goes with missing_colour; got 3 without",
            ),
            (
                ImputeConfig,
                {"missing_colour": (0, 256, 0)},
                "whole numbers from 0 to 255; got 0,256",
            ),
            (ImputeConfig, {"missing_colour": (1, 2)}, "R,G,B or one grey value, ... got 1,2"),
            (ImputeConfig, {"rectangles": ("1:2:0x3",)}, "with sides of at least 1; got '1:2:0x3'"),
        ]
    )


def test_settings_that_go_together_are_accepted():
    ModelConfig(likelihood="normal", whitening=True, likelihood_scale="scalar")
    ModelConfig((28, 28, 3), likelihood="logistic", autoregressive=True, autoregressive_filters=3)
    ModelConfig(conditional_stages=1, likelihood="normal")
    ModelConfig(conditional_stages=3, likelihood="logistic", autoregressive=True)
    ModelConfig(conditional_stages=1, deterministic_paths=False, known_everywhere=False)
    for binarization in ("auto", "none"):
        data = DataConfig(dequantize=True, binarization=binarization)
        Experiment(ModelConfig(likelihood="normal"), data)
    Experiment(TWO_STAGES, HALF, TrainConfig(stage_by_stage=1.0))
    Experiment(dataclasses.replace(TWO_STAGES, conditional_stages=1), HALF)
    ImputeConfig(missing_colour=(255,), tolerance=255, temperature=0)
    assert TrainConfig(schedule="halving", halvings=[0.25, 0.5]).halvings == (0.25, 0.5)
    assert DataConfig(image_size=[48, 64]).image_size == (48, 64)


def test_without_masks_the_rest_of_the_data_settings_stays():
    rest = {"name": "mnist", "draw_seed": 3, "image_size": (9, 8)}
    for masked in (
        {"mask": "quadrants", "visible": 2, "quadrant_order": "random"},
        {"mask": "occluders", "occluders": 1, "occluder_size": (20, 10)},
        {"mask": "pixels", "known_share": 0.0},
        {"mask": "half", "half": "top"},
        {"mask": "file", "mask_file": "mask.png"},
    ):
        assert DataConfig(**rest, **masked).unmasked() == DataConfig(**rest)


def test_scales_and_rectangles_are_read_from_text_and_written_back():
    for text, scale in {
        "7:64:4:5": Scale(7, 64, 4, 5),
        " 1:32:8:2 ": Scale(1, 32, 8, 2),
        "7x14:64:4:5": Scale((7, 14), 64, 4, 5),
        "7x7:64:4:5": Scale(7, 64, 4, 5),
    }.items():
        assert Scale.parse(text) == scale == Scale.parse(str(scale))
    assert Rectangle.parse(" 4:8:20x10 ") == Rectangle(4, 8, 20, 10)
    assert str(Rectangle(4, 8, 20, 10)) == "4:8:20x10"
    for text in ("7:64:4", "a:64:4:5", "", "7:64:4:5:6"):
        assert refusal(Scale.parse, text).startswith("a scale must read size:filters:latents:")
    for text in ("1:2:3", "-1:2:3x4", "1:2:3x", "a:2:3x4"):
        assert "a rectangle must read TOP:LEFT:HEIGHTxWIDTH" in refusal(Rectangle.parse, text)


def test_scales_of_no_size_are_refused():
    sizes = "Scale.size must be a positive int or a pair of them; got "
    for size in (0, (7, 7, 7), 2**31, (7, -1), True, 7.5):
        assert refusal(Scale, size, 1, 1, 1) == f"{sizes}{size!r}"
    for place, name in enumerate(("filters", "latents", "modules")):
        for value in (0, 2.5, -1, True, 2**31):
            numbers = [1, 1, 1]
            numbers[place] = value
            expected = f"Scale.{name} must be a whole number of at least 1; got {value!r}"
            assert refusal(Scale, 7, *numbers) == expected


def test_scales_know_their_shape_and_label():
    for size, shape, label in ((7, (7, 7), "7x7"), ((4, 2), (4, 2), "4x2"), (1, (1, 1), "fc")):
        scale = Scale(size, 1, 1, 1)
        assert (scale.shape, scale.label, scale.dense) == (shape, label, label == "fc")
    assert not Scale((1, 2), 1, 1, 1).dense
    assert ModelConfig(scales=Scale(7, 4, 2, 1)).scales == (Scale(7, 4, 2, 1),)
    assert ModelConfig([28, 28, 1], [[7, 4, 2, 1]]).scales == (Scale(7, 4, 2, 1),)


def test_halving_must_lead_from_each_scale_to_the_one_above():
    for image, sizes in (
        ((28, 28, 1), (7, 14)),
        ((28, 28, 1), (7, 28)),
        ((28, 28, 1), (1, 4)),
        ((31, 17, 3), (1, (8, 5), (16, 9))),
        ((8, 2, 1), ((2, 1), (4, 1), (8, 2))),
        ((5, 5, 5), (5,)),
    ):
        config = ModelConfig(image, [Scale(size, 4, 2, 1) for size in sizes])
        assert [scale.size for scale in config.scales] == list(sizes)
    for image, sizes, excerpt in (
        (
            (28, 28, 1),
            (6,),
            "scale 6:8:2:1 has size 6x6, which halving (rounding up) does not reach from the image "
            "of size 28x28: possible heights [28, 14, 7, 4, 2, 1]",
        ),
        ((28, 28, 1), (14, 7), "scale 14:8:2:1 has size 14x14, ... from scale 7:8:2:1 of size 7x7"),
        ((28, 28, 1), ((7, 14),), "has size 7x14, which halving"),
        ((28, 28, 1), (7, 1), "from scale 1:8:2:1 of size 1x1"),
        ((8, 2, 1), ((2, 2),), "possible heights [8, 4, 2, 1], widths [2, 1]"),
    ):
        keywords = {"image_shape": image, "scales": [Scale(size, 8, 2, 1) for size in sizes]}
        check_refusals([(ModelConfig, keywords, excerpt)])


def test_levels_are_named_top_down_in_sorted_order():
    config = ModelConfig(scales=(Scale(1, 8, 2, 1), Scale(7, 8, 2, 12)))
    assert config.num_levels == len(config.level_names) == 14
    assert config.level_names[:3] == ("00_top", "01_fc", "02_7x7")
    assert sorted(config.level_names) == list(config.level_names)
    first = ("00_top", "01_fc", "02_7x7", "03_7x7")
    assert TWO_STAGES.level_names == (*first, "04_s2_top", "05_s2_fc", "06_s2_7x7", "07_s2_7x7")
    assert (TWO_STAGES.levels_per_stage, TWO_STAGES.num_levels) == (4, 8)
    one = dataclasses.replace(TWO_STAGES, conditional_stages=1)
    assert (one.level_names, one.levels_per_stage, one.num_levels) == (first, 4, 4)
    many = dataclasses.replace(TWO_STAGES, conditional_stages=30)
    assert many.level_names[0] == "000_top" and many.level_names[-1] == "119_s30_7x7"
    assert list(many.level_names) == sorted(many.level_names)


def test_executions_end_with_every_checkpoint_interval_and_with_the_run():
    for settings, expected in (
        ({"steps": 1200, "checkpoint_every": 200}, 20),
        ({"steps": 50, "checkpoint_every": 200}, 10),
        ({"steps": 7, "checkpoint_every": 200}, 1),
    ):
        assert TrainConfig(steps_per_execution=20, **settings).execution_steps == expected
