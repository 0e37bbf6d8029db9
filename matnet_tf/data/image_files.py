# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""PNG and JPEG files of users, and which of their pixels are missing.

Images are read upright: EXIF's orientation is applied, to masks too. Transparency is dropped. An
error about a single file does not repeat its name, so a caller that reads many can put it first.
"""

from __future__ import annotations

import io
import os
import pathlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps

from matnet_tf.config import ImputeConfig, Rectangle

__all__ = [
    "SUFFIXES",
    "Missing",
    "find",
    "fitted",
    "mode",
    "pixels",
    "png",
    "read",
    "read_mask",
    "shape",
]

SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp")
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP")  # No other is opened, whatever a file's name says.
_GREY = ("1", "L", "LA")  # Modes of Pillow; all others become RGB.
_KNOWN = 128  # The darkest grey of a mask that still means known.


def find(paths: str | os.PathLike | Sequence[str | os.PathLike]) -> list[pathlib.Path]:
    """Returns the files in the order given; a folder stands for its picture files, sorted.

    Args:
      paths: Files and folders, or a single one.

    Raises:
      ValueError: If there are no paths, one does not exist, or a folder holds no images.
    """
    paths = [paths] if isinstance(paths, (str, os.PathLike)) else _with_commas(paths)
    if not paths:
        raise ValueError("expected a file or a folder of images, or several; got none")
    found = []
    for path in map(pathlib.Path, paths):
        if not path.exists():
            raise ValueError(f"there is no file or folder {path}")
        if not (path.is_file() or path.is_dir()):
            raise ValueError(f"{path} is neither a file nor a folder")
        files = _images_in(path) if path.is_dir() else [path]
        if not files:
            raise ValueError(f"{path} holds no images ({', '.join(SUFFIXES)})")
        found += files
    # A file that is named both by itself and by its folder counts once.
    return list({os.path.abspath(path): path for path in found}.values())


def _with_commas(paths: Sequence[str | os.PathLike]) -> list[str | os.PathLike]:
    """The paths, with those put together again that a comma within them has split."""
    whole, rest = [], list(paths)
    while rest:
        ends = range(len(rest), 1, -1) if not os.path.exists(rest[0]) else ()
        joined = (",".join(map(os.fspath, rest[:end])) for end in ends)
        path = next((path for path in joined if os.path.exists(path)), rest[0])
        whole.append(path)
        del rest[: 1 if path is rest[0] else path.count(",") + 1]
    return whole


def _images_in(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith(".")
    )


def read(path: pathlib.Path) -> Image.Image:
    """Reads a picture file as an upright 8-bit image, grey (mode L) or colour (RGB).

    Raises:
      ValueError: If the file is damaged, of another kind, or has more than 8 bits per channel.
    """
    upright = _opened(path, ImageOps.exif_transpose)
    converted = upright.convert("L" if upright.mode in _GREY else "RGB")
    if upright.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        converted.info.pop("icc_profile", None)  # It describes the colours before.
    return converted


def mode(path: pathlib.Path) -> str:
    """Returns Pillow's mode of a picture file as it is stored; raises as `read` does."""
    return _opened(path, lambda image: image.mode)


def shape(path: pathlib.Path) -> tuple[int, int, int]:
    """Returns height, width and channels (1 or 3) of what `read` returns, faster for JPEG.

    Raises:
      ValueError: As for `read`, but of damaged pixels only if it had to read them.
    """
    (height, width), mode = _opened(path, lambda image: (_upright_size(image), image.mode))
    return height, width, 1 if mode in _GREY else 3


def _upright_size(image: Image.Image) -> tuple[int, int]:
    swapped = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
    return (image.width, image.height) if swapped else (image.height, image.width)


def _opened(path: pathlib.Path, function: Callable[[Image.Image], Any]) -> Any:
    """Returns what the function returns for an opened picture file."""
    try:
        with warnings.catch_warnings(), _open(path) as image:
            deep = _deep_mode(image)
            result = None if deep else function(image)
    except Image.UnidentifiedImageError:
        raise ValueError(
            "it is not a PNG, JPEG, WebP or BMP image, or its header is damaged"
        ) from None
    except MemoryError:
        raise
    except Exception as error:  # For damaged files Pillow raises errors of almost every kind.
        raise ValueError(f"it cannot be read: {error}") from None
    if deep:
        raise ValueError(f"it has pixels of mode {deep}; expected 8-bit grey or colour")
    return result


