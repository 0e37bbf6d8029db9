# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""From stored intensities to a model's input, and from any size to one."""

import hashlib

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from PIL import Image
from source_files import pixels

from matnet_tf.config import DataConfig
from matnet_tf.data import loading, preprocessing
from matnet_tf.data.preprocessing import resize

SEED = tf.constant([3, 5], tf.int32)
EVERY_VALUE = np.arange(256, dtype=np.uint8)


def intensities(count, shape=(4, 5, 2)):
    x = np.random.RandomState(0).uniform(size=(count, *shape)).astype(np.float32)
    x[:, 0], x[:, 1] = 0.0, 1.0
    return x


def test_scale_maps_0_to_255_onto_0_to_1_and_keeps_floats():
    x = preprocessing.scale(EVERY_VALUE)
    assert x.dtype == tf.float32 and x.numpy().min() == 0 and x.numpy().max() == 1
    np.testing.assert_allclose(x, EVERY_VALUE.astype(np.float64) / 255, rtol=1e-7)
    np.testing.assert_array_equal(preprocessing.scale(np.float64(intensities(2))), intensities(2))
    with pytest.raises(ValueError, match="uint8 or floats.*int32"):
        preprocessing.scale(np.zeros([1, 2, 2, 1], np.int32))


def test_threshold_is_one_above_one_half():
    x = np.array([0.0, 0.5, 0.50001, 1.0], np.float32)
    np.testing.assert_array_equal(preprocessing.threshold(x), [0, 0, 1, 1])


def test_binarize_draws_zeros_and_ones_with_the_intensities_as_means():
    x = np.tile(np.linspace(0, 1, 11, dtype=np.float32), (20000, 1))
    draw = preprocessing.binarize(x, SEED).numpy()
    assert draw.dtype == np.float32 and set(np.unique(draw)) == {0.0, 1.0}
    standard_error = np.sqrt(x[0] * (1 - x[0]) / len(x))
    assert (np.abs(draw.mean(0) - x[0]) <= 4 * standard_error + 1e-7).all()
    assert (draw[:, 0] == 0).all() and (draw[:, -1] == 1).all()


def test_the_draw_of_an_image_depends_on_its_index_and_the_seed_only():
    indices = np.array([4, 0, 7, 2, 9, 2**33])
    for draw, x in (
        (preprocessing.binarize_by_index, intensities(6)),
        (preprocessing.dequantize_by_index, np.uint8(255 * intensities(6))),
    ):
        every = draw(x, indices, SEED).numpy()
        np.testing.assert_array_equal(every[3:4], draw(x[3:4], indices[3:4], SEED))
        np.testing.assert_array_equal(every[::-1], draw(x[::-1], indices[::-1], SEED))
    x = np.full([50, 10, 10, 1], 0.5, np.float32)
    draw = preprocessing.binarize_by_index(x, np.arange(50), SEED).numpy()
    other = preprocessing.binarize_by_index(x, np.arange(50), SEED + 1).numpy()
    assert len(np.unique(draw.reshape(50, -1), axis=0)) == 50
    assert draw.mean() == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(draw.size))
    # Neither seeds nor neighbours share their noise.
    assert (draw != other).mean() == pytest.approx(0.5, abs=0.05)
    assert (draw[1:] == draw[:-1]).mean() == pytest.approx(0.5, abs=0.05)


def assert_in_bins(y, values):
    """`y`, float32 in [0, 1), lies in the bins of the values, in float64 too."""
    y = np.asarray(y)
    assert y.dtype == np.float32 and y.min() >= 0 and y.max() < 1
    np.testing.assert_array_equal(np.floor(256 * y), values)
    np.testing.assert_array_equal(np.floor(256 * y.astype(np.float64)), values)


def test_dequantized_values_stay_in_their_bins(monkeypatch):
    images = np.tile(EVERY_VALUE, (20000, 1))
    assert_in_bins(preprocessing.dequantize(images, SEED), images)
    images = EVERY_VALUE.reshape(4, 8, 8, 1)
    for uniform in (0.0, np.nextafter(np.float32(1), np.float32(0))):
        # In float32, 255 + 0.99999994 is 256, which belongs to the next bin.
        monkeypatch.setattr(
            tf.random, "stateless_uniform", lambda s, seed, u=uniform: tf.fill(s, u)
        )
        for y in (
            preprocessing.dequantize(images, SEED),
            preprocessing.dequantize_by_index(images, np.arange(4), SEED),
        ):
            assert_in_bins(y, images)
            noise = 256 * y.numpy().astype(np.float64) - images
            np.testing.assert_allclose(noise, uniform, atol=2**-16)


