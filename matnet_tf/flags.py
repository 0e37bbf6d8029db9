# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The programs' command line: dataclass trees as dotted flags, flagfiles, help and errors.

Every field of a dataclass of `matnet_tf.config` is a flag, `--train.steps=1000`; a preset in
`configs/` is a file of such flags. The flags live in a private `absl.flags.FlagValues`, so nothing
here touches those of other libraries. TensorFlow is not imported here: a wrong flag is refused in
a fraction of a second.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import gc
import os
import re
import sys
import textwrap
import traceback
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags as absl_flags

from matnet_tf import config
from matnet_tf.files import config_path, reason_of

__all__ = [
    "DATA_DIR",
    "RUN",
    "WEIGHTS",
    "WORKDIR",
    "Flag",
    "changes_of",
    "flags_of",
    "importing",
    "parse",
    "run",
    "to_flags",
]

_INTERRUPTED = 130  # 128 + SIGINT, the shells' convention.
_USAGE_ERROR = 2
# What TensorFlow, which is not imported here, and Python say when the machine is at fault.
_SYSTEM_ERRORS = {
    *("MemoryError", "ResourceExhaustedError", "DataLossError", "NotFoundError"),
    "PermissionDeniedError",
}
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_KINDS = {
    int: (int, "a whole number"),
    float: (float, "a number"),
    bool: (lambda text: _BOOLEANS[text.lower()], "true or false"),
}
# A quote would become part of the value, and so would a comment behind it.
_FLAGFILE_LINE = re.compile(r"""--?[\w.]+(=(?!["'])((?!\s#).)*)?""")
_FLAGFILE_HELP = (
    "puts a file of flags in this place, such as a preset of configs/: one --flag=value a line, "
    "without quotes; lines that start with # are comments; a --flagfile in it is looked up beside "
    "it. Of a flag given twice the later value wins: the file overrides the flags before "
    "--flagfile and is overridden by those after it."
)


@dataclasses.dataclass(frozen=True)
class Flag:
    """One flag of a program.

    Attributes:
      name: dotted name, without the dashes.
      help: what the value means, for `--help`.
      default: value when the flag is not given; None makes the flag required, or optional.
      type: type of the value: int, float, bool, str, or a tuple of these or of stages.
      choices: the values allowed; empty allows all.
      optional: whether a flag without a default may be left out; `main` then does not get it.
      check: raises a ValueError for a value of a type that is right, but will not do.
    """

    name: str
    help: str
    default: Any = None
    type: Any = str
    choices: tuple[str, ...] = ()
    optional: bool = False
    check: Callable[[Any], Any] | None = None

    @property
    def required(self) -> bool:
        """Whether a command line must have the flag."""
        return self.default is None and not self.optional

    @classmethod
    def of(cls, owner: type, field: str, prefix: str = "") -> Flag:
        """The flag of one field of a dataclass, for programs that need that field alone."""
        return next(f for f in flags_of(owner, prefix) if f.name == prefix + field)


def flags_of(owner: type, prefix: str = "") -> list[Flag]:
    """The flags of a dataclass tree; those of a nested dataclass are dotted."""
    hints = typing.get_type_hints(owner)
    found = []
    for field in dataclasses.fields(owner):
        name, hint = prefix + field.name, hints[field.name]
        if dataclasses.is_dataclass(hint):
            found += flags_of(hint, name + ".")
        else:
            meta = field.metadata
            found.append(Flag(name, meta["help"], field.default, hint, meta["choices"]))
    return found


def changes_of(owner: type, prefix: str) -> list[Flag]:
    """The flags of a dataclass that a program changes: of its fields it gets those given alone."""
    return [
        dataclasses.replace(flag, default=None, optional=True) for flag in flags_of(owner, prefix)
    ]


def to_flags(tree: Any, prefix: str = "") -> list[str]:
    """The command line that gives every field of a dataclass tree its value, as in a preset."""
    lines = []
    for field in dataclasses.fields(tree):
        name, value = prefix + field.name, getattr(tree, field.name)
        if dataclasses.is_dataclass(value):
            lines += to_flags(value, name + ".")
        else:
            lines.append(f"--{name}={_text(value)}")
    return lines


WORKDIR = Flag("workdir", "work directory of the run: its config, checkpoints and results")
RUN = dataclasses.replace(WORKDIR, check=config_path)  # where there must be one already
WEIGHTS = Flag.of(config.EvaluateConfig, "weights")
DATA_DIR = Flag.of(config.DataConfig, "dir", "data.")
_DEBUG = Flag("debug", "show the traceback of an error", False, bool)


