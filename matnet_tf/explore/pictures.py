# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Pictures on their way between the page and the model.

The page's canvas holds a picture of the model's size and says which pixels are hidden. Its value is
a dictionary of two PNG files as data URLs: `image`, and `hidden`, white where a pixel is hidden.
"""

from __future__ import annotations

import base64
import binascii
import html
import io
import pathlib
from collections.abc import Sequence

import numpy as np

from matnet_tf.data import image_files
from matnet_tf.imputation.tiling import model_values, stored_values
from matnet_tf.model.elbo_model import ElboModel

__all__ = ["Canvas", "canvas_of", "figure", "of_canvas", "of_upload", "stored"]

MOST_PIXELS = 20_000_000  # Of an upload.
_START = "data:image/png;base64,"

Canvas = dict[str, str]


def stored(model: ElboModel, x: np.ndarray) -> np.ndarray:
    """The pixels of images of the model, uint8, as picture files hold them."""
    return stored_values(x, model.config.likelihood)


def canvas_of(picture: np.ndarray, known: np.ndarray | None = None) -> Canvas:
    """The canvas's value for a picture, uint8 `[H, W, C]`, and a mask, bool `[H, W]`."""
    known = np.ones(picture.shape[:2], bool) if known is None else known
    return {"image": _url(picture), "hidden": _url(~known[..., None] * np.uint8(255))}


def of_canvas(model: ElboModel, canvas: Canvas) -> tuple[np.ndarray, np.ndarray]:
    """Reads a canvas's value.

    Returns:
      The picture, uint8 `[H, W, C]`, and where its pixels are known, bool `[H, W]`.

    Raises:
      ValueError: If it is not of the model's size.
    """
    height, width, channels = model.config.image_shape
    try:
        image, hidden = (_opened(canvas[name]) for name in ("image", "hidden"))
    except (TypeError, KeyError, binascii.Error):
        raise ValueError("the page sent no picture; choose one again") from None
    if image.size != (width, height) or hidden.size != (width, height):
        raise ValueError(f"the picture must have {height}x{width} pixels; got {image.size[::-1]}")
    return image_files.pixels(image, channels), image_files.pixels(hidden, 1)[..., 0] < 128


def of_upload(model: ElboModel, path: str) -> np.ndarray:
    """Reads a file that a person uploads, fitted to the model as `matnet prepare` fits images.

    Returns:
      The picture as the model sees it, uint8 `[H, W, C]`.

    Raises:
      ValueError: If it is no picture, of another colour mode, or larger than 20 megapixels.
    """
    file = pathlib.Path(path)
    height, width, _ = image_files.shape(file)
    if height * width > MOST_PIXELS:
        raise ValueError(f"it has {height}x{width} pixels; at most 20 megapixels are read")
    picture = image_files.fitted(file, model.config.image_shape)
    return stored(model, model_values(model, picture))


def figure(
    pictures: np.ndarray, names: Sequence[str], caption: str, labels: Sequence[str] = ()
) -> str:
    """HTML of pictures side by side, with a line below that says what they are.

    Args:
      pictures: uint8 `[N, H, W, C]`.
      names: What each shows, for people who do not see it.
      caption: The line.
      labels: What stands under each, or none.
    """
    cells = [
        f'<div><img src="{_url(picture)}" alt="{html.escape(name)}">'
        f"{f'<span>{html.escape(label)}</span>' if label else ''}</div>"
        for picture, name, label in zip(
            pictures, names, labels or [""] * len(pictures), strict=True
        )
    ]
    kind = "few" if len(pictures) <= 2 else "many"
    return (
        f'<figure class="{kind}"><div class="pictures">{"".join(cells)}</div>'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def _url(picture: np.ndarray) -> str:
    return _START + base64.b64encode(image_files.png(picture)).decode("ascii")


def _opened(url: str):
    return image_files.read(io.BytesIO(base64.b64decode(url.removeprefix(_START), validate=True)))
