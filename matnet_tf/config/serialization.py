# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The dataclasses of `matnet_tf.config` as dictionaries and JSON."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any

from matnet_tf.config.experiment import Experiment
from matnet_tf.config.model import Scale
from matnet_tf.config.validation import require

__all__ = ["differences", "from_dict", "to_dict"]

# Settings that limit a run or its memory, or say where its data is, but do not change the gradient
# that a step estimates.
_RUN_CONTROL = (
    *("train.max_seconds", "train.keep_checkpoints", "train.devices", "train.rollbacks"),
    *("train.micro_batches", "train.recompute", "data.dir"),
)


def to_dict(config: Any) -> dict[str, Any]:
    """Returns a dataclass tree as nested dictionaries; scales are text, such as "7:64:4:5"."""
    result = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            value = to_dict(value)
        elif isinstance(value, tuple):
            value = [str(v) if isinstance(v, Scale) else v for v in value]
        result[field.name] = value
    return result


def from_dict(cls: type, values: dict[str, Any]) -> Any:
    """Returns the dataclass tree that `to_dict` converted; missing fields take their defaults.

    Args:
      cls: Class of the tree.
      values: Nested dictionaries.

    Raises:
      ValueError: If a key is not a field, or the dataclass refuses a value.
    """
    require(isinstance(values, dict), f"{cls.__name__} must be a dictionary; got {values!r}")
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(values) - {field.name for field in dataclasses.fields(cls)})
    require(not unknown, f"{cls.__name__} has no field {', '.join(unknown)}")
    return cls(**{name: _from_plain(hints[name], value) for name, value in values.items()})


def _from_plain(hint: Any, value: Any) -> Any:
    """Returns a field's value from its form in JSON; a dataclass refuses what does not fit."""
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return from_dict(hint, value)
    if not isinstance(hint, types.GenericAlias) or not isinstance(value, list):
        return value
    if typing.get_args(hint)[0] is Scale:
        return tuple(Scale.parse(v) if isinstance(v, str) else v for v in value)
    return tuple(value)


def differences(ours: Experiment, theirs: Experiment) -> list[str]:
    """Returns lines `field: ours, not theirs` for settings that differ between two experiments.

    Settings that only limit a run, or say where its data is, do not count; neither does a larger
    number of steps.
    """
    flat_ours, flat_theirs = _flatten(to_dict(ours)), _flatten(to_dict(theirs))
    if flat_ours["train.steps"] > flat_theirs["train.steps"]:
        flat_theirs["train.steps"] = flat_ours["train.steps"]
    return [
        f"{name}: {flat_ours[name]}, not {flat_theirs[name]}"
        for name in flat_ours
        if name not in _RUN_CONTROL and flat_ours[name] != flat_theirs[name]
    ]


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested dictionaries as one, with dotted names."""
    flat = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat.update(_flatten(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat
