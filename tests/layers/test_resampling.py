# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Resampling against NumPy, and NumPy's convolutions against SciPy."""

import numpy as np
import numpy_matnet as npm
import pytest
import scipy.signal

from matnet_tf.layers.resampling import Resample

RNG = np.random.default_rng(0)


def draw(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def close(actual, expected):
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(5, 7), (6, 4)])
def test_numpy_convolution_is_scipys(size):
    for side in (1, 2, 3, 5):
        x, kernel = draw(2, *size, 3), draw(side, side, 3, 4)
        expected = np.zeros((2, *size, 4))
        first = side - (side - 1) // 2
        window = slice(first, first + size[0]), slice(first, first + size[1])
        for n, out in np.ndindex(2, 4):
            padded = np.pad(x[n], [(side, side), (side, side), (0, 0)])
            full = scipy.signal.correlate(padded, kernel[..., out], "valid")[..., 0]
            expected[n, ..., out] = full[window]
        close(npm.conv(x, kernel), expected)


@pytest.mark.parametrize("size", [(5, 7), (6, 4)])
def test_numpy_transposed_convolution_is_the_adjoint_of_the_strided_one(size):
    kernel, x, y = draw(3, 3, 2, 4), draw(1, 2 * size[0], 2 * size[1], 2), draw(1, *size, 4)
    down = np.sum(npm.conv(x, kernel, strides=(2, 2)) * y)
    up = np.sum(x * npm.transposed_conv(y, kernel, strides=(2, 2)))
    np.testing.assert_allclose(down, up, rtol=1e-5)


# From, to, and every size after a step, by hand.
CONVOLUTIONAL = [
    ((14, 14), (7, 7), [(7, 7)]),
    ((28, 28), (7, 7), [(14, 14), (7, 7)]),
    ((7, 7), (4, 4), [(4, 4)]),
    ((4, 4), (7, 7), [(7, 7)]),
    ((7, 7), (28, 28), [(14, 14), (28, 28)]),
    ((6, 4), (3, 2), [(3, 2)]),
    ((5, 3), (3, 2), [(3, 2)]),
    ((3, 2), (5, 3), [(5, 3)]),
    ((9, 2), (3, 1), [(5, 1), (3, 1)]),
    ((3, 1), (9, 2), [(5, 1), (9, 2)]),
    ((1, 4), (1, 8), [(1, 8)]),
    ((4, 4), (4, 4), [(4, 4)]),
]


@pytest.mark.parametrize("kernel_size", [3, 4])
def test_resampling_halves_and_doubles_odd_and_rectangular_sizes(kernel_size):
    for a, b, sizes in CONVOLUTIONAL:
        x = draw(2, *a, 3)
        layer = Resample(a, b, 3, 5, kernel_size)
        layer.build(x.shape)
        npm.randomize(layer)
        h, last = x, a
        for step, size in zip(layer.steps, sizes, strict=True):
            strides = tuple(2 if m != n else 1 for m, n in zip(last, size, strict=True))
            convolution = npm.transposed_conv if b > a else npm.conv
            h = convolution(h, *npm.weights(step), strides)[:, : size[0], : size[1]]
            h, last = npm.lrelu(h), size
        close(layer(x), h)
        assert layer.compute_output_shape(x.shape) == (2, *b, 5)


def test_nearest_upsampling_repeats_rows_and_columns_and_adds_a_bias():
    for a, b in (((4, 4), (7, 7)), ((7, 7), (28, 28)), ((5, 1), (9, 2)), ((1, 4), (1, 8))):
        for filters in (3, 5):
            x = draw(2, *a, 3)
            layer = Resample(a, b, 3, filters, upsampling="nearest")
            layer.build(x.shape)
            npm.randomize(layer)
            h = npm.conv(x, *npm.weights(layer.steps[0])) if filters == 5 else x
            rows, columns = (np.arange(m) // -(-m // n) for m, n in zip(b, a, strict=True))
            close(layer(x), h[:, rows][:, :, columns] + layer.bias.numpy())
    assert Resample((7, 7), (4, 4), 3, 5, upsampling="nearest").steps  # The way down is the same.


def test_resampling_to_or_from_a_dense_state_is_a_dense_layer():
    for a, b, x_shape, shape in (
        ((4, 3), (1, 1), (4, 3, 2), (5,)),
        ((1, 1), (4, 3), (2,), (4, 3, 5)),
        ((1, 1), (1, 1), (2,), (5,)),
    ):
        x = draw(2, *x_shape)
        layer = Resample(a, b, 2, 5)
        layer.build(x.shape)
        npm.randomize(layer)
        expected = npm.lrelu(npm.linear(x.reshape(2, -1), npm.weights(layer.steps[0])))
        close(layer(x), expected.reshape(2, *shape))
        assert layer.compute_output_shape(x.shape) == (2, *shape)


def test_sizes_that_halving_does_not_reach_are_refused():
    with pytest.raises(ValueError, match=r"halving does not reach \(3, 3\) from \(8, 8\)"):
        Resample((8, 8), (3, 3), 2, 2)
