# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Pixels from PNG and JPEG files in a served graph.

A file is decoded only after its header has been read, so that a request takes no more memory than
images of the model's size do.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from matnet_tf.serving.input_checks import require

__all__ = ["pixels_of_files"]

_LUMA = (19595, 38470, 7471)  # Shares of red, green and blue in a grey value, out of 2^16.
# The signature of a PNG file, and the length and name of its first chunk. Width and height follow.
_PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
_JPEG = b"\xff\xd8\xff"
_HEADER = len(_PNG) + 8  # Bytes.
# Compressed texts in a PNG file can unpack to a thousand times their size.
_MOST_METADATA, _BYTES_PER_PIXEL = 2**16, 8


def pixels_of_files(
    name: str, files: tf.Tensor, shape: tuple[int, int, int], most: int
) -> tf.Tensor:
    """Decodes 1 to `most` PNG or JPEG files, strings `[B]`, to pixels, uint8 `[B, *shape]`.

    A failed check names the input: another format, another size, more than 64 KiB besides the
    pixels.
    """
    with tf.name_scope(f"shape_of_{name}"):
        files = tf.ensure_shape(files, [None])
    count = tf.size(files)
    files = require(files, (count >= 1) & (count <= most), f"{name} must have 1 to {most} rows")
    return tf.map_fn(
        lambda file: _decode(name, _checked(name, file, shape), shape),
        files,
        fn_output_signature=tf.TensorSpec(shape, tf.uint8),
        parallel_iterations=1,
    )


def _checked(name: str, file: tf.Tensor, shape: Sequence[int]) -> tf.Tensor:
    """Returns a file for use after its format, its length and the size in its header."""
    length, most = tf.strings.length(file), _MOST_METADATA + _BYTES_PER_PIXEL * shape[0] * shape[1]
    file = require(file, length >= _HEADER, f"{name} must be PNG or JPEG files")
    message = f"{name} must be files of at most {most} bytes; got"
    file = require(file, length <= most, message, length)
    is_png = _starts_with(file, _PNG)
    size = tf.cond(is_png, lambda: _png_size(file), lambda: _jpeg_size(name, file))
    message = f"{name} must be files of {shape[0]}x{shape[1]} pixels; got height and width"
    return require(file, tf.reduce_all(size == shape[:2]), message, size)


def _starts_with(file: tf.Tensor, start: bytes) -> tf.Tensor:
    return tf.strings.substr(file, 0, len(start)) == start


def _png_size(file: tf.Tensor) -> tf.Tensor:
    width_and_height = tf.strings.substr(file, len(_PNG), 8)
    return tf.io.decode_raw(width_and_height, tf.int32, little_endian=False)[::-1]


def _jpeg_size(name: str, file: tf.Tensor) -> tf.Tensor:
    file = require(file, _starts_with(file, _JPEG), f"{name} must be PNG or JPEG files")
    return tf.io.extract_jpeg_shape(file, name=f"{name}_as_PNG_or_JPEG")[:2]


def _decode(name: str, file: tf.Tensor, shape: Sequence[int]) -> tf.Tensor:
    # TensorFlow names these operations if a file is damaged behind its header.
    kind, channels = f"{name}_as_PNG_or_JPEG", shape[-1]
    if channels == 4:  # No JPEG has them.
        pixels = tf.io.decode_image(file, channels, expand_animations=False, name=kind)
    else:  # PNG files too, in spite of the name; the accurate transform is that of Pillow.
        pixels = tf.io.decode_jpeg(file, 3, dct_method="INTEGER_ACCURATE", name=kind)
    return tf.ensure_shape(_grey(pixels) if channels == 1 else pixels, shape)


def _grey(pixels: tf.Tensor) -> tf.Tensor:
    """Grey values of colours, as Pillow rounds them."""
    weighted = tf.reduce_sum(tf.cast(pixels, tf.int32) * _LUMA, axis=-1, keepdims=True)
    return tf.cast((weighted + 2**15) // 2**16, tf.uint8)
