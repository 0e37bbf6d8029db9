# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Compresses images with the trained model of a work directory."""

from __future__ import annotations

import functools
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
from matnet_tf.compression.decompress import decoded, versions
from matnet_tf.compression.masked import MaskedImages
from matnet_tf.compression.parallel import in_order, set_threads
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
    codec, loaded, masked, names = _prepared(workdir, config, images, data_dir)
    started = time.monotonic()
    steps = codec.suitable_steps(masked[:TYPICAL], config.bins)
    parts = masked.parts(math.ceil(len(masked) / config.block))
    blocks = _encoded(codec, parts, steps, config.threads)
    encoded = time.monotonic()
    table = [
        Block(len(part), len(block), zlib.crc32(block), zlib.crc32(part.images))
        for part, block in zip(parts, blocks, strict=True)
    ]
    if config.verify:
        _verify(codec, table, blocks, steps, parts, config.threads)
    verified = time.monotonic() if config.verify else encoded
    given = {"known": masked.digest(), "split": "" if images else config.split}
    given |= {"names": names, "blocks": table, "steps": steps}
    data = write_container(_header(workdir, codec, loaded, config, given), blocks)
    write_whole({pathlib.Path(output): data})
    seconds = (encoded - started, verified - encoded)
    return {"output": str(output)} | _record(codec, masked, blocks, len(data), *seconds)


def estimate(
    workdir: str | os.PathLike,
    config: CompressConfig,
    images: Sequence[str | os.PathLike] = (),
    data_dir: str = "",
) -> dict[str, Any]:
    """Measures the rate on at most 128 of the images, and writes nothing; see `compress`."""
    codec, _, masked, _ = _prepared(workdir, config, images, data_dir)
    sample = masked[np.linspace(0, len(masked) - 1, min(TYPICAL, len(masked))).astype(int)]
    steps = codec.suitable_steps(sample, config.bins)
    rate = codec.bits(sample, steps) / sample.dims
    return {
        "images": len(masked),
        "sampled": len(sample),
        "bits_per_dim": rate,
        "bytes": math.ceil(rate * masked.dims / 8),
        "others": _others(masked, codec),
    }


# Before the work.


def _prepared(
    workdir, config, images, data_dir
) -> tuple[Codec, LoadedRun, MaskedImages, list[str]]:
    experiment = read_experiment(workdir, data_dir)
    check_codable(experiment.model)
    set_threads(config.threads)
    largest = 1 if experiment.model.likelihood == "bernoulli" else 255
    if images:
        values, names = pictures.from_files(images, experiment.model.image_shape, largest)
        masked = pictures.masked(values, experiment.data)
    else:
        masked, names = pictures.from_split(
            experiment.model, experiment.data, config.split, largest
        )
    if config.num_images > len(masked):
        raise ValueError(
            f"CompressConfig.num_images must be at most {len(masked)}, the number of images; got "
            f"{config.num_images}"
        )
    count = config.num_images or len(masked)
    loaded = load_run(workdir, config.weights)
    batch_size = config.batch_size or (32 if experiment.model.autoregressive else 8)
    codec = Codec(loaded.model.hierarchy, batch_size)
    return codec, loaded, masked[:count], names[:count]


# The work.


def _encoded(codec: Codec, parts, steps, threads) -> list[bytes]:
    def encode(part, done):
        return codec.encode(part, steps, done)

    with image_progress("compress", sum(map(len, parts))) as progress:
        return list(in_order(encode, parts, threads=threads, progress=progress))


def _verify(codec: Codec, table, blocks, steps, parts, threads) -> None:
    total = sum(block.images for block in table)
    with image_progress("verify", total) as progress:
        decode, known = functools.partial(decoded, codec, steps), [part.known() for part in parts]
        columns = (table, blocks, known)
        for values in in_order(decode, *columns, threads=threads, progress=progress):
            if values is None:
                raise ValueError(
                    "the images did not come back bit for bit: the networks do not compute the "
                    "same twice here; try --threads=1. Nothing was written"
                )


def _header(workdir, codec: Codec, loaded: LoadedRun, config, given) -> Header:
    return Header(
        image_shape=codec.shape,
        batch_size=codec.networks.batch_size,
        threads=config.threads,
        source=f"step {loaded.step} of {pathlib.Path(workdir).name}",
        model=model_digest(loaded.model),
        fingerprint=codec.networks.fingerprint(),
        versions=versions(),
        **given,
    )


def _record(codec, masked, blocks, length, encoding, verifying) -> dict[str, Any]:
    """Sizes and rates; a verification that did not take place took no time."""
    count, first = len(masked), [first_images(block) for block in blocks]
    return {
        "images": count,
        "bytes": length,
        "bits_per_dim": 8 * length / masked.dims,
        "header_bytes": length - sum(map(len, blocks)),
        "first_images": sum(images for images, _ in first),
        "first_bytes": sum(size for _, size in first),
        "blocks": len(blocks),
        "images_per_second": count / encoding,
        "verified_images_per_second": count / verifying if verifying else None,
        "others": _others(masked, codec),
    }


def _others(masked: MaskedImages, codec: Codec) -> dict[str, float]:
    """Bits per dimension of other formats, on the first images; they know no known pixels."""
    part = masked.images[:_COMPARED]
    if part.shape[-1] not in (1, 3) or masked.dims < masked.images.size:
        return {}
    sizes = pictures.other_sizes(part, codec.pixels.largest)
    return {name: 8 * size / part.size for name, size in sizes.items()}
