# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Fills in a large picture with a model of small images, window by window.

Windows of the model's size lie on a grid of at most half their side. They are filled one at a
time, always the window of which most is known by then, so holes close from their rims inward. Of
each window only inner pixels are kept: those at least a quarter of the side away from every edge
that is not the picture's own. So each missing pixel is predicted from all sides, and a window
knows what the earlier ones filled, which leaves no seams.

Where windows lie, and in which order, depends only on which pixels are missing. The plan is made
first and is the same for all completions of a picture, which go through the model side by side.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from matnet_tf.model.conditional import ConditionalMatNet
from matnet_tf.model.elbo_model import ElboModel

__all__ = ["Tile", "impute_picture", "model_values", "plan", "stored_values"]


def impute_picture(
    model: ConditionalMatNet,
    picture: np.ndarray,
    mask: np.ndarray,
    num_samples: int = 8,
    temperature: float = 1.0,
    seed: int = 0,
    draw: bool = False,
) -> np.ndarray:
    """Computes completions of a picture of the model's size or larger.

    For a picture of the model's size they are those of `model.impute` with the same seed; in a
    larger one every window has a seed of its own.

    Args:
      model: A conditional model.
      picture: uint8 `[H', W', C]`; the values of missing pixels are ignored. A Bernoulli model gets
        the known ones thresholded at one half.
      mask: bool `[H', W']`, True where a pixel is known.
      num_samples: K, the number of completions.
      temperature: Factor on the scales of all priors.
      seed: Integer seed for the completions, at least 0.
      draw: Whether to draw the missing pixels from p(x | z) instead of using its mean.

    Returns:
      Completions, uint8 `[K, H', W', C]`; known pixels are the picture's.

    Raises:
      ValueError: If the picture or the mask has another type or shape or is too small, nothing is
        missing, K < 1, or the model returns values that are not finite.
    """
    _check(model.config.image_shape, picture, mask, num_samples)
    canvases = np.repeat(picture[None], num_samples, axis=0)
    canvases[:, ~mask] = 0
    kind, settings = model.config.likelihood, {"temperature": temperature, "draw": draw}
    for number, tile in enumerate(plan(mask, model.config.image_shape[:2])):
        window = canvases[:, *tile.place]
        x = model_values(model, window)
        # The window is the same in all completions until one of its pixels is filled.
        alike = np.array_equal(tile.known, mask[tile.place])
        values = _complete(model, x, tile.known, alike, (seed, number), settings)
        window[:, tile.filled] = stored_values(values[:, tile.filled], kind)
    return canvases


def _check(
    image_shape: tuple[int, int, int], picture: np.ndarray, mask: np.ndarray, num_samples: int
) -> None:
    height, width, channels = image_shape
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != channels:
        raise ValueError(
            f"a picture must be uint8 [height, width, {channels}]; got {picture.dtype} "
            f"{list(picture.shape)}"
        )
    if picture.shape[0] < height or picture.shape[1] < width:
        raise ValueError(
            f"it has {_text(picture.shape[:2])} pixels; the model needs at least {height}x{width}"
        )
    if mask.dtype != bool or mask.shape != picture.shape[:2]:
        raise ValueError(
            f"the mask of a picture of {_text(picture.shape[:2])} pixels must be bool and of its "
            f"height and width; got {mask.dtype} {list(mask.shape)}"
        )
    if mask.all():
        raise ValueError("its mask leaves nothing to predict: no pixel is missing")
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1; got {num_samples}")


def _complete(
    model: ConditionalMatNet,
    x: np.ndarray,
    known: np.ndarray,
    alike: bool,
    key: tuple[int, int],
    settings: dict[str, Any],
) -> np.ndarray:
    """Completes the same window of all canvases, x `[K, H, W, C]`; returns `[K, H, W, C]`."""
    mask = known[None, ..., None].astype(np.float32)
    if alike:  # One encoding serves all completions.
        found = model.impute(x[:1], mask, num_samples=len(x), seed=_seed(*key), **settings)
        return np.asarray(found.samples)[:, 0]
    parts, most = [], model.samples_per_pass
    for first in range(0, len(x), most):
        rows = x[first : first + most]
        masks = np.repeat(mask, len(rows), axis=0)
        found = model.impute(rows, masks, num_samples=1, seed=_seed(*key, first), **settings)
        parts.append(np.asarray(found.samples)[0])
    return np.concatenate(parts)


