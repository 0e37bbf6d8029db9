# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The plan of the house, checked against the sources: who may import whom, and how long."""

import ast
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "matnet_tf"

# What a module of the package may import from the package: only what stands below it.
FOUNDATION = ["config", "serialization"]
TENSORS = [*FOUNDATION, "graphs", "noise", "configured", "distributions", "updates"]
LAYERS = [*TENSORS, "joints", "layers"]
PIXELS = [*TENSORS, "whitening"]
NETWORK = [
    *LAYERS,
    "priors",
    "whitening",
    "pixels",
    "likelihoods",
    "autoregression",
    "network",
    "descent",
]
TRAINABLE = [
    *NETWORK,
    "bounds",
    "inputs",
    "loss_scaling",
    "monitoring",
    "optimization",
    "training_settings",
    "training_step",
]
HIERARCHY = [*TRAINABLE, "hierarchy"]
MODEL = [*HIERARCHY, "levels", "model"]
CONDITIONAL = [*HIERARCHY, "conditional_stages", "conditional"]
MODELS = [*MODEL, *CONDITIONAL]
EXPERIMENT = [
    *(
        *MODELS,
        "version",
        "preprocessing",
        "files",
        "datasets",
        "data",
        "formats",
        "checkpoints",
        "experiment",
    )
]
MAY_IMPORT = {
    "__init__": None,  # lazy public names: anything
    "version": [],
    "config": [],
    "serialization": ["config"],
    "flags": ["config", "files"],
    "preprocessing": [],
    "files": [],
    "datasets": ["config", "files", "graphs"],
    "image_files": ["config"],
    "masks": ["config", "image_files", "preprocessing"],
    "data": ["config", "datasets", "masks", "preprocessing"],
    "graphs": [],
    "noise": ["graphs"],
    "distributions": ["noise"],
    "bounds": [],
    "updates": ["config"],
    "joints": ["config", "updates"],
    "layers": ["config", "distributions", "updates"],
    "configured": FOUNDATION,
    "whitening": ["updates"],
    "pixels": PIXELS,
    "likelihoods": [*PIXELS, "pixels"],
    "autoregression": [*PIXELS, "pixels", "likelihoods"],
    "training_settings": [],
    "priors": ["distributions"],
    "network": [*LAYERS, "priors"],
    "descent": [*LAYERS, "likelihoods", "network"],
    "optimization": [],
    "schedules": ["config"],
    "monitoring": [],
    "inputs": [],
    "loss_scaling": [],
    "training_step": [
        *("bounds", "config", "graphs", "inputs", "loss_scaling", "monitoring"),
        *("optimization", "training_settings"),
    ],
    "hierarchy": TRAINABLE,
    "levels": HIERARCHY,
    "model": [m for m in MODEL if m != "model"],
    "conditional_stages": NETWORK,
    "conditional": [m for m in CONDITIONAL if m != "conditional"],
    "formats": [],
    "checkpoints": [*MODELS, "files", "formats"],
    "experiment": [m for m in EXPERIMENT if m != "experiment"],
    "evaluation_files": ["files"],
    "progress": [],
    "measurement": EXPERIMENT,
    "evaluation": [*EXPERIMENT, "devices", "evaluation_files", "measurement", "progress"],
    "scores": [*EXPERIMENT, "evaluation_files", "measurement", "progress"],
    "blocks": HIERARCHY,
    "served_inputs": HIERARCHY,
    "signatures": [*MODELS, "blocks", "served_inputs"],
    "warm_up": [*MODELS, "signatures"],
    "model_card": [*EXPERIMENT, "evaluation_files", "signatures"],
    "export": [*EXPERIMENT, "model_card", "signatures", "warm_up"],
    "pictures": [],
    "completions": [*CONDITIONAL, "pictures"],
    "summaries": [*MODELS, "completions", "pictures", "schedules"],
    "callbacks": [*EXPERIMENT, "schedules", "summaries"],
    "devices": ["graphs"],
    "training": [*EXPERIMENT, "callbacks", "devices", "schedules", "summaries"],
    "figures": [*EXPERIMENT, "completions", "evaluation", "pictures"],
    "class_figures": [*MODEL, "pictures"],
    "clusters": [*EXPERIMENT, "class_figures", "evaluation_files", "measurement", "progress"],
    "contact_sheet": ["pictures"],
    "tiling": CONDITIONAL,
    "imputation": [
        *(*EXPERIMENT, "contact_sheet", "evaluation_files", "image_files", "progress", "tiling")
    ],
}

# The only modules of the package that may import a third party. What is not listed is free.
DATA_ROOMS = ["data", "datasets"]
PROBABILITY_ROOMS = [
    *("noise", "distributions", "whitening", "pixels", "likelihoods", "autoregression", "network"),
    *("descent", "hierarchy"),
]
ROOMS = {
    "absl": ["flags"],
    "matplotlib": ["pictures"],
    "scipy": DATA_ROOMS,
    "sklearn": [*DATA_ROOMS, "clusters", "scores"],
    "tensorflow_datasets": DATA_ROOMS,
    "tensorflow_probability": PROBABILITY_ROOMS,
}
WITHOUT_TENSORFLOW = ["__init__", "version", "config", "serialization", "files", "flags"]
PRIVATE_OR_OLD = ["keras.src", "tensorflow.python", "tfp.layers", "tensorflow_probability.layers"]
BANNED_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}
MOST_LINES_OF_A_FILE = 450
MOST_LINES_OF_A_FUNCTION = 45


