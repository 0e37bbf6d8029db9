# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""From source files to TFDS data directories."""

import gzip
import pathlib
import socket
import struct
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import scipy.io
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from matnet_tf import datasets
from matnet_tf.config import DataConfig
from matnet_tf.datasets.png import encode_png

tfds.disable_progress_bar()
ROOT = pathlib.Path(__file__).resolve().parent.parent
COUNTS = {"train": 13, "validation": 6, "test": 7}


def pixels(count, shape=(28, 28, 1), high=256):
    return np.random.RandomState(count).randint(0, high, (count, *shape)).astype(np.uint8)


def write_idx(path, array):
    header = struct.pack(f">{1 + array.ndim}I", 0x800 | array.ndim, *array.shape)
    data = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


@pytest.fixture
def mnist(tmp_path):
    """A source folder in MNIST's format, one pair of files packed and the other not."""
    folder = tmp_path / "mnist"
    folder.mkdir()
    for split, prefix, suffix in (("train", "train", ".gz"), ("test", "t10k", "")):
        count = COUNTS[split]
        write_idx(folder / f"{prefix}-images-idx3-ubyte{suffix}", pixels(count)[..., 0])
        write_idx(folder / f"{prefix}-labels-idx1-ubyte{suffix}", np.arange(count) % 10)
    return folder


@pytest.fixture
def amat(tmp_path):
    folder = tmp_path / "amat"
    folder.mkdir()
    for split, name in (("train", "train"), ("validation", "valid"), ("test", "test")):
        rows = pixels(COUNTS[split], high=2).reshape(-1, 784)
        np.savetxt(folder / f"binarized_mnist_{name}.amat", rows, fmt="%d")
    return folder


@pytest.fixture
def chardata(tmp_path):
    """A folder with `chardata.mat`: one image a column, pixels in column-major order."""
    folder = tmp_path / "omniglot"
    folder.mkdir()
    arrays = {}
    for split, prefix in (("train", ""), ("test", "test")):
        count = COUNTS[split]
        columns = [image[..., 0].ravel(order="F") / 255 for image in pixels(count)]
        arrays[f"{prefix}data"] = np.stack(columns, axis=1)
        arrays[f"{prefix}target"] = np.eye(50)[np.arange(count) % 50].T
        arrays[f"{prefix}targetchar"] = 1.0 + np.arange(count)[None]
    scipy.io.savemat(folder / "chardata.mat", arrays)
    return folder


def config(name, tmp_path):
    return DataConfig(name=name, dir=str(tmp_path / "tfds"))


def stored(name, tmp_path, split):
    """Examples in the way any user of TFDS reads them."""
    builder = tfds.builder(name, data_dir=str(tmp_path / "tfds"))
    return list(tfds.as_numpy(builder.as_dataset(split=split)))


def as_set(images, *labels):
    """What was stored, whatever its order."""
    return sorted((i.tobytes(), *map(int, row)) for i, *row in zip(images, *labels, strict=True))


def assert_nothing_written(tmp_path):
    assert not (tmp_path / "tfds").exists()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_png_is_read_back_exactly(channels):
    image = pixels(1, (5, 7, channels))[0]
    np.testing.assert_array_equal(tf.io.decode_png(encode_png(image), channels), image)


def test_png_refuses_what_it_cannot_hold():
    with pytest.raises(ValueError, match=r"uint8 image.*float64 \[2, 2, 5\]"):
        encode_png(np.zeros([2, 2, 5]))


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_idx_files_become_the_data_set_that_tfds_itself_reads(name, mnist, tmp_path):
    made = datasets.prepare(config(name, tmp_path), str(mnist))
    assert made.splits == {"train": 13, "test": 7} and made.image_shape == (28, 28, 1)
    assert made.folder == tmp_path / "tfds" / name / "3.0.1"
    assert str(made) == f"{name}: 13 train, 7 test images of 28x28x1 in {made.folder}"
    for split in ("train", "test"):
        examples = stored(name, tmp_path, split)
        count = COUNTS[split]
        found = as_set([e["image"] for e in examples], [e["label"] for e in examples])
        assert found == as_set(pixels(count), np.arange(count) % 10)
    assert [p.name for p in (tmp_path / "tfds").iterdir()] == [name]


