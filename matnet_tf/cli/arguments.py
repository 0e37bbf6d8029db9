# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""What the flags of a program stand for, where it takes more than reading them."""

from __future__ import annotations

import os
from typing import Any

from matnet_tf import config
from matnet_tf.cli.startup import importing
from matnet_tf.config.suggestion import suggested_training

__all__ = ["given_experiment", "image_size"]


def image_size(text: str) -> tuple[int, int]:
    """Parses a height and width such as 64x48."""
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise ValueError(f"--size must read HEIGHTxWIDTH, such as 64x64; got {text!r}")
    return int(height), int(width)


def given_experiment(given: dict[str, Any]) -> config.Experiment | None:
    """What the flags of `train` change: the run to resume, or a model that suits the data."""
    if os.path.isfile(os.path.join(given["workdir"], "config.json")):
        from matnet_tf.runs.workdir import read_experiment

        return read_experiment(given["workdir"])
    if designed := {"model.image_shape", "model.scales"} & set(given):
        if "model.size" in given:
            raise ValueError(f"--model.size goes without --{min(designed)}, which it would choose")
        return None
    data = {name[5:]: value for name, value in given.items() if name.startswith("data.")}
    with importing():
        from matnet_tf.data.suggestion import suggest_for

    size = given.get("model.size", "medium")
    model, settings, kind = suggest_for(config.DataConfig(**data), size)
    height, width, channels = model.image_shape
    train = suggested_training(model.image_shape)
    chosen = {
        "model.scales": ",".join(map(str, model.scales)),
        "model.likelihood": model.likelihood,
        "train.batch_size": train.batch_size,
    }
    flags_of_it = " ".join(f"--{name}={chosen[name]}" for name in chosen if name not in given)
    print(
        f"train: {settings.name} has {kind} images of {height}x{width}x{channels}: a {size} model, "
        f"{flags_of_it}",
        flush=True,
    )
    return config.Experiment(model=model, data=settings, train=train)
