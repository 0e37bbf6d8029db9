# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Command lines for the fuzz, and damage to the files that the programs read."""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
import pathlib
import random
import shlex
import struct
import types
import typing
import zlib

from hypothesis import strategies as st

from matnet_tf import cli, config, flags

__all__ = ["MATERIAL", "PROGRAMS", "Case", "cases", "make_sources"]

_DATA = "--data.dir=tfds"
_SMALL = (
    *("--data.name=image_folder", _DATA, "--data.binarization=dynamic"),
    "--model.image_shape=8,8,1",
    *("--model.scales=1:4:2:1,4:3:2:1", "--model.top_latents=2", "--model.top_units=4"),
    *("--model.image_filters=2", "--train.steps=2", "--train.batch_size=4"),
    *("--train.checkpoint_every=1", "--train.summary_images=0", "--train.max_seconds=20"),
)
_MIXTURE = ("--model.mixture_components=3", "--train.average_decay=0.5")
_CONDITIONAL = (
    *("--model.conditional_stages=1", "--data.mask=occluders", "--data.occluders=1"),
    "--data.occluder_size=3,3",
)

# Made before the first case: prepared images, a model and a conditional model.
MATERIAL = (
    ("prepare", ["--data.name=image_folder", "--source=source/images", _DATA]),
    ("train", [*_SMALL, *_MIXTURE, "--workdir=run"]),
    ("train", [*_SMALL, *_CONDITIONAL, "--workdir=conditional"]),
    ("score", ["--workdir=run", "--num_samples=2", "--output=source/inliers.csv"]),
    ("evaluate", ["--workdir=run", _DATA, "--num_samples=3", "--images=4"]),
    (
        "impute",
        [
            *("--workdir=conditional", "--images=source/images/train/0.png", "--num_samples=3"),
            *("--rectangles=1:1:3x3", "--output=done"),
        ],
    ),
)

_DAMAGES = (
    *("cut", "garbage", "empty", "delete", "folder", "pipe", "link"),
    *("flip", "json", "text", "deep", "long", "bomb"),
)
OUTSIDE = "outside"  # A file beside the folder of a case, which links lead to.
_TEXTS = (
    *("", " ", "x", "-", "--", "=", ",", ",,", ":", "0", "none", "nan", "inf", "-inf", "1e400"),
    *("../x", "/", "/dev/null", "/proc/self/mem", "no/such/thing", "run", "source", "a\nb"),
    *("é", "\u0663", "\udcff", "𝔘", "%s", "$HOME", "~", "*", "run/config.json", "x" * 5000),
)
_WHOLE = ("0", "1", "2", "3", "7", "-1", "2147483648", "9223372036854775808", "1" + "0" * 40)
_NUMBERS = ("0", "0.5", "1", "1.5", "-1", "1e-30", "1e-320", "1e30", "1e308", "1e309", "nan", "inf")
_ODD_NUMBERS = ("", "x", "1.5.2", "1e3", "0x10", "1_0", " 1", "\u0663", "+1", "--1", "True")
_SCALES = (
    *("1:4:2:1", "4:3:2:1", "8:2:1:1", "2x4:3:2:1", "3:1:1:1", "0:1:1:1", "1:0:1:1", "4:4:4", ""),
)
_JSON = (
    *(None, True, False, 0, -1, 1.5, 1e15, 10**30, float("nan"), float("inf"), "", "x"),
    *([], [1], ["x"], {}, {"x": 1}),
)


