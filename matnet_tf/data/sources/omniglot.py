# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Reader of Omniglot at 28x28, `chardata.mat`."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from matnet_tf.config.validation import require
from matnet_tf.data.sources.base import Source, examples
from matnet_tf.files import reason_of

__all__ = ["read_chardata"]

_PREFIXES = {"train": "", "test": "test"}  # Of the keys of each split.
_NO_NUMBERS = ("sparse", "cell", "struct", "char", "object", "function", "opaque", "unknown")


def read_chardata(folder: pathlib.Path) -> Source:
    """Reads Omniglot at 28x28 from `chardata.mat`, as distributed with IWAE (Burda et al. 2015).

    The file holds one image per column, pixels in column-major order, intensities in [0, 1];
    `target` is the alphabet, one-hot, and `targetchar` the character within its alphabet.

    Args:
      folder: Folder with the file, or the file itself.

    Raises:
      ValueError: If the file or a key is missing, or an array has the wrong shape or range.
    """
    path = folder / "chardata.mat" if folder.is_dir() else folder
    arrays = _arrays(path)
    splits = {split: _characters(path, arrays, prefix) for split, prefix in _PREFIXES.items()}
    # Characters are numbered from 1 to at most 55 within their alphabet.
    labels = {"alphabet": 50, "character": 56}
    description = "Omniglot at 28x28 from chardata.mat; intensities are 255 times the file's."
    return Source("omniglot28", "1.0.0", description, (28, 28, 1), labels, splits)


def _names(prefix: str) -> list[str]:
    return [f"{prefix}{key}" for key in ("data", "target", "targetchar")]


def _arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads the arrays, after their headers have named kinds and shapes: some unpack to more."""
    # SciPy is slow to import, and only this reader needs it.
    import scipy.io

    require(path.is_file(), f"{path.parent} lacks {path.name}")
    headers = _of_scipy(path, scipy.io.whosmat)
    stated = {name: (list(shape), kind) for name, shape, kind in headers}
    for prefix in _PREFIXES.values():
        _check_headers(path, stated, prefix)
    names = [name for prefix in _PREFIXES.values() for name in _names(prefix)]
    return _of_scipy(path, scipy.io.loadmat, variable_names=names)


def _of_scipy(path: pathlib.Path, read: Callable, **keywords: Any) -> Any:
    try:
        return read(path, **keywords)
    except Exception as error:  # SciPy raises many kinds of errors for damaged files.
        raise ValueError(f"{path} is damaged or not a MATLAB file: {reason_of(error)}") from None


def _check_headers(
    path: pathlib.Path, stated: dict[str, tuple[list[int], str]], prefix: str
) -> None:
    """Checks the kinds and shapes of the arrays of one split, whose keys start with `prefix`."""
    names = _names(prefix)
    missing = [name for name in names if name not in stated]
    found = ", ".join(sorted(stated)) or "none"
    require(
        not missing,
        f"{path} lacks the key {', '.join(missing)}; it has {found} (is it truncated?)",
    )
    count = stated[names[0]][0][-1]
    for name, rows in zip(names, (784, 50, 1), strict=True):
        shape, kind = stated[name]
        require(
            kind not in _NO_NUMBERS,
            f"{path}: {name} must be an array of real numbers; got {kind}",
        )
        require(
            shape == [rows, count] and count > 0,
            f"{path}: {name} must have shape {[rows, count]}; got {shape}",
        )


def _characters(
    path: pathlib.Path, arrays: dict[str, np.ndarray], prefix: str
) -> list[dict[str, Any]]:
    """Returns the examples of one split, whose keys start with `prefix`."""
    names = _names(prefix)
    data, target, character = (arrays[name] for name in names)
    for name in names:  # Headers do not tell complex numbers from real ones.
        kind = arrays[name].dtype
        require(kind.kind in "biuf", f"{path}: {name} must be an array of real numbers; got {kind}")
    for name, highest in ((names[0], 1), (names[1], 1), (names[2], 55)):
        low, high = float(arrays[name].min()), float(arrays[name].max())
        require(
            low >= 0 and high <= highest,
            f"{path}: {name} must lie in [0, {highest}]; got {low} to {high}",
        )
    # Transposing the last two axes undoes MATLAB's column-major order of the pixels.
    images = np.rint(255 * data.T.reshape(-1, 28, 28).transpose(0, 2, 1)).astype(np.uint8)
    alphabet, character = target.argmax(0), character[0].astype(np.int64)
    return examples(images[..., None], alphabet=alphabet, character=character)
