# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Matryoshka Networks: networks, the walk down them, bounds, and the Keras models."""
