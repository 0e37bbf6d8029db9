# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The file of compressed images: a front, a header, and blocks (docs/compression.md).

    7 bytes    b"MATNET" and a byte 0
    1 byte     version of the format
    8 bytes    length of the packed header and its CRC-32, each little-endian
    header     JSON, packed by zlib
    blocks     one after another

The header has the length and checksum of every block, so a damaged block costs its own images only.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import struct
import zlib
from collections.abc import Sequence
from typing import Any

from matnet_tf.config.validation import require

__all__ = ["Block", "Header", "read_container", "write_container"]

FORMAT_VERSION = 2
_MAGIC = b"MATNET\x00" + bytes([FORMAT_VERSION])
_FRONT = struct.Struct("<II")
_LONGEST_HEADER = 2**26  # Unpacked: the names of some million images.
_MOST_VALUES = 2**36  # Of all images together.
_NUMBERED = re.compile(r"(.*?)(\d+)(\D*)", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Block:
    """A block of images in the table of a header.

    Attributes:
      images: Number of its images.
      length: Number of its bytes.
      checksum: CRC-32 of its bytes.
      pixels: CRC-32 of its images, by which a decoder knows that they came back.
    """

    images: int
    length: int
    checksum: int
    pixels: int

    def __post_init__(self):
        numbers = dataclasses.astuple(self)
        require(all(type(n) is int and 0 <= n < 2**63 for n in numbers), "a block's numbers")
        require(self.images > 0, "a block without images")


@dataclasses.dataclass(frozen=True)
class Header:
    """What a decoder must know.

    Attributes:
      image_shape: Height, width and channels.
      names: Names of the images' files, in their order.
      blocks: The table of blocks.
      steps: Exponents of the latents' steps, for each channel of each level.
      batch_size: Images that the networks saw at once.
      threads: Threads of one operation of TensorFlow.
      known: Digest of the known pixels, which a decoder must be given; "" if there are none.
      split: Split of the run's data that the images are; "" for picture files.
      source: Where the model came from, in words.
      model: Digest of the model's config and weights.
      fingerprint: Digest of what its networks compute for a probe.
      versions: Of packages, by name.

    Raises:
      ValueError: If a field has the wrong form; the message names it.
    """

    image_shape: tuple[int, int, int]
    names: Sequence[str]
    blocks: Sequence[Block]
    steps: Sequence[Sequence[int]]
    batch_size: int
    threads: int
    known: str
    split: str
    source: str
    model: str
    fingerprint: str
    versions: dict[str, str]

    def __post_init__(self):
        shape = self.image_shape
        require(len(shape) == 3 and all(_is_count(n, 2**16) for n in shape), "image_shape")
        count = sum(block.images for block in self.blocks)
        require(count == len(self.names), f"{count} images and {len(self.names)} names")
        require(count * math.prod(shape) <= _MOST_VALUES, f"{count} images")
        require(bool(self.steps) and all(_are_steps(level) for level in self.steps), "steps")
        require(_is_count(self.batch_size, 2**16), "batch_size")
        require(_is_count(self.threads, 2**10), "threads")
        texts = [self.source, self.model, self.fingerprint, self.known, *self.versions.values()]
        require(all(isinstance(text, str) for text in texts), "a text")
        require(self.split in ("", "train", "validation", "test"), "split")
        for name in self.names:
            require(_is_plain_name(name), f"the file name {name!r:.80}")
        require(len(set(self.names)) == count, "a file name twice")


def _is_count(value: Any, most: int) -> bool:
    return type(value) is int and 1 <= value <= most


def _are_steps(level: Any) -> bool:
    return isinstance(level, list) and bool(level) and all(_is_count(e, 10) for e in level)


def _is_plain_name(name: Any) -> bool:
    """Whether a name is that of a file in a folder, so that nothing is written outside."""
    plain = isinstance(name, str) and not re.search(r"[/\\\x00]", name)
    return plain and name not in ("", ".", "..") and len(name.encode("utf-8", "replace")) <= 255


def write_container(header: Header, blocks: Sequence[bytes]) -> bytes:
    """The bytes of a file.

    Args:
      header: The header, whose table describes the blocks.
      blocks: The blocks.
    """
    fields = {field.name: getattr(header, field.name) for field in dataclasses.fields(header)}
    fields["names"] = _packed_names(header.names)
    fields["blocks"] = [dataclasses.astuple(block) for block in header.blocks]
    packed = zlib.compress(json.dumps(fields, separators=(",", ":")).encode(), 9)
    return b"".join([_MAGIC, _FRONT.pack(len(packed), zlib.crc32(packed)), packed, *blocks])


def read_container(data: bytes) -> tuple[Header, list[bytes | None]]:
    """Reads the bytes of a file.

    Returns:
      The header, and each block, or None where it is damaged or cut off.

    Raises:
      ValueError: If the file is of another kind or version, or its header is damaged.
    """
    require(data[:7] == _MAGIC[:7], "it was not written by matnet compress")
    start = len(_MAGIC) + _FRONT.size
    require(len(data) >= start, "it is cut off in its header")
    require(
        data[7] == FORMAT_VERSION,
        f"it has version {data[7]} of the format; this package reads {FORMAT_VERSION}",
    )
    length, checksum = _FRONT.unpack_from(data, len(_MAGIC))
    packed = data[start : start + length]
    require(len(packed) == length, "it is cut off in its header")
    require(zlib.crc32(packed) == checksum, "its header is damaged")
    header = _parsed(packed)
    blocks, position = [], start + length
    for block in header.blocks:
        found = data[position : position + block.length]
        whole = len(found) == block.length and zlib.crc32(found) == block.checksum
        blocks.append(found if whole else None)
        position += block.length
    return header, blocks


def _parsed(packed: bytes) -> Header:
    try:
        unpacker = zlib.decompressobj()
        text = unpacker.decompress(packed, _LONGEST_HEADER)
        require(not unpacker.unconsumed_tail, "it is too long")
        fields = json.loads(text)
        blocks = [Block(*block) for block in fields["blocks"]]
        count = sum(block.images for block in blocks)
        names = _unpacked_names(fields["names"], count)
        shape = tuple(fields["image_shape"])
        return Header(**fields | {"blocks": blocks, "names": names, "image_shape": shape})
    except (zlib.error, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"its header is not valid: {error}") from None


def _packed_names(names: Sequence[str]) -> Any:
    """The names, or if they count on from the first: what is before, the number, what follows."""
    found = _NUMBERED.fullmatch(names[0]) if names else None
    pattern = [found[1], found[2], found[3]] if found else None
    return pattern if pattern and _numbered(pattern, len(names)) == list(names) else [list(names)]


def _unpacked_names(packed: Any, count: int) -> list[str]:
    if len(packed) == 1:
        return packed[0]
    require(count <= _LONGEST_HEADER, f"{count} images")
    return _numbered(packed, count)


def _numbered(pattern: Sequence[str], count: int) -> list[str]:
    before, first, after = pattern
    return [f"{before}{int(first) + i:0{len(first)}d}{after}" for i in range(count)]
