# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The command `matnet`: what it says and how it ends, before TensorFlow is imported."""

import os
import pathlib
import resource
import signal
import subprocess
import sys

import pytest

from matnet_tf import cli, interrupts
from matnet_tf.cli import startup
from matnet_tf.cli.command import DEBUG
from matnet_tf.config import TrainConfig
from matnet_tf.version import __version__

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Ends with status 3 if TensorFlow was imported.
WATCHED = """
import sys
from matnet_tf import cli
for line in sys.stdin:
    print(cli.main(line.split()))
sys.exit(3 if "tensorflow" in sys.modules else 0)
"""


def run(monkeypatch, main, *arguments) -> int:
    """Runs a program `prog` with the flags of `TrainConfig`."""
    program = cli.Program(main, TrainConfig, (DEBUG,))
    monkeypatch.setitem(cli.PROGRAMS, "prog", program)
    return cli.main(["prog", *arguments])


def stumble(error: BaseException):
    def main(config):
        raise error

    return main


def test_the_status_of_a_program_is_what_it_returns(monkeypatch):
    assert run(monkeypatch, lambda config: None) == 0
    assert run(monkeypatch, lambda config: 75) == 75
    assert run(monkeypatch, lambda config: config.steps, "--steps=3") == 3


def test_errors_are_reported_in_one_line(monkeypatch, capsys):
    assert run(monkeypatch, stumble(ValueError("two\n  lines"))) == 2
    assert capsys.readouterr() == ("", "matnet prog: error: two lines\n")
    own = ValueError("gone")
    own.exit_status = 75
    assert run(monkeypatch, stumble(own)) == 75
    assert run(monkeypatch, stumble(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err.endswith("matnet prog: interrupted\n")
    assert run(monkeypatch, stumble(ValueError("here")), "--debug") == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Traceback") and lines[-1] == "matnet prog: error: here"
    with pytest.raises(ZeroDivisionError):  # A defect keeps its traceback.
        run(monkeypatch, stumble(ZeroDivisionError()))


def test_readers_that_stop_are_no_error(monkeypatch, capsys):
    def main(config):
        raise BrokenPipeError

    monkeypatch.setattr(sys, "argv", ["matnet", "prog"])
    monkeypatch.setattr(os, "dup2", lambda *given: None)  # Standard output is pytest's own.
    monkeypatch.setitem(cli.PROGRAMS, "prog", cli.Program(main, TrainConfig, (DEBUG,)))
    assert cli.main() == 0
    assert capsys.readouterr() == ("", "")


WARNING = """
import warnings
from matnet_tf import __main__, cli
warn = lambda: warnings.warn("of a library")
cli.PROGRAMS["prog"] = cli.Program(warn, None, (cli.command.DEBUG,))
raise SystemExit(__main__.main(["prog"]))
"""


def test_warnings_of_libraries_are_not_shown_unless_python_is_told_to():
    for flags, shown in (((), False), (("-W", "default"), True)):
        command = [sys.executable, *flags, "-c", WARNING]
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.returncode, "of a library" in done.stderr) == (0, shown), done.stderr


INTERRUPTED = """
import signal
from matnet_tf import interrupts
interrupts.end_at_once("matnet prog")
try:
    with interrupts.raised():
        with interrupts.at_once():
            pass
        signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("cleaned", interrupts.came(), flush=True)
signal.raise_signal(signal.SIGINT)
print("went on")
"""


def test_an_interrupt_is_raised_in_the_work_and_ends_the_process_after_it():
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True)
    expected = (130, "cleaned True\n", "matnet prog: interrupted\n")
    assert (done.returncode, done.stdout, done.stderr) == expected
    ignored = f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN){INTERRUPTED}"
    done = subprocess.run([sys.executable, "-c", ignored], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "went on\n", "")


def test_an_interrupt_inside_an_import_ends_the_process_in_one_line(tmp_path):
    swallow = "import time\nprint('here', flush=True)\ntry:\n    time.sleep(60)\n"
    swallow += "except BaseException:\n    time.sleep(60)\n"
    (tmp_path / "tensorflow_datasets.py").write_text(swallow)
    command = [sys.executable, "bin/prepare", "--data.name=mnist", "--source=x"]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT}
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    with subprocess.Popen(command, env=environment, **options) as process:
        assert process.stdout.readline() == "here\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "", "matnet prepare: interrupted\n")


def test_an_interrupt_that_became_another_error_is_one_still(monkeypatch, capsys):
    monkeypatch.setattr(interrupts, "_came", True)
    assert run(monkeypatch, stumble(ZeroDivisionError())) == 130
    assert capsys.readouterr().err == "matnet prog: interrupted\n"


def test_the_reason_why_a_gpu_is_not_used_is_what_tensorflow_said_last():
    said = "I0000 1.2 3 port.cc:153] oneDNN custom operations are on.\n"
    reason = "Cannot dlopen some GPU libraries. Skipping registering GPU devices..."
    assert startup.unused_gpu(f"{said}W0000 1.2 3 gpu_device.cc:2365] {reason}\n").endswith(
        f"does not use this machine's GPU: {reason}"
    )
    assert "TF_CPP_MIN_LOG_LEVEL" in startup.unused_gpu(said)


