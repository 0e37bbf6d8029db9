# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Image files as people have them: PNG and JPEG files, and which of their pixels are missing.

Pictures are read upright (EXIF's orientation is applied, to masks as well) and without their
transparency. What is wrong with a single file is a ValueError whose message does not repeat the
file's name, so that who reads many can say it in front.
"""

from __future__ import annotations

import io
import os
import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps

from matnet_tf.config import ImputeConfig, Rectangle

__all__ = ["Missing", "find", "pixels", "png", "read", "read_mask"]

_SUFFIXES = (".png", ".jpg", ".jpeg")
_KNOWN = 128  # The darkest grey of a mask that still means known.
# What Pillow raises for files that are damaged, are none of its own, or are far too large.
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)


def find(paths: str | os.PathLike | Sequence[str | os.PathLike]) -> list[pathlib.Path]:
    """Files in the order given; in place of a folder its PNG and JPEG files, sorted.

    Args:
      paths: files and folders, or one of them.

    Raises:
      ValueError: if none is given or not there, or a folder holds no images.
    """
    paths = [paths] if isinstance(paths, (str, os.PathLike)) else paths
    if not paths:
        raise ValueError("expected a file or a folder of images, or several; got none")
    found = []
    for path in map(pathlib.Path, paths):
        if not path.exists():
            raise ValueError(f"there is no file or folder {path}")
        files = _images_in(path) if path.is_dir() else [path]
        if not files:
            raise ValueError(f"{path} holds no images ({', '.join(_SUFFIXES)})")
        found += files
    # Whoever names a folder and a file of it means that file once.
    return list({os.path.abspath(path): path for path in found}.values())


def _images_in(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in _SUFFIXES and p.is_file())


def read(path: pathlib.Path) -> Image.Image:
    """A PNG or JPEG file, upright and decoded, of 8-bit grey (mode L) or colour (RGB).

    Raises:
      ValueError: if the file is damaged, is no such image, or has more than 8 bits per channel.
    """
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            image.load()
            upright = ImageOps.exif_transpose(image)
    except Image.UnidentifiedImageError:
        raise ValueError("it is no PNG or JPEG image, or its header is damaged") from None
    except _DAMAGED as error:
        raise ValueError(f"it cannot be read: {error}") from None
    if upright.mode.startswith(("I", "F")):
        raise ValueError(f"it has pixels of mode {upright.mode}; expected 8-bit grey or colour")
    return upright.convert("L" if upright.mode in ("1", "L", "LA") else "RGB")


def pixels(image: Image.Image, channels: int) -> np.ndarray:
    """The picture as uint8 `[H, W, channels]`: grey with one channel, colour with three."""
    values = np.array(image.convert("L" if channels == 1 else "RGB"))
    return values.reshape(image.height, image.width, channels)


def read_mask(path: pathlib.Path) -> np.ndarray:
    """Which pixels the file of a mask calls known, bool `[H, W]`: those of a grey of 128 and above.

    Raises:
      ValueError: as `read`.
    """
    return pixels(read(path), 1)[..., 0] >= _KNOWN


def png(picture: np.ndarray) -> bytes:
    """A PNG file of a picture uint8 `[H, W, C]`, whose pixels are these exactly."""
    file = io.BytesIO()
    Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture).save(file, "png")
    return file.getvalue()


class Missing:
    """Says which pixels of an image are known, in the way that the settings have.

    Args:
      config: exactly one of its `masks`, `missing_colour` and `rectangles` is given.

    Raises:
      ValueError: if the masks are not there, or the one for all images cannot be read.
    """

    def __init__(self, config: ImputeConfig):
        self._config = config
        self._rectangles = [Rectangle.parse(text) for text in config.rectangles]
        self.files = find(config.masks) if config.masks else []
        self._shared = None
        if config.masks and not pathlib.Path(config.masks).is_dir():
            self._shared = self._read(self.files[0])

    def mask(self, path: pathlib.Path, image: Image.Image) -> np.ndarray:
        """Where the image at a path is known, bool `[H, W]`.

        Raises:
          ValueError: if the image has no mask, or several, or one that cannot be read or is of
            another size; a rectangle reaches out of the image; or nothing is missing.
        """
        if self._config.masks:
            mask = self._from_file(path, image)
        elif self._rectangles:
            mask = self._outside_rectangles(image)
        else:
            mask = self._of_other_colour(image)
        if mask.all():
            raise ValueError("its mask leaves nothing to predict: no pixel is missing")
        return mask

    def _read(self, path: pathlib.Path) -> np.ndarray:
        try:
            return read_mask(path)
        except ValueError as error:
            raise ValueError(f"mask {path}: {error}") from None

    def _from_file(self, path: pathlib.Path, image: Image.Image) -> np.ndarray:
        mask = self._shared
        if mask is None:
            files = [file for file in self.files if file.stem == path.stem]
            if len(files) != 1:
                found = " and ".join(file.name for file in files) or "none"
                raise ValueError(
                    f"expected one mask named {path.stem} in {self._config.masks}; got {found}"
                )
            mask = self._read(files[0])
        if mask.shape != (image.height, image.width):
            raise ValueError(
                f"it has {image.height}x{image.width} pixels, but its mask has "
                f"{mask.shape[0]}x{mask.shape[1]}"
            )
        return mask

    def _outside_rectangles(self, image: Image.Image) -> np.ndarray:
        mask = np.ones((image.height, image.width), bool)
        for r in self._rectangles:
            bottom, right = r.top + r.height, r.left + r.width
            if bottom > image.height or right > image.width:
                raise ValueError(
                    f"rectangle {r} reaches out of its {image.height}x{image.width} pixels"
                )
            mask[r.top : bottom, r.left : right] = False
        return mask

    def _of_other_colour(self, image: Image.Image) -> np.ndarray:
        # The file's own colours, whatever the model's are.
        colour, tolerance = self._config.missing_colour, self._config.tolerance
        mask = (np.abs(pixels(image, 3).astype(np.int16) - colour) > tolerance).any(axis=-1)
        if mask.all():
            raise ValueError(
                f"nothing is missing: no pixel is within {tolerance} of the colour "
                f"{','.join(map(str, colour))}"
            )
        return mask
