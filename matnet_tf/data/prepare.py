# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""`matnet prepare`: turns local source files, or a download, into a TFDS data set."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import socket
import threading
import urllib.parse
import urllib.request

import tensorflow_datasets as tfds

from matnet_tf.config import DataConfig
from matnet_tf.data import tfds_reader, tfds_writer
from matnet_tf.data.catalog import data_set_info
from matnet_tf.data.sources.base import Source
from matnet_tf.data.sources.cifar import read_cifar10
from matnet_tf.data.sources.folders import read_folder
from matnet_tf.data.sources.mnist import read_amat, read_mnist
from matnet_tf.data.sources.omniglot import read_chardata
from matnet_tf.files import reason_of
from matnet_tf.tracing import without_autograph

__all__ = ["Prepared", "prepare"]

_READERS = {
    "mnist": functools.partial(read_mnist, name="mnist"),
    "fashion_mnist": functools.partial(read_mnist, name="fashion_mnist"),
    "binarized_mnist": read_amat,
    "omniglot28": read_chardata,
    "cifar10": read_cifar10,
    "image_folder": read_folder,
}
_PROBE_SECONDS = 3.0
_DEFAULT_HOST = "storage.googleapis.com"


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A data set that is ready to be loaded; as text, lines for people.

    Attributes:
      name: TFDS name.
      folder: Folder of the data set.
      image_shape: Height, width and channels; None for what varies between images.
      splits: Number of images by split.
      notes: What became of folders and files, in lines.
    """

    name: str
    folder: pathlib.Path
    image_shape: tuple[int | None, ...]
    splits: dict[str, int]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {split}" for split, count in self.splits.items())
        shape = "x".join(map(str, self.image_shape))
        if None in self.image_shape:
            shape = "varying size (load them with --data.image_size=HEIGHT,WIDTH)"
        return "\n".join([*self.notes, f"{self.name}: {counts} images of {shape} in {self.folder}"])


@without_autograph
def prepare(
    config: DataConfig,
    source: str = "",
    overwrite: bool = False,
    size: tuple[int, int] | None = None,
    crop: int = 0,
) -> Prepared:
    """Turns source files, or a download, into the TFDS data set `config.name` in `config.dir`.

    The data set appears whole or not at all: it is written to a temporary folder and moved to its
    place at the end. The folders of killed preparations are removed first.

    Args:
      config: Name of the data set, and the data directory.
      source: Folder of the source files, see `catalog.DATA_SETS`; empty lets TFDS download.
      overwrite: Whether to replace an existing data set.
      size: Height and width to which the images of an image folder are resized; None keeps images
        of one size, see `sources.folders`.
      crop: Side of the tiles into which the images of an image folder are cut; 0 does not cut.

    Raises:
      ValueError: If the data set exists already, a source file is missing, damaged or of another
        kind, or there is no source and TFDS cannot download.
    """
    if config.name == "digits":
        raise ValueError("digits is embedded and needs no preparation")
    if (size or crop) and config.name != "image_folder":
        raise ValueError(f"a size or crop goes with image_folder only; got {config.name}")
    if size and crop:
        raise ValueError("a size and a crop exclude each other; got both")
    root = tfds_writer.data_dir(config.dir)
    tfds_writer.remove_abandoned(root)
    found = tfds_writer.find(config.name, config.dir)
    if found and not overwrite:
        raise ValueError(f"{found} exists already; --overwrite replaces it")
    if source:
        content = _read(config.name, source, size, crop)
        notes = content.notes
        with tfds_writer.workspace(root) as temporary:
            made = tfds_writer.write(content, temporary)
            target = root / content.name / content.version
            tfds_writer.publish(made, target, found)
    else:
        target, notes = _download(config.name, root, found), ()
    return dataclasses.replace(_summary(target), notes=notes)


def _read(name: str, source: str, size: tuple[int, int] | None, crop: int) -> Source:
    """Reads and checks the source files."""
    if name not in _READERS:
        raise ValueError(f"--source works for {', '.join(_READERS)}; got {name!r}")
    folder = pathlib.Path(source).expanduser()
    if not folder.exists():
        raise ValueError(f"the source {folder} does not exist")
    settings = {"size": size, "crop": crop} if size or crop else {}
    return _READERS[name](folder, **settings)


def _download(name: str, root: pathlib.Path, old: pathlib.Path | None) -> pathlib.Path:
    """Lets TFDS download and prepare a data set; fails at once without a network."""
    info = data_set_info(name)
    if info.local_only:
        raise ValueError(f"{name} needs --source=DIR, a folder with {info.source}")
    if not tfds_reader.in_tfds(name):
        raise ValueError(f"TFDS has no data set {name!r}")
    hint = f"; with --source=DIR it is made from {info.source}" if info.source else ""
    builder = tfds.builder(name, data_dir=str(root))
    tfds_reader.image_feature(builder.info)
    try:
        _probe(builder)
        with tfds_writer.workspace(root) as temporary:
            builder = tfds.builder(name, data_dir=str(temporary))
            builder.download_and_prepare(download_dir=str(root / "downloads"))
            made = pathlib.Path(builder.data_dir)
            target = root / made.relative_to(temporary)
            tfds_writer.publish(made, target, old)
    except Exception as error:  # TFDS and its downloader raise errors of many kinds.
        raise ValueError(f"cannot download {name}: {reason_of(error)}{hint}") from error
    return target


def _probe(builder: tfds.core.DatasetBuilder) -> None:
    """Opens a connection to the download's host or to the proxy, since TFDS retries for minutes.

    Raises:
      ValueError: If there is no connection within `_PROBE_SECONDS`.
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
    """Returns why there is no connection within `_PROBE_SECONDS`, or an empty string.

    It runs in a thread because no timeout covers the name look-up.
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
    info = tfds_reader.builder_of(folder).info
    return Prepared(
        name=info.name,
        folder=folder,
        image_shape=tuple(info.features["image"].shape),
        splits={name: split.num_examples for name, split in info.splits.items()},
    )
