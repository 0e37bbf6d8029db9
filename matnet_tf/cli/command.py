# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""How the command `matnet` parses a line, calls one of its programs, and reports errors."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from matnet_tf import config, flags, interrupts, presets
from matnet_tf.files import config_path
from matnet_tf.flags import Flag
from matnet_tf.version import __version__

__all__ = ["DATA_DIR", "DEBUG", "JSON", "PROGRAMS", "RUN", "Program", "main", "program", "report"]

_USAGE_ERROR = 2

DATA_DIR = next(f for f in flags.flags_of(config.DataConfig, "data.") if f.name == "data.dir")
DEBUG = Flag("debug", "show the traceback of an error", False, bool)
JSON = Flag("json", "print the record in JSON, in place of a sentence", False, bool)
# What programs use a trained model of; `main` of a program gets the work directory alone.
RUN = (
    Flag("workdir", "work directory of the run: its config, checkpoints and results", ""),
    Flag(
        "preset",
        "a preset with a trained model, which is copied to --workdir, or to runs/preset_NAME",
        "",
    ),
)


@dataclasses.dataclass(frozen=True)
class Program:
    """One program of the command `matnet`.

    Attributes:
      main: Called as `main(tree_value, **extra_values)`, or without the first if there is no tree.
        Returns an exit status, or None for 0.
      tree: Dataclass of `matnet_tf.config` whose fields are flags, or None.
      extra: Flags that are not fields of `tree`.
      base: See `flags.parse`.
      first: Names of the flags that `--help` lists; empty for all.
    """

    main: Callable[..., int | None]
    tree: type | None
    extra: tuple[Flag, ...]
    base: Callable[[dict[str, Any]], Any] | None = None
    first: tuple[str, ...] = ()

    @property
    def flags(self) -> list[Flag]:
        """All flags of the program."""
        return [*self.extra, *(flags.flags_of(self.tree) if self.tree else ())]


PROGRAMS: dict[str, Program] = {}


def program(*extra: Flag, tree: type | None = None, **more: Any) -> Callable:
    """Decorates the main function of a program; `more` are other fields of `Program`."""

    def register(function):
        PROGRAMS[function.__name__] = Program(function, tree, (*extra, DEBUG), **more)
        return function

    return register


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command `matnet`.

    Args:
      arguments: Command line without the name of the command; `sys.argv` by default.

    Returns:
      The exit status: that of the program; 2, or the error's own `exit_status`, after an error that
      is reported in one line; `interrupts.STATUS` after an interrupt.
    """
    first, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if first in PROGRAMS:
        return _run(first, rest)
    if first in ("--help", "-help", "-h"):
        print(_overview())
        return 0
    if first == "--version":
        print(f"matnet-tf {__version__}")
        return 0
    near = difflib.get_close_matches(first, PROGRAMS, n=1)
    hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(PROGRAMS)}"
    print(f"matnet: error: unknown program {first!r}; {hint}", file=sys.stderr)
    return _USAGE_ERROR


def _run(name: str, arguments: Sequence[str]) -> int:
    """Parses the flags of a program, calls it, and reports its errors in one line."""
    try:
        with interrupts.raised():
            return _call(name, arguments)
    except KeyboardInterrupt:
        print(f"matnet {name}: interrupted", file=sys.stderr)
        return interrupts.STATUS


def _call(name: str, arguments: Sequence[str]) -> int:
    program, debug = PROGRAMS[name], False
    try:
        if {"--help", "-help", "-h", "--help_all"} & set(arguments):
            first = () if "--help_all" in arguments else program.first
            about = program.main.__doc__
            print(flags.help_text(f"matnet {name}", program.tree, program.extra, about, first))
            return 0
        values, keywords = flags.parse(program.tree, program.extra, arguments, program.base)
        debug = keywords.pop("debug")
        if "preset" in keywords:
            keywords["workdir"] = _work_directory(keywords.pop("preset"), keywords["workdir"])
        return program.main(*values, **keywords) or 0
    except BrokenPipeError:  # Whoever read the output, such as `head`, has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except Exception as error:
        if interrupts.came():  # A library has made another error of it.
            raise KeyboardInterrupt from None
        if (line := flags.one_line(error)) is None:
            raise
        if debug:
            traceback.print_exc()
        line = flags.as_typed(line, program.tree)
        print(f"matnet {name}: error: {line}", file=sys.stderr)
        return getattr(error, "exit_status", _USAGE_ERROR)


def _work_directory(preset: str, workdir: str) -> str:
    """Returns the work directory of a program: one that exists, or a copy of a preset's model."""
    if preset:
        return presets.checkout(preset, workdir)
    if not workdir:
        raise ValueError(f"--workdir is required: {RUN[0].help}; or --preset: {RUN[1].help}")
    config_path(workdir)
    return workdir


def report(record: dict[str, Any], as_json: bool, sentence: Callable, *arguments: Any) -> None:
    """Prints a program's result: in JSON for other programs, or in words for people."""
    print(json.dumps(record) if as_json else sentence(record, *arguments))


def _overview() -> str:
    """Returns the text of `matnet --help`."""
    lines = ["Matryoshka Networks: deep hierarchical latent-variable models of images.", ""]
    lines += ["Usage: matnet PROGRAM [--FLAG=VALUE ...]", "", "Programs:"]
    for name, program in PROGRAMS.items():
        lines.append(f"  {name:<12}{inspect.getdoc(program.main).splitlines()[0]}")
    return "\n".join([*lines, "", "`matnet PROGRAM --help` lists the flags of a program."])
