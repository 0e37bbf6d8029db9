# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""How programs import TensorFlow: quickly, and without its lines on the terminal."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import tempfile
from collections.abc import Iterator

from matnet_tf import interrupts
from matnet_tf.registration import check_backend

__all__ = ["importing"]


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Speeds up the import of TensorFlow by a third, and keeps its banners from the terminal.

    Garbage collection waits until the import is over; later collections skip the imported objects,
    so that programs also end sooner. TensorFlow's notes and warnings are off, unless the variable
    TF_CPP_MIN_LOG_LEVEL says otherwise; errors stay, except those of a missing GPU driver.
    """
    check_backend()
    chosen = "TF_CPP_MIN_LOG_LEVEL" in os.environ
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    gc.disable()
    try:
        with interrupts.at_once(), contextlib.nullcontext() if chosen else _silent_stderr():
            yield
            if "tensorflow" in sys.modules:
                # TensorFlow looks for a GPU when devices are first asked for.
                sys.modules["tensorflow"].config.list_physical_devices()
    finally:
        gc.freeze()
        gc.enable()


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """Keeps what libraries in C++ write to the file descriptor of stderr, unless there is an error.

    They do so before their logging is set up, so no setting of theirs helps.
    """
    try:
        kept = os.dup(2)
    except OSError:  # There is no stderr.
        yield
        return
    with tempfile.TemporaryFile() as aside, contextlib.closing(os.fdopen(kept, "wb", 0)) as stderr:
        sys.stderr.flush()
        interrupts.show_on(stderr.fileno())
        os.dup2(aside.fileno(), 2)
        try:
            yield
        except BaseException:
            aside.seek(0)
            stderr.write(aside.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(stderr.fileno(), 2)
            interrupts.show_on(2)
