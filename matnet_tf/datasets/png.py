# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""A PNG encoder for 8-bit arrays, written for speed on very many very small images."""

from __future__ import annotations

import struct
import zlib

import numpy as np

__all__ = ["encode_png"]

# Colour type of the PNG header by the number of channels: grey, RGB, RGB + alpha. There is one for
# two channels as well, but TensorFlow cannot read it.
_COLOUR_TYPES = {1: 0, 3: 2, 4: 6}


def encode_png(image: np.ndarray) -> bytes:
    """Encodes a uint8 image `[H, W, C]` of 1, 3 or 4 channels as PNG.

    Raises:
      ValueError: if the image is of another type, rank or number of channels.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in _COLOUR_TYPES:
        raise ValueError(
            f"a PNG holds a uint8 image [H, W, 1, 3 or 4]; got {image.dtype} {list(image.shape)}"
        )
    height, width, channels = image.shape
    # Every row opens with a byte that names its filter; 0 is none.
    rows = np.zeros((height, 1 + width * channels), np.uint8)
    rows[:, 1:] = image.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[channels], 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes())), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(tag, data) for tag, data in parts)


def _chunk(tag: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + tag + data + struct.pack(">I", zlib.crc32(tag + data))
