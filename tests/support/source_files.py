# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Small source files in the formats that users have; needs no TensorFlow."""

import gzip
import struct

import numpy as np
import scipy.io
from PIL import Image

COUNTS = {"train": 13, "validation": 6, "test": 7}
CIFAR_SHAPE = (32, 32, 3)


def pixels(count, shape=(28, 28, 1), high=256):
    """Random images, the same for the same count."""
    return np.random.RandomState(count).randint(0, high, (count, *shape)).astype(np.uint8)


def write_idx(path, array):
    header = struct.pack(f">{1 + array.ndim}I", 0x800 | array.ndim, *array.shape)
    data = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def mnist_files(folder):
    """IDX files of MNIST, one pair gzipped and the other not."""
    folder.mkdir()
    for split, prefix, suffix in (("train", "train", ".gz"), ("test", "t10k", "")):
        count = COUNTS[split]
        write_idx(folder / f"{prefix}-images-idx3-ubyte{suffix}", pixels(count)[..., 0])
        write_idx(folder / f"{prefix}-labels-idx1-ubyte{suffix}", np.arange(count) % 10)
    return folder


def amat_files(folder):
    """The three files of MNIST's fixed binarization."""
    folder.mkdir()
    for split, name in (("train", "train"), ("validation", "valid"), ("test", "test")):
        rows = pixels(COUNTS[split], high=2).reshape(-1, 784)
        np.savetxt(folder / f"binarized_mnist_{name}.amat", rows, fmt="%d")
    return folder


def chardata_arrays():
    """Contents of `chardata.mat`: one image per column, pixels in column-major order."""
    arrays = {}
    for split, prefix in (("train", ""), ("test", "test")):
        count = COUNTS[split]
        columns = [image[..., 0].ravel(order="F") / 255 for image in pixels(count)]
        arrays[f"{prefix}data"] = np.stack(columns, axis=1)
        arrays[f"{prefix}target"] = np.eye(50)[np.arange(count) % 50].T
        arrays[f"{prefix}targetchar"] = 1.0 + np.arange(count)[None]
    return arrays


def chardata_file(folder):
    folder.mkdir()
    scipy.io.savemat(folder / "chardata.mat", chardata_arrays())
    return folder


def cifar_records(count, label):
    """Records of CIFAR-10's binary version: a label, then the planes red, green and blue."""
    planes = pixels(count, CIFAR_SHAPE).transpose(0, 3, 1, 2)
    return b"".join(bytes([label]) + image.tobytes() for image in planes)


def cifar_files(folder):
    """The files of CIFAR-10; `data_batch_3.bin` has three images of label 3."""
    inner = folder / "cifar-10-batches-bin"
    inner.mkdir(parents=True)
    for number in range(1, 6):
        (inner / f"data_batch_{number}.bin").write_bytes(cifar_records(number, number))
    (inner / "test_batch.bin").write_bytes(cifar_records(7, 9))
    return folder


def save_images(folder, images):
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(folder / f"{i}.png")


def cut(path, count):
    """Truncates a file, to so many bytes or, if negative, by so many."""
    path.write_bytes(path.read_bytes()[:count])
