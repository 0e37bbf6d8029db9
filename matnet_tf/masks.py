# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""What of an image is hidden from a conditional model: pure functions from noise to masks.

A mask is float32 `[B, H, W, 1]`, 1 where a pixel is known and 0 where it is to be predicted, the
same in all channels; at least one pixel of every image is to be predicted. Of a side of odd length
the upper or left part is the smaller one: rows below `H // 2` are upper, columns below `W // 2`
left.

Every kind of mask is a function of a few numbers drawn from U[0, 1) for each image. `random_masks`
draws them from one seed for a batch, `masks_by_index` for each image from the image's own index.
"""

from __future__ import annotations

import functools
import itertools
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from matnet_tf import image_files
from matnet_tf.config import DataConfig
from matnet_tf.preprocessing import uniform_by_index

__all__ = [
    "check",
    "file_pattern",
    "half_patterns",
    "masks_by_index",
    "occluders",
    "one_of",
    "pixels",
    "quadrant_patterns",
    "random_masks",
    "record",
]

# Quadrants by number, in the order in which Sohn et al. (2015) make them known.
_LOWER_LEFT, _UPPER_LEFT, _UPPER_RIGHT, _LOWER_RIGHT = range(4)
_HALVES = {
    "left": (_LOWER_LEFT, _UPPER_LEFT),
    "right": (_UPPER_RIGHT, _LOWER_RIGHT),
    "top": (_UPPER_LEFT, _UPPER_RIGHT),
    "bottom": (_LOWER_LEFT, _LOWER_RIGHT),
}


def random_masks(
    config: DataConfig, image_shape: Sequence[int], num: int | tf.Tensor, seed: tf.Tensor
) -> tf.Tensor:
    """Masks for a batch of images, one function of the seed.

    Args:
      config: which kind of mask, and its settings.
      image_shape: height, width and channels.
      num: B, how many.
      seed: int32 `[2]`.

    Returns:
      mask: float32 `[B, H, W, 1]`.

    Raises:
      ValueError: as `check`.
    """
    numbers, masks_of = _kind(config, image_shape)
    return masks_of(tf.random.stateless_uniform([num, numbers], seed))


def masks_by_index(
    config: DataConfig, image_shape: Sequence[int], indices: tf.Tensor, seed: tf.Tensor
) -> tf.Tensor:
    """`random_masks` with one draw for each image, fixed by the image's own index.

    A subset, another order or another batch size hides the same pixels of the same image, which is
    what a stated test set needs.

    Args:
      config: which kind of mask, and its settings.
      image_shape: height, width and channels.
      indices: integers `[B]`, which image of the split each one is.
      seed: int32 `[2]`.

    Returns:
      mask: float32 `[B, H, W, 1]`.

    Raises:
      ValueError: as `check`.
    """
    numbers, masks_of = _kind(config, image_shape)
    if not numbers:  # Seeds are folded image by image, which takes its time.
        return masks_of(tf.zeros([tf.size(indices), 0]))
    return masks_of(uniform_by_index([numbers], indices, seed))


def check(config: DataConfig, image_shape: Sequence[int]) -> None:
    """Refuses masks that are not for images of this shape.

    Raises:
      ValueError: if the settings have no mask, an image has no halves, an occluder is larger than
        it, or the file cannot be read, is of another size or leaves nothing to predict.
    """
    _kind(config, image_shape)


def record(config: DataConfig) -> dict[str, Any] | None:
    """The settings of the masks for the record of an evaluation; None where nothing is hidden.

    Those that are drawn have the seed of the draw for validation and test images.
    """
    settings = {
        "none": {},
        "quadrants": {"visible": config.visible, "order": config.quadrant_order},
        "occluders": {"occluders": config.occluders, "size": list(config.occluder_size)},
        "pixels": {"known_share": config.known_share},
        "half": {"half": config.half},
        "file": {"file": config.mask_file},
    }[config.mask]
    choice = settings.get("order") or settings.get("half")
    if config.mask in ("occluders", "pixels") or choice == "random":
        settings["seed"] = config.draw_seed
    return {"kind": config.mask, **settings} if settings else None


def _kind(
    config: DataConfig, image_shape: Sequence[int]
) -> tuple[int, Callable[[tf.Tensor], tf.Tensor]]:
    """How many numbers an image needs, and the function from these, `[B, n]`, to masks."""
    height, width = image_shape[:2]
    if config.mask == "occluders":
        masks_of = functools.partial(
            occluders, image_shape=image_shape, occluder_size=config.occluder_size
        )
        _check_occluders(config.occluder_size, height, width)
        return 2 * config.occluders, masks_of
    if config.mask == "pixels":
        masks_of = functools.partial(
            pixels, image_shape=image_shape, known_share=config.known_share
        )
        return height * width, masks_of
    patterns = _patterns(config, image_shape)
    return int(len(patterns) > 1), functools.partial(one_of, patterns=patterns)


def _patterns(config: DataConfig, image_shape: Sequence[int]) -> np.ndarray:
    """The masks that there are, float32 `[S, H, W]`, of a kind that has a few only."""
    if config.mask == "quadrants":
        return quadrant_patterns(image_shape, config.visible, config.quadrant_order)
    if config.mask == "half":
        return half_patterns(image_shape, config.half)
    if config.mask == "file":
        return file_pattern(image_shape, config.mask_file)
    raise ValueError("DataConfig.mask must say what is hidden; got 'none'")


# The kinds.


def one_of(noise: tf.Tensor, patterns: np.ndarray) -> tf.Tensor:
    """Masks that are each one of a few, all equally likely.

    Args:
      noise: in [0, 1), `[B, 1]`; `[B, 0]` will do for a single pattern.
      patterns: float32 `[S, H, W]`.

    Returns:
      mask: float32 `[B, H, W, 1]`.
    """
    count = len(patterns)
    choice = _below(count, noise[:, 0]) if count > 1 else tf.zeros([tf.shape(noise)[0]], tf.int32)
    return tf.gather(patterns[..., None], choice)


def quadrant_patterns(image_shape: Sequence[int], visible: int, order: str) -> np.ndarray:
    """Images of which some quadrants are known.

    Args:
      image_shape: height, width and channels.
      visible: how many quadrants are known, 1 to 3.
      order: fixed: the lower left, then the upper left, then the upper right, as Sohn et al. (2015)
        have it; random: any.

    Returns:
      patterns: float32 `[S, H, W]`, one if the order is fixed, else every choice of quadrants.

    Raises:
      ValueError: if the images have no four quadrants.
    """
    if order == "fixed":
        return _of_quadrants(image_shape, [range(visible)])
    return _of_quadrants(image_shape, itertools.combinations(range(4), visible))


def half_patterns(image_shape: Sequence[int], half: str) -> np.ndarray:
    """Images of which one half is known.

    Args:
      image_shape: height, width and channels.
      half: left, right, top or bottom; random: any of them.

    Returns:
      patterns: float32 `[S, H, W]`, one, or the four of them.

    Raises:
      ValueError: if the images have no halves.
    """
    return _of_quadrants(image_shape, [_HALVES[half]] if half in _HALVES else _HALVES.values())


def file_pattern(image_shape: Sequence[int], path: str) -> np.ndarray:
    """The mask in an image file.

    Args:
      image_shape: height, width and channels.
      path: a PNG or JPEG, white (128 and above) where a pixel is known.

    Returns:
      patterns: float32 `[1, H, W]`.

    Raises:
      ValueError: if the file cannot be read, is of another size or leaves nothing to predict.
    """
    try:
        known = image_files.read_mask(pathlib.Path(path).expanduser())
    except ValueError as error:
        raise ValueError(f"DataConfig.mask_file {path}: {error}") from None
    if known.shape != tuple(image_shape[:2]):
        (height, width), (rows, columns) = image_shape[:2], known.shape
        raise ValueError(
            f"DataConfig.mask_file {path} must have the images' {height}x{width} pixels; got "
            f"{rows}x{columns}"
        )
    if known.all():
        raise ValueError(f"DataConfig.mask_file {path} leaves nothing to predict: no pixel is dark")
    return known[None].astype(np.float32)


def occluders(
    noise: tf.Tensor, image_shape: Sequence[int], occluder_size: tuple[int, int]
) -> tf.Tensor:
    """Masks that hide rectangles, each at any position within the image with equal probability.

    Args:
      noise: in [0, 1), `[B, 2 N]`: for each of N rectangles a number for its row and one for its
        column.
      image_shape: height, width and channels.
      occluder_size: height and width of the rectangles, at most those of the image.

    Returns:
      mask: float32 `[B, H, W, 1]`.
    """
    covered = []
    for axis, (side, length) in enumerate(zip(image_shape[:2], occluder_size, strict=True)):
        start = _below(side - length + 1, noise[:, axis::2])[..., None]
        position = tf.range(side)
        covered.append((position >= start) & (position < start + length))
    rows, columns = covered  # bool [B, N, H] and [B, N, W]
    hidden = tf.reduce_any(rows[..., :, None] & columns[..., None, :], axis=1)
    return tf.cast(~hidden, tf.float32)[..., None]


def pixels(noise: tf.Tensor, image_shape: Sequence[int], known_share: float) -> tf.Tensor:
    """Masks in which every pixel is known with the same probability, independently of the others.

    Where that leaves no pixel to predict, the one of the highest noise is hidden all the same.

    Args:
      noise: in [0, 1), `[B, H W]`.
      image_shape: height, width and channels.
      known_share: the probability, in [0, 1).

    Returns:
      mask: float32 `[B, H, W, 1]`.
    """
    # The highest noise is never below itself. Where another pixel is hidden as well, it is at least
    # `known_share` and changes nothing.
    bound = tf.minimum(known_share, tf.reduce_max(noise, axis=1, keepdims=True))
    return tf.reshape(tf.cast(noise < bound, tf.float32), [-1, *image_shape[:2], 1])


# What they share.


def _of_quadrants(image_shape: Sequence[int], choices: Iterable[Sequence[int]]) -> np.ndarray:
    """A pattern for each choice of known quadrants, float32 `[S, H, W]`."""
    height, width = image_shape[:2]
    if height < 2 or width < 2:
        raise ValueError(
            f"images must have at least 2x2 pixels to have halves and quadrants; got "
            f"{height}x{width}"
        )
    rows, columns = np.arange(height)[:, None], np.arange(width)
    upper, left = rows < height // 2, columns < width // 2
    quadrants = {
        _LOWER_LEFT: ~upper & left,
        _UPPER_LEFT: upper & left,
        _UPPER_RIGHT: upper & ~left,
        _LOWER_RIGHT: ~upper & ~left,
    }
    patterns = [sum(quadrants[number] for number in choice) for choice in choices]
    return np.array(patterns, np.float32)


def _below(count: int, noise: tf.Tensor) -> tf.Tensor:
    """Whole numbers from 0 to `count - 1`, equally likely, as int32 of the noise's shape."""
    # A float32 below 1 times a whole number of at most 24 bits is rounded to one below that number.
    return tf.cast(noise * count, tf.int32)


def _check_occluders(size: tuple[int, int], height: int, width: int) -> None:
    if size[0] > height or size[1] > width:
        raise ValueError(
            f"DataConfig.occluder_size must fit into the images' {height}x{width} pixels; got "
            f"{size[0]}x{size[1]}"
        )
