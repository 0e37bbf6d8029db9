# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Dataclass trees as dotted flags, flagfiles, presets, help texts and one-line errors.

Every field of a dataclass in `matnet_tf.config` is a flag, such as `--train.steps=1000`; a preset
is a file of such flags. Flags are parsed with a private `absl.flags.FlagValues`, so the flags of
other libraries stay untouched. Nothing here imports TensorFlow.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
import pathlib
import re
import textwrap
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags as absl_flags

from matnet_tf import config, presets
from matnet_tf.files import reason_of

__all__ = [
    "Flag",
    "as_typed",
    "changes_of",
    "flags_of",
    "help_text",
    "one_line",
    "parse",
    "to_flags",
]

# Errors of the machine rather than of our code, by name: TensorFlow's are not imported here.
_SYSTEM_ERRORS = {
    *("MemoryError", "ResourceExhaustedError", "DataLossError", "NotFoundError"),
    "PermissionDeniedError",
}
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_SCALARS = {
    int: (int, "a whole number"),
    float: (float, "a number"),
    bool: (lambda text: _BOOLEANS[text.lower()], "true or false"),
}
# Quotes and trailing comments are refused: they would become part of the value.
_FLAGFILE_LINE = re.compile(r"""--?[\w.]+(=(?!["'])((?!\s#).)*)?""")
_FLAGFILE_HELP = (
    "Reads flags from a file, as if they stood here: one --flag=value per line, without quotes. "
    "Lines that start with # are comments; a --flagfile within the file is relative to it. If a "
    "flag is given twice, the last value wins, so the file overrides the flags before --flagfile "
    "and flags after it override the file."
)


@dataclasses.dataclass(frozen=True)
class Flag:
    """One flag of a program.

    Attributes:
      name: Dotted name, without dashes.
      help: Meaning of the value, for `--help`.
      default: Value if the flag is not given. None makes the flag required, unless it is optional.
      type: int, float, bool, str, `bool | str`, or a tuple of these or of `Scale`.
      choices: Allowed values; empty allows all.
      optional: Whether a flag without a default may be left out; `main` then does not receive it.
      check: Called with the value given; raises a ValueError if it refuses the value.
    """

    name: str
    help: str
    default: Any = None
    type: Any = str
    choices: tuple[str | bool, ...] = ()
    optional: bool = False
    check: Callable[[Any], Any] | None = None

    @property
    def required(self) -> bool:
        """Whether the command line must contain the flag."""
        return self.default is None and not self.optional


def flags_of(owner: type, prefix: str = "") -> list[Flag]:
    """Returns the flags of a dataclass tree; the fields of nested dataclasses are dotted."""
    hints, found = typing.get_type_hints(owner), []
    for field in dataclasses.fields(owner):
        name, hint = prefix + field.name, hints[field.name]
        if dataclasses.is_dataclass(hint):
            found += flags_of(hint, name + ".")
        else:
            meta = field.metadata
            found.append(Flag(name, meta["help"], field.default, hint, meta["choices"]))
    return found


def changes_of(owner: type, prefix: str) -> list[Flag]:
    """Returns the flags of a dataclass, all optional, for programs that change some fields."""
    return [
        dataclasses.replace(flag, default=None, optional=True) for flag in flags_of(owner, prefix)
    ]


def to_flags(tree: Any, prefix: str = "") -> list[str]:
    """Returns the command line that gives every field of a dataclass tree its value."""
    lines = []
    for field in dataclasses.fields(tree):
        name, value = prefix + field.name, getattr(tree, field.name)
        if dataclasses.is_dataclass(value):
            lines += to_flags(value, name + ".")
        else:
            lines.append(f"--{name}={_text(value)}")
    return lines


def one_line(error: Exception) -> str | None:
    """Returns an error's message in one line, or None if the error is a defect of the program."""
    if isinstance(error, (ValueError, OSError, ImportError)):
        return " ".join(str(error).split())  # Messages of libraries may span lines.
    if any(kind.__name__ in _SYSTEM_ERRORS for kind in type(error).__mro__):
        return reason_of(error)
    return None


def as_typed(message: str, tree: type | None) -> str:
    """Returns an error's message with flags in place of the fields of dataclasses.

    Args:
      message: Such as "TrainConfig.steps must be at least 1".
      tree: Dataclass whose fields are the program's flags, or None.
    """
    prefixes = {"ModelConfig": "model.", "DataConfig": "data.", "TrainConfig": "train."}
    prefixes["ElboLoss"] = "train."
    if tree is not None:
        prefixes |= {kind.__name__: "" for kind in tree.__mro__}
    pattern = rf"\b({'|'.join(prefixes)})\.(?=[a-z])"
    return re.sub(pattern, lambda match: f"--{prefixes[match[1]]}", message)


