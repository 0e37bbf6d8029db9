# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Measurements of a trained model: bounds of a split, scores of its images, clusters."""
