# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Fuzzes all programs: their flags, and the files that they read.

    python benchmarks/fuzz.py --cases 2000

Hypothesis makes command lines of the programs with flags left out, given twice or with values of
every kind, and damages the files they read: flagfiles, configs, checkpoints, tables, records,
images, prepared data and source files. Bits flip and ends are lost; in place of files come pipes,
links that lead outside, JSON nested 100,000 deep, and files that unpack to a thousand times their
size. Each case runs in a process of its own on a copy of small work directories. It must end in
time with status 0, or with status 2 and one line on stderr that names the program (`matnet impute`
may also end with 1 and `matnet train` with 75), show no traceback, leave no temporary file, write
through no link, and after status 2 leave every file as it was.
Prints one JSON line with the number of cases by program and status. Each kind of violation is shown
once with its command and makes the exit status 1. A case is a fork of this process, which has
already imported TensorFlow.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import pathlib
import re
import runpy
import shutil
import signal
import sys
import tempfile
import time
import traceback

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import fuzz_inputs
import hypothesis
from hypothesis import strategies as st

# The programs' imports, before the first fork; no TensorFlow operation may run before it.
from matnet_tf.evaluation import clusters, evaluate, scores  # noqa: F401
from matnet_tf.imputation import impute  # noqa: F401
from matnet_tf.plots import figures  # noqa: F401
from matnet_tf.serving import export  # noqa: F401
from matnet_tf.training import train  # noqa: F401

ROOT = pathlib.Path(__file__).resolve().parent.parent
PATIENCE = 120  # Seconds, for a case that takes a few on a free core.
STATUSES = {"impute": (0, 1, 2), "train": (0, 2, 75)}
_DETAILS = re.compile(r"[0-9]+|/[^ ]*|'[^']*'")
TEMPORARY = ("**/*.tmp", "**/.preparing_*", "**/.writing_*", "**/*_temp", "**/*.part")


class Outcome:
    """The exit status of a program (negative for a signal), its output and its time."""

    def __init__(self, status: int, out: str, err: str, seconds: float):
        self.status, self.out, self.err, self.seconds = status, out, err, seconds


def run(program: str, arguments: list[str], folder: pathlib.Path) -> Outcome:
    """Runs a program of bin/ in a folder, in a fork of this process."""
    started = time.monotonic()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if not child:
            _become(program, arguments, folder, out, err)
        status = _wait(child, started + PATIENCE)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    return Outcome(status, *texts, time.monotonic() - started)


def _become(program, arguments, folder, out, err):
    """Runs the program in the child process and never returns."""
    status = 70
    try:
        os.setsid()
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        os.chdir(folder)
        # Temporary files of libraries stay when a process is killed; they must not count.
        tempfile.tempdir = os.environ["TMPDIR"] = str(folder.parent / "temporary")
        sys.argv = [str(ROOT / "bin" / program), *arguments]
        runpy.run_path(sys.argv[0], run_name="__main__")
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _wait(child: int, deadline: float) -> int:
    """Returns the exit status of a child, or kills it at the deadline."""
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return -signal.SIGALRM


def snapshot(folder: pathlib.Path) -> dict[str, tuple[int, int]]:
    """Returns size and time of every file below a folder, except the locks of programs."""
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("lock", ".lock")
    }


def complaint(program: str, outcome: Outcome, changed: list[str], folder: pathlib.Path) -> str:
    """Returns what is wrong with an outcome; "" if nothing is."""
    if outcome.status == -signal.SIGALRM:
        return "hang"
    if "Traceback" in outcome.err + outcome.out:
        last = [line for line in outcome.err.splitlines() if line and not line.startswith(" ")]
        return f"traceback: {last[-1] if last else ''}"
    if outcome.status not in STATUSES.get(program, (0, 2)):
        return f"status {outcome.status}"
    lines = [s for s in outcome.err.splitlines() if s.startswith(f"matnet {program}: error: ")]
    if outcome.status == 2 and len(lines) != 1:
        return f"{len(lines)} lines of error"
    if outcome.status == 2 and not lines[0].partition("error: ")[2].strip():
        return "an empty error"
    left = [path.name for pattern in TEMPORARY for path in folder.glob(pattern)]
    if left:
        return f"left behind: {left[0]}"
    if (folder.parent / fuzz_inputs.OUTSIDE).read_bytes():
        return "written through a link"
    if outcome.status == 2 and changed:
        return f"changed after status 2: {changed[0]}"
    return ""


class Campaign:
    """Runs cases, and counts them and the kinds of violations."""

    def __init__(self, root: pathlib.Path, verbose: bool):
        self._root, self._verbose = root, verbose
        self.counts = collections.Counter()
        self.violations: dict[str, str] = {}
        self.slowest = 0.0

    def case(self, case: fuzz_inputs.Case) -> None:
        """Runs one case on a copy of the material."""
        folder = self._root / "case"
        for path in (folder, self._root / "temporary"):
            shutil.rmtree(path, ignore_errors=True)
        (self._root / "temporary").mkdir()
        shutil.copytree(self._root / "material", folder)
        for damage in case.damages:
            damage.inflict(folder)
        before = snapshot(folder)
        outcome = run(case.program, case.arguments, folder)
        after = snapshot(folder)
        changed = sorted(k for k in before.keys() | after.keys() if before.get(k) != after.get(k))
        self.counts[f"{case.program} {outcome.status}"] += 1
        self.slowest = max(self.slowest, outcome.seconds)
        wrong = complaint(case.program, outcome, changed, folder)
        if not self._verbose and sum(self.counts.values()) % 100 == 0:
            print(f"{sum(self.counts.values())} cases", file=sys.stderr, flush=True)
        if self._verbose:
            print(f"{outcome.seconds:5.1f} s {outcome.status} {case}", file=sys.stderr)
            print(outcome.err[-300:], file=sys.stderr)
        # Numbers, paths and quoted values differ from case to case; the kind does not.
        kind = f"{case.program} {_DETAILS.sub('_', wrong)}"
        if wrong and kind not in self.violations:
            self.violations[kind] = str(case)
            print(f"VIOLATION {wrong}\n  {case}\n{outcome.err[-1500:]}\n", file=sys.stderr)
            sys.stderr.flush()


def main() -> int:
    """Runs the campaign and prints its record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--programs", default=",".join(fuzz_inputs.PROGRAMS))
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    programs = options.programs.split(",")
    weighted = [name for name in programs for _ in range(fuzz_inputs.PROGRAMS[name])]
    root = pathlib.Path(tempfile.mkdtemp(prefix="fuzz_"))
    (root / "temporary").mkdir()
    (root / fuzz_inputs.OUTSIDE).touch()
    fuzz_inputs.make_sources(root / "material" / "source")
    for program, arguments in fuzz_inputs.MATERIAL:
        made = run(program, arguments, root / "material")
        if made.status:
            raise SystemExit(f"matnet {program} {' '.join(arguments)} failed:\n{made.err}")
    campaign = Campaign(root, options.verbose)

    @hypothesis.seed(options.seed)
    @hypothesis.settings(
        max_examples=options.cases,
        deadline=None,
        database=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(st.sampled_from(weighted).flatmap(fuzz_inputs.cases))
    def campaign_of_cases(case):
        campaign.case(case)

    campaign_of_cases()
    shutil.rmtree(root)
    counts = dict(sorted(campaign.counts.items()))
    record = {"cases": sum(counts.values()), "violations": len(campaign.violations)}
    print(json.dumps(record | {"seed": options.seed, "slowest": campaign.slowest, **counts}))
    return 1 if campaign.violations else 0


if __name__ == "__main__":
    sys.exit(main())