def python_files() -> list[pathlib.Path]:
    programs = [p for p in (ROOT / "bin").iterdir() if p.is_file()]
    folders = [p for folder in (PACKAGE, ROOT / "tests") for p in folder.rglob("*.py")]
    return sorted([ROOT / "setup.py", *programs, *folders])


def module_of(path: pathlib.Path) -> str:
    """The row of the tables that a file of the package belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def parse(path: pathlib.Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(tree: ast.AST, package: str = "matnet_tf") -> set[str]:
    """Dotted names of everything imported, wherever it stands; `from a import b` gives `a.b`."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                kept = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*kept, *([base] if base else [])])
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return found


def inner(names: set[str]) -> set[str]:
    """Modules of the package among imported names; the package itself counts as `__init__`."""
    found = set()
    for name in names:
        root, _, rest = name.partition(".")
        module = rest.partition(".")[0]
        if root == "matnet_tf":
            is_module = (PACKAGE / f"{module}.py").exists() or (PACKAGE / module).is_dir()
            found.add(module if module and is_module else "__init__")
    return found


def imports_of(path: pathlib.Path) -> set[str]:
    parts = path.relative_to(ROOT).parts[:-1]
    return imports(parse(path), ".".join(parts))


SOURCES = sorted(PACKAGE.rglob("*.py"))
FILES = python_files()


def by_path(path: pathlib.Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=by_path)
def test_imports_go_down_only(path):
    module = module_of(path)
    assert module in MAY_IMPORT, f"give {module} a row in MAY_IMPORT"
    allowed = MAY_IMPORT[module]
    if allowed is not None:
        above = inner(imports_of(path)) - set(allowed) - {module}
        assert not above, f"{module} must not import {sorted(above)}"


def test_the_tables_name_no_module_that_is_gone():
    modules = {module_of(path) for path in SOURCES}
    assert set(MAY_IMPORT) == modules
    assert {room for rooms in ROOMS.values() for room in rooms} <= modules
    assert set(WITHOUT_TENSORFLOW) <= modules


def test_the_import_table_has_no_circle():
    done, waiting = {"__init__"}, {m: set(a or ()) for m, a in MAY_IMPORT.items()}
    while ready := {m for m, below in waiting.items() if m not in done and below <= done}:
        done |= ready
    assert done == set(MAY_IMPORT), f"circular: {sorted(set(MAY_IMPORT) - done)}"


@pytest.mark.parametrize("path", SOURCES, ids=by_path)
def test_third_parties_keep_to_their_rooms(path):
    module = module_of(path)
    for name in imports_of(path):
        party = name.partition(".")[0]
        assert module in ROOMS.get(party, [module]), f"{module} must not import {party}"
        if module in WITHOUT_TENSORFLOW:
            assert party not in ("tensorflow", "keras", "tf_keras"), f"{module} imports {party}"


@pytest.mark.parametrize("path", FILES, ids=by_path)
def test_only_public_parts_of_third_parties_are_used(path):
    tree = parse(path)
    dotted = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for name in dotted | imports(tree):
        for banned in PRIVATE_OR_OLD:
            assert not f"{name}.".startswith(f"{banned}."), f"{name} is not public, or is old"


@pytest.mark.parametrize("path", sorted((ROOT / "bin").iterdir()), ids=by_path)
def test_programs_import_nothing_slow_before_their_flags_are_read(path):
    tree = parse(path)
    at_start = ast.Module([n for n in tree.body if not isinstance(n, ast.FunctionDef)], [])
    names = imports(at_start)
    assert inner(names) <= {"config", "flags", "version"}
    others = {name.partition(".")[0] for name in names} - {"matnet_tf", "absl"}
    assert others <= sys.stdlib_module_names


@pytest.mark.parametrize("path", FILES, ids=by_path)
def test_files_and_functions_are_short(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MOST_LINES_OF_A_FILE, f"{lines} lines"
    for node in ast.walk(parse(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = node.end_lineno - node.lineno + 1
            assert lines <= MOST_LINES_OF_A_FUNCTION, f"{node.name} has {lines} lines"


@pytest.mark.parametrize("path", FILES, ids=by_path)
def test_files_open_with_the_licence_and_say_what_they_are(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    if lines and lines[0].startswith("#!"):
        lines = lines[1:]
    assert lines[:2] == [
        "# Copyright 2026 The matnet-tf authors.",
        "# SPDX-License-Identifier: Apache-2.0",
    ]
    assert ast.get_docstring(parse(path)), "a module docstring is missing"


@pytest.mark.parametrize("path", FILES, ids=by_path)
def test_names_of_files_say_something(path):
    parts = {part.removesuffix(".py").removeprefix("test_") for part in path.parts[-2:]}
    assert not parts & BANNED_NAMES


def test_the_reader_of_imports_sees_every_form():
    code = """
import matnet_tf.data, keras
from matnet_tf import config as c, MatNet
def f():
    from matnet_tf.layers import TopModule
    from . import flags
    from .version import __version__
"""
    assert imports(ast.parse(code)) == {
        "keras",
        "matnet_tf.MatNet",
        "matnet_tf.config",
        "matnet_tf.data",
        "matnet_tf.flags",
        "matnet_tf.layers.TopModule",
        "matnet_tf.version.__version__",
    }
    assert inner({"keras", "matnet_tf.MatNet", "matnet_tf.config.Stage"}) == {"__init__", "config"}
    assert inner({"matnet_tf.config.model.Stage"}) == {"config"}
    assert module_of(PACKAGE / "config" / "model.py") == "config"
