# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The progress bar of programs that process many images."""

from __future__ import annotations

import sys

from tqdm import tqdm

__all__ = ["image_progress"]


def image_progress(program: str, total: int | None = None, done: int = 0) -> tqdm:
    """Opens a bar on stderr; in a log it is a new line every ten seconds at most.

    Args:
      program: Name at the start of the bar, such as `evaluate`.
      total: Number of images in all; None if it is not known.
      done: Number of images that an earlier session processed.
    """
    how = {"mininterval": 0.1}
    if not sys.stderr.isatty():
        how = {"mininterval": 10.0, "bar_format": "{l_bar}{bar:20}{r_bar}\n"}
    return tqdm(desc=program, total=total, initial=done, unit="image", miniters=1, **how)
