# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Levels of latents that carry nothing, which a run reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

__all__ = ["dead_levels", "warning"]

_ALIVE = 0.01  # Nats.

Row = Mapping[str, float | None]


def dead_levels(rows: Sequence[Row]) -> list[str]:
    """Names of the levels whose KL stayed below 0.01 nats in the last two rows of the metrics.

    Rows count in which the KL had its full weight: before, any level may look alive or dead.
    """
    last = [row for row in rows[-2:] if row.get("kl_weight") == 1]
    if len(last) < 2:
        return []
    tags = [tag for tag in last[-1] if tag.startswith("kl/")]
    return [t.removeprefix("kl/") for t in tags if all((row[t] or 0) < _ALIVE for row in last)]


def warning(names: Sequence[str], num_levels: int) -> str:
    """The line that a run prints about dead levels."""
    return (
        f"{len(names)} of {num_levels} levels of latents stay below {_ALIVE} nats and carry "
        f"nothing: {', '.join(names)}. Free bits keep levels alive, such as --train.free_bits=0.3"
    )
