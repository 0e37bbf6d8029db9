# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Flags to dataclasses and back, flagfiles, and the one line that a wrong flag gets."""

import pathlib
import resource
import subprocess
import sys

import pytest
from test_config import KINDS, OTHER_VALUES, ROWS, every_field_changed, other

from matnet_tf import flags
from matnet_tf.config import (
    DataConfig,
    EvaluateConfig,
    Experiment,
    ModelConfig,
    Stage,
    TrainConfig,
)

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROGRAMS = sorted(path.name for path in (ROOT / "bin").iterdir())


def read(*arguments: str, tree: type = Experiment):
    """The dataclass tree that a command line stands for."""
    return flags.parse(tree, (), arguments)[0][0]


def refusal(*arguments: str, tree: type = Experiment, extra=()) -> str:
    with pytest.raises(ValueError) as caught:
        flags.parse(tree, extra, arguments)
    return str(caught.value)


@pytest.mark.parametrize(("owner", "name"), ROWS)
def test_every_field_survives_its_flag(owner, name):
    config = other(owner, name)
    again = read(*flags.to_flags(config), tree=owner)
    assert again == config
    assert type(getattr(again, name)) is type(OTHER_VALUES[owner][name])


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_experiment_survives_its_flags(kind):
    experiment = every_field_changed(kind)
    assert read(*flags.to_flags(experiment)) == experiment


def test_no_flags_are_the_defaults():
    assert read() == Experiment()
    assert read(*flags.to_flags(Experiment())) == Experiment()
    assert read(tree=EvaluateConfig) == EvaluateConfig()


def test_flags_are_dotted_and_read_as_in_the_readme():
    experiment = read(
        "--model.stages=1:64:4:5,14x14:64:4:5", "--train.steps", "7", "-data.name=mnist", "--seed=3"
    )
    assert experiment.model.stages == (Stage(1, 64, 4, 5), Stage(14, 64, 4, 5))
    assert (experiment.train.steps, experiment.data.name, experiment.seed) == (7, "mnist", 3)


def test_switches_are_set_alone_or_by_value():
    assert read("--model.shared").model.shared is True
    assert read("--model.shared=true").model.shared is True
    assert read("--nomodel.merge_state").model.merge_state is False
    assert read("--model.merge_state=False").model.merge_state is False


def test_of_a_flag_given_twice_the_later_value_wins():
    assert read("--seed=1", "--seed=2").seed == 2


def test_extra_flags_arrive_by_keyword_with_dots_as_underscores():
    extra = (flags.WORKDIR, flags.DATA_DIR, flags.WEIGHTS)
    values, keywords = flags.parse(None, extra, ["--workdir=a=b", "--data.dir=/d e"])
    assert values == []
    assert keywords == {"workdir": "a=b", "data_dir": "/d e", "weights": "auto"}


def test_of_the_flags_that_change_a_config_those_given_arrive():
    extra = flags.changes_of(DataConfig, "data.")
    assert [f.name for f in extra] == [f.name for f in flags.flags_of(DataConfig, "data.")]
    assert flags.parse(None, extra, []) == ([], {})
    given = ["--data.name=mnist", "--nodata.dequantize", "--data.draw_seed=0"]
    expected = {"data_name": "mnist", "data_dequantize": False, "data_draw_seed": 0}
    assert flags.parse(None, extra, given) == ([], expected)
    message = refusal("--data.binarization=some", extra=extra, tree=None)
    assert "expected one of auto, dynamic, threshold, none" in message


def test_a_required_whole_number_may_be_zero():
    count = flags.Flag("count", "how many", type=int)
    assert flags.parse(None, (count,), ["--count=0"]) == ([], {"count": 0})


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


def test_a_flagfile_overrides_the_flags_before_it_only(tmp_path):
    path = tmp_path / "a.flags"
    path.write_text("--seed=5\n")
    assert read("--seed=1", f"--flagfile={path}").seed == 5
    assert read("--seed=1", "--flagfile", str(path), "--seed=2").seed == 2


def test_the_same_flagfile_may_be_included_twice_but_not_by_itself(tmp_path):
    base, loop = tmp_path / "base.flags", tmp_path / "loop.flags"
    base.write_text("--seed=5\n")
    loop.write_text("--flagfile=loop.flags\n")
    assert read(f"--flagfile={base}", f"--flagfile={base}").seed == 5
    assert "includes itself" in refusal(f"--flagfile={loop}")


