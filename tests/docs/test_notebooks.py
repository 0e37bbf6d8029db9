# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The notebooks use public names, read as pages without a kernel, and run again."""

import ast
import importlib.util
import inspect
import json
import re
import time

import numpy as np
import pytest
from notebooks import NOTEBOOKS, execute, read_markdown

import matnet_tf as matnet

LACKING = [name for name in ("ipykernel", "nbclient") if not importlib.util.find_spec(name)]
MOST_BYTES = 1_500_000  # Of all notebooks.
MOST_SECONDS = 120  # Of one.
TRAINING = {"imputation", "own_images"}  # The numbers of the others are the same in every run.
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def outputs(notebook):
    """Returns the text of all outputs, and how many pictures there are."""
    found = [o for cell in notebook["cells"] for o in cell.get("outputs", [])]
    text = "".join("".join(o.get("text", "")) for o in found)
    return text, sum("image/png" in o.get("data", {}) for o in found)


@every_notebook
def test_notebooks_call_public_names_with_their_arguments(path):
    python = re.findall(r"^```python\n(.*?)^```$", read_markdown(path), re.MULTILINE | re.DOTALL)
    for node in ast.walk(ast.parse("\n".join(python))):
        if isinstance(node, ast.ImportFrom):
            assert not node.module.startswith("matnet_tf"), node.module
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "matnet":
            assert node.attr in matnet.__all__, node.attr
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("model."):
            method = getattr(matnet.MatNet, node.func.attr)
            keywords = {keyword.arg: keyword for keyword in node.keywords}
            inspect.signature(method).bind("self", *node.args, **keywords)


def test_notebooks_have_their_outputs_and_are_small():
    for path in NOTEBOOKS:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1)), path
        text, pictures = outputs(notebook)
        assert pictures and "error:" not in text and "\r" not in text, path
    assert sum(path.stat().st_size for path in NOTEBOOKS) < MOST_BYTES


@pytest.mark.notebooks
@pytest.mark.skipif(bool(LACKING), reason=f"not installed: {', '.join(LACKING)}")
@every_notebook
def test_notebooks_run_again(path, tmp_path):
    kept, started = outputs(json.loads(path.read_text(encoding="utf-8"))), time.monotonic()
    again = outputs(execute(path, tmp_path))
    assert time.monotonic() - started < MOST_SECONDS
    assert again[1] == kept[1] and not list(tmp_path.iterdir())
    if path.stem not in TRAINING:
        was, now = (np.array(re.findall(r"-?\d+\.\d+", text), float) for text, _ in (kept, again))
        np.testing.assert_allclose(now, was, rtol=0.01)
