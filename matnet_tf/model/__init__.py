# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Matryoshka Networks: networks, the top-down pass, bounds, and the Keras models."""
