# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""How programs import TensorFlow: quickly, and without its lines on the terminal."""

from __future__ import annotations

import contextlib
import gc
import glob
import os
import sys
import tempfile
from collections.abc import Iterator

from matnet_tf import interrupts
from matnet_tf.registration import check_backend

__all__ = ["importing", "unused_gpu"]


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Speeds up the import of TensorFlow by a third, and keeps its banners from the terminal.

    Garbage collection waits until the import is over; later collections skip the imported objects,
    so that programs also end sooner. TensorFlow's notes and warnings are off, unless the variable
    TF_CPP_MIN_LOG_LEVEL says otherwise; errors stay, except those of a missing GPU driver. If the
    machine has a GPU of NVIDIA's that TensorFlow does not use, one line says so and why.
    """
    check_backend()
    chosen = "TF_CPP_MIN_LOG_LEVEL" in os.environ
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    gc.disable()
    try:
        with (
            interrupts.at_once(),
            contextlib.nullcontext([]) if chosen else _silent_stderr() as said,
        ):
            yield
            tensorflow = sys.modules.get("tensorflow")
            # TensorFlow looks for a GPU when devices are first asked for.
            found = tensorflow is None or tensorflow.config.list_physical_devices("GPU")
        if not found and glob.glob("/dev/nvidia[0-9]*"):
            print(unused_gpu("".join(said)), file=sys.stderr)
    finally:
        gc.freeze()
        gc.enable()


def unused_gpu(said: str) -> str:
    """The line on a GPU that TensorFlow does not use.

    Args:
      said: What TensorFlow has written meanwhile; the reason is in it.
    """
    lines = [line.rpartition("] ")[2].strip() for line in said.splitlines()]
    reasons = [line for line in lines if "GPU" in line or "cuda" in line.lower()]
    reason = reasons[-1] if reasons else "it does not say why; TF_CPP_MIN_LOG_LEVEL=0 may"
    return f"TensorFlow does not use this machine's GPU: {reason}"


@contextlib.contextmanager
def _silent_stderr() -> Iterator[list[str]]:
    """Keeps what libraries in C++ write to the file descriptor of stderr, unless there is an error.

    They do so before their logging is set up, so no setting of theirs helps. Afterwards the list
    that it yields holds the text.
    """
    said: list[str] = []
    try:
        kept = os.dup(2)
    except OSError:  # There is no stderr.
        yield said
        return
    with tempfile.TemporaryFile() as aside, contextlib.closing(os.fdopen(kept, "wb", 0)) as stderr:
        sys.stderr.flush()
        interrupts.show_on(stderr.fileno())
        os.dup2(aside.fileno(), 2)
        try:
            yield said
        except BaseException:
            aside.seek(0)
            stderr.write(aside.read())
            raise
        finally:
            aside.seek(0)
            said.append(aside.read().decode("utf-8", "replace"))
            sys.stderr.flush()
            os.dup2(stderr.fileno(), 2)
            interrupts.show_on(2)