def test_amat_files_become_zeros_and_ones(amat, tmp_path):
    made = datasets.prepare(config("binarized_mnist", tmp_path), str(amat))
    assert made.splits == COUNTS
    for split, count in COUNTS.items():
        examples = stored("binarized_mnist", tmp_path, split)
        assert as_set([e["image"] for e in examples]) == as_set(pixels(count, high=2))


def test_chardata_becomes_upright_images_with_alphabet_and_character(chardata, tmp_path):
    made = datasets.prepare(config("omniglot28", tmp_path), str(chardata))
    assert made.splits == {"train": 13, "test": 7}
    for split in ("train", "test"):
        found = stored("omniglot28", tmp_path, split)
        labels = ([e[label] for e in found] for label in ("alphabet", "character"))
        count = np.arange(COUNTS[split])
        expected = as_set(pixels(len(count)), count, count + 1)
        assert as_set([e["image"] for e in found], *labels) == expected


def save_images(folder, images):
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(folder / f"{i}.png")


def test_folders_of_classes_become_labels(tmp_path):
    source = tmp_path / "source"
    for split, count in (("train", 4), ("test", 2)):
        for label, name in enumerate(("cat", "dog")):
            save_images(source / split / name, pixels(count + label, (6, 5, 3)))
    made = datasets.prepare(config("image_folder", tmp_path), str(source))
    assert made.splits == {"train": 9, "test": 5} and made.image_shape == (6, 5, 3)
    examples = stored("image_folder", tmp_path, "train")
    expected = [*pixels(4, (6, 5, 3)), *pixels(5, (6, 5, 3))]
    found = as_set([e["image"] for e in examples], [e["label"] for e in examples])
    assert found == as_set(expected, [0] * 4 + [1] * 5)


def test_a_flat_folder_is_split_nine_to_one_without_overlap(tmp_path):
    images = pixels(20, (4, 4, 1))
    save_images(tmp_path / "source", images)
    made = datasets.prepare(config("image_folder", tmp_path), str(tmp_path / "source"))
    assert made.splits == {"train": 18, "test": 2} and made.image_shape == (4, 4, 1)
    examples = stored("image_folder", tmp_path, "train") + stored("image_folder", tmp_path, "test")
    assert as_set([e["image"] for e in examples]) == as_set(images)


def test_images_of_other_sizes_are_refused_unless_a_size_is_given(tmp_path):
    source = tmp_path / "source"
    save_images(source / "train", [np.full((4, 6, 3), 200, np.uint8)])
    save_images(source / "test", [np.full((8, 8, 1), 100, np.uint8)])
    with pytest.raises(ValueError, match="0.png has 8x8 pixels, but 0.png has 4x6; --size"):
        datasets.prepare(config("image_folder", tmp_path), str(source))
    assert_nothing_written(tmp_path)
    made = datasets.prepare(config("image_folder", tmp_path), str(source), size=(3, 2))
    assert made.image_shape == (3, 2, 3)
    (example,) = stored("image_folder", tmp_path, "test")
    np.testing.assert_array_equal(example["image"], np.full((3, 2, 3), 100))


def cut(path, count):
    path.write_bytes(path.read_bytes()[:count])


def mislabel(folder):
    (folder / "train-images-idx3-ubyte.gz").write_bytes(
        (folder / "train-labels-idx1-ubyte.gz").read_bytes()
    )