def parse(
    tree: type | None,
    extra: Sequence[Flag],
    arguments: Sequence[str],
    base: Callable[[dict[str, Any]], Any] | None = None,
) -> tuple[list[Any], dict[str, Any]]:
    """Parses a command line, including flagfiles; if a flag is given twice, the last value wins.

    Args:
      tree: Dataclass whose fields are flags, or None. `Experiment` also accepts `--preset`.
      extra: Further flags.
      arguments: Command line without the program's name.
      base: Called with the values given, by flag; returns a dataclass for the values that are not.
        By default they are those of `tree`.

    Returns:
      A list with the dataclass (empty without a tree), and the values of the extra flags by
      keyword; the dots in a flag's name become underscores.

    Raises:
      ValueError: For an unknown flag, a wrong or missing value, a positional argument, a flagfile
        that cannot be read, or values that the dataclass or a flag's check refuses.
    """
    known = [*extra, *(flags_of(tree) if tree else ())]
    files = ("flagfile", "preset") if tree is config.Experiment else ("flagfile",)
    given = _given(known, files, _expand(arguments, files))
    for flag in extra:
        if flag.required and given.get(flag.name, "") == "":
            raise ValueError(f"--{flag.name} is required: {flag.help}")
    keywords = {
        f.name.replace(".", "_"): given.get(f.name, f.default)
        for f in extra
        if f.name in given or not f.optional
    }
    values = [_build(tree, given, base(given) if base else None)] if tree else []
    for flag in extra:
        if flag.check and flag.name in given:
            flag.check(given[flag.name])
    return values, keywords


def _given(known: Sequence[Flag], files: Sequence[str], arguments: Sequence[str]) -> dict[str, Any]:
    """Returns the values of the flags that the arguments contain, by name."""
    holder = absl_flags.FlagValues()
    for flag in known:
        # absl accepts --NAME and --noNAME for such a flag.
        boolean = flag.type in (bool, bool | str)
        defined = absl_flags.Flag(_Parser(flag), None, flag.name, None, flag.help, None, boolean)
        absl_flags.DEFINE_flag(defined, flag_values=holder)
    for name in (*files, "help"):  # Handled elsewhere, but absl can suggest them.
        absl_flags.DEFINE_string(name, None, "", flag_values=holder)
    try:
        rest = holder(["program", *arguments])[1:]
    except absl_flags.UnrecognizedFlagError as error:
        raise ValueError(_unknown(error, known)) from None
    except absl_flags.Error as error:
        raise ValueError(str(error)) from None
    if rest:
        raise ValueError(f"expected flags only, such as --{known[0].name}=VALUE; got {rest[0]!r}")
    return {f.name: holder[f.name].value for f in known if holder[f.name].present}


def _unknown(error: absl_flags.UnrecognizedFlagError, known: Sequence[Flag]) -> str:
    """Returns the message for an unknown flag, with the flags that the user may have meant.

    absl suggests flags whose whole name is similar. `--learning_rate` is not similar to
    `--train.learning_rate`, so flags that lack only their group are looked up here.
    """
    ending = "." + error.flagname.replace("-", "_")
    if near := [flag.name for flag in known if flag.name.endswith(ending)]:
        error = absl_flags.UnrecognizedFlagError(error.flagname, suggestions=near)
    return str(error)


class _Parser(absl_flags.ArgumentParser):
    """Parses the value of one flag; commas separate the elements of a tuple."""

    def __init__(self, flag: Flag):
        self._flag = flag

    def parse(self, argument: str) -> Any:
        kind, choices = self._flag.type, self._flag.choices
        if argument.startswith("--"):
            raise ValueError("expected a value, not another flag")
        if isinstance(kind, types.GenericAlias):
            element = typing.get_args(kind)[0]
            return tuple(_scalar(element, part) for part in argument.split(",")) if argument else ()
        value = _scalar(kind, argument)
        if choices and value not in choices:
            raise ValueError(f"expected one of {', '.join(map(_text, choices))}")
        return value


def _scalar(kind: type, text: str) -> Any:
    if kind == bool | str:
        return _BOOLEANS.get(text.lower(), text)
    if kind in (str, config.Scale):
        return text if kind is str else config.Scale.parse(text)
    convert, expected = _SCALARS[kind]
    try:
        return convert(text)
    except (ValueError, KeyError):
        raise ValueError(f"expected {expected}, not {text!r}") from None


