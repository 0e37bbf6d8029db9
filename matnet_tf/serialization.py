# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Dataclass trees of `matnet_tf.config` as dictionaries and JSON, and back."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from typing import Any

from matnet_tf.config import Experiment, Stage

__all__ = ["differences", "from_dict", "from_json", "to_dict", "to_json"]


# Settings that say how a run is watched or bounded, not what it computes step by step.
_RUN_CONTROL = (
    *("train.max_seconds", "train.keep_checkpoints", "train.devices", "train.rollbacks"),
    "data.dir",
)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def to_dict(config: Any) -> dict[str, Any]:
    """A dataclass tree as nested dictionaries, with stages in their short form."""
    result = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            value = to_dict(value)
        elif isinstance(value, tuple):
            value = [str(v) if isinstance(v, Stage) else v for v in value]
        result[field.name] = value
    return result


def from_dict(cls: type, values: dict[str, Any]) -> Any:
    """The dataclass tree that `to_dict` wrote; fields that are missing take their defaults.

    Raises:
      ValueError: if a key is not a field, or a value is refused by the dataclass.
    """
    _require(isinstance(values, dict), f"{cls.__name__} must be a dictionary; got {values!r}")
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(values) - {field.name for field in dataclasses.fields(cls)})
    _require(not unknown, f"{cls.__name__} has no field {', '.join(unknown)}")
    arguments = {}
    for name, value in values.items():
        hint = hints[name]
        if dataclasses.is_dataclass(hint) and isinstance(value, dict):
            value = from_dict(hint, value)
        elif hint == tuple[Stage, ...] and isinstance(value, list):
            value = tuple(Stage.parse(v) if isinstance(v, str) else v for v in value)
        elif isinstance(hint, types.GenericAlias) and isinstance(value, list):
            value = tuple(value)
        arguments[name] = value
    return cls(**arguments)


def to_json(config: Any) -> str:
    """`to_dict` as indented JSON text."""
    return json.dumps(to_dict(config), indent=2) + "\n"


def from_json(cls: type, text: str) -> Any:
    """Reads what `to_json` wrote.

    Raises:
      ValueError: if the text is not JSON, or `from_dict` refuses it.
    """
    return from_dict(cls, json.loads(text))


def differences(ours: Experiment, theirs: Experiment) -> list[str]:
    """Lines `field: ours, not theirs` for the settings in which two experiments differ.

    Settings that only watch or bound a run (its time limit, where the data lie) do not count.
    """
    flat_ours, flat_theirs = _flatten(to_dict(ours)), _flatten(to_dict(theirs))
    return [
        f"{name}: {flat_ours[name]}, not {flat_theirs[name]}"
        for name in flat_ours
        if name not in _RUN_CONTROL and flat_ours[name] != flat_theirs[name]
    ]


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat.update(_flatten(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat
