# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The local page on which a person plays with a trained model, and what it computes."""
