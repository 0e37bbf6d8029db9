# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""From stored intensities to the model's input."""

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from matnet_tf import preprocessing

SEED = tf.constant([3, 5], tf.int32)


def intensities(count, shape=(4, 5, 2)):
    x = np.random.RandomState(0).uniform(size=(count, *shape)).astype(np.float32)
    x[:, 0], x[:, 1] = 0.0, 1.0
    return x


def test_scale_maps_0_to_255_onto_0_to_1():
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    x = preprocessing.scale(images)
    assert x.dtype == tf.float32
    np.testing.assert_allclose(x, images.astype(np.float64) / 255, rtol=1e-7)
    assert x.numpy().min() == 0 and x.numpy().max() == 1


def test_scale_keeps_floats_and_refuses_other_integers():
    x = intensities(2)
    np.testing.assert_array_equal(preprocessing.scale(x.astype(np.float64)), x)
    with pytest.raises(ValueError, match="uint8 or floats.*int32"):
        preprocessing.scale(np.zeros([1, 2, 2, 1], np.int32))


def test_binarize_draws_zeros_and_ones_with_the_intensities_as_means():
    x = np.tile(np.linspace(0, 1, 11, dtype=np.float32), (20000, 1))
    draw = preprocessing.binarize(x, SEED).numpy()
    assert draw.dtype == np.float32 and set(np.unique(draw)) == {0.0, 1.0}
    standard_error = np.sqrt(x[0] * (1 - x[0]) / len(x))
    assert (np.abs(draw.mean(0) - x[0]) <= 4 * standard_error + 1e-7).all()
    assert (draw[:, 0] == 0).all() and (draw[:, -1] == 1).all()


def test_binarize_is_a_function_of_its_seed():
    x = intensities(3)
    draw = preprocessing.binarize(x, SEED).numpy()
    np.testing.assert_array_equal(draw, tf.function(preprocessing.binarize)(x, SEED))
    assert (draw != preprocessing.binarize(x, SEED + 1).numpy()).any()


@pytest.mark.parametrize("drawn", ["binarize", "dequantize"])
def test_the_draw_of_an_image_depends_on_its_index_only(drawn):
    draw = getattr(preprocessing, f"{drawn}_by_index")
    x, indices = intensities(6), np.array([4, 0, 7, 2, 9, 2**33])
    x = x if drawn == "binarize" else np.uint8(255 * x)
    every = draw(x, indices, SEED).numpy()
    np.testing.assert_array_equal(every[3:4], draw(x[3:4], indices[3:4], SEED))
    np.testing.assert_array_equal(every[::-1], draw(x[::-1], indices[::-1], SEED))
    np.testing.assert_array_equal(every, tf.function(draw)(x, indices, SEED))
    if drawn == "binarize":
        assert set(np.unique(every)) == {0.0, 1.0}
    else:
        np.testing.assert_array_equal(np.floor(256 * every), x)


def test_draws_by_index_differ_between_images_and_between_seeds():
    x = np.full([50, 10, 10, 1], 0.5, np.float32)
    draw = preprocessing.binarize_by_index(x, np.arange(50), SEED).numpy()
    other = preprocessing.binarize_by_index(x, np.arange(50), SEED + 1).numpy()
    assert len(np.unique(draw.reshape(50, -1), axis=0)) == 50
    assert (draw != other).mean() == pytest.approx(0.5, abs=0.05)
    assert draw.mean() == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(draw.size))
    # Neighbours must not share their noise.
    assert (draw[1:] == draw[:-1]).mean() == pytest.approx(0.5, abs=0.05)


def test_threshold_is_one_above_one_half():
    x = np.array([0.0, 0.5, 0.50001, 1.0], np.float32)
    np.testing.assert_array_equal(preprocessing.threshold(x), [0, 0, 1, 1])


EVERY_VALUE = np.arange(256, dtype=np.uint8)


def assert_in_bins(y, values):
    """The float32 `y` are in [0, 1), and in the bins of their values, also in float64."""
    y = np.asarray(y)
    assert y.dtype == np.float32 and y.min() >= 0 and y.max() < 1
    np.testing.assert_array_equal(np.floor(256 * y), values)
    np.testing.assert_array_equal(np.floor(256 * y.astype(np.float64)), values)


def test_dequantized_values_stay_in_their_bins():
    images = np.tile(EVERY_VALUE, (20000, 1))
    for seed in (SEED, SEED + 1):
        assert_in_bins(preprocessing.dequantize(images, seed), images)


@pytest.mark.parametrize("uniform", [0.0, np.nextafter(np.float32(1), np.float32(0))])
def test_the_most_extreme_draws_stay_in_their_bins(uniform, monkeypatch):
    # A sum 255 + 0.99999994 in float32 is 256: the value would be 1, and the next bin's.
    monkeypatch.setattr(tf.random, "stateless_uniform", lambda shape, seed: tf.fill(shape, uniform))
    images = EVERY_VALUE.reshape(4, 8, 8, 1)
    for y in (
        preprocessing.dequantize(images, SEED),
        preprocessing.dequantize_by_index(images, np.arange(4), SEED),
    ):
        assert_in_bins(y, images)
        noise = 256 * y.numpy().astype(np.float64) - images
        np.testing.assert_allclose(noise, uniform, atol=2**-16)


@pytest.mark.parametrize("value", [0, 100, 255])
def test_dequantization_spreads_a_value_evenly_over_its_bin(value):
    images = np.full([200, 10, 10, 1], value, np.uint8)
    for y in (
        preprocessing.dequantize(images, SEED),
        preprocessing.dequantize_by_index(images, np.arange(200), SEED),
    ):
        noise = 256 * y.numpy().astype(np.float64) - value
        assert scipy.stats.kstest(noise.ravel(), "uniform").pvalue > 0.01
        # Neighbours must not share their noise.
        assert abs(np.corrcoef(noise[1:].ravel(), noise[:-1].ravel())[0, 1]) < 4 / np.sqrt(20000)


def test_dequantize_is_a_function_of_its_seed():
    y = preprocessing.dequantize(EVERY_VALUE, SEED).numpy()
    np.testing.assert_array_equal(y, tf.function(preprocessing.dequantize)(EVERY_VALUE, SEED))
    assert (y != preprocessing.dequantize(EVERY_VALUE, SEED + 1).numpy()).any()


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_dequantize_refuses_what_is_not_8_bit(dtype):
    images, message = np.zeros([1, 2, 2, 1], dtype), f"must be uint8; got {np.dtype(dtype)}$"
    with pytest.raises(ValueError, match=message):
        preprocessing.dequantize(images, SEED)
    with pytest.raises(ValueError, match=message):
        preprocessing.dequantize_by_index(images, [0], SEED)
