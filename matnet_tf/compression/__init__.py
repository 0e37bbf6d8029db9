# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Lossless compression: bits-back coding over a hierarchy, the file, and its two programs."""

import importlib.util

if importlib.util.find_spec("constriction") is None:
    raise ImportError(
        "compression needs the package constriction: pip install 'matnet-tf[compression]'"
    )