MNIST_FAULTS = {
    "missing": (
        lambda f: (f / "t10k-labels-idx1-ubyte").unlink(),
        "lacks t10k-labels-idx1-ubyte",
    ),
    "truncated gzip": (
        lambda f: cut(f / "train-images-idx3-ubyte.gz", 3000),
        "train-images-idx3-ubyte.gz is damaged",
    ),
    "truncated": (
        lambda f: cut(f / "t10k-images-idx3-ubyte", 5000),
        "t10k-images-idx3-ubyte is truncated: its header announces 7x28x28 = 5488 bytes; got 4984",
    ),
    "no header": (lambda f: cut(f / "t10k-images-idx3-ubyte", 9), "truncated: 9 bytes"),
    "labels for images": (mislabel, "must hold images .* its magic is 2049, that of labels"),
    "other count": (
        lambda f: write_idx(f / "t10k-labels-idx1-ubyte", np.zeros(6)),
        "6 labels for the 7 images of t10k-images",
    ),
    "label out of range": (
        lambda f: write_idx(f / "t10k-labels-idx1-ubyte", np.full(7, 10)),
        "labels from 0 to 9; got a 10",
    ),
    "other size": (
        lambda f: write_idx(f / "t10k-images-idx3-ubyte", np.zeros([7, 8, 9])),
        "images of 28x28; got 8x9",
    ),
}


@pytest.mark.parametrize("fault", MNIST_FAULTS)
def test_a_fault_in_idx_files_is_named_and_nothing_is_written(fault, mnist, tmp_path):
    damage, message = MNIST_FAULTS[fault]
    damage(mnist)
    with pytest.raises(ValueError, match=message) as caught:
        datasets.prepare(config("mnist", tmp_path), str(mnist))
    assert "\n" not in str(caught.value)
    assert_nothing_written(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"1", b"2", "line 1: every value must be 0 or 1"),
        (b"1 ", b"1.0 ", "line 1: every value must be 0 or 1"),
        (b"1 ", b"", "line 1: expected 784 values; got 783"),
    ],
)
def test_a_fault_in_amat_files_is_named_and_nothing_is_written(old, new, message, amat, tmp_path):
    path = amat / "binarized_mnist_valid.amat"
    path.write_bytes(path.read_bytes().replace(old, new, 1))
    with pytest.raises(ValueError, match=f"valid.amat, {message}"):
        datasets.prepare(config("binarized_mnist", tmp_path), str(amat))
    assert_nothing_written(tmp_path)


def test_a_truncated_or_empty_or_missing_amat_file_is_named(amat, tmp_path):
    path = amat / "binarized_mnist_test.amat"
    cut(path, path.stat().st_size - 300)
    with pytest.raises(ValueError, match=r"test.amat, line 7: expected 784 values; got 634"):
        datasets.prepare(config("binarized_mnist", tmp_path), str(amat))
    cut(path, 0)
    with pytest.raises(ValueError, match="test.amat is empty"):
        datasets.prepare(config("binarized_mnist", tmp_path), str(amat))
    path.unlink()
    with pytest.raises(ValueError, match="lacks binarized_mnist_test.amat"):
        datasets.prepare(config("binarized_mnist", tmp_path), str(amat))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"testtarget": None}, "lacks the key testtarget; it has data, target"),
        ({"data": np.zeros([783, 13])}, r"data must have shape \[784, 13\]; got \[783, 13\]"),
        ({"target": np.zeros([50, 12])}, r"target must have shape \[50, 13\]; got \[50, 12\]"),
        ({"testdata": np.full([784, 7], 255.0)}, r"testdata must lie in \[0, 1\]"),
        ({"testtargetchar": np.full([1, 7], 56.0)}, r"testtargetchar must lie in \[0, 55\]"),
    ],
)
def test_a_fault_in_chardata_is_named_and_nothing_is_written(change, message, chardata, tmp_path):
    path = chardata / "chardata.mat"
    arrays = {k: v for k, v in scipy.io.loadmat(path).items() if not k.startswith("__")}
    arrays = {k: v for k, v in (arrays | change).items() if v is not None}
    scipy.io.savemat(path, arrays)
    with pytest.raises(ValueError, match=message):
        datasets.prepare(config("omniglot28", tmp_path), str(chardata))
    assert_nothing_written(tmp_path)