@pytest.mark.parametrize(
    "line", ['--data.dir="/x"', "--seed=1 # why", "--seed 1", "seed=1", "--data.dir='x y'"]
)
def test_lines_that_would_be_misread_are_refused_with_their_place(tmp_path, line):
    path = tmp_path / "a.flags"
    path.write_text(f"# first\n{line}\n")
    message = refusal(f"--flagfile={path}")
    assert message.startswith(f"{path}:2: expected --flag=value")
    assert repr(line) in message


@pytest.mark.parametrize(
    ("argument", "nearest"),
    [
        ("--train.stpes=5", "--train.steps"),
        ("--steps=5", "--train.steps"),
        ("--model.stage=1:1:1:1", "--model.stages"),
        ("--nomodel.shraed", "--model.shared"),
        ("--learning-rate=1", "--train.learning_rate"),
        ("--sead=1", "--seed"),
        ("--hlp", "--help"),
        ("--flag_file=a", "--flagfile"),
    ],
)
def test_an_unknown_flag_is_answered_with_the_nearest_name(argument, nearest):
    name = argument.partition("=")[0]
    assert refusal(argument) == f"unknown flag {name}; did you mean {nearest}?"


def test_an_unknown_flag_like_no_other_is_referred_to_the_help():
    assert refusal("--qqqq") == "unknown flag --qqqq; --help lists the flags"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--train.steps=abc"], "flag --train.steps=abc: expected a whole number, not 'abc'"),
        (["--train.steps=1.5"], "flag --train.steps=1.5: expected a whole number, not '1.5'"),
        (["--train.beta_1=x"], "flag --train.beta_1=x: expected a number, not 'x'"),
        (["--model.shared=maybe"], "flag --model.shared=maybe: expected true or false, not"),
        (["--model.prior=flat"], "flag --model.prior=flat: expected one of learned, standard"),
        (["--model.stages=7:4"], "flag --model.stages=7:4: a stage must read size:filters:"),
        (["--model.image_shape=8,8,"], "flag --model.image_shape=8,8,: expected a whole number"),
        (["--train.halvings=0.5,x"], "flag --train.halvings=0.5,x: expected a number, not 'x'"),
        (["--data.name", "--seed=1"], "flag --data.name=--seed=1: expected a value, not another"),
        (["--seed"], "Missing value for flag --seed"),
        (["digits"], "expected flags only, such as --model.image_shape=VALUE; got 'digits'"),
        (["--train.steps=0"], "TrainConfig.steps must be at least 1; got 0"),
        (["--model.stages=6:8:2:1"], "stage 6:8:2:1 has size 6x6, which halving"),
        (
            ["--model.likelihood=gauss"],
            "flag --model.likelihood=gauss: expected one of bernoulli, normal, logistic",
        ),
        (["--data.dequantize"], "DataConfig.dequantize goes with ModelConfig.likelihood 'normal'"),
        (["--model.whitening"], "ModelConfig.whitening goes with likelihood 'normal'; got"),
        (["--flagfile=/no/such.flags"], "cannot read flagfile /no/such.flags: No such file"),
        (["--flagfile"], "--flagfile needs the name of a file"),
        (["--flagfile=/"], "cannot read flagfile /: Is a directory"),
    ],
)
def test_wrong_values_are_refused_in_one_line(arguments, message):
    text = refusal(*arguments)
    assert text.startswith(message)
    assert "\n" not in text


@pytest.mark.parametrize("arguments", [[], ["--workdir="]])
def test_a_required_flag_must_be_given_and_not_be_empty(arguments):
    assert refusal(*arguments, extra=(flags.WORKDIR,)).startswith("--workdir is required")


def run(monkeypatch, main, *arguments, extra=()):
    monkeypatch.setattr(sys, "argv", ["prog", *arguments])
    return flags.run("prog", TrainConfig, extra, main, "Does nothing.")


def test_the_status_of_a_program_is_what_its_main_returns(monkeypatch):
    assert run(monkeypatch, lambda config: None) == 0
    assert run(monkeypatch, lambda config: 75) == 75
    assert run(monkeypatch, lambda config: config.steps, "--steps=3") == 3


def stumble(error: BaseException):
    def main(config):
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("two\n  lines"), "bin/prog: error: two lines\n"),
        (
            OSError(28, "No space left on device", "/x"),
            "bin/prog: error: [Errno 28] No space left on device: '/x'\n",
        ),
    ],
)
def test_errors_of_main_become_one_line_and_status_2(monkeypatch, capsys, error, line):
    assert run(monkeypatch, stumble(error)) == 2
    assert capsys.readouterr() == ("", line)


