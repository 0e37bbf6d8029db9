#!/usr/bin/env python3
# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Decompresses damaged files: each must be refused in one line, or its damaged blocks named.

Usage: benchmarks/fuzz_container.py [--cases N] [--seed S]

A small model with random weights compresses digits in three blocks. Every case damages the file:
bits flip, bytes change, ends are lost, stretches become zeros or move, or another file's bytes come
in between. In every second case the checksums of the blocks, and the header's own, are made right
again, so that the damage reaches the decoder. `matnet decompress` then must end with status 0, 1 or
2, without a traceback, and write no image that was not in the file. Prints one JSON line with the
number of cases by outcome; the first case that ends otherwise is kept and makes the status 1.
"""

import argparse
import collections
import contextlib
import functools
import io
import json
import os
import pathlib
import random
import shutil
import struct
import sys
import tempfile
import traceback
import zlib

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests" / "support"))
from work_directories import write_run

from matnet_tf import cli
from matnet_tf.compression import decompress
from matnet_tf.config import DataConfig, Experiment, ModelConfig, Scale

MODEL = ModelConfig(image_shape=(8, 8, 1), scales=(Scale(1, 8, 2, 1),), top_latents=2, top_units=8)
DATA = DataConfig(name="digits", binarization="threshold")
FRONT = 16


def flipped(content: bytearray, rng: random.Random) -> None:
    """Flips up to 20 bits."""
    for _ in range(rng.randrange(1, 21)):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def cut(content: bytearray, rng: random.Random) -> None:
    """Loses the end."""
    del content[rng.randrange(len(content)) :]


def zeroed(content: bytearray, rng: random.Random) -> None:
    """Has zeros in a stretch, as after a crash of a file system."""
    start = rng.randrange(len(content))
    end = min(len(content), start + rng.randrange(1, 200))
    content[start:end] = bytes(end - start)


def inserted(content: bytearray, rng: random.Random) -> None:
    """Has bytes that do not belong to it."""
    start = rng.randrange(len(content))
    content[start:start] = rng.randbytes(rng.randrange(1, 50))


def lacking(content: bytearray, rng: random.Random) -> None:
    """Lacks a stretch within."""
    start = rng.randrange(len(content))
    del content[start : start + rng.randrange(1, 50)]


def moved(content: bytearray, rng: random.Random) -> None:
    """Has two stretches in each other's place."""
    size = rng.randrange(1, max(2, len(content) // 3))
    one, two = (rng.randrange(len(content)) for _ in range(2))
    first, second = content[one : one + size], content[two : two + size]
    content[one : one + len(first)] = second
    content[two : two + len(second)] = first


DAMAGES = (flipped, cut, zeroed, inserted, lacking, moved)


def forged(whole: bytes, rng: random.Random) -> bytes:
    """A file with a damaged block whose checksum and length are right."""
    (length,) = struct.unpack_from("<I", whole, 8)
    fields = json.loads(zlib.decompress(whole[FRONT : FRONT + length]))
    blocks, position = [], FRONT + length
    for _, size, *_ in fields["blocks"]:
        blocks.append(bytearray(whole[position : position + size]))
        position += size
    index = rng.randrange(len(blocks))
    rng.choice(DAMAGES)(blocks[index], rng)
    fields["blocks"][index][1:3] = len(blocks[index]), zlib.crc32(blocks[index])
    packed = zlib.compress(json.dumps(fields).encode())
    front = struct.pack("<II", len(packed), zlib.crc32(packed))
    return b"".join([whole[:8], front, packed, *blocks])


def damaged(whole: bytes, rng: random.Random) -> bytes:
    """The file after one kind of damage, or two."""
    content = bytearray(whole)
    for _ in range(rng.randrange(1, 3)):
        rng.choice(DAMAGES)(content, rng)
        content = content or bytearray(b"x")
    return bytes(content)


def outcome(run: pathlib.Path, file: pathlib.Path, output: pathlib.Path, pictures: dict) -> str:
    """What `matnet decompress` does with a file; it begins with `wrong` if it must not."""
    out, err = io.StringIO(), io.StringIO()
    command = ["decompress", f"--workdir={run}", f"--file={file}", f"--output={output}"]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = cli.main(command)
    except BaseException:
        return f"wrong: {traceback.format_exc()}"
    written = {path.name: path.read_bytes() for path in output.glob("*")}
    shutil.rmtree(output, ignore_errors=True)
    if any(pictures.get(name) != content for name, content in written.items()):
        return "wrong: pictures that were not in the file"
    if status == 0:
        return "whole" if written == pictures else "wrong: pictures are missing"
    lines = [line for line in err.getvalue().splitlines() if "damaged and lost" in line]
    if status == 1 and lines:
        return "block named"
    if status == 2 and err.getvalue().count("\n") == 1 and not written:
        return "refused"
    return f"wrong: status {status}, {err.getvalue()}"


def main() -> int:
    """Runs the cases."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=5000, help="number of cases")
    parser.add_argument("--seed", type=int, default=0, help="of the damages")
    arguments = parser.parse_args()
    # One model for all cases: loading it and tracing its graphs would take all the time.
    decompress.load_run = functools.cache(decompress.load_run)
    decompress.Codec = functools.cache(decompress.Codec)
    counts = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        run = write_run(folder / "run", Experiment(model=MODEL, data=DATA))
        file, output = folder / "whole.matnet", folder / "output"
        flags = ("--num_images=30", "--block=10", "--batch_size=4", f"--output={file}")
        with contextlib.redirect_stdout(io.StringIO()):
            assert cli.main(["compress", f"--workdir={run}", *flags]) == 0
            back = ("decompress", f"--workdir={run}", f"--file={file}", f"--output={output}")
            assert cli.main(list(back)) == 0
        whole, pictures = file.read_bytes(), {p.name: p.read_bytes() for p in output.iterdir()}
        shutil.rmtree(output)
        for case in range(arguments.cases):
            rng = random.Random(1_000_003 * arguments.seed + case)
            broken = (forged if case % 2 else damaged)(whole, rng)
            (folder / "case.matnet").write_bytes(broken)
            found = outcome(run, folder / "case.matnet", output, pictures)
            counts[f"{'forged' if case % 2 else 'damaged'}: {found.partition(':')[0]}"] += 1
            if found.startswith("wrong"):
                pathlib.Path("fuzz_container.matnet").write_bytes(broken)
                print(f"case {case}: {found}", flush=True)
                break
    print(json.dumps({"cases": counts.total(), **counts}))
    return int(any("wrong" in name for name in counts))


if __name__ == "__main__":
    sys.exit(main())
