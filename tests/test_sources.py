# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""From the files that users have to TFDS data sets, and what is wrong with damaged ones."""

import numpy as np
import pytest
import scipy.io
import tensorflow_datasets as tfds
from source_files import (
    COUNTS,
    as_set,
    assert_nothing_written,
    config,
    cut,
    mnist_files,
    pixels,
    save_images,
    stored,
    write_idx,
)

from matnet_tf import datasets

tfds.disable_progress_bar()


@pytest.fixture
def mnist(tmp_path):
    return mnist_files(tmp_path / "mnist")


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


def cifar_records(count, label):
    """Records of CIFAR-10's binary version: a label, then the planes red, green and blue."""
    records = []
    for image in pixels(count, (32, 32, 3)):
        records.append(bytes([label]) + b"".join(image[:, :, c].tobytes() for c in range(3)))
    return b"".join(records)


@pytest.fixture
def cifar(tmp_path):
    """A source folder in CIFAR-10's format; `data_batch_3.bin` has three images of label 3."""
    folder = tmp_path / "cifar" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for number in range(1, 6):
        (folder / f"data_batch_{number}.bin").write_bytes(cifar_records(number, number))
    (folder / "test_batch.bin").write_bytes(cifar_records(7, 9))
    return folder


@pytest.mark.parametrize("inner", [True, False])
def test_cifar_records_become_upright_colour_images_with_classes_and_ids(inner, cifar, tmp_path):
    made = datasets.prepare(config("cifar10", tmp_path), str(cifar if inner else cifar.parent))
    assert str(made) == f"cifar10: 15 train, 7 test images of 32x32x3 in {made.folder}"
    train, test = (stored("cifar10", tmp_path, split) for split in ("train", "test"))
    images = np.concatenate([pixels(number, (32, 32, 3)) for number in range(1, 6)])
    labels = np.repeat(np.arange(1, 6), np.arange(1, 6))
    assert as_set([e["image"] for e in train], [e["label"] for e in train]) == as_set(
        images, labels
    )
    assert as_set([e["image"] for e in test]) == as_set(pixels(7, (32, 32, 3)))
    assert {e["label"] for e in test} == {9}
    for e in train:
        prefix, number = e["id"].decode().split("_")
        assert prefix == "train" and len(number) == 5
        np.testing.assert_array_equal(e["image"], images[int(number)])


def test_cifar_is_what_the_builder_of_tfds_expects(cifar, tmp_path):
    made = datasets.prepare(config("cifar10", tmp_path), str(cifar))
    builder = tfds.builder_cls("cifar10")
    assert made.folder.name == str(builder.VERSION)
    features = tfds.builder_from_directory(str(made.folder)).info.features
    expected = builder(data_dir=str(tmp_path / "other")).info.features
    assert features.get_tensor_info() == expected.get_tensor_info()
    names = "airplane automobile bird cat deer dog frog horse ship truck"
    assert features["label"].names == names.split()


CIFAR_FAULTS = {
    "missing": (
        lambda f: (f / "data_batch_4.bin").unlink(),
        "cifar-10-batches-bin lacks data_batch_4.bin",
    ),
    "empty": (lambda f: cut(f / "test_batch.bin", 0), "test_batch.bin is empty"),
    "truncated": (
        lambda f: cut(f / "data_batch_5.bin", 4 * 3073 + 100),
        "data_batch_5.bin must hold records of 3073 bytes; its 12392 bytes are 4 records and 100",
    ),
    "label out of range": (
        lambda f: (f / "data_batch_2.bin").write_bytes(cifar_records(1, 0) + cifar_records(1, 10)),
        "data_batch_2.bin must hold labels from 0 to 9; record 1 has 10",
    ),
}


@pytest.mark.parametrize("fault", CIFAR_FAULTS)
def test_a_fault_in_cifar_files_is_named_and_nothing_is_written(fault, cifar, tmp_path):
    damage, message = CIFAR_FAULTS[fault]
    damage(cifar)
    with pytest.raises(ValueError, match=message) as caught:
        datasets.prepare(config("cifar10", tmp_path), str(cifar.parent))
    assert "\n" not in str(caught.value)
    assert_nothing_written(tmp_path)


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
