# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""What earlier versions of this package wrote in a work directory, as this one reads it.

1: the first.
2: `data.binarization_seed` became `data.draw_seed`, the likelihood's weights `logits` its `head`.
3: checkpoints have a version and the factor of the learning rate, config.json the training images.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

__all__ = ["FORMAT_VERSION", "checkpoint_version", "name_in", "upgraded"]

FORMAT_VERSION = 3  # Of config.json, and of checkpoints and the names of variables in them.


def upgraded(experiment: dict[str, Any], version: int) -> dict[str, Any]:
    """The dictionary of an experiment that a version wrote, as this one writes it."""
    if version > 1:
        return experiment
    experiment = copy.deepcopy(experiment)
    data = experiment.get("data", {})
    if "binarization_seed" in data:
        data["draw_seed"] = data.pop("binarization_seed")
    return experiment


def checkpoint_version(names: Iterable[str]) -> int:
    """The version of a checkpoint that does not say it, by the names of what it holds."""
    return 1 if any("likelihood..logits" in name for name in names) else 2


def name_in(version: int, name: str) -> str:
    """The name that a variable has in checkpoints of a version."""
    if version > 1:
        return name
    # The optimizer's variables have the path of the weight in their names.
    name = name.replace(".likelihood.head.", ".likelihood.logits.")
    return name.replace("_likelihood_head_", "_likelihood_logits_")