def test_a_damaged_chardata_is_named(chardata, tmp_path):
    cut(chardata / "chardata.mat", 2000)
    with pytest.raises(ValueError, match="chardata.mat is damaged or not a MATLAB file"):
        datasets.prepare(config("omniglot28", tmp_path), str(chardata))
    (chardata / "chardata.mat").unlink()
    with pytest.raises(ValueError, match="lacks chardata.mat"):
        datasets.prepare(config("omniglot28", tmp_path), str(chardata))


def test_an_image_that_is_damaged_behind_its_header_leaves_no_data_set(tmp_path):
    save_images(tmp_path / "source", pixels(5, (32, 32, 3)))
    cut(tmp_path / "source" / "3.png", 1500)
    with pytest.raises(ValueError, match="3.png is damaged"):
        datasets.prepare(config("image_folder", tmp_path), str(tmp_path / "source"))
    assert_nothing_written(tmp_path)
    (tmp_path / "source" / "3.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="3.png is damaged or not an image"):
        datasets.prepare(config("image_folder", tmp_path), str(tmp_path / "source"))


def test_folders_without_images_or_without_a_split_are_refused(tmp_path):
    (tmp_path / "source").mkdir()
    with pytest.raises(ValueError, match="holds no images"):
        datasets.prepare(config("image_folder", tmp_path), str(tmp_path / "source"))
    save_images(tmp_path / "source" / "train", pixels(2, (4, 4, 1)))
    with pytest.raises(ValueError, match="has train; it lacks test"):
        datasets.prepare(config("image_folder", tmp_path), str(tmp_path / "source"))
    with pytest.raises(ValueError, match="elsewhere does not exist"):
        datasets.prepare(config("image_folder", tmp_path), str(tmp_path / "elsewhere"))


def test_a_data_set_that_is_there_is_kept_unless_it_is_to_be_replaced(mnist, tmp_path):
    wanted = config("mnist", tmp_path)
    made = datasets.prepare(wanted, str(mnist))
    write_idx(mnist / "t10k-images-idx3-ubyte", np.zeros([5, 28, 28]))
    write_idx(mnist / "t10k-labels-idx1-ubyte", np.zeros(5))
    with pytest.raises(ValueError, match="is there already; --overwrite replaces it"):
        datasets.prepare(wanted, str(mnist))
    assert len(stored("mnist", tmp_path, "test")) == 7
    assert datasets.prepare(wanted, str(mnist), overwrite=True).folder == made.folder
    assert len(stored("mnist", tmp_path, "test")) == 5
    # A fault must not cost the set that was there.
    cut(mnist / "t10k-images-idx3-ubyte", 100)
    with pytest.raises(ValueError, match="truncated"):
        datasets.prepare(wanted, str(mnist), overwrite=True)
    assert len(stored("mnist", tmp_path, "test")) == 5
    assert [p.name for p in (tmp_path / "tfds").iterdir()] == ["mnist"]


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("digits", {}, "digits is embedded"),
        ("cifar10", {"source": "."}, "--source works for mnist.*; got 'cifar10'"),
        ("mnist", {"size": (8, 8)}, "a size goes with image_folder only"),
        ("omniglot28", {}, "omniglot28 needs --source=DIR, a folder with chardata.mat"),
        ("tiny_shakespeare", {}, "tiny_shakespeare has no feature `image`; it has text"),
        ("tf_flowers", {}, "images of tf_flowers vary in size"),
        ("no_such_set", {}, "TFDS has no data set 'no_such_set'"),
    ],
)
def test_what_cannot_be_prepared_is_refused(name, arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        datasets.prepare(config(name, tmp_path), **arguments)
    assert_nothing_written(tmp_path)


def test_without_a_network_a_download_fails_at_once(tmp_path, monkeypatch):
    def unreachable(address, timeout):
        assert address == ("storage.googleapis.com", 443) and timeout < 5
        raise OSError("no route")

    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(socket, "create_connection", unreachable)
    start = time.monotonic()
    with pytest.raises(ValueError, match="cannot download mnist: no connection to .*no route"):
        datasets.prepare(config("mnist", tmp_path))
    assert time.monotonic() - start < 5
    assert_nothing_written(tmp_path)


def test_a_proxy_is_what_is_tried_where_there_is_one(tmp_path, monkeypatch):
    tried = []

    def unreachable(address, timeout):
        tried.append(address)
        raise OSError("refused")

    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setattr(socket, "create_connection", unreachable)
    with pytest.raises(ValueError, match="no connection to proxy.example:3128"):
        datasets.prepare(config("mnist", tmp_path))
    assert tried == [("proxy.example", 3128)]


def test_a_name_server_that_does_not_answer_is_not_waited_for(tmp_path, monkeypatch):
    over = threading.Event()

    def look_up(*_):
        over.wait(30)
        raise OSError

    monkeypatch.setattr(socket, "create_connection", look_up)
    monkeypatch.setattr("matnet_tf.datasets.importer._PROBE_SECONDS", 0.1)
    with pytest.raises(ValueError, match=r"no connection to .* \(no answer in 0.1 s\)"):
        datasets.prepare(config("mnist", tmp_path))
    over.set()


def make_empty_set(folder):
    folder.mkdir(parents=True)
    for name in ("dataset_info.json", "features.json"):
        (folder / name).write_text("{}")


def test_find_takes_the_newest_version_and_the_only_config(tmp_path):
    assert datasets.find("a", str(tmp_path)) is None
    for path in ("a/1.9.0", "a/1.10.0", "b/small/2.0.0", "a/3.0.0.incomplete"):
        make_empty_set(tmp_path / path)
    (tmp_path / "a" / "4.0.0").mkdir()
    assert datasets.find("a", str(tmp_path)) == tmp_path / "a" / "1.10.0"
    assert datasets.find("a:1.9.0", str(tmp_path)) == tmp_path / "a" / "1.9.0"
    assert datasets.find("a:2.0.0", str(tmp_path)) is None
    assert datasets.find("b", str(tmp_path)) == tmp_path / "b/small/2.0.0"
    make_empty_set(tmp_path / "b/large/2.0.0")
    with pytest.raises(ValueError, match="several configs of b; name one of b/large, b/small"):
        datasets.find("b", str(tmp_path))
    assert datasets.find("b/large", str(tmp_path)) == tmp_path / "b/large/2.0.0"


def run_prepare(*arguments):
    command = [sys.executable, str(ROOT / "bin" / "prepare"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_the_program_refuses_bad_flags_before_tensorflow_is_imported():
    start = time.monotonic()
    done = run_prepare("--data.name=image_folder", "--size=8by8")
    assert done.returncode == 2 and time.monotonic() - start < 2
    assert (
        done.stderr == "bin/prepare: error: --size must read HEIGHTxWIDTH, such as 64x64; "
        "got '8by8'\n"
    )


@pytest.mark.slow
def test_the_program_prepares_and_says_what_it_made(mnist, tmp_path):
    where = str(tmp_path / "tfds")
    arguments = ("--data.name=mnist", f"--source={mnist}", f"--data.dir={where}")
    done = run_prepare(*arguments)
    assert done.returncode == 0
    assert done.stdout == f"mnist: 13 train, 7 test images of 28x28x1 in {where}/mnist/3.0.1\n"
    again = run_prepare(*arguments)
    assert again.returncode == 2 and "Traceback" not in again.stderr
    assert again.stderr.splitlines()[-1].startswith("bin/prepare: error: ")
