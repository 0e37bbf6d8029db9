# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The Python code of the documents runs as written, and the page on serving is complete."""

import pathlib
import re

import numpy as np
import pytest
import tensorflow as tf

from matnet_tf import ConditionalMatNet, MatNet, ModelConfig, Scale
from matnet_tf.runs import devices
from matnet_tf.serving.signatures import signatures_of

ROOT = pathlib.Path(__file__).resolve().parents[2]
CODE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = {
    path.name: CODE.findall(path.read_text(encoding="utf-8"))
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, blocks in BLOCKS.items() if blocks])
def test_the_code_runs_as_written(name, tmp_path, monkeypatch, two_devices):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(devices, "strategy_for", lambda count: two_devices)
    names = {}
    for block in BLOCKS[name]:
        exec(compile(block, name, "exec"), names)
    for variable, value in names.items():
        for tensor in tf.nest.flatten(value) if isinstance(value, (list, tuple)) else [value]:
            if tf.is_tensor(tensor) and tensor.dtype.is_floating:
                assert np.isfinite(tensor).all(), variable
    if {"bound", "log_p"} <= names.keys():
        assert np.mean(names["log_p"]) > np.mean(names["bound"].elbo)
    if {"samples", "mask", "x"} <= names.keys():
        known = np.broadcast_to(names["mask"] > 0, names["samples"].shape)
        image = np.broadcast_to(names["x"], known.shape)
        np.testing.assert_array_equal(names["samples"].numpy()[known], image[known])
    assert {path.name for path in tmp_path.iterdir()} <= {"digits.keras"}


def test_the_page_on_serving_has_requests_for_every_signature():
    page = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    rest = {
        found[1] or "serving_default": set(re.findall(r'"(\w+)": ', found[2]))
        for found in re.finditer(r'`\{(?:"signature_name": "(\w+)", )?"inputs": \{(.*?)\}\}`', page)
    }
    grpc = {
        found[1]: set(re.findall(r"(\w+)=", found[2]))
        for found in re.finditer(r'^client\.predict\("(\w+)", (.*)\)$', page, re.MULTILINE)
    }
    options = {"top_latents": 2, "top_units": 4}
    config = ModelConfig((8, 8, 1), (Scale(1, 4, 2, 1),), **options)
    models = [
        ConditionalMatNet(ModelConfig((8, 8, 1), config.scales, conditional_stages=1, **options)),
        MatNet(ModelConfig((8, 8, 1), config.scales, mixture_components=2, **options)),
    ]
    for requests in (rest, grpc):
        asked = {}
        for model in models:  # The page shows inputs that both have as the second takes them.
            for name, signature in signatures_of(model).items():
                if not name.endswith(("_uint8", "_serialized")):
                    asked[name] = set(signature.specs)
        for name, inputs in asked.items():
            assert requests[name] == inputs, name
