# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The package's version, read by `setup.py` and written into every record."""

__all__ = []

__version__ = "0.1.0"
