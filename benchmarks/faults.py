# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Kills programs, tears files and fills disks, and checks that nothing is lost.

    python benchmarks/faults.py --faults 200

Prepares a folder of images, trains, evaluates and exports: once undisturbed, then again under
random faults, each followed by the same command, until the given number of faults has occurred:

    kill, term, int, hup
                 SIGKILL, SIGTERM, SIGINT or SIGHUP after a random share of the program's time
    full         no file may grow beyond a random size; a process limit stands for a full disk
    torn         SIGKILL, and the newest checkpoint or evaluation batch loses its end
    pipe         SIGKILL, and a pipe is in its place

After each round, steps, rows, weights, results per image, records and exports must equal those of
the undisturbed run, no temporary file may be left, and no program may have shown a traceback.
Prints one JSON line with the number of faults by program and kind. The exit status is 1 if anything
was lost.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROGRAMS = ("prepare", "train", "evaluate", "export")
SIGNALS = {
    **{"kill": signal.SIGKILL, "torn": signal.SIGKILL, "pipe": signal.SIGKILL},
    **{"term": signal.SIGTERM, "int": signal.SIGINT, "hup": signal.SIGHUP},
}
ANYWHERE = ("kill", "term", "int", "hup", "full")
KINDS = {
    "prepare": ANYWHERE,
    "train": (*ANYWHERE, "torn", "pipe"),
    "evaluate": (*ANYWHERE, "torn", "pipe"),
    "export": ANYWHERE,
}
STATUSES = {
    **{"kill": (0, -9), "torn": (0, -9), "pipe": (0, -9), "term": (0, -15, 75), "hup": (0, -1, 75)},
    # Before Python runs, an interrupt is that of the system.
    **{"int": (0, -2, 130), "full": (0, 2), None: (0,)},
}
TIMINGS = ("seconds", "images_per_second", "image_samples_per_second")
CHECKOUT = ("commit", "key")  # They change when somebody commits meanwhile.
MAX_FAULTS = 8  # Of one program in one round.
PATIENCE = 600  # Seconds.


class Lost(Exception):
    """Something differs from the undisturbed run."""


def command(program: str, folder: pathlib.Path) -> list[str]:
    """Returns the command line of a program whose data and work directory lie in `folder`."""
    run, data = f"--workdir={folder / 'run'}", f"--data.dir={folder / 'tfds'}"
    flags = {
        "prepare": ["--data.name=image_folder", f"--source={folder.parent / 'source'}", data],
        "train": [
            *("--data.name=image_folder", "--model.image_shape=8,8,1", data, run),
            *("--model.scales=1:12:2:1,4:6:2:1", "--model.top_latents=2", "--model.top_units=6"),
            *("--model.image_filters=4", "--train.steps=120", "--train.batch_size=16"),
            *("--data.binarization=dynamic", "--train.checkpoint_every=15"),
            *("--train.average_decay=0.9", "--train.summary_images=2"),
        ],
        "evaluate": [run, "--num_samples=20", "--batch_size=2"],
        "export": [run],
    }
    return [sys.executable, str(ROOT / "bin" / program), *flags[program]]


