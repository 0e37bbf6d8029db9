# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""What every dataclass of settings uses: fields with a help text, and checks of their values."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable, Iterator
from typing import Any

__all__ = [
    "check_at_least",
    "check_between",
    "check_positive",
    "check_types",
    "field",
    "is_size",
    "make_tuple",
    "require",
]


# Beyond these TensorFlow's sizes and the two words of a seed overflow.
_LARGEST, _LARGEST_SEED = 2**31 - 1, 2**62 - 1


def field(default: Any, help: str, choices: tuple[str, ...] = ()) -> Any:
    """A field with what its flag says, and the only values that it takes, if they are few."""
    return dataclasses.field(default=default, metadata={"help": help, "choices": choices})


def require(condition: bool, message: str) -> None:
    """Raises a ValueError with the message unless the condition holds."""
    if not condition:
        raise ValueError(message)


def _values(config: Any, names: Iterable[str]) -> Iterator[tuple[str, Any]]:
    for name in names:
        yield f"{type(config).__name__}.{name}", getattr(config, name)


def check_types(config: Any) -> None:
    """Refuses a field of the wrong type or outside its choices, naming the field."""
    for entry in dataclasses.fields(config):
        value = getattr(config, entry.name)
        name = f"{type(config).__name__}.{entry.name}"
        choices = entry.metadata.get("choices", ())
        if choices:
            require(value in choices, f"{name} must be one of {list(choices)}; got {value!r}")
        elif entry.type in ("int", "float"):
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            whole = entry.type == "float" or isinstance(value, int)
            # False for NaN, and for whole numbers that are no floats.
            ok = number and whole and abs(value) <= sys.float_info.max
            kind = "a finite number" if entry.type == "float" else "a whole number"
            require(ok, f"{name} must be {kind}; got {value!r}")
            if entry.type == "int":
                most = _LARGEST_SEED if entry.name.endswith("seed") else _LARGEST
                require(value <= most, f"{name} must be at most {most}; got {value!r}")
        elif entry.type in ("bool", "str"):
            expected = {"bool": bool, "str": str}[entry.type]
            require(isinstance(value, expected), f"{name} must be a {entry.type}; got {value!r}")


def is_size(value: Any) -> bool:
    """Whether a value can be the length of something: a whole number of at least 1."""
    return type(value) is int and 1 <= value <= _LARGEST


def make_tuple(config: Any, *names: str) -> None:
    """Replaces lists, which JSON and flags give, by tuples; refuses anything else."""
    for name, value in _values(config, names):
        require(isinstance(value, (list, tuple)), f"{name} must be a list; got {value!r}")
        object.__setattr__(config, name.rpartition(".")[2], tuple(value))


def check_positive(config: Any, *names: str) -> None:
    """Refuses a field that is not above 0."""
    for name, value in _values(config, names):
        require(value > 0, f"{name} must be positive; got {value!r}")


def check_at_least(config: Any, least: float, *names: str) -> None:
    """Refuses a field below `least`."""
    for name, value in _values(config, names):
        require(value >= least, f"{name} must be at least {least}; got {value!r}")


def check_between(config: Any, low: float, high: float, *names: str) -> None:
    """Refuses a field outside of `[low, high]`."""
    for name, value in _values(config, names):
        require(low <= value <= high, f"{name} must lie in [{low}, {high}]; got {value!r}")
