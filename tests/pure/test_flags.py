# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Flags to dataclasses and back, flagfiles, and the one line that a wrong flag gets."""

import sys

import pytest
from absl import flags as absl_flags

from matnet_tf import flags, presets
from matnet_tf.config import (
    ClusterConfig,
    DataConfig,
    EvaluateConfig,
    Experiment,
    ImputeConfig,
    Scale,
    ScoreConfig,
)

WORKDIR = flags.Flag("workdir", "where it runs")


def read(*arguments: str, tree: type = Experiment):
    """Returns the dataclass tree that a command line stands for."""
    return flags.parse(tree, (), arguments)[0][0]


def refusal(*arguments: str, tree: type | None = Experiment, extra=()) -> str:
    with pytest.raises(ValueError) as caught:
        flags.parse(tree, extra, arguments)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_every_config_survives_its_flags():
    configs = [
        *(read(f"--preset={name}") for name in presets.names()),
        *(tree() for tree in (Experiment, EvaluateConfig, ScoreConfig, ClusterConfig)),
        ImputeConfig(missing_colour=(0, 128, 255), tolerance=3, draw=True, temperature=0.5),
        ImputeConfig(rectangles=("0:0:8x8", "4:8:20x20")),
    ]
    for config in configs:
        assert read(*flags.to_flags(config), tree=type(config)) == config
    assert len(configs) > 20
    assert read() == Experiment() and read(tree=EvaluateConfig) == EvaluateConfig()


def test_flags_are_dotted_and_read_as_in_the_readme():
    experiment = read(
        *("--model.scales=1:64:4:5,14x7:64:4:5", "--model.image_shape=28,14,1"),
        *("--train.steps", "7", "-data.name=mnist", "--seed=1", "--seed=3"),
        *("--train.schedule=halving", "--train.halvings=0.5,0.75", "--train.epsilon=1e-4"),
    )
    assert experiment.model.scales == (Scale(1, 64, 4, 5), Scale((14, 7), 64, 4, 5))
    assert (experiment.train.steps, experiment.data.name, experiment.seed) == (7, "mnist", 3)
    assert experiment.train.halvings == (0.5, 0.75) and experiment.train.epsilon == 1e-4


def test_switches_are_set_alone_or_by_value():
    assert read("--model.shared").model.shared is True
    assert read("--model.shared=true").model.shared is True
    assert read("--nomodel.merge_state").model.merge_state is False
    assert read("--model.merge_state=False").model.merge_state is False
    assert read().train.jit_compile == "auto"
    for text, value in (("=auto", "auto"), ("", True), ("=True", True), ("=false", False)):
        assert read(f"--train.jit_compile{text}").train.jit_compile == value
    assert read("--notrain.jit_compile").train.jit_compile is False


def test_extra_flags_arrive_by_keyword_with_dots_as_underscores():
    extra = (WORKDIR, flags.Flag("data.dir", "", ""), flags.Flag("count", "", type=int))
    given = ["--workdir=a=b", "--data.dir=/d e", "--count=0"]
    expected = {"workdir": "a=b", "data_dir": "/d e", "count": 0}
    assert flags.parse(None, extra, given) == ([], expected)
    for arguments in ([], ["--workdir="]):
        assert refusal(*arguments, extra=extra, tree=None).startswith(
            "--workdir is required: where it runs"
        )


def test_only_those_changes_of_a_config_arrive_that_are_given():
    extra = flags.changes_of(DataConfig, "data.")
    assert [f.name for f in extra] == [f.name for f in flags.flags_of(DataConfig, "data.")]
    assert flags.parse(None, extra, []) == ([], {})
    given = ["--data.name=mnist", "--nodata.dequantize", "--data.draw_seed=0"]
    expected = {"data_name": "mnist", "data_dequantize": False, "data_draw_seed": 0}
    assert flags.parse(None, extra, given) == ([], expected)
    message = refusal("--data.binarization=some", extra=extra, tree=None)
    assert "expected one of auto, dynamic, threshold, none" in message


