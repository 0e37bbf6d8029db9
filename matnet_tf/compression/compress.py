# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Compresses images with the trained model of a work directory."""

from __future__ import annotations

import math
import os
import pathlib
import time
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from matnet_tf.compression import pictures
from matnet_tf.compression.codec import TYPICAL, Codec, check_codable, first_images
from matnet_tf.compression.container import Block, Header, write_container
from matnet_tf.compression.decompress import decoded, set_threads, versions
from matnet_tf.config import CompressConfig
from matnet_tf.files import write_whole
from matnet_tf.progress import image_progress
from matnet_tf.runs.models import LoadedRun, load_run, model_digest
from matnet_tf.runs.workdir import read_experiment

__all__ = ["compress", "estimate"]

_COMPARED = 1000  # Images that other formats code, too.


def compress(
    workdir: str | os.PathLike,
    config: CompressConfig,
    output: str | os.PathLike,
    images: Sequence[str | os.PathLike] = (),
    data_dir: str = "",
) -> dict[str, Any]:
    """Compresses images without loss.

    Args:
      workdir: A work directory of `matnet train`.
      config: Which images and weights, and how.
      output: File to write, which must not exist.
      images: Picture files, and folders of them; none for a split of the run's data set.
      data_dir: Where the data set lies now; "" is where it lay in training.

    Returns:
      A record of sizes and rates.

    Raises:
      ValueError: If the model cannot code images, they do not suit it, or did not come back.
      OSError: If the file cannot be written.
    """
    if pathlib.Path(output).exists():
        raise ValueError(f"{output} exists already: give another --output, or remove it")
    codec, loaded, values, names = _prepared(workdir, config, images, data_dir)
    started = time.monotonic()
    steps = codec.suitable_steps(values[:TYPICAL], config.bins)
    parts = [values[start : start + config.block] for start in range(0, len(values), config.block)]
    with image_progress("compress", len(values)) as progress:
        blocks = [codec.encode(part, steps, progress.update) for part in parts]
    encoded = time.monotonic()
    table = [
        Block(len(part), len(block), zlib.crc32(block), zlib.crc32(part))
        for part, block in zip(parts, blocks, strict=True)
    ]
    if config.verify:
        _verify(codec, table, blocks, steps)
    verified = time.monotonic() if config.verify else encoded
    data = write_container(_header(workdir, codec, loaded, config, table, names, steps), blocks)
    write_whole({pathlib.Path(output): data})
    seconds = (encoded - started, verified - encoded)
    return {"output": str(output)} | _record(codec, values, blocks, len(data), *seconds)


def estimate(
    workdir: str | os.PathLike,
    config: CompressConfig,
    images: Sequence[str | os.PathLike] = (),
    data_dir: str = "",
) -> dict[str, Any]:
    """Measures the rate on at most 128 of the images, and writes nothing; see `compress`."""
    codec, _, values, _ = _prepared(workdir, config, images, data_dir)
    sample = values[np.linspace(0, len(values) - 1, min(TYPICAL, len(values))).astype(int)]
    steps = codec.suitable_steps(sample, config.bins)
    rate = codec.bits(sample, steps) / sample.size
    return {
        "images": len(values),
        "sampled": len(sample),
        "bits_per_dim": rate,
        "bytes": math.ceil(rate * values.size / 8),
        "others": _others(values, codec),
    }


# Before the work.


def _prepared(workdir, config, images, data_dir) -> tuple[Codec, LoadedRun, np.ndarray, list[str]]:
    experiment = read_experiment(workdir, data_dir)
    check_codable(experiment.model)
    set_threads(config.threads)
    largest = 1 if experiment.model.likelihood == "bernoulli" else 255
    if images:
        values, names = pictures.from_files(images, experiment.model.image_shape, largest)
    else:
        values, names = pictures.from_split(
            experiment.model, experiment.data, config.split, largest
        )
    if config.num_images > len(values):
        raise ValueError(
            f"CompressConfig.num_images must be at most {len(values)}, the number of images; got "
            f"{config.num_images}"
        )
    count = config.num_images or len(values)
    loaded = load_run(workdir, config.weights)
    codec = Codec(loaded.model.hierarchy, config.batch_size)
    return codec, loaded, values[:count], names[:count]


# The work.


def _verify(codec: Codec, table, blocks, steps) -> None:
    total = sum(block.images for block in table)
    with image_progress("verify", total) as progress:
        for block, data in zip(table, blocks, strict=True):
            if decoded(codec, block, data, steps, progress.update) is None:
                raise ValueError(
                    "the images did not come back bit for bit: the networks do not compute the "
                    "same twice here; try --threads=1. Nothing was written"
                )


def _header(workdir, codec: Codec, loaded: LoadedRun, config, table, names, steps) -> Header:
    return Header(
        image_shape=codec.shape,
        names=names,
        blocks=table,
        steps=steps,
        batch_size=config.batch_size,
        threads=config.threads,
        source=f"step {loaded.step} of {pathlib.Path(workdir).name}",
        model=model_digest(loaded.model),
        fingerprint=codec.networks.fingerprint(),
        versions=versions(),
    )


def _record(codec, values, blocks, length, encoding, verifying) -> dict[str, Any]:
    """Sizes and rates; a verification that did not take place took no time."""
    count, first = len(values), [first_images(block) for block in blocks]
    return {
        "images": count,
        "bytes": length,
        "bits_per_dim": 8 * length / values.size,
        "header_bytes": length - sum(map(len, blocks)),
        "first_images": sum(images for images, _ in first),
        "first_bytes": sum(size for _, size in first),
        "blocks": len(blocks),
        "images_per_second": count / encoding,
        "verified_images_per_second": count / verifying if verifying else None,
        "others": _others(values, codec),
    }


def _others(values: np.ndarray, codec: Codec) -> dict[str, float]:
    """Bits per dimension of other formats, on the first images."""
    if values.shape[-1] not in (1, 3):
        return {}
    part = values[:_COMPARED]
    sizes = pictures.other_sizes(part, codec.pixels.largest)
    return {name: 8 * size / part.size for name, size in sizes.items()}