# Valid command lines of each program.
_BASES = {
    "prepare": [
        ["--data.name=image_folder", "--source=source/images", "--data.dir=new"],
        ["--data.name=image_folder", "--source=source/images", "--data.dir=new", "--size=4x6"],
        ["--data.name=mnist", "--source=source/mnist", "--data.dir=new"],
        ["--data.name=binarized_mnist", "--source=source/amat", "--data.dir=new"],
        ["--data.name=omniglot28", "--source=source/omniglot", "--data.dir=new"],
        ["--data.name=cifar10", "--source=source/cifar", "--data.dir=new"],
    ],
    "train": [
        [*_SMALL, "--workdir=new"],
        [*_SMALL, *_MIXTURE, "--workdir=run"],
        [*_SMALL, *_CONDITIONAL, "--workdir=conditional"],
        # With the file empty, the flags left are those of a model that trains for minutes.
        ["--flagfile=source/small.flags", "--workdir=new", "--train.max_seconds=20"],
    ],
    "evaluate": [
        ["--workdir=run", _DATA, "--num_samples=3", "--images=4"],
        ["--workdir=conditional", _DATA, "--num_samples=2"],
    ],
    "score": [
        ["--workdir=run", _DATA, "--num_samples=2", "--images=4"],
        ["--workdir=run", _DATA, "--num_samples=2", "--inliers=source/inliers.csv"],
    ],
    "cluster": [["--workdir=run", _DATA]],
    "figures": [["--workdir=run"], ["--workdir=conditional"]],
    "export": [["--workdir=run"], ["--workdir=conditional"]],
    "impute": [
        [
            *("--workdir=conditional", "--images=source/images/train", "--output=new"),
            *("--num_samples=2", "--rectangles=1:1:3x3"),
        ],
        [
            *("--workdir=conditional", "--images=source/large.png,source/photo.jpg"),
            *("--output=new", "--num_samples=1", "--missing_colour=0"),
        ],
        [
            *("--workdir=conditional", "--images=source/images/train/0.png"),
            *("--output=new", "--num_samples=1", "--masks=source/mask.png"),
        ],
        [
            *("--workdir=conditional", "--images=source/images/train/0.png"),
            *("--output=done", "--num_samples=2", "--rectangles=1:1:3x3"),
        ],
    ],
}

# Relative numbers of cases; drawing and exporting take longest and have the fewest flags.
PROGRAMS = {
    **{"prepare": 6, "train": 8, "evaluate": 4, "score": 4, "cluster": 3, "impute": 5},
    **{"figures": 2, "export": 1},
}


@dataclasses.dataclass(frozen=True)
class Damage:
    """Damage to one file before a program runs.

    Attributes:
      path: Pattern of the file, relative to the folder of the case.
      kind: One of `_DAMAGES`.
      seed: Integer seed for the choice of the file, the place and the bytes.
    """

    path: str
    kind: str
    seed: int

    def inflict(self, folder: pathlib.Path) -> None:
        """Damages one of the files that match the pattern, if there are any."""
        rng = random.Random(self.seed)
        found = sorted(p for p in folder.glob(self.path) if p.is_file())
        if not found:
            return
        path = rng.choice(found)
        content = path.read_bytes()
        path.unlink()
        if self.kind == "folder":
            path.mkdir()
        elif self.kind == "pipe":
            os.mkfifo(path)
        elif self.kind == "link":
            path.symlink_to(folder.parent / OUTSIDE)
        elif self.kind != "delete":
            path.write_bytes(getattr(self, f"_{self.kind}")(content, rng))

    def _cut(self, content, rng):
        return content[: rng.randrange(len(content))] if content else b""

    def _garbage(self, content, rng):
        return rng.randbytes(rng.randrange(1, 2000))

    def _empty(self, content, rng):
        return b""

    def _flip(self, content, rng):
        changed = bytearray(content or b"x")
        for _ in range(rng.randrange(1, 20)):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        return bytes(changed)

    def _deep(self, content, rng):
        return 100_000 * rng.choice((b"[", b'{"a":'))

    def _long(self, content, rng):
        """Puts 200,000 letters in the place of one word."""
        words = content.split(b",")
        words[rng.randrange(len(words))] = 200_000 * b"x"
        return b",".join(words)

    def _bomb(self, content, rng):
        """Far more than the file's own size: pixels, text, or bytes that it unpacks to."""
        if content.startswith(b"\x1f\x8b"):
            return gzip.compress(gzip.decompress(content) + bytes(2**28), 1)
        side = rng.choice((8, 13_000, 50_000))
        header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
        text = zlib.compress(rng.choice((10, 2**25)) * b"a")
        chunks = ((b"IHDR", header), (b"zTXt", b"k\0\0" + text), (b"IDAT", b"x"), (b"IEND", b""))
        parts = (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
            for name, data in chunks
        )
        return b"\x89PNG\r\n\x1a\n" + b"".join(parts)

    def _text(self, content, rng):
        """Drops, doubles or replaces one line."""
        lines = content.decode("utf-8", "replace").splitlines() or [""]
        place = rng.randrange(len(lines))
        lines[place : place + 1] = rng.choice(([], [lines[place]] * 2, [rng.choice(_TEXTS)]))
        return "\n".join(lines).encode("utf-8", "surrogateescape")

    def _json(self, content, rng):
        """Replaces one value of a JSON tree, or drops its key."""
        try:
            tree = json.loads(content)
        except ValueError:
            return self._flip(content, rng)
        node, key = {"": tree}, ""
        while isinstance(node[key], (dict, list)) and node[key] and rng.random() < 0.85:
            node = node[key]
            key = rng.choice(list(node) if isinstance(node, dict) else range(len(node)))
        if key != "" and rng.random() < 0.2:
            del node[key]
        elif key == "":
            tree = rng.choice(_JSON)
        else:
            node[key] = rng.choice(_JSON)
        return json.dumps(tree).encode()


