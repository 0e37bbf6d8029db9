# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C (SIGINT) at any moment of a program: one line, and status 130.

While a program works, Python's KeyboardInterrupt ends it, so that what it has begun is cleaned
away. While it imports and while it ends, there is nothing to clean, and an interrupt may come out
of libraries as any other error, or as none: then the process ends at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

__all__ = ["STATUS", "at_once", "came", "end_at_once", "raised", "show_on"]

STATUS = 130  # 128 + SIGINT, the shells' convention.

_line, _stderr, _came = b"", 2, False


def end_at_once(program: str) -> None:
    """Makes an interrupt end this process at once, unless interrupts are ignored.

    Args:
      program: Its name, for the line that says so.
    """
    global _line
    _line = f"{program}: interrupted\n".encode("utf-8", "replace")
    # A shell ignores interrupts for what a script starts in the background.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def show_on(descriptor: int) -> None:
    """Sets the file descriptor of the stderr that a person sees, while another has its number."""
    global _stderr
    _stderr = descriptor


def came() -> bool:
    """Returns whether an interrupt has been raised, even if it has become another error since."""
    return _came


@contextlib.contextmanager
def raised() -> Iterator[None]:
    """Raises a KeyboardInterrupt for an interrupt inside a with statement, after `end_at_once`."""
    with _handled(_end, _raise):
        yield


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    """Ends the process at once for an interrupt inside a with statement, within `raised`."""
    with _handled(_raise, _end):
        yield


@contextlib.contextmanager
def _handled(outside, inside) -> Iterator[None]:
    """Exchanges the handler `outside` for another; leaves any other one as it is."""
    ours = signal.getsignal(signal.SIGINT) is outside
    try:
        if ours:
            signal.signal(signal.SIGINT, inside)
        yield
    finally:
        if ours:
            signal.signal(signal.SIGINT, outside)


def _end(number, frame) -> None:
    with contextlib.suppress(OSError):
        os.write(_stderr, _line)
    os._exit(STATUS)


def _raise(number, frame) -> None:
    global _came
    _came = True
    raise KeyboardInterrupt
