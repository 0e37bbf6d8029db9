# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Masks that hide part of an image from a conditional model: pure functions from noise to masks.

A mask is float32 [B, H, W, 1], 1 where a pixel is known and 0 where it is to be predicted, the same
for all channels; every mask hides at least one pixel. The first `H // 2` rows are the upper part
and the first `W // 2` columns the left part, so for odd sides these are the smaller parts.

Each mask is a function of a few numbers from U[0, 1). `random_masks` draws them from one seed for a
whole batch, `masks_by_index` from the seed and the index of each image.
"""

from __future__ import annotations

import functools
import itertools
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from matnet_tf.config import DataConfig
from matnet_tf.data import image_files
from matnet_tf.data.preprocessing import uniform_by_index

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

# Quadrants in the order in which Sohn et al. (2015) reveal them.
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
    """Draws masks for a batch of images.

    Args:
      config: Kind of mask and its settings.
      image_shape: Height, width and channels.
      num: Number of masks B.
      seed: int32 seed [2].

    Returns:
      Masks [B, H, W, 1], float32.

    Raises:
      ValueError: As for `check`.
    """
    num_draws, from_noise = _mask_function(config, image_shape)
    return from_noise(tf.random.stateless_uniform([num, num_draws], seed))


def masks_by_index(
    config: DataConfig, image_shape: Sequence[int], indices: tf.Tensor, seed: tf.Tensor
) -> tf.Tensor:
    """Draws each mask from the seed and the image's index alone.

    An image gets the same mask in any subset, order and batch size, as a reproducible test set
    requires.

    Args:
      config: Kind of mask and its settings.
      image_shape: Height, width and channels.
      indices: Integers [B], the index of each image within its split.
      seed: int32 seed [2].

    Returns:
      Masks [B, H, W, 1], float32.

    Raises:
      ValueError: As for `check`.
    """
    num_draws, from_noise = _mask_function(config, image_shape)
    if not num_draws:  # Folding a seed for every image would be slow and have no effect.
        return from_noise(tf.zeros([tf.size(indices), 0]))
    return from_noise(uniform_by_index([num_draws], indices, seed))


def check(config: DataConfig, image_shape: Sequence[int]) -> None:
    """Checks that the masks can be made for images of this shape.

    Raises:
      ValueError: If the settings define no mask, the image is too small for halves or for the
        occluder, or the mask file is unreadable, has another size or hides nothing.
    """
    _mask_function(config, image_shape)


def record(config: DataConfig) -> dict[str, Any] | None:
    """Returns the settings of the masks as an evaluation records them; None without masks.

    Random masks include the seed of the fixed draw for validation and test images.
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


def _mask_function(
    config: DataConfig, image_shape: Sequence[int]
) -> tuple[int, Callable[[tf.Tensor], tf.Tensor]]:
    """Returns the number of draws n per image and the function from noise [B, n] to masks."""
    height, width = image_shape[:2]
    if config.mask == "occluders":
        _check_occluders(config.occluder_size, height, width)
        from_noise = functools.partial(
            occluders, image_shape=image_shape, occluder_size=config.occluder_size
        )
        return 2 * config.occluders, from_noise
    if config.mask == "pixels":
        from_noise = functools.partial(
            pixels, image_shape=image_shape, known_share=config.known_share
        )
        return height * width, from_noise
    patterns = _patterns(config, image_shape)
    return int(len(patterns) > 1), functools.partial(one_of, patterns=patterns)


def _patterns(config: DataConfig, image_shape: Sequence[int]) -> np.ndarray:
    """Returns all masks of a kind that has only a few, float32 [S, H, W]."""
    if config.mask == "quadrants":
        return quadrant_patterns(image_shape, config.visible, config.quadrant_order)
    if config.mask == "half":
        return half_patterns(image_shape, config.half)
    if config.mask == "file":
        return file_pattern(image_shape, config.mask_file)
    raise ValueError("DataConfig.mask must say what is hidden; got 'none'")


