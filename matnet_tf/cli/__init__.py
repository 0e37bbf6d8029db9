# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The command `matnet`: its programs, what they say at their end, how they import TensorFlow."""

from matnet_tf.cli import compression  # noqa: F401 - registers its programs.
from matnet_tf.cli.programs import PROGRAMS, Program, main

__all__ = ["PROGRAMS", "Program", "main"]
