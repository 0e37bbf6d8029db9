# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Decompresses files of `compress` with the model that made them."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import pathlib
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from matnet_tf.compression import pictures
from matnet_tf.compression.codec import Codec, check_codable
from matnet_tf.compression.container import Block, Header, read_container
from matnet_tf.files import folder_for_work, write_whole
from matnet_tf.progress import image_progress
from matnet_tf.runs.models import load_run, model_digest
from matnet_tf.version import __version__

__all__ = ["decoded", "decompress", "set_threads", "versions"]


def decompress(
    workdir: str | os.PathLike, file: str | os.PathLike, output: str | os.PathLike
) -> dict[str, Any]:
    """Writes the images of a file as PNG files; a damaged block costs its own images only.

    Args:
      workdir: The work directory that the file was made with.
      file: A file of `compress`.
      output: Folder to write to. Files are not replaced.

    Returns:
      A record: `images` written, and `damaged`, which names each block that was not.

    Raises:
      ValueError: If the file is not whole enough, was made with another model, or the networks
        compute something else here; then nothing is written.
      OSError: If files cannot be read or written.
    """
    try:
        header, blocks = read_container(pathlib.Path(file).read_bytes())
    except ValueError as error:
        raise ValueError(f"{file} cannot be decompressed: {error}") from None
    folder = pathlib.Path(output)
    _check_output(folder, header.names)
    codec = _codec_for(workdir, header, file)
    started, damaged, position, done = time.monotonic(), [], 0, 0
    with folder_for_work(folder), image_progress("decompress", len(header.names)) as progress:
        for number, (block, data) in enumerate(zip(header.blocks, blocks, strict=True), 1):
            names = header.names[position : position + block.images]
            position += block.images
            values = decoded(codec, block, data, header.steps, progress.update)
            if values is None:
                damaged.append(f"block {number} of {len(blocks)}: {names[0]} to {names[-1]}")
                progress.write(f"decompress: damaged and lost: {damaged[-1]}", file=sys.stderr)
                continue
            files = (pictures.to_png(x, codec.pixels.largest) for x in values)
            write_whole({folder / n: f for n, f in zip(names, files, strict=True)})
            done += block.images
    seconds = time.monotonic() - started
    rate = {"images": done, "of": position, "images_per_second": done / seconds}
    return {"output": str(output), **rate, "damaged": damaged}


def set_threads(threads: int) -> None:
    """Sets TensorFlow's threads, on whose number results may depend in the last bit."""
    with contextlib.suppress(RuntimeError):  # Too late; then the fingerprint decides.
        tf.config.threading.set_intra_op_parallelism_threads(threads)


def _codec_for(workdir, header: Header, file) -> Codec:
    set_threads(header.threads)
    loaded = next(
        (
            run
            for run in (load_run(workdir, weights) for weights in ("auto", "raw"))
            if model_digest(run.model) == header.model
        ),
        None,
    )
    if loaded is None:
        raise ValueError(
            f"{file} was made with another model, of {header.source}, than the one of {workdir}"
        )
    check_codable(loaded.experiment.model)
    codec = Codec(loaded.model.hierarchy, header.batch_size)
    if (found := codec.networks.fingerprint()) != header.fingerprint:
        theirs = ", ".join(f"{name} {version}" for name, version in header.versions.items())
        ours = ", ".join(f"{name} {version}" for name, version in versions().items())
        raise ValueError(
            f"{file} cannot be decompressed here: the networks do not compute the same to the last "
            f"bit (fingerprint {found}, then {header.fingerprint}). It was made with {theirs}; "
            f"this is {ours}, or another kind of processor"
        )
    return codec


def _check_output(folder: pathlib.Path, names: Sequence[str]) -> None:
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"the output must be a folder; got the file {folder}")
    existing = next((name for name in names if (folder / name).exists()), None)
    if existing is not None:
        raise ValueError(f"{folder / existing} exists already: give another --output")


def versions() -> dict[str, str]:
    """Versions of the packages on which results may depend in the last bit, by name."""
    others = ("tensorflow", "numpy", "scipy", "constriction")
    return {"matnet-tf": __version__} | {name: importlib.metadata.version(name) for name in others}


def decoded(
    codec: Codec, block: Block, data: bytes | None, steps, done: Callable[[int], None]
) -> np.ndarray | None:
    """The images of a block, or None if they are not those that were coded."""
    if data is None:
        return None
    try:
        values = codec.decode(data, block.images, steps, done)
    except ValueError:
        return None
    return values if zlib.crc32(values) == block.pixels else None
