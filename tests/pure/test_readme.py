# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The programs, flags, presets, files and targets that documents and notebooks name exist."""

import pathlib
import re

import pytest
from notebooks import NOTEBOOKS, ROOT, read_markdown

from matnet_tf import cli, presets

DOCUMENTS = [
    *(ROOT / "README.md", ROOT / "BUILD_NOTES.md"),
    *(*sorted((ROOT / "docs").glob("*.md")), *NOTEBOOKS),
]
FLAG = r"(?<![\w-])--([A-Za-z][\w.]*)"
PROGRAM_FLAGS = {
    name: {flag.name for flag in program.flags} | {"flagfile", "help", "help_all"}
    for name, program in cli.PROGRAMS.items()
}
PROGRAM_FLAGS["train"] |= {"preset"}
every_document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)


def text_and_shell(path: pathlib.Path) -> tuple[str, str]:
    """Returns the text outside of code blocks, and the lines of shell blocks."""
    text = read_markdown(path)
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    shell = "".join(code for language, code in blocks if language == "sh")
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return prose, shell.replace("\\\n", " ")


@every_document
def test_commands_use_flags_of_their_programs(path):
    prose, shell = text_and_shell(path)
    spans = re.findall(r"`([^`\n]+)`", prose)
    for line in [*shell.splitlines(), *spans]:
        if found := re.match(r"(?:\.venv/bin/)?(?:matnet |bin/)(\w+)", line):
            assert found[1] in cli.PROGRAMS, line
            assert set(re.findall(FLAG, line)) <= PROGRAM_FLAGS[found[1]], line
    known = set().union(*PROGRAM_FLAGS.values())
    dotted = {flag for span in spans for flag in re.findall(FLAG, span) if "." in flag}
    assert {flag for flag in dotted if not flag.endswith(".")} <= known
    named = set(re.findall(r"--preset=(\w+)", prose + shell)) - {"NAME"}
    assert named <= {*presets.names(), *presets.ALIASES}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^(\w+):", makefile, re.MULTILINE))
    assert set(re.findall(r"^make (\w+)", "\n".join([shell, *spans]), re.MULTILINE)) <= targets


def headings(path: pathlib.Path) -> set[str]:
    """Returns the anchors of a document's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@every_document
def test_links_and_paths_lead_to_files(path):
    text = read_markdown(path)
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
        name, _, anchor = link.partition("#")
        target = (path.parent / name) if name else path
        assert target.is_file(), link
        assert not anchor or anchor in headings(target), link
    folders = "bin|benchmarks|docs|examples|tests|matnet_tf"
    for name in re.findall(rf"(?<![\w./])(?:{folders})/[\w./-]*\w", text):
        assert (ROOT / name).exists(), name