def test_flagfiles_hold_comments_blank_lines_and_other_flagfiles(tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    (tmp_path / "base.flags").write_text("# base\n\n--train.steps=10\n--seed=1\n  # indented\n")
    (tmp_path / "sub" / "top.flags").write_text(
        "// top\n--flagfile=../base.flags\n  --seed=2\n--data.dir=/a b#c\n--model.shared\n"
    )
    monkeypatch.chdir("/")
    experiment = read(f"--flagfile={tmp_path}/sub/top.flags")
    assert (experiment.train.steps, experiment.seed) == (10, 2)
    assert experiment.data.dir == "/a b#c"
    assert experiment.model.shared is True


def test_a_flagfile_overrides_only_the_flags_before_it(tmp_path):
    path, loop = tmp_path / "a.flags", tmp_path / "loop.flags"
    path.write_text("--seed=5\n")
    assert read("--seed=1", f"--flagfile={path}").seed == 5
    assert read("--seed=1", "--flagfile", str(path), "--seed=2").seed == 2
    assert read(f"--flagfile={path}", f"--flagfile={path}").seed == 5
    loop.write_text("--flagfile=loop.flags\n")
    assert "includes itself" in refusal(f"--flagfile={loop}")


def test_a_preset_is_a_flagfile_known_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    digits = read(f"--flagfile={presets.recipe('digits')}")
    assert read("--preset=digits") == read("--preset", "digits") == digits != Experiment()
    assert read("--seed=7", "--preset=digits", "--train.steps=40").train.steps == 40
    (tmp_path / "mine.flags").write_text("--preset=digits\n--train.steps=60\n")
    assert read("--flagfile=mine.flags").train.steps == 60
    message = refusal("--preset=mnist_con")
    assert message.startswith("unknown preset 'mnist_con'; did you mean mnist_conv? The presets")
    assert ", ".join(presets.names()) in message
    assert refusal("--preset=qqqq").startswith("unknown preset 'qqqq'; The presets are celeba")
    assert refusal("--preset=digits", tree=EvaluateConfig).startswith("Unknown command line flag")
    assert "presets are named --preset=digits" in refusal("--flagfile=configs/digits.flags")


def test_lines_that_would_be_misread_are_refused_with_their_place(tmp_path):
    path = tmp_path / "a.flags"
    for line in ('--data.dir="/x"', "--seed=1 # why", "--seed 1", "seed=1", "--data.dir='x y'"):
        path.write_text(f"# first\n{line}\n")
        message = refusal(f"--flagfile={path}")
        assert message.startswith(f"{path}:2: expected --flag=value")
        assert repr(line) in message


def test_an_unknown_flag_is_answered_with_the_nearest_names():
    nearest = {
        "--train.stpes=5": "train.steps, train.steps_per_execution",
        "--steps=5": "train.steps",
        "--learning_rate=1": "train.learning_rate",
        "--learning-rate=1": "train.learning_rate",
        "--model.stages=1:1:1:1": "model.scales",
        "--nomodel.shraed": "model.shared",
        "--sead=1": "seed",
        "--flag_file=a": "flagfile",
        "--pre_set=a": "preset",
    }
    for argument, names in nearest.items():
        name = argument.partition("=")[0].removeprefix("--")
        expected = f"Unknown command line flag '{name}'. Did you mean: {names} ?"
        assert refusal(argument) == expected
    assert refusal("--qqqq") == "Unknown command line flag 'qqqq'"


def test_wrong_values_are_refused_in_one_line():
    messages = {
        "--train.steps=abc": "flag --train.steps=abc: expected a whole number, not 'abc'",
        "--train.steps=1.5": "flag --train.steps=1.5: expected a whole number, not '1.5'",
        "--train.beta_1=x": "flag --train.beta_1=x: expected a number, not 'x'",
        "--model.shared=maybe": "flag --model.shared=maybe: expected true or false, not",
        "--train.jit_compile=x": "flag --train.jit_compile=x: expected one of auto, true, false",
        "--model.prior=flat": "flag --model.prior=flat: expected one of learned, standard",
        "--model.scales=7:4": "flag --model.scales=7:4: a ",
        "--model.image_shape=8,8,": "flag --model.image_shape=8,8,: expected a whole number",
        "--train.halvings=0.5,x": "flag --train.halvings=0.5,x: expected a number, not 'x'",
        "--data.name --seed=1": "flag --data.name=--seed=1: expected a value, not another",
        "--seed": "Missing value for flag --seed",
        "digits": "expected flags only, such as --model.image_shape=VALUE; got 'digits'",
        "--train.steps=0": "TrainConfig.steps must be at least 1; got 0",
        "--model.likelihood=gauss": "flag --model.likelihood=gauss: expected one of bernoulli, ",
        "--data.dequantize": "DataConfig.dequantize ",
        "--flagfile=/no/such.flags": "cannot read flagfile /no/such.flags: No such file",
        "--flagfile": "--flagfile needs the name of a flagfile",
        "--flagfile=/": "cannot read flagfile /: Is a directory",
        "--preset=": "--preset needs the name of a preset",
    }
    for arguments, message in messages.items():
        assert refusal(*arguments.split()).startswith(message), arguments


def test_help_lists_every_flag_with_its_default_and_meaning():
    text = flags.help_text("matnet prog", Experiment, (WORKDIR,), "Does it.\n\n    With care.")
    usage = "Usage: matnet prog --workdir=... [--FLAG=VALUE ...]"
    assert text.startswith(f"Does it.\n\nWith care.\n\n{usage}\n")
    for line in flags.to_flags(Experiment()):
        assert f"\n  {line}\n" in text
    words = " ".join(text.split())
    for flag in flags.flags_of(Experiment):
        assert " ".join(flag.help.split()) in words
    assert "(one of learned, standard)" in words and "where it runs (required)" in words
    assert ", ".join(presets.names()) in words
    assert max(map(len, text.splitlines())) <= 100
    assert "--preset" not in flags.help_text("matnet prog", EvaluateConfig, (), "Does it.")


def test_errors_of_users_and_of_the_machine_take_one_line():
    # TensorFlow's own classes are told by their name alone.
    exhausted = type("ResourceExhaustedError", (Exception,), {})("{{node a}} no room [Op:MatMul]")
    assert flags.one_line(ValueError("two\n  lines")) == "two lines"
    assert flags.one_line(exhausted) == "no room"
    full = OSError(28, "No space left on device", "/x")
    assert flags.one_line(full) == "[Errno 28] No space left on device: '/x'"
    assert flags.one_line(ZeroDivisionError()) is None


def test_the_flags_of_other_libraries_are_left_alone():
    before = set(absl_flags.FLAGS)
    read("--seed=1")
    assert set(absl_flags.FLAGS) == before and "matnet_tf" in sys.modules
