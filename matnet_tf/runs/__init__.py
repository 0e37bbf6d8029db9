# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Work directories with their models and checkpoints, and the devices a program runs on."""