@contextlib.contextmanager
def importing():
    """For imports of TensorFlow, which take a third less time when nobody looks for garbage.

    What was imported stays out of later collections as well, so that a program ends sooner, too.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def run(
    name: str,
    tree: type | None,
    extra: Sequence[Flag],
    main: Callable[..., int | None],
    description: str,
) -> int:
    """Parses `sys.argv`, calls a program's `main` and turns its errors into one line.

    Args:
      name: the program's name in `bin/`.
      tree: a dataclass of `matnet_tf.config` whose fields become flags, or None.
      extra: the flags that are not fields of `tree`.
      main: called as `main(tree_value, **extra_values)`, or without the first; the dots of an extra
        flag's name become underscores, and optional flags that are not given are left out. It
        returns an exit status, None for 0, and imports TensorFlow only when called, `importing`.
      description: what the program does, for `--help`.

    Returns:
      The exit status: that of `main`; 2, or the error's own `exit_status`, after a `ValueError`, an
      `OSError` or what tells of the machine, such as no memory; 130 after an interrupt.
    """
    arguments, extra, debug = sys.argv[1:], (*extra, _DEBUG), False
    try:
        if {"--help", "-help", "-h"} & set(arguments):
            print(_help(name, tree, extra, description))
            return 0
        values, keywords = parse(tree, extra, arguments)
        debug = keywords.pop("debug")
        return main(*values, **keywords) or 0
    except Exception as error:
        if (line := _line_of(error)) is None:
            raise
        if debug:
            traceback.print_exc()
        print(f"bin/{name}: error: {line}", file=sys.stderr)
        return getattr(error, "exit_status", _USAGE_ERROR)
    except KeyboardInterrupt:
        print(f"bin/{name}: interrupted", file=sys.stderr)
        return _INTERRUPTED


def _line_of(error: Exception) -> str | None:
    """What a program says of an error, in one line; None of one that is the program's own fault."""
    if isinstance(error, (ValueError, OSError)):
        return " ".join(str(error).split())  # Libraries' messages may span lines.
    if any(kind.__name__ in _SYSTEM_ERRORS for kind in type(error).__mro__):
        return reason_of(error)
    return None


def parse(
    tree: type | None, extra: Sequence[Flag], arguments: Sequence[str]
) -> tuple[list[Any], dict[str, Any]]:
    """Reads a command line, flagfiles included; of a flag given twice the later value wins.

    Args:
      tree: a dataclass whose fields are flags, or None.
      extra: further flags.
      arguments: the command line, without the program's name.

    Returns:
      The dataclass in a list (empty without a tree), and the extra values by keyword.

    Raises:
      ValueError: for an unknown flag, a wrong or missing value, an argument that is not a flag, a
        flagfile that cannot be read, or values that the dataclass or a flag's check refuses.
    """
    known = [*extra, *(flags_of(tree) if tree else ())]
    given = _absl_parse(known, _expand(arguments))
    for flag in extra:
        if flag.required and given.get(flag.name, "") == "":
            raise ValueError(f"--{flag.name} is required: {flag.help}")
    keywords = {
        f.name.replace(".", "_"): given.get(f.name, f.default)
        for f in extra
        if f.name in given or not f.optional
    }
    values = [_build(tree, given)] if tree else []
    for flag in extra:
        if flag.check and flag.name in given:
            flag.check(given[flag.name])
    return values, keywords


def _absl_parse(known: Sequence[Flag], arguments: Sequence[str]) -> dict[str, Any]:
    """The values of the flags that the arguments give, by name."""
    holder = absl_flags.FlagValues()
    for flag in known:
        boolean = flag.type is bool  # such a flag may stand alone, or as --noNAME
        defined = absl_flags.Flag(_Parser(flag), None, flag.name, None, flag.help, None, boolean)
        absl_flags.DEFINE_flag(defined, flag_values=holder)
    try:
        rest = holder(["program", *arguments])[1:]
    except absl_flags.UnrecognizedFlagError as error:
        raise ValueError(_unknown(error.flagname, [f.name for f in known])) from None
    except absl_flags.Error as error:
        raise ValueError(str(error)) from None
    if rest:
        raise ValueError(f"expected flags only, such as --{known[0].name}=VALUE; got {rest[0]!r}")
    return {f.name: holder[f.name].value for f in known if holder[f.name].present}


class _Parser(absl_flags.ArgumentParser):
    """Reads one value of a flag's type; the values of a tuple are separated by commas."""

    def __init__(self, flag: Flag):
        self._flag = flag

    def parse(self, argument: str) -> Any:
        """The value that a text stands for; ValueError says what was expected."""
        kind, choices = self._flag.type, self._flag.choices
        if argument.startswith("--"):
            raise ValueError("expected a value, not another flag")
        if choices and argument not in choices:
            raise ValueError(f"expected one of {', '.join(choices)}")
        if not isinstance(kind, types.GenericAlias):
            return _scalar(kind, argument)
        element = typing.get_args(kind)[0]
        return tuple(_scalar(element, part) for part in argument.split(",")) if argument else ()


