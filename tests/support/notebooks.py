# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The notebooks in examples/: reads them as Markdown, and executes them.

After a change, this renews the outputs in the file:

    PYTHONPATH=tests/support .venv/bin/python -m notebooks examples/NAME.ipynb
"""

import json
import os
import pathlib
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
SHELL = "%%bash\n"  # Begins a cell of commands.


def read_markdown(path):
    """Returns a document's text; cells of a notebook with code become blocks of Python or sh."""
    text = path.read_text(encoding="utf-8")
    return "\n".join(map(_block, json.loads(text)["cells"])) if path.suffix == ".ipynb" else text


def _block(cell):
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return source + "\n"
    language = "sh" if source.startswith(SHELL) else "python"
    return f"```{language}\n{source.removeprefix(SHELL)}\n```"


def execute(path, folder):
    """Executes a notebook in a folder, with the programs of this checkout.

    Returns the notebook without what went to stderr: progress, and TensorFlow's notes.
    """
    import nbclient
    import nbformat

    places = {"PATH": os.path.dirname(sys.executable), "PYTHONPATH": str(ROOT)}
    own = {name: f"{place}:{os.environ.get(name, '')}" for name, place in places.items()}
    notebook = nbformat.read(path, 4)
    client = nbclient.NotebookClient(notebook, timeout=1800, coalesce_streams=True)
    client.execute(cwd=str(folder), env=os.environ | own)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # Times of day.
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
    return notebook


if __name__ == "__main__":
    import nbformat

    for name in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as folder:
            nbformat.write(execute(name, folder), name)
