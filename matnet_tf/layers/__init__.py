# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Keras layers: linear maps, state updates, modules and resampling (paper, Sec. 2.2)."""
