# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Benchmarks run in small on a CPU, so that they run where nobody can try them first."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_table_of_a_gpu_has_all_its_rows_on_a_cpu():
    command = [sys.executable, "benchmarks/gpu.py", "--small", "--seconds", "0.1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    rows = [line.split(" | ")[0] for line in done.stdout.splitlines() if line.startswith("| ")]
    assert done.returncode == 0, done.stderr
    assert rows[2:] == [
        *["| product of 512"] * 3,
        "| training digits, batch 20",
        "| bounds of digits, chunks of 500",
        *["| step of 1 modules at 8x8"] * 2,
    ]