def test_dequantization_spreads_a_value_evenly_over_its_bin():
    for value in (0, 100, 255):
        images = np.full([200, 10, 10, 1], value, np.uint8)
        for y in (
            preprocessing.dequantize(images, SEED),
            preprocessing.dequantize_by_index(images, np.arange(200), SEED),
        ):
            noise = 256 * y.numpy().astype(np.float64) - value
            assert scipy.stats.kstest(noise.ravel(), "uniform").pvalue > 0.01
            # Neighbours must not share their noise.
            correlation = np.corrcoef(noise[1:].ravel(), noise[:-1].ravel())[0, 1]
            assert abs(correlation) < 4 / np.sqrt(20000)


def test_dequantize_refuses_other_types():
    for dtype in ("float32", "int32"):
        images, message = np.zeros([1, 2, 2, 1], dtype), f"must be uint8; got {dtype}$"
        with pytest.raises(ValueError, match=message):
            preprocessing.dequantize(images, SEED)
        with pytest.raises(ValueError, match=message):
            preprocessing.dequantize_by_index(images, [0], SEED)


def central(image, height, width):
    """The central part with these sides."""
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


def by_pillow(part, size):
    """What Pillow makes of a part, channel by channel in float precision."""
    channels = [Image.fromarray(np.float32(part[..., c])) for c in range(part.shape[2])]
    sides = (size[1], size[0])
    return np.stack([c.resize(sides, Image.Resampling.BILINEAR) for c in channels], axis=-1)


def test_resize_takes_the_largest_central_part_of_the_shape():
    for shape, size, part in (
        ((218, 178, 3), (64, 64), (178, 178)),
        ((30, 47, 3), (16, 16), (30, 30)),
        ((47, 30, 1), (16, 16), (30, 30)),
        # 40 * 7 / 10 = 28, and 31 * 10 / 7 = 44.3 columns of 50.
        ((40, 33, 3), (10, 7), (40, 28)),
        ((31, 50, 3), (7, 10), (31, 44)),
        # 25 * 8 / 12 = 16.7 rows of 40.
        ((40, 25, 3), (8, 12), (17, 25)),
        ((9, 5, 3), (20, 20), (5, 5)),
        ((3, 100, 3), (1, 50), (2, 100)),
        ((100, 1, 1), (2, 9), (1, 1)),
    ):
        image = pixels(1, shape)[0]
        found = resize(tf.constant(image), size)
        assert found.dtype == tf.uint8 and found.shape == (*size, shape[2])
        # Rounded to a whole number.
        np.testing.assert_allclose(found, by_pillow(central(image, *part), size), atol=0.5 + 1e-3)


def test_resize_keeps_an_image_of_that_size_and_antialiases_a_larger_one():
    for shape in ((8, 5, 3), (7, 7, 1)):
        image = pixels(1, shape)[0]
        np.testing.assert_array_equal(resize(tf.constant(image), shape[:2]), image)
        wider = np.concatenate([image[:, :1], image, image[:, :1]], axis=1)
        np.testing.assert_array_equal(resize(tf.constant(wider), shape[:2]), image)
    rows, columns = np.indices([33, 33])
    board = np.uint8(255 * ((rows + columns) % 2))[..., None]
    assert np.ptp(resize(tf.constant(board), (8, 8))[1:-1, 1:-1]) <= 1


def test_resized_floats_stay_within_their_range():
    for seed in range(3):
        image = np.random.RandomState(seed).uniform(size=(37, 23, 3)).astype(np.float32)
        image[image > 0.3] = 1.0
        found = resize(tf.constant(image), (9, 9)).numpy()
        assert found.dtype == np.float32 and found.min() >= 0 and found.max() <= 1
        np.testing.assert_allclose(found, by_pillow(central(image, 23, 23), (9, 9)), atol=1e-5)
    white = np.ones([37, 23, 1], np.float32)
    np.testing.assert_array_equal(resize(tf.constant(white), (11, 13)), np.ones([11, 13, 1]))


def test_the_draws_of_the_test_split_are_those_of_all_reported_figures():
    (x,) = loading.load(DataConfig(), "test").evaluation_dataset(297).as_numpy_iterator()
    digest = hashlib.sha256(x.astype(np.uint8)).hexdigest()
    assert digest.startswith("7e8632b957537fdc")
