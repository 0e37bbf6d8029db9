# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""What README promises: its code runs, and the flags, files and targets that it names exist."""

import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
CODE = [text for language, text in BLOCKS if language == "python"]
SHELL = "".join(text for language, text in BLOCKS if language != "python").replace("\\\n", " ")

PROGRAM = r"(?:bin|benchmarks)/[\w.]+"
FLAG = r"(?<![\w-])--([A-Za-z][\w.]*)"
# One row per command line that runs a program of ours: the program, and the flags behind it.
COMMANDS = [
    (program, re.findall(FLAG, line))
    for line in SHELL.splitlines()
    for program in re.findall(rf"(?<![\w./]){PROGRAM}", line)[:1]
]
PROGRAMS = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "bin").iterdir() if p.is_file())


def flags_of(program: str) -> set[str]:
    """The flags that a program's --help lists."""
    command = [sys.executable, program, "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    return set(re.findall(rf"^ +{FLAG}", done.stdout, re.MULTILINE))


@pytest.mark.slow
def test_the_code_runs_as_written_and_gives_what_its_comments_say(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for code in CODE:
        exec(compile(code, "README.md", "exec"), names)
    bound, rows = names["bound"], len(names["x"])
    for per_image in (bound.elbo, bound.log_likelihood, names["log_p"], *bound.kl.values()):
        assert per_image.shape == (rows,) and np.isfinite(per_image).all()
    assert len(bound.kl) == len(names["z"])
    assert np.mean(names["log_p"]) > np.mean(bound.elbo)
    assert names["images"].shape == names["cold"].shape == names["alike"].shape == (16, 8, 8, 1)
    for image in (*names["kept"], names["decoded"], names["upper"], names["lower"]):
        assert image.shape == names["x"].shape
    assert names["way"].shape == (7, 5, 8, 8, 1)
    assert [mean.shape for mean in names["means"]] == [z.shape for z in names["trace"].z]
    assert names["ratio"].shape == (rows,) and np.isfinite(names["ratio"]).all()
    np.testing.assert_allclose(np.sum(names["classes"], axis=1), np.ones(rows), rtol=1e-4)
    assert np.mean(names["hidden_log_p"]) > np.mean(names["hidden_bound"].elbo)
    batch = names["batch"]
    known = np.broadcast_to(batch["mask"] > 0, names["samples"].shape)
    image = np.broadcast_to(batch["image"], known.shape)
    np.testing.assert_array_equal(names["samples"].numpy()[known], image[known])
    assert names["mean"].shape == batch["image"].shape
    assert [path.name for path in tmp_path.iterdir()] == ["digits.keras"]


def test_there_is_code_and_there_are_commands_to_check():
    assert CODE
    programs, flags = zip(*COMMANDS, strict=True)
    assert set(PROGRAMS) <= set(programs)
    assert {"flagfile", "workdir", "data.name"} <= {flag for row in flags for flag in row}


@pytest.mark.parametrize(("program", "flags"), COMMANDS, ids=lambda value: str(value))
def test_every_flag_of_a_command_is_one_of_its_program(program, flags):
    assert set(flags) <= flags_of(program)


def test_every_flag_in_the_text_is_one_of_a_program():
    spans = re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```$", "", README, flags=re.M | re.S))
    flags = {flag for span in spans if span.startswith("--") for flag in re.findall(FLAG, span)}
    assert flags
    assert flags <= set().union(*map(flags_of, PROGRAMS))


def test_every_program_preset_and_target_that_is_named_exists():
    paths = re.findall(r"(?<![\w./])(?:bin|configs|benchmarks)/[\w.-]*\w", README)
    presets = [f"configs/{name}" for name in re.findall(r"`(\w+\.flags)\b", README)]
    assert "configs/digits.flags" in presets and set(PROGRAMS) <= set(paths)
    assert [path for path in [*paths, *presets] if not (ROOT / path).is_file()] == []
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"demo", "test"} <= set(re.findall(r"^make (\w+)", SHELL, re.MULTILINE)) <= targets
