# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The rate at which a model codes the images of an evaluation without loss, beside its bound."""

from __future__ import annotations

import os
import pathlib
from typing import Any

from matnet_tf.compression.codec import TYPICAL, Codec, check_codable
from matnet_tf.compression.pictures import whole_numbers
from matnet_tf.config import EvaluateConfig
from matnet_tf.data import loading
from matnet_tf.evaluation.protocol import chosen_images
from matnet_tf.evaluation.records import change_record
from matnet_tf.runs.models import load_run
from matnet_tf.runs.workdir import read_experiment

__all__ = ["add_coded_rate", "check_coded"]

_BATCH = 64


def check_coded(workdir: str | os.PathLike) -> None:
    """Refuses a work directory whose model cannot code images.

    Raises:
      ValueError: See `check_codable`.
    """
    check_codable(read_experiment(workdir).model)


def add_coded_rate(
    workdir: str | os.PathLike, record: dict[str, Any], config: EvaluateConfig, data_dir: str = ""
) -> dict[str, Any]:
    """Codes the images of an evaluation and adds `coded_bits_per_dim` to its record.

    The rate is that of a stack with enough bits to begin with: a file has its first images and its
    header on top.

    Args:
      workdir: The work directory.
      record: The record that `evaluate` returned.
      config: The settings of `evaluate`.
      data_dir: As for `evaluate`.

    Returns:
      The record, as it is in evaluation.json now.
    """
    if "coded_bits_per_dim" in record:
        return record
    run = read_experiment(workdir, data_dir)
    split = loading.load(run.data, config.split)
    codec = Codec(load_run(workdir, config.weights).model.hierarchy, _BATCH)
    images = whole_numbers(split, codec.pixels.largest, chosen_images(config, split.num_images))
    bits = codec.bits(images, codec.suitable_steps(images[:TYPICAL]))
    changed = record | {"coded_bits_per_dim": bits / images.dims}
    return change_record(pathlib.Path(workdir), changed)
