# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""`prepare`: local source files, or a download, become a TFDS data set."""

from __future__ import annotations

import dataclasses
import pathlib
import socket
import threading
import urllib.parse
import urllib.request

import tensorflow_datasets as tfds

from matnet_tf.config import DataConfig
from matnet_tf.datasets import cifar, folders, reading, sources, storage
from matnet_tf.files import reason_of
from matnet_tf.graphs import as_written

__all__ = ["SOURCES", "Prepared", "in_tfds", "prepare"]

_FASHION = [
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
]

# What `source` must hold, by data set.
SOURCES = {
    "mnist": "{train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz]",
    "fashion_mnist": "{train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz]",
    "binarized_mnist": "binarized_mnist_{train,valid,test}.amat",
    "omniglot28": "chardata.mat",
    "cifar10": "data_batch_{1..5}.bin and test_batch.bin",
    "image_folder": "{train,test}/CLASS/*.{png,jpg}, or images in one folder",
}
# These are not to be had from TFDS.
_LOCAL_ONLY = ("omniglot28", "image_folder")
_PROBE_SECONDS = 3.0
_DEFAULT_HOST = "storage.googleapis.com"


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A data set that is ready to be loaded.

    Attributes:
      name: TFDS name.
      folder: where it lies.
      image_shape: height, width and channels; None for what varies from image to image.
      splits: images by split.
    """

    name: str
    folder: pathlib.Path
    image_shape: tuple[int | None, ...]
    splits: dict[str, int]

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {split}" for split, count in self.splits.items())
        shape = "x".join(map(str, self.image_shape))
        if None in self.image_shape:
            shape = "varying size (load them with --data.image_size=HEIGHT,WIDTH)"
        return f"{self.name}: {counts} images of {shape} in {self.folder}"


def in_tfds(name: str) -> bool:
    """Whether TFDS knows how to make a data set of this name."""
    try:
        tfds.builder_cls(name.partition("/")[0].partition(":")[0])
    except Exception:  # TFDS raises errors of several kinds for malformed names as well.
        return False
    return True


@as_written
def prepare(
    config: DataConfig,
    source: str = "",
    overwrite: bool = False,
    size: tuple[int, int] | None = None,
) -> Prepared:
    """Turns source files into the TFDS data set `config.name` in `config.dir`.

    The data set appears whole or not at all: it is written beside its place and moved there at
    the end. What a preparation that was killed has left is removed first.

    Args:
      config: name of the data set, and the data directory.
      source: folder of the source files, as `SOURCES` says; empty lets TFDS download.
      overwrite: replace a set that is there.
      size: height and width to which images of an image folder are resized; None keeps them.

    Returns:
      What was made; as text, one line.

    Raises:
      ValueError: if the set is there already, a source file is missing, damaged or of another
        kind, or there is no source and TFDS cannot download.
    """
    if config.name == "digits":
        raise ValueError("digits is embedded and needs no preparation")
    if size and config.name != "image_folder":
        raise ValueError(f"a size goes with image_folder only; got one with {config.name}")
    root = storage.data_dir(config.dir)
    storage.remove_abandoned(root)
    found = storage.find(config.name, config.dir)
    if found and not overwrite:
        raise ValueError(f"{found} is there already; --overwrite replaces it")
    if source:
        content = _read(config.name, source, size)
        with storage.workspace(root) as temporary:
            made = storage.write(content, temporary)
            target = root / content.name / content.version
            storage.publish(made, target, found)
    else:
        target = _download(config.name, root, found)
    return _summary(target)


def _read(name: str, source: str, size: tuple[int, int] | None) -> sources.Source:
    """Reads and checks the source files."""
    if name not in SOURCES:
        raise ValueError(f"--source works for {', '.join(SOURCES)}; got {name!r}")
    folder = pathlib.Path(source).expanduser()
    if not folder.exists():
        raise ValueError(f"the source {folder} does not exist")
    if name == "mnist":
        return sources.read_mnist(folder, name, "3.0.1", 10)
    if name == "fashion_mnist":
        return sources.read_mnist(folder, name, "3.0.1", _FASHION)
    if name == "binarized_mnist":
        return sources.read_amat(folder)
    if name == "omniglot28":
        return sources.read_chardata(folder)
    if name == "cifar10":
        return cifar.read_cifar10(folder)
    return folders.read_folder(folder, size)


def _download(name: str, root: pathlib.Path, old: pathlib.Path | None) -> pathlib.Path:
    """Lets TFDS download and prepare; without a network it says so at once."""
    if name in _LOCAL_ONLY:
        raise ValueError(f"{name} needs --source=DIR, a folder with {SOURCES[name]}")
    if not in_tfds(name):
        raise ValueError(f"TFDS has no data set {name!r}")
    hint = f"; with --source=DIR it is made from {SOURCES[name]}" if name in SOURCES else ""
    builder = tfds.builder(name, data_dir=str(root))
    reading.image_feature(builder.info)
    try:
        _probe(builder)
        with storage.workspace(root) as temporary:
            builder = tfds.builder(name, data_dir=str(temporary))
            builder.download_and_prepare(download_dir=str(root / "downloads"))
            made = pathlib.Path(builder.data_dir)
            target = root / made.relative_to(temporary)
            storage.publish(made, target, old)
    except Exception as error:  # TFDS and its downloader raise errors of many kinds.
        raise ValueError(f"cannot download {name}: {reason_of(error)}{hint}") from error
    return target


def _probe(builder: tfds.core.DatasetBuilder) -> None:
    """Opens a connection to the host of the download, or to the proxy on the way there.

    TFDS tries again for minutes where there is no network.

    Raises:
      ValueError: if there is no connection within seconds.
    """
    url = next(iter(builder.url_infos or ()), f"https://{_DEFAULT_HOST}")
    parts = urllib.parse.urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.hostname):
        parts = urllib.parse.urlsplit(proxy if "//" in proxy else f"//{proxy}")
    port = parts.port or (80 if parts.scheme == "http" else 443)
    failure = _connect(parts.hostname, port)
    if failure:
        raise ValueError(f"no connection to {parts.hostname}:{port} ({failure})")


def _connect(host: str, port: int) -> str:
    """Why a connection cannot be had within `_PROBE_SECONDS`; empty if it can.

    In a thread, since no timeout reaches the look-up of the name.
    """
    outcome = [f"no answer in {_PROBE_SECONDS:g} s"]

    def connect() -> None:
        try:
            socket.create_connection((host, port), _PROBE_SECONDS).close()
            outcome[0] = ""
        except OSError as error:
            outcome[0] = str(error)

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(_PROBE_SECONDS)
    return outcome[0]


def _summary(folder: pathlib.Path) -> Prepared:
    info = reading.builder_of(folder).info
    return Prepared(
        name=info.name,
        folder=folder,
        image_shape=tuple(info.features["image"].shape),
        splits={name: split.num_examples for name, split in info.splits.items()},
    )