def attempt(
    program: str, folder: pathlib.Path, kind: str | None, seconds: float, rng: random.Random
) -> int:
    """Runs a program, under a fault unless `kind` is None, and returns its exit status."""
    limit = int(10 ** rng.uniform(1, 5.3))  # Bytes.

    def no_large_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    process = subprocess.Popen(
        command(program, folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=no_large_files if kind == "full" else None,
    )
    try:
        timed = kind in SIGNALS
        text, _ = process.communicate(timeout=rng.uniform(0, seconds) if timed else PATIENCE)
    except subprocess.TimeoutExpired:
        process.send_signal(SIGNALS.get(kind, signal.SIGKILL))
        text, _ = process.communicate(timeout=PATIENCE)
    status = process.returncode
    if program == "prepare" and "exists already" in text:
        status = 0  # It was complete when it was killed, and does not overwrite.
    if "Traceback" in text:
        raise Lost(f"matnet {program} under {kind} showed a traceback:\n{text[-3000:]}")
    if status == 130 and not text.endswith(f"matnet {program}: interrupted\n"):
        raise Lost(f"matnet {program} did not say that it was interrupted:\n{text[-3000:]}")
    if status not in STATUSES[kind]:
        raise Lost(f"matnet {program} under {kind} ended with status {status}:\n{text[-3000:]}")
    if kind in ("torn", "pipe"):
        tear(program, folder / "run", kind, rng)
    return status


torn: dict[pathlib.Path, tuple[int, int] | None] = {}


def tear(program: str, run: pathlib.Path, kind: str, rng: random.Random) -> None:
    """Cuts off the end of the newest file that a program would resume from, or makes it a pipe."""
    if program == "train":
        found = sorted(run.glob("checkpoints/ckpt-*"), key=lambda p: p.stat().st_mtime_ns)
        # A single checkpoint has none before it to go back to: losing it is no defect. It is also
        # single while another one is torn and not yet set aside.
        whole = len(list(run.glob("checkpoints/ckpt-*.index"))) > 1
        waiting = any(_state(path) == state for path, state in torn.items())
        found = found if whole and not waiting else []
    else:
        found = sorted(run.glob("evaluation/*/*.npz"))
    if found:
        path = found[-1]
        if kind == "pipe":
            path.unlink()
            os.mkfifo(path)
        else:
            os.truncate(path, rng.randrange(max(1, path.stat().st_size)))
        torn[path] = _state(path)


def _state(path: pathlib.Path) -> tuple[int, int] | None:
    """Returns size and time of a file, by which a torn one is known until it is replaced."""
    if not path.exists():
        return None
    return path.stat().st_size, path.stat().st_mtime_ns


def outcome(folder: pathlib.Path) -> dict:
    """Returns everything that must not depend on faults."""
    import numpy as np
    import tensorflow as tf

    from matnet_tf.data import loading
    from matnet_tf.runs.workdir import read_experiment, read_metrics

    run, found = folder / "run", {}
    settings = read_experiment(run)
    for split in ("train", "test"):
        found[f"images of {split}"] = loading.load(settings.data, split).identity()
    rows = read_metrics(run)
    found["rows"] = [{k: v for k, v in row.items() if k not in TIMINGS} for row in rows]
    newest = tf.train.latest_checkpoint(str(run / "checkpoints"))
    exported = sorted((run / "export").iterdir())[-1] / "variables" / "variables"
    for name, path in (("weights", newest), ("export", str(exported))):
        reader = tf.train.load_checkpoint(path)
        for key in reader.get_variable_to_shape_map():
            if not key.startswith(("_CHECKPOINT", "seconds", "save_counter")):
                found[f"{name}: {key}"] = np.asarray(reader.get_tensor(key)).tobytes()
    (record,) = json.loads((run / "evaluation.json").read_text())
    found["record"] = {k: v for k, v in record.items() if k not in (*TIMINGS, *CHECKOUT)}
    for path in sorted((run / "evaluation").glob("*/*.npz")):
        with np.load(path) as batch:
            arrays = {k: batch[k].tobytes() for k in batch.files if k not in TIMINGS}
        found[f"results {path.stem}"] = arrays
    return found


def check(folder: pathlib.Path, expected: dict) -> None:
    """Raises Lost unless a folder holds what it must and nothing else."""
    actual = outcome(folder)
    different = [k for k in expected.keys() | actual.keys() if expected.get(k) != actual.get(k)]
    if different:
        raise Lost(f"differs from the undisturbed run: {', '.join(sorted(different)[:10])}")
    patterns = ("**/*.tmp", "**/.preparing_*", "**/.writing_*", "**/*_temp")
    left = [str(path) for pattern in patterns for path in folder.glob(pattern)]
    if left:
        raise Lost(f"left behind: {', '.join(left)}")
    for version in (folder / "run" / "export").iterdir():
        if not (version / "saved_model.pb").is_file():
            raise Lost(f"{version} is not a complete export")


def make_source(folder: pathlib.Path) -> None:
    """Writes 80 small grey images, and 16 more for the test split."""
    import numpy as np
    from PIL import Image

    rng = np.random.RandomState(0)
    for split, count in (("train", 80), ("test", 16)):
        (folder / split).mkdir(parents=True)
        for index in range(count):
            pixels = rng.randint(0, 256, (8, 8)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / split / f"{index:03d}.png")


def main() -> int:
    """Runs the campaign and prints its record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    rng, struck = random.Random(options.seed), collections.Counter()
    root = pathlib.Path(tempfile.mkdtemp(prefix="faults_"))
    make_source(root / "source")
    try:
        rounds = campaign(root, options.faults, rng, struck)
    except Lost as error:
        print(f"LOST in {root}: {error}", file=sys.stderr)
        print(json.dumps({"lost": True, "seed": options.seed, **struck}))
        return 1
    shutil.rmtree(root)
    total = sum(struck.values())
    record = {"lost": False, "faults": total, "rounds": rounds, "seed": options.seed}
    print(json.dumps(record | dict(sorted(struck.items()))))
    return 0


def campaign(root: pathlib.Path, faults: int, rng: random.Random, struck) -> int:
    """Runs rounds of all programs until enough faults have occurred; returns their number."""
    (root / "whole").mkdir()
    seconds = {}
    for program in PROGRAMS:
        started = time.monotonic()
        attempt(program, root / "whole", None, 0, rng)
        seconds[program] = time.monotonic() - started
    expected, rounds = outcome(root / "whole"), 0
    while sum(struck.values()) < faults:
        folder = root / f"round_{rounds}"
        folder.mkdir()
        for program in PROGRAMS:
            for _ in range(min(MAX_FAULTS, faults - sum(struck.values()))):
                kind = rng.choice(KINDS[program])
                done = attempt(program, folder, kind, seconds[program], rng) == 0
                struck[f"{program} {kind}"] += not done or kind in ("torn", "pipe")
                if done and kind not in ("torn", "pipe"):
                    break  # It was complete before the fault.
            attempt(program, folder, None, 0, rng)
        check(folder, expected)
        shutil.rmtree(folder)
        rounds += 1
        print(f"round {rounds}: {sum(struck.values())} faults", file=sys.stderr, flush=True)
    return rounds


if __name__ == "__main__":
    sys.exit(main())