@dataclasses.dataclass(frozen=True)
class Case:
    """One run of a program."""

    program: str
    arguments: list[str]
    damages: list[Damage]

    def __str__(self) -> str:
        quoted = shlex.join(a if len(a) < 200 else a[:200] + "..." for a in self.arguments)
        command = f"bin/{self.program} {quoted}"
        damages = ", ".join(f"{d.kind} {d.path} (seed {d.seed})" for d in self.damages)
        text = f"{command}   after: {damages}" if damages else command
        return text.encode("utf-8", "backslashreplace").decode()


def cases(program: str) -> st.SearchStrategy[Case]:
    """Generates runs of a program: valid command lines, changed, on files that are damaged."""
    known = _flags(program)
    change = st.sampled_from(known).flatmap(lambda flag: _values(flag).map(lambda v: (flag, v)))
    some = st.lists(change, min_size=1, max_size=2)
    files = _files(program)
    damage = st.builds(
        Damage, st.sampled_from(files), st.sampled_from(_DAMAGES), st.integers(0, 2**32)
    )
    # Most cases change one thing: of two errors, the first hides the other.
    plans = st.one_of(
        st.tuples(some, st.just([])),
        st.tuples(st.just([]), damage.map(lambda one: [one])),
        st.tuples(some, damage.map(lambda one: [one])),
    )
    return st.builds(
        lambda base, plan, extra: Case(program, _apply(base, plan[0], extra), plan[1]),
        st.sampled_from(_BASES[program]),
        plans,
        st.integers(0, 9).flatmap(lambda n: _extra(known) if n == 9 else st.none()),
    )


def _apply(base, changes, extra):
    arguments = list(base)
    for flag, value in changes:
        arguments.append(f"--{flag.name}={value}")
    return arguments + ([extra] if extra is not None else [])


def _extra(known) -> st.SearchStrategy[str]:
    """Generates arguments that are not a known flag with a value."""
    return st.one_of(
        st.sampled_from(("--nothing", "word", "-", "--", "--=", "--help", "-h", "--debug=x")),
        st.sampled_from(known).map(lambda flag: f"--{flag.name}"),
        st.sampled_from(known).map(lambda flag: f"--no{flag.name}"),
        st.sampled_from(_TEXTS).map(lambda text: f"--flagfile={text}"),
        st.text(max_size=20).filter(lambda text: "\0" not in text),
    )


def _flags(program: str) -> list[flags.Flag]:
    """Returns the flags of a program, except the one that shows tracebacks."""
    return [flag for flag in cli.PROGRAMS[program].flags if flag.name != "debug"]


