# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Readers of users' source files, one module per format; none imports TensorFlow."""
