# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Figures of a run: grids of images, completions, areas and curves."""