def _scalar(kind: type, text: str) -> Any:
    if kind in (str, config.Stage):
        return text if kind is str else config.Stage.parse(text)
    convert, expected = _KINDS[kind]
    try:
        return convert(text)
    except (ValueError, KeyError):
        raise ValueError(f"expected {expected}, not {text!r}") from None


def _unknown(name: str, known: Sequence[str]) -> str:
    """Says which flag is not known and which known one is nearest, by name or by last part."""
    known = [*known, "flagfile", "help"]
    spellings = {spelling: k for k in known for spelling in (k.rpartition(".")[2], k)}
    near = difflib.get_close_matches(name, spellings, n=1)
    hint = f"did you mean --{spellings[near[0]]}?" if near else "--help lists the flags"
    return f"unknown flag --{name}; {hint}"


def _build(tree: type, given: dict[str, Any], prefix: str = "") -> Any:
    """The dataclass tree with the given values, and its own defaults elsewhere."""
    hints, arguments = typing.get_type_hints(tree), {}
    for field in dataclasses.fields(tree):
        name, hint = prefix + field.name, hints[field.name]
        if dataclasses.is_dataclass(hint):
            arguments[field.name] = _build(hint, given, name + ".")
        elif name in given:
            arguments[field.name] = given[name]
    return tree(**arguments)


def _expand(arguments: Sequence[str], parents: tuple[str, ...] = ()) -> list[str]:
    """Puts the lines of every flagfile in the place of its `--flagfile`.

    absl's own reader looks nested files up in the current directory, warns of a circle only, and
    takes an indented comment for the end of all flags, in silence; hence this one.
    """
    expanded, waiting = [], iter(arguments)
    for argument in waiting:
        match = re.fullmatch("--?flagfile(=(.*))?", argument)
        if not match:
            expanded.append(argument)
            continue
        value = match[2] if match[1] else next(waiting, "")
        if not value:
            raise ValueError("--flagfile needs the name of a file")
        folder = os.path.dirname(parents[-1]) if parents else ""
        path = os.path.normpath(os.path.join(folder, os.path.expanduser(value)))
        if path in parents:
            raise ValueError(f"flagfile {path} includes itself: {' > '.join((*parents, path))}")
        expanded += _expand(_flagfile_lines(path), (*parents, path))
    return expanded


def _flagfile_lines(path: str) -> list[str]:
    """The flags of a file; blank lines and comments are dropped, others refused."""
    try:
        with open(path, encoding="utf-8") as file:
            lines = [line.strip() for line in file]
    except OSError as error:
        raise ValueError(f"cannot read flagfile {path}: {error.strerror}") from None
    flags = {n: s for n, s in enumerate(lines, 1) if s and not s.startswith(("#", "//"))}
    for number, line in flags.items():
        if not _FLAGFILE_LINE.fullmatch(line):
            raise ValueError(
                f"{path}:{number}: expected --flag=value, without quotes around the value or a "
                f"comment after it; got {line!r}"
            )
    return list(flags.values())


def _help(name: str, tree: type | None, extra: Sequence[Flag], description: str) -> str:
    """The text of `--help`: flags grouped by the part of their name before the dot."""
    groups: dict[str, list[Flag]] = {}
    for flag in [*extra, *(flags_of(tree) if tree else ())]:
        groups.setdefault(flag.name.rpartition(".")[0], []).append(flag)
    required = "".join(f"--{f.name}=... " for f in extra if f.required)
    lines = [description.strip(), "", f"Usage: bin/{name} {required}[--FLAG=VALUE ...]"]
    for group, members in groups.items():
        lines += ["", f"Flags of {group or 'the program'}, with their defaults:"]
        for flag in members:
            lines += _entry(f"--{flag.name}={_text(flag.default)}", _about(flag))
    return "\n".join([*lines, "", "Also:", *_entry("--flagfile=FILE", _FLAGFILE_HELP)])


def _entry(usage: str, about: str) -> list[str]:
    return [f"  {usage}", textwrap.indent(textwrap.fill(about, 90), " " * 6)]


def _about(flag: Flag) -> str:
    about = flag.help
    if flag.choices:
        about += f" (one of {', '.join(flag.choices)})"
    return about + (" (required)" if flag.required else "")


def _text(value: Any) -> str:
    """A value as it is written in a flag."""
    if value is None:
        return "..."
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(_text, value)) if isinstance(value, tuple) else str(value)
