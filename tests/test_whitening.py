# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""ZCA whitening against NumPy."""

import numpy as np
import pytest
import scipy.linalg
import tensorflow as tf

from matnet_tf.whitening import Unwhiten, Whitening

IMAGE = (3, 2, 2)


def images(rows=200):
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(12, 12)) / 12
    return np.clip(0.4 + rng.normal(size=(rows, 12)) @ mix, 0, 1).reshape(rows, *IMAGE)


def adapted(x, epsilon=1e-5):
    layer = Whitening(IMAGE, epsilon)
    layer.adapt([x[:150].astype(np.float32), x[150:].astype(np.float32)])
    return layer


def test_the_matrix_is_the_inverse_root_of_the_regularized_covariance():
    x = images()
    layer = adapted(x, 1e-3)
    rows = x.reshape(200, 12)
    covariance = np.cov(rows.T, bias=True) + 1e-3 * np.eye(12)
    expected = np.linalg.inv(scipy.linalg.sqrtm(covariance).real)
    np.testing.assert_allclose(layer.matrix, expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(layer.location, rows.mean(0), rtol=1e-5)
    assert layer.log_det.numpy() == pytest.approx(np.linalg.slogdet(expected)[1], rel=1e-5)


def test_whitened_training_images_have_mean_0_and_covariance_1():
    x = images()
    y = adapted(x)(x.astype(np.float32)).numpy().reshape(200, 12)
    np.testing.assert_allclose(y.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(np.cov(y.T, bias=True), np.eye(12), atol=0.02)


def test_undoing_gives_the_images_back():
    x = images(5).astype(np.float32)
    layer = adapted(images())
    np.testing.assert_allclose(layer.undo(layer(x)), x, atol=1e-5)
    np.testing.assert_allclose(Unwhiten(layer).forward(Unwhiten(layer).inverse(x)), x, atol=1e-5)


def test_the_bijectors_log_determinant_is_that_of_its_jacobian():
    layer = adapted(images())
    y = tf.constant(np.random.default_rng(1).normal(size=(1, *IMAGE)), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(y)
        x = Unwhiten(layer).forward(y)
    jacobian = tape.jacobian(x, y).numpy().reshape(12, 12).astype(np.float64)
    expected = np.linalg.slogdet(jacobian)[1]
    bijector = Unwhiten(layer)
    assert float(bijector.forward_log_det_jacobian(y, 3)) == pytest.approx(expected, abs=1e-3)
    assert float(bijector.inverse_log_det_jacobian(x, 3)) == pytest.approx(-expected, abs=1e-3)


def test_statistics_are_weights_and_not_trained():
    layer = Whitening(IMAGE)
    assert not layer.adapted
    assert layer.trainable_weights == []
    assert [w.name for w in layer.weights] == [
        *("mean", "matrix", "inverse", "log_det", "num_images")
    ]
    layer.adapt([images(3).astype(np.float32)])
    assert layer.adapted
    assert int(layer.num_images.numpy()) == 3


def test_fewer_images_than_dimensions_still_whiten():
    layer = Whitening(IMAGE)
    layer.adapt([images(3).astype(np.float32)])
    assert np.isfinite(layer.matrix.numpy()).all()
    assert np.isfinite(layer.log_det.numpy())


@pytest.mark.parametrize(
    ("data", "message"),
    [([], "got 0"), ([images(1)], "got 1"), ([np.full((3, *IMAGE), np.nan)], "finite")],
)
def test_statistics_of_nothing_are_refused(data, message):
    with pytest.raises(ValueError, match=message):
        Whitening(IMAGE).adapt(data)
