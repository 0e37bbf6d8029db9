# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Readers of source files: good files give the right images, damaged ones are named."""

import functools
import gzip
import struct
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import scipy.io
import scipy.sparse
from PIL import Image
from source_files import (
    CIFAR_SHAPE,
    COUNTS,
    amat_files,
    chardata_arrays,
    chardata_file,
    cifar_files,
    cifar_records,
    cut,
    mnist_files,
    pixels,
    save_images,
    write_idx,
)

from matnet_tf.data.sources.cifar import read_cifar10
from matnet_tf.data.sources.digits import read_digits
from matnet_tf.data.sources.folders import read_folder
from matnet_tf.data.sources.mnist import read_amat, read_mnist
from matnet_tf.data.sources.omniglot import read_chardata

read_mnist = functools.partial(read_mnist, name="mnist")


def test_readers_import_no_tensorflow():
    code = (
        "import sys; from matnet_tf.data.sources import cifar, digits, folders, mnist, omniglot; "
        "from matnet_tf.data import catalog, image_files; "
        "print({'tensorflow', 'tensorflow_datasets', 'keras'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def column(source, split, key):
    return np.array([example[key] for example in source.splits[split]])


def test_idx_files_of_either_name_and_packing(tmp_path):
    folder = mnist_files(tmp_path / "mnist")
    (folder / "t10k-images-idx3-ubyte").rename(folder / "t10k-images.idx3-ubyte")
    source = read_mnist(folder)
    assert (source.name, source.version, source.image_shape) == ("mnist", "3.0.1", (28, 28, 1))
    assert source.label_names == {"label": 10} and list(source.splits) == ["train", "test"]
    for split, count in (("train", 13), ("test", 7)):
        np.testing.assert_array_equal(column(source, split, "image"), pixels(count))
        np.testing.assert_array_equal(column(source, split, "label"), np.arange(count) % 10)


def test_amat_files_are_zeros_and_ones(tmp_path):
    source = read_amat(amat_files(tmp_path / "amat"))
    assert source.name == "binarized_mnist" and not source.label_names
    for split, count in COUNTS.items():
        np.testing.assert_array_equal(column(source, split, "image"), pixels(count, high=2))


def test_chardata_images_are_upright_with_alphabet_and_character(tmp_path):
    source = read_chardata(chardata_file(tmp_path / "omniglot"))
    for split in ("train", "test"):
        count = np.arange(COUNTS[split])
        np.testing.assert_array_equal(column(source, split, "image"), pixels(len(count)))
        np.testing.assert_array_equal(column(source, split, "alphabet"), count)
        np.testing.assert_array_equal(column(source, split, "character"), count + 1)


def test_cifar_records_are_upright_colour_images(tmp_path):
    folder = cifar_files(tmp_path / "cifar")
    images = np.concatenate([pixels(number, CIFAR_SHAPE) for number in range(1, 6)])
    for place in (folder, folder / "cifar-10-batches-bin"):
        source = read_cifar10(place)
        assert source.description.startswith("15 train and 7 test images")
        np.testing.assert_array_equal(column(source, "train", "image"), images)
        np.testing.assert_array_equal(column(source, "test", "image"), pixels(7, CIFAR_SHAPE))
        labels = np.repeat(np.arange(1, 6), np.arange(1, 6))
        np.testing.assert_array_equal(column(source, "train", "label"), labels)
        assert set(column(source, "test", "label")) == {9}
        assert list(column(source, "test", "id")) == [f"test_{i:05d}" for i in range(7)]


def test_folders_of_classes_are_labels(tmp_path):
    for split, count in (("train", 4), ("test", 2)):
        for label, name in enumerate(("cat", "dog")):
            save_images(tmp_path / split / name, pixels(count + label, (6, 5, 3)))
    source = read_folder(tmp_path)
    assert source.image_shape == (6, 5, 3) and source.label_names == {"label": ["cat", "dog"]}
    expected = np.concatenate([pixels(4, (6, 5, 3)), pixels(5, (6, 5, 3))])
    np.testing.assert_array_equal(column(source, "train", "image"), expected)
    np.testing.assert_array_equal(column(source, "train", "label"), [0] * 4 + [1] * 5)
    assert len(column(source, "test", "image")) == 5


def test_a_flat_folder_is_split_nine_to_one_without_overlap(tmp_path):
    images = pixels(20, (4, 4, 1))
    save_images(tmp_path, images)
    source = read_folder(tmp_path)
    train, test = (column(source, split, "image") for split in ("train", "test"))
    assert (len(train), len(test), source.label_names) == (18, 2, {})
    found = sorted(image.tobytes() for image in (*train, *test))
    assert found == sorted(image.tobytes() for image in images)


def test_images_of_different_or_large_sizes_are_resized(tmp_path):
    save_images(tmp_path / "train", [np.full((4, 6, 3), 200, np.uint8)])
    save_images(tmp_path / "test", [np.full((8, 8, 1), 100, np.uint8)])
    for size, shape in (((3, 2), (3, 2, 3)), (None, (64, 64, 3))):
        source = read_folder(tmp_path, size)
        assert source.image_shape == shape
        np.testing.assert_array_equal(column(source, "test", "image"), np.full((1, *shape), 100))
    assert source.notes[-1].startswith("sizes: 4x6 to 8x8 pixels, resized to 64x64; --size=HxW")
    for side, expected in ((256, (4, 256)), (257, (64, 64))):
        save_images(tmp_path / str(side), pixels(2, (4, side, 1)))
        source = read_folder(tmp_path / str(side))
        assert source.image_shape == (*expected, 1)
        assert ("resized" in source.notes[-1]) == (side == 257)


def test_digits_are_scikit_learns_in_a_fixed_draw():
    from sklearn.datasets import load_digits

    loaded = load_digits()
    (train, train_labels), (test, test_labels) = read_digits("train"), read_digits("test")
    assert train.shape == (1500, 8, 8, 1) and train.dtype == np.uint8 and train.max() == 255
    # The stated draw, so that the split cannot change unnoticed.
    order = np.random.RandomState(0).permutation(1797)
    images, labels = np.concatenate([train, test]), np.concatenate([train_labels, test_labels])
    np.testing.assert_array_equal((images[..., 0] * (16 / 255)).round(), loaded.images[order])
    np.testing.assert_array_equal(labels, loaded.target[order])


def assert_faults_are_named(read, make, faults, tmp_path):
    """Damages fresh files in each way and reads them, and every example."""
    for number, (damage, message) in enumerate(faults):
        folder = make(tmp_path / str(number))
        damage(folder)
        with pytest.raises(ValueError, match=message) as caught:
            for split in read(folder).splits.values():
                list(split)
        assert "\n" not in str(caught.value)


def test_faults_of_idx_files_are_named(tmp_path):
    images, labels = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
    faults = [
        (lambda f: (f / labels).unlink(), r"lacks t10k-labels-idx1-ubyte\[.gz\]"),
        (lambda f: cut(f / "train-images-idx3-ubyte.gz", 3000), "ubyte.gz is damaged"),
        (
            lambda f: cut(f / images, 5000),
            f"{images} is truncated: its header announces 7x28x28 = 5488 bytes; got 4984",
        ),
        (lambda f: cut(f / images, 9), "truncated: 9 bytes hold no header"),
        (
            lambda f: (f / images).write_bytes((f / labels).read_bytes() + b"00000000"),
            "must hold images .* its magic is 2049, that of labels",
        ),
        (
            lambda f: write_idx(f / labels, np.zeros(6)),
            "6 labels for the 7 images of t10k-images",
        ),
        (lambda f: write_idx(f / labels, np.full(7, 10)), "labels from 0 to 9; got a 10"),
        (lambda f: write_idx(f / images, np.zeros([7, 8, 9])), "images of 28x28; got 8x9"),
    ]
    assert_faults_are_named(read_mnist, mnist_files, faults, tmp_path)


def test_a_file_that_unpacks_to_more_than_its_header_announces_takes_no_memory(tmp_path):
    folder = mnist_files(tmp_path / "mnist")
    for announced, message in (
        (13, "is too long: its header .* there are more"),
        (2**32 - 1, "is trunc"),
    ):
        path = folder / "train-images-idx3-ubyte.gz"
        header = struct.pack(">4I", 0x803, announced, 28, 28)
        path.write_bytes(gzip.compress(header + bytes(2**26 if announced == 13 else 784), 1))
        tracemalloc.start()
        with pytest.raises(ValueError, match=message):
            read_mnist(folder)
        assert tracemalloc.get_traced_memory()[1] < 2**25
        tracemalloc.stop()


def test_faults_of_amat_files_are_named(tmp_path):
    def replace(old, new):
        def damage(folder):
            path = folder / "binarized_mnist_valid.amat"
            path.write_bytes(path.read_bytes().replace(old, new, 1))

        return damage

    test = "binarized_mnist_test.amat"
    faults = [
        (replace(b"1", b"2"), "valid.amat, line 1: every value must be 0 or 1"),
        (replace(b"1 ", b"1.0 "), "valid.amat, line 1: every value must be 0 or 1"),
        (replace(b"1 ", b""), "valid.amat, line 1: expected 784 values; got 783"),
        (
            lambda f: cut(f / test, (f / test).stat().st_size - 300),
            "test.amat, line 7: expected 784 values; got 634 .is it truncated",
        ),
        (lambda f: cut(f / test, 0), "test.amat is empty"),
        (lambda f: (f / test).unlink(), "lacks binarized_mnist_test.amat"),
    ]
    assert_faults_are_named(read_amat, amat_files, faults, tmp_path)


def test_faults_of_chardata_are_named(tmp_path):
    def change(**changes):
        def damage(folder):
            arrays = {k: v for k, v in (chardata_arrays() | changes).items() if v is not None}
            scipy.io.savemat(folder / "chardata.mat", arrays)

        return damage

    faults = [
        (change(testtarget=None), "lacks the key testtarget; it has data, target"),
        (
            change(data=np.zeros([783, 13])),
            r"data must have shape \[784, 13\]; got \[783, 13\]",
        ),
        (change(target=np.zeros([50, 12])), r"target must have shape \[50, 13\]; got \[50, 12\]"),
        (change(testdata=np.full([784, 7], 255.0)), r"testdata must lie in \[0, 1\]"),
        (change(testtargetchar=np.full([1, 7], 56.0)), r"testtargetchar must lie in \[0, 55\]"),
        (change(data=np.full([784, 13], np.nan)), r"data must lie in \[0, 1\]; got nan to nan"),
        (change(data=np.full([784, 13], 1j)), "data must be an array of real numbers; got complex"),
        (change(target=scipy.sparse.eye(50, 13)), "target must be an array of real .* got sparse"),
        (change(target=np.full([50, 13], "a", object)), "target must be an array of real .* cell"),
        (lambda f: cut(f / "chardata.mat", 100), "chardata.mat is damaged or not a MATLAB file"),
        (lambda f: cut(f / "chardata.mat", 2000), "lacks the key target, .*is it truncated"),
        (lambda f: cut(f / "chardata.mat", -50), "chardata.mat is damaged or not a MATLAB file"),
        (lambda f: (f / "chardata.mat").unlink(), "lacks chardata.mat"),
    ]
    assert_faults_are_named(read_chardata, chardata_file, faults, tmp_path)


def test_faults_of_cifar_files_are_named(tmp_path):
    def batch(folder, name):
        return folder / "cifar-10-batches-bin" / name

    faults = [
        (
            lambda f: batch(f, "data_batch_4.bin").unlink(),
            "cifar-10-batches-bin lacks data_batch_4.bin",
        ),
        (lambda f: cut(batch(f, "test_batch.bin"), 0), "test_batch.bin is empty"),
        (
            lambda f: cut(batch(f, "data_batch_5.bin"), 4 * 3073 + 100),
            "data_batch_5.bin must hold records of 3073 bytes; its 12392 bytes are 4 records and",
        ),
        (
            lambda f: batch(f, "data_batch_2.bin").write_bytes(
                cifar_records(1, 0) + cifar_records(1, 10)
            ),
            "data_batch_2.bin must hold labels from 0 to 9; record 1 has 10",
        ),
    ]
    assert_faults_are_named(read_cifar10, cifar_files, faults, tmp_path)


def test_photos_are_read_upright_as_exif_says(tmp_path):
    orientation = Image.Exif()
    orientation[0x0112] = 6  # Turned by a quarter, as by a telephone.
    for name, side in (("a", 0), ("b", 1)):
        stored = np.zeros((4, 6), np.uint8)
        stored[:, side] = 255
        Image.fromarray(stored).save(tmp_path / f"{name}.png", exif=orientation)
    source = read_folder(tmp_path)
    images = [e["image"][..., 0] for split in source.splits.values() for e in split]
    assert source.image_shape == (6, 4, 1) and [i.shape for i in images] == [(6, 4)] * 2
    assert sorted(np.flatnonzero(i.all(axis=1)).item() for i in images) == [0, 1]


def test_names_of_splits_are_known_in_any_case_and_by_synonyms(tmp_path):
    names = (("Train", "Test"), ("training", "testing"), ("train", "val", "TEST"))
    for number, folders in enumerate(names):
        folder = tmp_path / str(number)
        for count, name in enumerate(folders):
            save_images(folder / name, pixels(2 + count, (4, 4, 1)))
        save_images(folder / "more", pixels(1, (4, 4, 1)))
        source = read_folder(folder)
        counts = {split: len(column(source, split, "image")) for split in source.splits}
        expected = ("train", "validation", "test") if len(folders) == 3 else ("train", "test")
        assert counts == dict(zip(expected, range(2, 5), strict=False))
        assert source.label_names == {}
        notes = ", ".join(f"{s} from {f}" for s, f in zip(expected, folders, strict=True))
        assert source.notes == (
            f"splits: {notes}",
            "classes: none",
            "left out: 1 beside the splits (more)",
        )
    save_images(folder / "valid", pixels(1, (4, 4, 1)))
    with pytest.raises(ValueError, match="has two folders for the split validation: .*val"):
        read_folder(folder)


def test_what_is_no_picture_is_left_out_and_counted(tmp_path):
    save_images(tmp_path / "cats" / "2019", pixels(2, (4, 4, 3)))
    save_images(tmp_path / "dogs", pixels(3, (4, 4, 3)))
    for name in (".ipynb_checkpoints/0.png", "dogs/._0.png", "dogs/notes.txt", "x.gif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "dogs" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "dogs" / "again").symlink_to(tmp_path)
    source = read_folder(tmp_path)
    assert source.label_names == {"label": ["cats", "dogs"]}
    files = sorted(f for s in ("train", "test") for f in column(source, s, "file"))
    assert files == ["cats/2019/0.png", "cats/2019/1.png", *(f"dogs/{i}.png" for i in range(3))]
    assert source.notes[0] == "splits: a tenth of the images, drawn with seed 0, is test"
    assert source.notes[1] == "classes: cats, dogs"
    left = {note.split(" (")[0] for note in source.notes[2:]}
    assert left == {
        "left out: 2 hidden",
        "left out: 2 of other kinds",
        "left out: 1 not files, or links to nothing",
    }


def test_every_stated_format_is_read_by_any_of_its_names(tmp_path):
    image = Image.fromarray(pixels(1, (8, 8, 3))[0])
    kinds = {"png": "PNG", "jpg": "JPEG", "JPEG": "JPEG", "jpe": "JPEG", "jfif": "JPEG"}
    for suffix, kind in (kinds | {"webp": "WEBP", "bmp": "BMP"}).items():
        image.save(tmp_path / f"of_{suffix}.{suffix}", format=kind)
    source = read_folder(tmp_path)
    assert sum(len(column(source, split, "image")) for split in source.splits) == 7
    # Whatever the name says, no other format is opened.
    image.save(tmp_path / "eps.png", format="EPS")
    with pytest.raises(ValueError, match="eps.png: it is not a PNG, JPEG, WebP or BMP image"):
        read_folder(tmp_path)


def test_crops_are_tiles_at_the_images_own_resolution(tmp_path):
    image = pixels(1, (5, 9, 3))[0]
    for name, array in (("train/a", image), ("train/small", image[:3]), ("test/b", image[:4, :4])):
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(array).save(path)
    source = read_folder(tmp_path, crop=4)
    assert source.image_shape == (4, 4, 3)
    assert source.tiles_of == (4, 6)  # The median of 5x9 and 4x4, without what is too small.
    tiles = [image[:4, :4], image[:4, 4:8]]  # The surplus row and column are cut.
    np.testing.assert_array_equal(column(source, "train", "image"), tiles)
    assert list(column(source, "train", "file")) == ["a.png@0,0", "a.png@0,4"]
    assert list(column(source, "test", "file")) == ["b.png@0,0"]
    assert source.notes[-1] == "left out: 1 smaller than 4x4 (train/small.png)"
    with pytest.raises(ValueError, match="no image has 40x40 pixels or more, as --crop=40 needs"):
        read_folder(tmp_path, crop=40)


def test_faults_of_image_folders_are_named(tmp_path):
    def make(folder):
        save_images(folder, pixels(5, (32, 32, 3)))
        return folder

    def deep(folder):
        Image.fromarray(np.zeros((32, 32), np.uint16)).save(folder / "3.png")

    def single_split(folder):
        (folder / "train").mkdir()

    faults = [
        (lambda f: cut(f / "3.png", 1500), "3.png: it cannot be read: "),  # Behind its header.
        (
            lambda f: (f / "3.png").write_bytes(b"no image"),
            "3.png: it is not a PNG, JPEG, WebP or BMP image",
        ),
        (deep, "3.png: it has pixels of mode I;16; expected 8-bit grey or colour"),
        (lambda f: [p.unlink() for p in f.iterdir()], "holds no images"),
        (lambda f: [(f / f"{i}.png").unlink() for i in range(4)], "holds one image; a train and"),
        (single_split, "has train; it lacks a folder test"),
        (lambda f: save_images(f / "a\nb", pixels(1, (32, 32, 3))), r"folder 'a\\nb' cannot be a"),
        (lambda f: save_images(f / "a\udcff", pixels(1, (32, 32, 3))), "cannot be a class"),
    ]
    assert_faults_are_named(read_folder, make, faults, tmp_path)
