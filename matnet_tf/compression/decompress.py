# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Decompresses files of `compress` with the model that made them."""

from __future__ import annotations

import functools
import importlib.metadata
import itertools
import os
import pathlib
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from matnet_tf.compression import pictures
from matnet_tf.compression.codec import Codec, check_codable
from matnet_tf.compression.container import Block, Header, read_container
from matnet_tf.compression.masked import MaskedImages
from matnet_tf.compression.parallel import in_order, set_threads
from matnet_tf.files import folder_for_work, write_whole
from matnet_tf.progress import image_progress
from matnet_tf.runs.models import load_run, model_digest
from matnet_tf.runs.workdir import read_experiment
from matnet_tf.version import __version__

__all__ = ["decoded", "decompress", "versions"]


def decompress(
    workdir: str | os.PathLike,
    file: str | os.PathLike,
    output: str | os.PathLike,
    known: str | os.PathLike = "",
    data_dir: str = "",
) -> dict[str, Any]:
    """Writes the images of a file as PNG files; a damaged block costs its own images only.

    Args:
      workdir: The work directory that the file was made with.
      file: A file of `compress`.
      output: Folder to write to. Files are not replaced.
      known: For a conditional model, a folder of pictures with the names of the file's images,
        whose known pixels count; "" for the split that the file was made from.
      data_dir: Where the data set lies now; "" is where it lay in training.

    Returns:
      A record: `images` written, and `damaged`, which names each block that was not.

    Raises:
      ValueError: If the file is not whole enough, was made with another model or other known
        pixels, or the networks compute something else here; then nothing is written.
      OSError: If files cannot be read or written.
    """
    (header, blocks), folder = _read(file), pathlib.Path(output)
    _check_output(folder, header.names)
    codec = _codec_for(workdir, header, file)
    pixels = _known_pixels(workdir, header, file, known, data_dir)
    started, damaged, done = time.monotonic(), [], 0
    decode = functools.partial(decoded, codec, header.steps)
    own, by_block = _by_block(pixels, header), _by_block(header.names, header)
    with folder_for_work(folder), image_progress("decompress", len(header.names)) as progress:
        columns = (header.blocks, blocks, own)
        found = in_order(decode, *columns, threads=header.threads, progress=progress)
        for number, (values, names) in enumerate(zip(found, by_block, strict=True), 1):
            if values is None:
                damaged.append(f"block {number} of {len(blocks)}: {names[0]} to {names[-1]}")
                progress.write(f"decompress: damaged and lost: {damaged[-1]}", file=sys.stderr)
                continue
            files = (pictures.to_png(x, codec.pixels.largest) for x in values)
            write_whole({folder / n: f for n, f in zip(names, files, strict=True)})
            done += len(values)
    rate = {"of": len(header.names), "images_per_second": done / (time.monotonic() - started)}
    return {"output": str(output), "images": done, **rate, "damaged": damaged}


def _read(file) -> tuple[Header, list[bytes | None]]:
    try:
        return read_container(pathlib.Path(file).read_bytes())
    except ValueError as error:
        raise ValueError(f"{file} cannot be decompressed: {error}") from None


def _by_block(column: Sequence, header: Header) -> list:
    """What images have, in the parts of the blocks."""
    ends = list(itertools.accumulate(block.images for block in header.blocks))
    return [column[start:end] for start, end in zip([0, *ends], ends, strict=False)]


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


def _known_pixels(workdir, header: Header, file, known, data_dir) -> MaskedImages:
    """What a decoder is given of the images: nothing, or the known pixels of a conditional model.

    Raises:
      ValueError: If they are not those that the file was made with.
    """
    shape, count = header.image_shape, len(header.names)
    if not header.known:
        if known:
            raise ValueError(f"{file} has whole images, which need no known pixels: omit --known")
        return MaskedImages.all_hidden(np.zeros((count, *shape), np.uint8))
    if not known and not header.split:
        raise ValueError(
            f"{file} has the hidden pixels of picture files: --known must give the rest"
        )
    run = read_experiment(workdir, data_dir)
    largest = 1 if run.model.likelihood == "bernoulli" else 255
    if known:
        paths = [pathlib.Path(known) / name for name in header.names]
        values, _ = pictures.from_files(paths, shape, largest)
        found = pictures.masked(values, run.data, header.split or "test")
    else:
        found = pictures.from_split(run.model, run.data, header.split, largest)[0][:count]
    if found.digest() != header.known:
        raise ValueError(
            f"{file} was made with other known pixels than those of "
            f"{known or f'the {header.split} split of {run.data.name}'}"
        )
    return found.known()


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
    codec: Codec,
    steps: list,
    block: Block,
    data: bytes | None,
    known: MaskedImages,
    done: Callable[[int], None],
) -> np.ndarray | None:
    """The images of a block, or None if they are not those that were coded."""
    if data is None:
        return None
    try:
        values = codec.decode(data, known, steps, done)
    except ValueError:
        return None
    return values if zlib.crc32(values) == block.pixels else None
