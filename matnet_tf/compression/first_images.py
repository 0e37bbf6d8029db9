# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Codes the images that a stack begins with, from which the first latents are decoded.

Bits-back needs bits before it has any. A few images of a block, coded in an ordinary way, are such
bits, and cost only what this code is worse than the model.
"""

from __future__ import annotations

import bz2
import io
import lzma
import math

import numpy as np
from PIL import Image

__all__ = ["last_images", "unpack"]

_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": 2**22}]
_DAMAGED = (OSError, ValueError, EOFError, SyntaxError)
_LONGEST_SIDE = 16383  # Of a WebP file.
_GUESS = 4  # First images to begin the search with.


def last_images(images: np.ndarray, largest: int, needed: int) -> tuple[int, bytes]:
    """Codes the fewest of the last images, or few more, whose code has as many bytes as needed.

    Args:
      images: uint8 [N, H, W, C].
      largest: Their largest possible value, 1 or 255.
      needed: Number of bytes.

    Returns:
      The number of images, N if all are too small, and their code.
    """
    count = min(len(images), _GUESS)
    while True:
        part = images[len(images) - count :]
        # WebP takes a hundred times as long as the others, so it has the last word only.
        code = pack(part, largest, webp=False)
        if len(code) >= needed or count == len(images):
            code = pack(part, largest)
        if len(code) >= needed or count == len(images):
            return count, code
        more = 1.1 * count * (needed - len(code)) / len(code)
        count = min(len(images), count + 1 + int(more))


def pack(images: np.ndarray, largest: int, webp: bool = True) -> bytes:
    """Codes images in the way that is smallest for them.

    Args:
      images: uint8 [N, H, W, C].
      largest: Their largest possible value, 1 or 255.
      webp: Whether to try WebP, too.
    """
    raw = _raw(images, largest)
    ways = [b"x" + lzma.compress(raw, lzma.FORMAT_RAW, filters=_FILTERS), b"b" + bz2.compress(raw)]
    count, height, width, channels = images.shape
    if webp and channels in (1, 3) and count and count * height <= _LONGEST_SIDE >= width:
        ways.append(b"w" + _webp(images * (255 // largest)))
    return min(ways, key=len)


def unpack(data: bytes, count: int, shape: tuple[int, int, int], largest: int) -> np.ndarray:
    """Returns the images that `pack` coded, uint8 [count, *shape].

    Raises:
      ValueError: If the data are damaged.
    """
    try:
        if data[:1] == b"w":
            with Image.open(io.BytesIO(data[1:]), formats=["WEBP"]) as image:
                values = np.array(image.convert("L" if shape[2] == 1 else "RGB"))
            return values.reshape(count, *shape) // (255 // largest)
        size = count * math.prod(shape)
        xz = data[:1] == b"x"
        unpacker = lzma.LZMADecompressor(lzma.FORMAT_RAW, None, _FILTERS) if xz else None
        raw = (unpacker or bz2.BZ2Decompressor()).decompress(data[1:], size + 1)
        values = np.frombuffer(raw, np.uint8)
        if largest == 1:
            values = np.unpackbits(values, count=size)
        return values.reshape(count, *shape)
    except (*_DAMAGED, lzma.LZMAError, Image.DecompressionBombError) as error:
        raise ValueError(f"its first images cannot be read: {error}") from None


def _raw(images, largest):
    return (np.packbits(images) if largest == 1 else images).tobytes()


def _webp(images):
    tall = images.reshape(-1, *images.shape[2:])
    file = io.BytesIO()
    picture = Image.fromarray(tall[..., 0] if tall.shape[-1] == 1 else tall)
    picture.convert("RGB").save(file, "webp", lossless=True, quality=100, method=6)
    return file.getvalue()