def test_matnet_lists_its_programs_and_its_version(capsys, monkeypatch):
    for arguments in ([], ["--help"], ["-h"]):
        assert cli.main(arguments) == 0
        text = capsys.readouterr().out
        assert all(f"\n  {name} " in text for name in cli.PROGRAMS)
        assert max(map(len, text.splitlines())) <= 100
    monkeypatch.setattr(sys, "argv", ["matnet", "--version"])
    assert cli.main() == 0
    assert capsys.readouterr().out == f"matnet-tf {__version__}\n"


def test_help_lists_the_flags_that_people_use_first(capsys):
    every = {flag.name for flag in cli.PROGRAMS["train"].flags}
    for asked, expected in (("--help", set(cli.PROGRAMS["train"].first)), ("--help_all", every)):
        assert cli.main(["train", asked]) == 0
        text = capsys.readouterr().out
        lines = [line for line in text.splitlines() if line.startswith("  --")]
        listed = {line.split("=")[0].removeprefix("  --") for line in lines}
        assert listed - {"preset", "flagfile"} == expected
        rest = f"These are the flags used most; --help_all lists all {len(every)}."
        assert (rest in text) == (asked == "--help")
        groups = [line.split(",")[0] for line in text.splitlines() if line.startswith("Flags of")]
        assert groups == [
            f"Flags of {group}" for group in ("the program", "model", "data", "train")
        ]


def test_a_wrong_program_is_answered_with_the_nearest_name(capsys):
    assert cli.main(["trian"]) == cli.main(["--workdir=x"]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first == "matnet: error: unknown program 'trian'; did you mean train?"
    assert second.endswith(
        "prepare, train, devices, evaluate, score, figures, sample, cluster, impute, export, "
        "publish, presets, explore, compress, decompress"
    )


def test_mistakes_and_help_need_no_tensorflow(tmp_path):
    required = {
        "impute": "--images=a.png --rectangles=0:0:1x1",
        "publish": "--output=o --command=c --hardware=h",
        "decompress": "--file=a --output=b",
    }
    commands = {
        **{f"{name} --help": "" for name in cli.PROGRAMS},
        **{f"{name} --wrokdir=x": "Unknown command line flag" for name in cli.PROGRAMS},
        **{
            f"{name} --workdir={tmp_path} {required.get(name, '')}": "is not a work directory"
            for name in cli.PROGRAMS
            if name not in ("prepare", "train", "devices", "presets")
        },
        "evaluate": "--workdir is required",
        "sample --preset=digts": "unknown trained preset 'digts'; did you mean digits?",
        "sample --preset=cifar10": "'cifar10' is a recipe without a trained model",
        f"train --workdir={tmp_path}/run --model.scales=1:2:2:1 --init=preset:x": "unknown",
        f"train --workdir={tmp_path}/run --model.scales=6:8:2:1": "6:8:2:1 has size 6x6",
        f"evaluate --workdir={tmp_path} --num_samples=0": "num_samples must be at least 1; got 0",
        "train --workdir=w --model.size=small --model.scales=1:2:2:1": "without --model.scales",
        f"cluster --workdir={tmp_path} --groups=0": "--groups must be at least 1",
        "prepare --data.name=mnist --size=8": "--size must read HEIGHTxWIDTH",
        "prepare": "--data.name is required",
    }
    done = subprocess.run(
        [sys.executable, "-c", WATCHED],
        **{"input": "\n".join(commands), "capture_output": True, "text": True, "cwd": "/"},
    )
    assert done.returncode == 0, done.stderr
    statuses = [line for line in done.stdout.splitlines() if line in ("0", "2")]
    assert statuses == ["2" if message else "0" for message in commands.values()]
    mistakes = [(command, message) for command, message in commands.items() if message]
    for (command, message), line in zip(mistakes, done.stderr.splitlines(), strict=True):
        assert line.startswith(f"matnet {command.split()[0]}: error: ") and message in line
    for name in cli.PROGRAMS:
        assert f"\nUsage: matnet {name} " in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_checkouts_programs_and_the_module_are_the_same_command():
    assert sorted(path.name for path in (ROOT / "bin").iterdir()) == sorted(cli.PROGRAMS)
    commands = {name: [f"bin/{name}"] for name in cli.PROGRAMS}
    for (path,) in commands.values():
        assert os.access(ROOT / path, os.X_OK)
        assert (ROOT / path).read_text().startswith("#!/usr/bin/env python3\n")
    commands["cluster"] = ["-m", "matnet_tf", "cluster"]
    for name, command in commands.items():
        command = [sys.executable, *command, "--wrokdir=x"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(f"matnet {name}: error: Unknown command line flag 'wrokdir'")
        assert done.stderr.count("\n") == 1
        assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1