def _seed(seed: int, number: int, first: int = 0) -> int:
    """Derives the seed of a window's pass; the first window uses the picture's own seed."""
    if number == 0:
        return seed
    # NumPy keeps this hash from version to version; a stateless seed holds 62 bits of it.
    words = np.random.SeedSequence((seed, number, first)).generate_state(1, np.uint64)
    return int(words[0] >> 2)


def model_values(model: ElboModel, stored: np.ndarray) -> np.ndarray:
    """Converts uint8 pixels to the model's values, float32 in [0, 1]."""
    x = model.hierarchy.likelihood.observation.from_bytes(stored).numpy()
    return (x > 0.5).astype(np.float32) if model.config.likelihood == "bernoulli" else x


def stored_values(x: np.ndarray, likelihood: str) -> np.ndarray:
    """Converts the model's values to uint8 pixels, or raises a ValueError if one is not finite."""
    if not np.isfinite(x).all():
        raise ValueError("completions must be finite: the model's weights have gone wrong")
    levels = np.floor(256.0 * x) if likelihood == "normal" else np.rint(255.0 * x)
    return np.clip(levels, 0, 255).astype(np.uint8)


class Tile(NamedTuple):
    """One window of a picture, and what is known in it when it is filled."""

    top: int  # first row in the picture
    left: int  # first column in the picture
    known: np.ndarray  # bool [H, W]: known in the picture, or filled by earlier tiles
    filled: np.ndarray  # bool [H, W]: pixels that this tile fills; none was known

    @property
    def place(self) -> tuple[slice, slice]:
        """Rows and columns in the picture."""
        height, width = self.known.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


def plan(mask: np.ndarray, size: tuple[int, int]) -> list[Tile]:
    """Plans the windows that fill every missing pixel exactly once, in order.

    Windows with nothing to fill are left out. Among windows of which equally much is known, the
    upper, then the left one goes first.

    Args:
      mask: bool `[H', W']`, True where a pixel of the picture is known.
      size: Height and width of the windows, no larger than the picture's.

    Raises:
      ValueError: If a side of the windows is below 1 or above the picture's.
    """
    if not all(1 <= side <= whole for side, whole in zip(size, mask.shape, strict=True)):
        raise ValueError(f"windows must be of 1x1 to {_text(mask.shape)} pixels; got {_text(size)}")
    known, tiles = mask.copy(), []
    windows = [
        _Window((rows, columns), (inner_rows, inner_columns))
        for rows, inner_rows in _along(mask.shape[0], size[0])
        for columns, inner_columns in _along(mask.shape[1], size[1])
    ]
    corners = np.array([window.corner for window in windows])
    counts = np.array([window.count(known) for window in windows])
    while counts.max() >= 0:
        window = windows[counts.argmax()]
        tiles.append(window.tile(known))
        known[window.place] |= tiles[-1].filled
        # Only these have learned of new pixels.
        overlapping = np.all(np.abs(corners - window.corner) < size, axis=1)
        for index in np.flatnonzero(overlapping):
            counts[index] = windows[index].count(known)
    return tiles


class _Window(NamedTuple):
    place: tuple[slice, slice]  # rows and columns in the picture
    inner: tuple[slice, slice]  # rows and columns in the window of pixels that it may fill

    @property
    def corner(self) -> tuple[int, int]:
        return self.place[0].start, self.place[1].start

    def count(self, known: np.ndarray) -> int:
        """Counts the window's known pixels; -1 if it has none to fill."""
        inside = known[self.place]
        return -1 if inside[self.inner].all() else np.count_nonzero(inside)

    def tile(self, known: np.ndarray) -> Tile:
        inside = known[self.place].copy()
        filled = np.zeros_like(inside)
        filled[self.inner] = ~inside[self.inner]
        return Tile(*self.corner, inside, filled)


def _along(whole: int, side: int) -> list[tuple[slice, slice]]:
    """Places windows along one axis; returns where each lies, and which pixels it may fill."""
    stride, margin = max(1, side // 2), side // 4
    found = []
    for start in [*range(0, whole - side, stride), whole - side]:
        first = margin if start > 0 else 0
        last = side - margin if start + side < whole else side
        found.append((slice(start, start + side), slice(first, last)))
    return found


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
