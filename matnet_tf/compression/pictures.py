# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Images to compress, from files or a data set, as whole numbers; and the sizes of other codes."""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from PIL import Image

from matnet_tf.compression.masked import MaskedImages
from matnet_tf.config import DataConfig, ModelConfig
from matnet_tf.data import image_files, loading

__all__ = ["from_files", "from_split", "masked", "other_sizes", "to_png", "whole_numbers"]

_BATCH = 500
_MODES = {1: ("L", "1"), 3: ("RGB",)}  # By number of channels, as in Pillow.


def from_files(
    paths: Sequence[str | os.PathLike], shape: tuple[int, int, int], largest: int
) -> tuple[np.ndarray, list[str]]:
    """Reads picture files.

    Args:
      paths: Files, and folders of them.
      shape: Height, width and channels that every picture must have.
      largest: 255, or 1 for black and white pictures.

    Returns:
      uint8 [N, H, W, C] from 0 to `largest`, and the names of the files to decompress to.

    Raises:
      ValueError: If a file cannot be read, has other pixels, or two would get one name.
    """
    files = image_files.find(paths)
    names = [file.with_suffix(".png").name for file in files]
    if len(set(names)) < len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise ValueError(f"two of the images would be decompressed to {twice}: rename one")
    images = np.empty((len(files), *shape), np.uint8)
    for i, file in enumerate(files):
        try:
            images[i] = _read(file, shape, largest)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from None
    return images, names


def _read(path: pathlib.Path, shape, largest) -> np.ndarray:
    picture, mode = image_files.read(path), image_files.mode(path)
    expected = _MODES.get(shape[2], ())
    if mode not in expected or (picture.height, picture.width) != shape[:2]:
        raise ValueError(
            f"it has {picture.height}x{picture.width} pixels of mode {mode}; the model needs "
            f"{shape[0]}x{shape[1]} of mode {' or '.join(expected) or f'{shape[2]} channels'}"
        )
    values = image_files.pixels(picture, shape[2])
    if largest == 1 and not np.isin(values, (0, 255)).all():
        raise ValueError("it has grey pixels; the model's likelihood bernoulli needs 0 and 255")
    return values // (255 // largest)


def from_split(
    model: ModelConfig, data: DataConfig, split: str, largest: int
) -> tuple[MaskedImages, list[str]]:
    """The images of a split as the model sees them, and a name for each."""
    images = whole_numbers(loading.load_for(model, data, split), largest)
    digits = len(str(len(images) - 1))
    return images, [f"{i:0{digits}d}.png" for i in range(len(images))]


def masked(images: np.ndarray, data: DataConfig, split: str = "test") -> MaskedImages:
    """Images with the masks that an evaluation gives the first ones of a split, if it has any.

    Args:
      images: uint8 [N, H, W, C].
      data: Settings of the masks.
      split: The split.
    """
    if data.mask == "none":
        return MaskedImages.all_hidden(images)
    mask = loading.fixed_masks(data, images.shape[1:], split, tf.range(len(images)))
    return MaskedImages(images, mask.numpy()[..., 0] == 0)


def whole_numbers(
    split: loading.Split, largest: int, indices: np.ndarray | None = None
) -> MaskedImages:
    """The images of a split as whole numbers from 0 to `largest`, with their masks.

    Args:
      split: The split.
      largest: 255, or 1 for binary images.
      indices: Which images; None for all.
    """
    images, hidden = [], []
    for batch in split.evaluation_dataset(_BATCH, indices):
        batch = batch if isinstance(batch, dict) else {"image": batch}
        images.append(np.rint(largest * batch["image"].numpy()).astype(np.uint8))
        if "mask" in batch:
            hidden.append(batch["mask"].numpy()[..., 0] == 0)
    images = np.concatenate(images)
    if not hidden:
        return MaskedImages.all_hidden(images)
    return MaskedImages(images, np.concatenate(hidden))


def to_png(image: np.ndarray, largest: int) -> bytes:
    """A PNG file of an image, uint8 [H, W, C] from 0 to `largest`."""
    return image_files.png(image * np.uint8(255 // largest))


def other_sizes(images: np.ndarray, largest: int) -> dict[str, int]:
    """Bytes of the same images as a PNG, a lossless WebP and, with its plugin, a JPEG XL file each.

    Args:
      images: uint8 [N, H, W, C], of 1 or 3 channels.
      largest: Their largest possible value, 1 or 255.
    """
    kinds = {"png": {"optimize": True}, "webp": {"lossless": True}}
    with contextlib.suppress(ImportError):
        import pillow_jxl  # noqa: F401 - registers the format.

        kinds["jxl"] = {"lossless": True, "effort": 9}
    sizes = dict.fromkeys(kinds, 0)
    for image in images * np.uint8(255 // largest):
        picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
        modes = {"webp": "RGB", "png": "1" if largest == 1 else picture.mode}
        for kind, options in kinds.items():
            file = io.BytesIO()
            picture.convert(modes.get(kind, picture.mode)).save(file, kind, **options)
            sizes[kind] += file.tell()
    return sizes