def test_debug_shows_the_traceback_as_well(monkeypatch, capsys):
    assert run(monkeypatch, stumble(ValueError("here")), "--debug") == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Traceback")
    assert lines[-1] == "bin/prog: error: here"


def test_an_interrupt_gives_status_130(monkeypatch, capsys):
    assert run(monkeypatch, stumble(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "bin/prog: interrupted\n"


@pytest.mark.parametrize("name", ["ResourceExhaustedError", "DataLossError"])
def test_what_tensorflow_says_of_the_machine_becomes_one_line(monkeypatch, capsys, name):
    import tensorflow as tf

    error = getattr(tf.errors, name)(None, None, "{{node a}} no room [Op:MatMul] name: b")
    assert run(monkeypatch, stumble(error)) == 2
    assert capsys.readouterr().err == "bin/prog: error: no room\n"


def test_errors_that_nobody_foresaw_keep_their_traceback(monkeypatch):
    with pytest.raises(ZeroDivisionError):
        run(monkeypatch, stumble(ZeroDivisionError()))


def test_help_lists_every_flag_with_its_default_and_meaning(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["prog", "--no-such-flag", "--help"])
    assert flags.run("prog", Experiment, (flags.WORKDIR,), stumble(ValueError()), "Does it.") == 0
    text = capsys.readouterr().out
    assert text.startswith("Does it.\n\nUsage: bin/prog --workdir=... [--FLAG=VALUE ...]\n")
    for line in flags.to_flags(Experiment()):
        assert f"\n  {line}\n" in text
    words = " ".join(text.split())
    for flag in flags.flags_of(Experiment):
        assert " ".join(flag.help.split()) in words
    assert "(one of learned, standard)" in words
    assert "the file overrides the flags before --flagfile" in words
    assert max(map(len, text.splitlines())) <= 100


def test_reading_flags_leaves_those_of_other_libraries_alone():
    from absl import flags as absl_flags

    before = set(absl_flags.FLAGS)
    read("--seed=1")
    assert set(absl_flags.FLAGS) == before


# Runs a program in this process and says, once it has ended, whether TensorFlow was imported.
WATCH = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print("tensorflow" in sys.modules)
"""


def start(name: str, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", WATCH, str(ROOT / "bin" / name), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=60)


def children_seconds() -> float:
    """CPU time of the processes that have ended; a busy machine does not stretch it."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_refuse_a_wrong_flag_before_tensorflow_is_imported(name):
    before = children_seconds()
    done = start(name, "--wrokdir=x")
    assert done.returncode == 2
    assert done.stdout == "False\n"
    assert done.stderr.startswith(f"bin/{name}: error: unknown flag --wrokdir")
    assert done.stderr.count("\n") == 1
    assert children_seconds() - before < 1


def test_a_wrong_config_is_refused_before_tensorflow_is_imported(tmp_path):
    done = start("train", f"--workdir={tmp_path}/run", "--model.stages=6:8:2:1")
    assert (done.returncode, done.stdout) == (2, "False\n")
    assert done.stderr.startswith("bin/train: error: stage 6:8:2:1 has size 6x6")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", sorted(set(PROGRAMS) - {"prepare", "train"}))
def test_a_directory_without_a_run_is_refused_before_tensorflow_is_imported(name, tmp_path):
    required = {"impute": ["--images=a.png", "--rectangles=0:0:1x1"]}.get(name, [])
    done = start(name, f"--workdir={tmp_path}", *required)
    assert (done.returncode, done.stdout) == (2, "False\n")
    assert done.stderr.startswith(f"bin/{name}: error: {tmp_path} is not a work directory")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", PROGRAMS)
def test_help_of_programs_needs_no_tensorflow(name):
    done = start(name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("False\n")
    assert f"Usage: bin/{name} " in done.stdout


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_can_be_executed(name):
    path = ROOT / "bin" / name
    assert path.read_text().startswith("#!/usr/bin/env python3\n")
    assert path.stat().st_mode & 0o111 == 0o111


def test_a_model_flag_says_what_the_config_says():
    flag = flags.Flag.of(ModelConfig, "update", "model.")
    assert (flag.name, flag.default, flag.choices) == (
        "model.update",
        "residual",
        ("residual", "gru"),
    )
