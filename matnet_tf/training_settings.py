# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""What `compile` of a model takes beside an optimizer, checked."""

from __future__ import annotations

__all__ = ["REGULARIZERS", "check_settings"]

REGULARIZERS = ("none", "free_energy", "sleep")


def check_settings(
    clip_norm: float,
    skip_norm: float,
    max_skipped: int,
    entropy_penalty: float,
    regularizer: str,
    regularizer_start: int,
    regularizer_every: int,
    micro_batches: int,
    **flags: bool,
) -> None:
    """Raises a ValueError that names the setting unless all are in range; see `compile`."""
    if not skip_norm > 0 or not clip_norm >= 0 or not max_skipped >= 1:
        raise ValueError(
            f"compile needs skip_norm > 0, clip_norm >= 0 and max_skipped >= 1; got "
            f"{skip_norm}, {clip_norm} and {max_skipped}"
        )
    if not micro_batches >= 1:
        raise ValueError(f"compile needs micro_batches >= 1; got {micro_batches}")
    if not entropy_penalty >= 0:
        raise ValueError(f"compile needs entropy_penalty >= 0; got {entropy_penalty}")
    if regularizer not in REGULARIZERS or not regularizer_start >= 0 or not regularizer_every >= 1:
        raise ValueError(
            f"compile needs a regularizer of {', '.join(REGULARIZERS)}, regularizer_start >= 0 and "
            f"regularizer_every >= 1; got {regularizer!r}, {regularizer_start} and "
            f"{regularizer_every}"
        )