def _values(flag: flags.Flag) -> st.SearchStrategy[str]:
    """Generates values of a flag: valid ones, limits, and those of another type."""
    if isinstance(flag.type, types.GenericAlias):
        element = dataclasses.replace(flag, type=typing.get_args(flag.type)[0], choices=())
        return st.lists(_values(element), max_size=4).map(",".join)
    kinds = {
        int: (*_WHOLE, *_ODD_NUMBERS),
        float: (*_NUMBERS, *_ODD_NUMBERS),
        bool: ("true", "false", "TRUE", "0", "1", "2", "yes", ""),
        config.Scale: (*_SCALES, *_TEXTS),
        str: _TEXTS,
    }
    values = st.sampled_from(kinds[flag.type])
    if flag.choices:
        return st.one_of(st.sampled_from(flag.choices), values)
    if flag.type is str:
        return st.one_of(values, st.text(max_size=30).filter(lambda text: "\0" not in text))
    return values


def _files(program: str) -> list[str]:
    """Returns patterns of the files that a program reads."""
    if program == "prepare":
        return ["source/images/*/*", "source/mnist/*", "source/amat/*", "source/omniglot/*"] + [
            "source/cifar/*"
        ]
    if program == "impute":
        folders = ["conditional"]
        own = ["source/images/train/*", "source/large.png", "source/photo.jpg", "source/mask.png"]
        own += ["done/imputations.json"]
    else:
        folders = ["run"]
        own = ["tfds/image_folder/*/*"]
    more = {"score": ["source/inliers.csv"], "train": ["source/small.flags", "run/lock"]}
    more |= {name: ["run/evaluation.json", "run/evaluation/*/*"] for name in ("evaluate", "export")}
    own += more.get(program, [])
    in_runs = ["config.json", "metrics.csv", "checkpoints/*", "config.json", "checkpoints/*.index"]
    return own + [f"{folder}/{name}" for folder in folders for name in in_runs]


def make_sources(folder: pathlib.Path) -> None:
    """Writes source files in every format, images, a mask and a flagfile."""
    import numpy as np
    import scipy.io
    from PIL import Image

    rng = np.random.RandomState(0)

    def pixels(*shape, high=256):
        return rng.randint(0, high, shape).astype(np.uint8)

    for split, count in (("train", 12), ("test", 6)):
        (folder / "images" / split).mkdir(parents=True)
        for index in range(count):
            Image.fromarray(pixels(8, 8)).save(folder / "images" / split / f"{index}.png")
    Image.fromarray(pixels(21, 13)).save(folder / "large.png")
    Image.fromarray(pixels(8, 8)).save(folder / "photo.jpg")
    Image.fromarray(pixels(8, 8, high=2) * 255).save(folder / "mask.png")
    _write_idx(folder / "mnist", pixels)
    (folder / "amat").mkdir()
    for name, count in (("train", 4), ("valid", 2), ("test", 2)):
        path = folder / "amat" / f"binarized_mnist_{name}.amat"
        np.savetxt(path, pixels(count, 784, high=2), fmt="%d")
    (folder / "omniglot").mkdir()
    arrays = {}
    for prefix, count in (("", 5), ("test", 3)):
        arrays[f"{prefix}data"] = pixels(784, count) / 255
        arrays[f"{prefix}target"] = np.eye(50)[np.arange(count)].T
        arrays[f"{prefix}targetchar"] = 1.0 + np.arange(count)[None]
    scipy.io.savemat(folder / "omniglot" / "chardata.mat", arrays)
    (folder / "cifar").mkdir()
    for name in (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"):
        rows = np.concatenate([pixels(2, 1, high=10), pixels(2, 3072)], axis=1)
        (folder / "cifar" / f"{name}.bin").write_bytes(rows.tobytes())
    (folder / "small.flags").write_text("# a preset\n" + "\n".join(_SMALL) + "\n")


def _write_idx(folder, pixels):
    folder.mkdir()
    for prefix, count in (("train", 5), ("t10k", 3)):
        for kind, array in (
            ("images-idx3", pixels(count, 28, 28)),
            ("labels-idx1", pixels(count, high=10)),
        ):
            header = struct.pack(f">{1 + array.ndim}I", 0x800 | array.ndim, *array.shape)
            data = header + array.tobytes()
            if prefix == "train":
                (folder / f"{prefix}-{kind}-ubyte.gz").write_bytes(gzip.compress(data))
            else:
                (folder / f"{prefix}-{kind}-ubyte").write_bytes(data)