def _open(path: pathlib.Path) -> Image.Image:
    # Pillow warns in lines for programmers, and of files that it takes, such as large ones.
    warnings.simplefilter("ignore")
    return Image.open(path, formats=_FORMATS)


def _deep_mode(image: Image.Image) -> str | None:
    """Returns the mode of a file with more than 8 bits per channel, None for any other."""
    if image.mode.startswith(("I", "F")):
        return image.mode
    # Pillow would cut 16-bit colour to 8 bits. The mode in the file is then such as "RGB;16B".
    return next((str(tile[3]) for tile in image.tile if ";16" in str(tile[3])), None)


def pixels(image: Image.Image, channels: int) -> np.ndarray:
    """Returns the pixels, uint8 [H, W, channels]: grey for one channel, RGB for three."""
    values = np.array(image.convert("L" if channels == 1 else "RGB"))
    return values.reshape(image.height, image.width, channels)


def read_mask(path: pathlib.Path) -> np.ndarray:
    """Reads a mask file, bool [H, W]: True (known) where the grey value is at least 128.

    Raises:
      ValueError: As for `read`.
    """
    return pixels(read(path), 1)[..., 0] >= _KNOWN


def _opaque(path: pathlib.Path) -> np.ndarray:
    """Reads where a picture is rather opaque than transparent, bool [H, W].

    Raises:
      ValueError: As for `read`, or if nothing in it is transparent.
    """
    upright = _opened(path, ImageOps.exif_transpose)
    mask = np.array(upright.convert("RGBA"))[..., 3] >= _KNOWN
    if mask.all():
        raise ValueError("nothing is missing: no pixel is transparent")
    return mask


def fitted(path: pathlib.Path, shape: tuple[int, int, int]) -> np.ndarray:
    """Reads the pixels of a picture file, resized to a shape (Lanczos), uint8 [H, W, C].

    Raises:
      ValueError: As for `read`.
    """
    height, width, channels = shape
    image = read(path)
    if image.size != (width, height):
        image = image.convert("L" if channels == 1 else "RGB")
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    return pixels(image, channels)


def png(picture: np.ndarray, like: Image.Image | None = None) -> bytes:
    """Encodes pixels, uint8 [H, W, 1 or 3], as PNG, which keeps them exactly.

    Args:
      picture: The pixels.
      like: An image that `read` returned, whose colour profile and resolution the file gets. The
        profile of another kind of colours is left out.
    """
    image = Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture)
    more = {}
    if like is not None:
        names = ("icc_profile", "dpi") if image.mode == like.mode else ("dpi",)
        more = {name: like.info[name] for name in names if like.info.get(name)}
    file = io.BytesIO()
    image.save(file, "png", **more)
    return file.getvalue()


class Missing:
    """Finds the missing pixels of images by masks, by a colour or by rectangles.

    Args:
      config: Settings, of which exactly one says what is missing.

    Raises:
      ValueError: If the masks do not exist, or the single mask for all images is unreadable.
    """

    def __init__(self, config: ImputeConfig):
        self._config = config
        self._rectangles = [Rectangle.parse(text) for text in config.rectangles]
        self.files = find(config.masks) if config.masks else []
        self._shared = None
        if config.masks and not pathlib.Path(config.masks).is_dir():
            self._shared = self._read(self.files[0])

    def mask(self, path: pathlib.Path, image: Image.Image) -> np.ndarray:
        """Returns the mask of an image, bool [H, W], True where a pixel is known.

        Args:
          path: File of the image, whose name selects the mask in a folder of masks.
          image: The image as `read` returns it.

        Raises:
          ValueError: If there is not exactly one mask for the image, the mask is unreadable or of
            another size, a rectangle leaves the image, or no pixel is missing.
        """
        if self._config.masks:
            mask = self._from_file(path, image)
        elif self._rectangles:
            mask = self._outside_rectangles(image)
        elif self._config.transparent:
            mask = _opaque(path)
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
        # Compare the file's own colours, even if the model is grey.
        colour, tolerance = self._config.missing_colour, self._config.tolerance
        mask = (np.abs(pixels(image, 3).astype(np.int16) - colour) > tolerance).any(axis=-1)
        if mask.all():
            raise ValueError(
                f"nothing is missing: no pixel is within {tolerance} of the colour "
                f"{','.join(map(str, colour))}"
            )
        return mask