def one_of(noise: tf.Tensor, patterns: np.ndarray) -> tf.Tensor:
    """Chooses each mask from a few patterns with equal probability.

    Args:
      noise: Draws in [0, 1), [B, 1], or [B, 0] for a single pattern.
      patterns: Masks [S, H, W], float32.

    Returns:
      Masks [B, H, W, 1], float32.
    """
    count = len(patterns)
    choice = _below(count, noise[:, 0]) if count > 1 else tf.zeros([tf.shape(noise)[0]], tf.int32)
    return tf.gather(patterns[..., None], choice)


def quadrant_patterns(image_shape: Sequence[int], visible: int, order: str) -> np.ndarray:
    """Returns masks in which some quadrants are known.

    Args:
      image_shape: Height, width and channels.
      visible: Number of known quadrants, 1 to 3.
      order: `fixed` reveals the lower left, then the upper left, then the upper right (Sohn et al.
        2015); `random` allows any choice.

    Returns:
      Masks [S, H, W], float32: one for the fixed order, else one for every choice of quadrants.

    Raises:
      ValueError: If the images are smaller than 2x2 pixels.
    """
    if order == "fixed":
        return _of_quadrants(image_shape, [range(visible)])
    return _of_quadrants(image_shape, itertools.combinations(range(4), visible))


def half_patterns(image_shape: Sequence[int], half: str) -> np.ndarray:
    """Returns masks in which one half is known.

    Args:
      image_shape: Height, width and channels.
      half: left, right, top or bottom, or `random` for any of them.

    Returns:
      Masks [S, H, W], float32: one, or all four.

    Raises:
      ValueError: If the images are smaller than 2x2 pixels.
    """
    return _of_quadrants(image_shape, [_HALVES[half]] if half in _HALVES else _HALVES.values())


def file_pattern(image_shape: Sequence[int], path: str) -> np.ndarray:
    """Reads a mask from an image file.

    Args:
      image_shape: Height, width and channels.
      path: Picture file, white (128 and above) where a pixel is known.

    Returns:
      Mask [1, H, W], float32.

    Raises:
      ValueError: If the file is unreadable, has another size or hides nothing.
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
    """Hides rectangles, each at a position drawn uniformly within the image.

    Args:
      noise: Draws in [0, 1), [B, 2 N]: row and column of each of N rectangles in turn.
      image_shape: Height, width and channels.
      occluder_size: Height and width of the rectangles, at most those of the image.

    Returns:
      Masks [B, H, W, 1], float32.
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
    """Reveals every pixel independently with the same probability.

    If that would leave no pixel to predict, the pixel with the highest noise is hidden.

    Args:
      noise: Draws in [0, 1), [B, H W].
      image_shape: Height, width and channels.
      known_share: Probability that a pixel is known, in [0, 1).

    Returns:
      Masks [B, H, W, 1], float32.
    """
    # The highest noise is never below itself, so that pixel is always hidden. If any other pixel is
    # hidden too, the highest noise is at least `known_share` and the minimum changes nothing.
    bound = tf.minimum(known_share, tf.reduce_max(noise, axis=1, keepdims=True))
    return tf.reshape(tf.cast(noise < bound, tf.float32), [-1, *image_shape[:2], 1])


def _of_quadrants(image_shape: Sequence[int], choices: Iterable[Sequence[int]]) -> np.ndarray:
    """Returns one mask for each choice of known quadrants, float32 [S, H, W]."""
    height, width = image_shape[:2]
    if height < 2 or width < 2:
        raise ValueError(
            f"images need at least 2x2 pixels to have halves and quadrants; got {height}x{width}"
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
    """Maps noise in [0, 1) to integers 0 to `count - 1` of equal probability, int32."""
    # In float32 the product of a number below 1 and an integer of at most 24 bits stays below the
    # integer.
    return tf.cast(noise * count, tf.int32)


def _check_occluders(size: tuple[int, int], height: int, width: int) -> None:
    if size[0] > height or size[1] > width:
        raise ValueError(
            f"DataConfig.occluder_size must fit into the images' {height}x{width} pixels; got "
            f"{size[0]}x{size[1]}"
        )
