# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The Keras script of the examples, and what it saved in a fresh process."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
LOADED = """
import sys
import matnet_tf, keras
best, last = (keras.models.load_model(f"{sys.argv[1]}/{n}.keras") for n in ("best", "digits"))
images = last.sample(3)
assert images.shape == (3, 8, 8, 1)
assert last.elbo(images.numpy().round()).elbo.shape == (3,)
assert best.optimizer is not None
"""


@pytest.mark.slow
def test_the_keras_script_trains_saves_and_loads(tmp_path):
    script = ROOT / "examples" / "keras_script.py"
    done = subprocess.run(
        [sys.executable, script, tmp_path, "3"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "log p(x) of 297 test images >= -" in done.stdout
    assert "UserWarning" not in done.stderr
    header, *rows = (tmp_path / "log.csv").read_text().splitlines()
    assert {"loss", "val_loss", "elbo", "val_elbo"} <= set(header.split(",")) and len(rows) == 3
    assert list((tmp_path / "tensorboard").glob("*/events*"))
    subprocess.run([sys.executable, "-c", LOADED, tmp_path], check=True, timeout=300)
