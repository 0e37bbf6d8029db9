# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The command `matnet`: its programs, what they say at their end, how they import TensorFlow."""

# isort: off
from matnet_tf.cli import programs, compression  # noqa: F401 - registered in this order.

# isort: on
from matnet_tf.cli.command import PROGRAMS, Program, main

__all__ = ["PROGRAMS", "Program", "main"]
