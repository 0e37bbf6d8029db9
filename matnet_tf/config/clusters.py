# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""What `bin/cluster` looks at."""

from __future__ import annotations

import dataclasses

from matnet_tf.config.fields import check_at_least, check_types, field

__all__ = ["ClusterConfig"]


@dataclasses.dataclass(frozen=True)
class ClusterConfig:
    """Which images `bin/cluster` assigns to components, and how."""

    split: str = field("test", "which images", ("test", "validation", "train"))
    images: int = field(0, "size of a random subset of the split, without replacement; 0 is all")
    num_samples: int = field(
        16, "draws of z_0 per image over which the probabilities of the components are averaged"
    )
    components: int = field(
        0,
        "clusters of the k-means baselines of a model without a mixture prior, which needs it; "
        "with one they have as many as it has components, and this stays 0",
    )
    groups: int = field(6, "components in classes.png at most, three images of each")
    seed: int = field(0, "of the subset, the draws, the k-means baselines and the pictures")
    weights: str = field(
        "auto",
        "raw: as trained; averaged: their moving average; auto: averaged where there is one",
        ("auto", "raw", "averaged"),
    )

    def __post_init__(self):
        check_types(self)
        check_at_least(self, 1, "num_samples", "groups")
        check_at_least(self, 0, "images", "components", "seed")