def _build(tree: type, given: dict[str, Any], base: Any = None, prefix: str = "") -> Any:
    """Returns a dataclass tree with the given values, and elsewhere those of `base`, or its own."""
    hints, arguments = typing.get_type_hints(tree), {}
    for field in dataclasses.fields(tree):
        name, hint = prefix + field.name, hints[field.name]
        default = getattr(base, field.name) if base is not None else None
        if dataclasses.is_dataclass(hint):
            arguments[field.name] = _build(hint, given, default, name + ".")
        elif name in given:
            arguments[field.name] = given[name]
        elif base is not None:
            arguments[field.name] = default
    return tree(**arguments)


def _expand(
    arguments: Sequence[str], files: Sequence[str], parents: tuple[str, ...] = ()
) -> list[str]:
    """Replaces every `--flagfile` and `--preset` with the flags of the file.

    absl has a reader of its own, but it looks up nested files in the current directory, only warns
    about circles, and silently ignores all that follows an indented comment.
    """
    expanded, waiting = [], iter(arguments)
    for argument in waiting:
        match = re.fullmatch(f"--?({'|'.join(files)})(?:=(.*))?", argument)
        if not match:
            expanded.append(argument)
            continue
        kind, value = match[1], next(waiting, "") if match[2] is None else match[2]
        if not value:
            raise ValueError(f"--{kind} needs the name of a {kind}")
        folder = os.path.dirname(parents[-1]) if parents else ""
        file = presets.recipe(value) if kind == "preset" else os.path.expanduser(value)
        path = os.path.normpath(os.path.join(folder, file))
        if path in parents:
            raise ValueError(f"flagfile {path} includes itself: {' > '.join((*parents, path))}")
        expanded += _expand(_flagfile_lines(path), files, (*parents, path))
    return expanded


def _flagfile_lines(path: str) -> list[str]:
    """Returns the flags in a file, without blank lines and comments; refuses other lines."""
    try:
        with open(path, encoding="utf-8") as file:
            lines = [line.strip() for line in file]
    except OSError as error:
        name = pathlib.Path(path).stem
        hint = f"; presets are named --preset={name}" if name in presets.names() else ""
        raise ValueError(f"cannot read flagfile {path}: {error.strerror}{hint}") from None
    flags = {n: s for n, s in enumerate(lines, 1) if s and not s.startswith(("#", "//"))}
    for number, line in flags.items():
        if not _FLAGFILE_LINE.fullmatch(line):
            raise ValueError(
                f"{path}:{number}: expected --flag=value, without quotes around the value or a "
                f"comment after it; got {line!r}"
            )
    return list(flags.values())


def help_text(
    command: str,
    tree: type | None,
    extra: Sequence[Flag],
    description: str,
    first: Sequence[str] = (),
) -> str:
    """Returns the text of `--help`; flags are grouped by the part of their name before the dot.

    Args:
      command: How the program is called, such as "matnet train".
      tree: Dataclass whose fields are flags, or None.
      extra: Further flags.
      description: What the program does, as a docstring.
      first: Names of the flags to list; empty for all.
    """
    groups: dict[str, list[Flag]] = {}
    known = [*extra, *(flags_of(tree) if tree else ())]
    for flag in (f for f in known if not first or f.name in first):
        groups.setdefault(flag.name.rpartition(".")[0], []).append(flag)
    required = "".join(f"--{f.name}=... " for f in extra if f.required)
    lines = [inspect.cleandoc(description), "", f"Usage: {command} {required}[--FLAG=VALUE ...]"]
    for group, members in groups.items():
        lines += ["", f"Flags of {group or 'the program'}, with their defaults:"]
        for flag in members:
            lines += _entry(f"--{flag.name}={_text(flag.default)}", _about(flag))
    if first:
        lines += ["", f"These are the flags used most; --help_all lists all {len(known)}."]
    lines += ["", "Files of flags:"]
    if tree is config.Experiment:
        names = ", ".join(presets.names())
        lines += _entry("--preset=NAME", f"Stands for --flagfile with one of the presets: {names}.")
    return "\n".join([*lines, *_entry("--flagfile=FILE", _FLAGFILE_HELP)])


def _entry(usage: str, about: str) -> list[str]:
    return [f"  {usage}", textwrap.indent(textwrap.fill(about, 90), " " * 6)]


def _about(flag: Flag) -> str:
    about = flag.help
    if flag.choices:
        about += f" (one of {', '.join(map(_text, flag.choices))})"
    return about + (" (required)" if flag.required else "")


def _text(value: Any) -> str:
    """Returns a value as it is written in a flag."""
    if value is None:
        return "..."
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(_text, value)) if isinstance(value, tuple) else str(value)
