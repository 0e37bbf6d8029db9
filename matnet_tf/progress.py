# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""What a program that goes through many images says of it on stderr: images done, time left."""

from __future__ import annotations

import sys
import time

__all__ = ["ImageProgress"]

_SECONDS = 10.0  # Between two lines, where they cannot overwrite each other.


class ImageProgress:
    """Images done and time left, on stderr: one line that changes, or one every few seconds.

    Args:
      program: whose name opens each line.
      done: images that an earlier session has done.
      total: images in all.
    """

    def __init__(self, program: str, done: int, total: int):
        self._program, self._first, self._total = program, done, total
        self._started = self._shown = time.monotonic()
        if done:
            print(f"{program}: {done} of {total} images were done already", file=sys.stderr)

    def show(self, done: int) -> None:
        """Says that so many images are done, if it is time to."""
        now, last = time.monotonic(), done == self._total
        live = sys.stderr.isatty()
        if not live and not last and now - self._shown < _SECONDS:
            return
        self._shown = now
        left = (now - self._started) / (done - self._first) * (self._total - done)
        line = f"{self._program}: {done}/{self._total} images, {_duration(left)} left"
        end = "\n" if last or not live else ""
        print(f"\r{line:<60}" if live else line, end=end, file=sys.stderr, flush=True)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{seconds:02d}s"
