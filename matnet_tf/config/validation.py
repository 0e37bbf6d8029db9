# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Fields of the dataclasses of settings, with help texts and limits, and checks of their values."""

from __future__ import annotations

import dataclasses
import operator
import sys
from typing import Any

__all__ = ["check_fields", "field", "is_size", "make_tuple", "require"]

# TensorFlow's sizes, and the two int32 words of a seed, overflow beyond these.
_LARGEST, _LARGEST_SEED = 2**31 - 1, 2**62 - 1

_LIMITS = {
    "at_least": operator.ge,
    "above": operator.gt,
    "at_most": operator.le,
    "below": operator.lt,
}


def field(default: Any, help: str, choices: tuple[str | bool, ...] = (), **limits: float) -> Any:
    """Returns a dataclass field that `check_fields` checks.

    Args:
      default: Value if none is given.
      help: Meaning of the value, for `--help`.
      choices: Allowed values; empty allows all.
      **limits: Limits of a number: `at_least`, `above`, `at_most`, `below`.
    """
    assert limits.keys() <= _LIMITS.keys()
    metadata = {"help": help, "choices": choices, "limits": limits}
    return dataclasses.field(default=default, metadata=metadata)


def require(condition: bool, message: str) -> None:
    """Raises a ValueError with the message unless the condition holds."""
    if not condition:
        raise ValueError(message)


def check_fields(config: Any) -> None:
    """Checks the type, the choices and the limits of every field.

    Raises:
      ValueError: If a value is not allowed; the message names the class and the field.
    """
    for entry in dataclasses.fields(config):
        name, value = f"{type(config).__name__}.{entry.name}", getattr(config, entry.name)
        if choices := entry.metadata.get("choices"):
            require(value in choices, f"{name} must be one of {list(choices)}; got {value!r}")
        elif entry.type in ("int", "float"):
            _check_number(name, value, entry.type, entry.metadata["limits"])
        elif entry.type in ("bool", "str"):
            ok = type(value).__name__ == entry.type
            require(ok, f"{name} must be a {entry.type}; got {value!r}")


def _check_number(name: str, value: Any, kind: str, limits: dict[str, float]) -> None:
    expected, types = (
        ("a whole number", int) if kind == "int" else ("a finite number", (int, float))
    )
    ok = isinstance(value, types) and not isinstance(value, bool)
    # The comparison is false for NaN and infinity, and for integers that overflow a float.
    require(ok and abs(value) <= sys.float_info.max, f"{name} must be {expected}; got {value!r}")
    if kind == "int":
        largest = _LARGEST_SEED if name.endswith("seed") else _LARGEST
        limits = {"at_most": largest, **limits}
    for limit, number in limits.items():
        ok = _LIMITS[limit](value, number)
        require(ok, f"{name} must be {limit.replace('_', ' ')} {number}; got {value!r}")


def is_size(value: Any) -> bool:
    """Returns whether a value is a size: a whole number of at least 1."""
    return type(value) is int and 1 <= value <= _LARGEST


def make_tuple(config: Any, *names: str) -> None:
    """Replaces lists in the named fields, which come from JSON, with tuples.

    Raises:
      ValueError: If a field is neither a list nor a tuple.
    """
    for name in names:
        value = getattr(config, name)
        ok = isinstance(value, (list, tuple))
        require(ok, f"{type(config).__name__}.{name} must be a list; got {value!r}")
        object.__setattr__(config, name, tuple(value))
