# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The architecture, checked against the sources: who imports whom, and how long things are."""

import ast
import functools
import graphlib
import pathlib
import statistics

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "matnet_tf"
# Folders and modules of the package, top first. They import from the rows below theirs only.
ROWS = [
    row.split()
    for row in (
        "__main__ __init__",
        "cli",
        "serving compression explore",
        "training evaluation imputation",
        "plots",
        "runs",
        "model",
        "likelihoods",
        "layers",
        "distributions data",
        "flags",
        "presets",
        "config files interrupts progress registration tracing version",
    )
]
# Third parties that only some folders import.
ROOMS = {
    "absl": {"flags"},
    "constriction": {"compression"},
    "gradio": {"explore"},
    "matplotlib": {"plots"},
    "scipy": {"compression", "data"},
    "sklearn": {"data", "evaluation"},
    "tensorflow_datasets": {"data"},
    "tensorflow_probability": {name for row in ROWS[2:10] for name in row} - {"data"},
}
QUICK = {
    "__main__",
    "__init__",
    "cli",
    "flags",
    "config",
    "files",
    "interrupts",
    "presets",
    "registration",
    "version",
}  # To load.
SLOW_PARTIES = {"tensorflow", "keras", "numpy", "matplotlib", "tensorflow_datasets"}
LAZY_PARTIES = {"sklearn", "scipy"}  # Imported by the functions that use them.
PRIVATE_OR_OLD = ("keras.src", "tensorflow.python", "tfp.layers", "tensorflow_probability.layers")
BANNED_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}
MOST_LINES_OF_A_FILE, MOST_LINES_OF_A_FUNCTION = 400, 45
LICENCE = "# Copyright 2026 The matnet-tf authors.\n# SPDX-License-Identifier: Apache-2.0\n"
SOURCES = sorted(PACKAGE.rglob("*.py"))
OTHERS = sorted(p for name in ("tests", "benchmarks") for p in (ROOT / name).rglob("*.py"))


@functools.cache
def parse(path):
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def module_name(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def folder(module):
    return (module.split(".") + ["__init__"])[1]  # The entry of `ROWS`.


def imports(nodes):
    """Returns dotted names of what the nodes import; `from a import b` gives `a.b`."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports must be absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_imports_go_down_only_and_not_in_circles():
    height = {name: -number for number, row in enumerate(ROWS) for name in row}
    modules, graph = {module_name(path) for path in SOURCES}, {}
    for path in SOURCES:
        module = module_name(path)
        names = {n for n in imports(ast.walk(parse(path))) if n.startswith("matnet_tf.")}
        graph[module] = {n if n in modules else n.rpartition(".")[0] for n in names} - {module}
        own = folder(module)
        above = [m for m in graph[module] if folder(m) != own and height[folder(m)] >= height[own]]
        assert not above, f"{module} must not import {above}"
    graphlib.TopologicalSorter(graph).prepare()  # Raises CycleError.


def test_third_parties_keep_to_their_rooms():
    for path in SOURCES:
        own = folder(module := module_name(path))
        parties = {name.partition(".")[0] for name in imports(ast.walk(parse(path)))}
        outside = {p for p in parties if own not in ROOMS.get(p, {own})}
        assert not outside, f"{module} must not import {outside}"
        at_start = {name.partition(".")[0] for name in imports(parse(path).body)}
        late = at_start & (LAZY_PARTIES | (SLOW_PARTIES if own in QUICK else set()))
        assert not late, f"{module} must not import {late} when it is loaded"


def test_files_and_functions_are_short():
    lengths, long = [], []
    for path in [*SOURCES, *OTHERS]:
        long.append((path.read_text(encoding="utf-8").count("\n"), MOST_LINES_OF_A_FILE, path, ""))
        for node in ast.walk(parse(path)) if path in SOURCES else ():
            if isinstance(node, ast.FunctionDef):
                lengths.append(node.end_lineno - node.lineno + 1)
                long.append((lengths[-1], MOST_LINES_OF_A_FUNCTION, path, node.name))
    long = [f"{path} {name}: {lines} lines" for lines, most, path, name in long if lines > most]
    assert not long, "\n".join(long)
    assert statistics.median(lengths) <= 10


def test_modules_say_what_they_are_and_use_public_parts_of_third_parties():
    for path in [*SOURCES, *OTHERS]:
        text = path.read_text(encoding="utf-8")
        assert LICENCE in text[:150] and ast.get_docstring(parse(path)), path
        assert path.stem.removeprefix("test_") not in BANNED_NAMES, path
        if path in SOURCES and path.stem not in ("__init__", "__main__"):
            assert "\n__all__ = " in text, f"{path} has no __all__"
        assert path == pathlib.Path(__file__) or not any(p in text for p in PRIVATE_OR_OLD), path


def test_two_classes_at_most_lie_between_users_and_keras():
    nodes = [node for path in SOURCES for node in ast.walk(parse(path))]
    classes = {node.name: node for node in nodes if isinstance(node, ast.ClassDef)}
    for name in ("MatNet", "ConditionalMatNet"):
        chain = [name]
        while (base := ast.unparse(classes[chain[-1]].bases[0])) != "keras.Model":
            chain.append(base)
        assert len(chain) <= 2, chain
