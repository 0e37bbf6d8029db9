# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""TFDS data directories: what lies in them, and how local source files get there."""

from matnet_tf.datasets.images import MemoryImages, StreamedImages, deterministic
from matnet_tf.datasets.importer import SOURCES, Prepared, in_tfds, prepare
from matnet_tf.datasets.reading import check_disjoint, read, split_size
from matnet_tf.datasets.storage import data_dir, find

__all__ = [
    "SOURCES",
    "MemoryImages",
    "Prepared",
    "StreamedImages",
    "check_disjoint",
    "data_dir",
    "deterministic",
    "find",
    "in_tfds",
    "prepare",
    "read",
    "split_size",
]
