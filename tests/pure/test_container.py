# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The file: what is written is read, and what is damaged is refused or named."""

import dataclasses
import json
import struct
import zlib

import numpy as np
import pytest

from matnet_tf.compression.container import Block, Header, read_container, write_container

BLOCKS = [b"first block!", b"second", b"third one"]
COUNTS = [2, 1, 3]


def header(**changes):
    blocks = [
        Block(count, len(block), zlib.crc32(block), 7)
        for count, block in zip(COUNTS, BLOCKS, strict=True)
    ]
    fields = {
        "image_shape": (8, 8, 1),
        "names": [f"digit_{i:03d}.png" for i in range(98, 104)],
        "blocks": blocks,
        "steps": [[1, 2], [3]],
        **{"batch_size": 8, "threads": 2, "source": "a run", "model": "ab", "fingerprint": "cd"},
        **{"known": "", "split": "test"},
        "versions": {"tensorflow": "2.21.0"},
    }
    return Header(**fields | changes)


def forged(**changes):
    """A file with a valid checksum and other fields in the header."""
    whole = write_container(header(), BLOCKS)
    length = struct.unpack_from("<I", whole, 8)[0]
    fields = json.loads(zlib.decompress(whole[16 : 16 + length])) | changes
    packed = zlib.compress(json.dumps(fields).encode())
    front = struct.pack("<II", len(packed), zlib.crc32(packed))
    return whole[:8] + front + packed + whole[16 + length :]


@pytest.mark.parametrize(
    "names",
    [
        [f"digit_{i:03d}.png" for i in range(98, 104)],
        [f"{i}.png" for i in range(98, 104)],
        ["a.png", "b.png", "ä 1.png", "1.png", "2.png", "007.png"],
    ],
)
def test_what_is_written_is_read(names):
    written = header(names=names)
    assert read_container(write_container(written, BLOCKS)) == (written, BLOCKS)


def test_numbered_names_cost_nothing():
    many = [Block(10_000, 0, 0, 0)]
    names = [f"{i:05d}.png" for i in range(10_000)]
    assert len(write_container(header(names=names, blocks=many), [b""])) < 400


def test_a_damaged_byte_costs_its_block_or_the_file():
    whole = write_container(header(), BLOCKS)
    body = len(whole) - sum(map(len, BLOCKS))
    random = np.random.RandomState(0)
    for _ in range(5000):
        place = random.randint(len(whole))
        cut = random.random_sample() < 0.2
        damaged = bytearray(whole[:place] if cut else whole)
        if not cut:
            damaged[place] ^= random.randint(1, 256)
        if place < body:
            with pytest.raises(ValueError):
                read_container(bytes(damaged))
            continue
        _, blocks = read_container(bytes(damaged))
        hit = int(np.searchsorted(np.cumsum([len(b) for b in BLOCKS]), place - body, "right"))
        lost = range(hit, 3) if cut else [hit]
        assert blocks == [None if i in lost else block for i, block in enumerate(BLOCKS)]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"names": [["../a", "b", "c", "d", "e", "f"]]}, "file name"),
        ({"names": [["/etc/a", "b", "c", "d", "e", "f"]]}, "file name"),
        ({"names": [["..", "b", "c", "d", "e", "f"]]}, "file name"),
        ({"names": ["../", "1", ".png"]}, "file name"),
        ({"names": [["a", "a", "c", "d", "e", "f"]]}, "twice"),
        ({"names": [["a"]]}, "1 names"),
        ({"names": 3}, "not valid"),
        ({"blocks": [[10**12, 1, 1, 1]], "names": ["", "1", ""]}, "1000000000000 images"),
        ({"blocks": [[10**6, 1, 1, 1]], "image_shape": [2**10, 2**10, 3]}, "images"),
        ({"blocks": [[-1, 1, 1, 1]]}, "not valid"),
        ({"blocks": None}, "not valid"),
        ({"image_shape": [8, 8]}, "image_shape"),
        ({"image_shape": [8, 8, 1.5]}, "image_shape"),
        ({"steps": [[99]]}, "steps"),
        ({"steps": 1}, "not valid"),
        ({"batch_size": 0}, "batch_size"),
        ({"threads": "2"}, "threads"),
        ({"versions": 1}, "not valid"),
        ({"model": 1}, "text"),
        ({"known": None}, "text"),
        ({"split": "all"}, "split"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_forged_headers_are_refused_in_one_line(changes, word):
    with pytest.raises(ValueError, match=word) as caught:
        read_container(forged(**changes))
    assert "\n" not in str(caught.value)


def test_other_files_are_refused():
    for data, word in (
        (b"", "matnet compress"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "matnet compress"),
        (b"MATNET\x00\x09" + bytes(100), "version 9"),
        (b"MATNET\x00\x02" + struct.pack("<II", 2**31, 0), "cut off"),
    ):
        with pytest.raises(ValueError, match=word):
            read_container(data)
    bomb = zlib.compress(bytes(2**27))
    front = b"MATNET\x00\x02" + struct.pack("<II", len(bomb), zlib.crc32(bomb))
    with pytest.raises(ValueError, match="too long"):
        read_container(front + bomb)


def test_blocks_have_their_images():
    with pytest.raises(ValueError, match="without images"):
        dataclasses.replace(header().blocks[0], images=0)
