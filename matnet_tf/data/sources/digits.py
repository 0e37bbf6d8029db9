# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""scikit-learn's digits, which come with the library and need no files."""

from __future__ import annotations

import functools

import numpy as np

__all__ = ["read_digits"]

# A fixed draw assigns 1,500 of the 1,797 digits to training.
_TRAIN, _SEED = 1500, 0


def read_digits(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the images of a split, uint8 [N, 8, 8, 1], and their labels, int64 [N].

    Args:
      split: train or test.
    """
    images, labels = _all_digits()
    rows = slice(_TRAIN) if split == "train" else slice(_TRAIN, None)
    return images[rows], labels[rows]


@functools.cache
def _all_digits() -> tuple[np.ndarray, np.ndarray]:
    # scikit-learn is slow to import, and nothing else here needs it.
    from sklearn.datasets import load_digits

    loaded = load_digits()
    images = np.rint(loaded.images * (255 / 16)).astype(np.uint8)[..., None]
    # NumPy guarantees that RandomState draws the same numbers in every later version.
    order = np.random.RandomState(_SEED).permutation(len(images))
    return images[order], loaded.target[order].astype(np.int64)
