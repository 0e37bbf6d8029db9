# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Distributions of latents and 8-bit values, and stateless sampling from them."""
