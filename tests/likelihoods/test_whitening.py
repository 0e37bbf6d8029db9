# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""ZCA whitening against NumPy."""

import numpy as np
import pytest
import scipy.linalg
import tensorflow as tf

from matnet_tf.likelihoods.whitening import Unwhiten, Whitening

IMAGE = (3, 2, 2)


def images(rows=200):
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(12, 12)) / 12
    return np.clip(0.4 + rng.normal(size=(rows, 12)) @ mix, 0, 1).reshape(rows, *IMAGE)


def adapted(x, epsilon=1e-5):
    layer = Whitening(IMAGE, epsilon)
    layer.adapt([x[:150].astype(np.float32), x[150:].astype(np.float32)])
    return layer


def test_matrix_is_the_inverse_root_of_the_regularized_covariance():
    x = images()
    layer = adapted(x, 1e-3)
    rows = x.reshape(200, 12)
    covariance = np.cov(rows.T, bias=True) + 1e-3 * np.eye(12)
    expected = np.linalg.inv(scipy.linalg.sqrtm(covariance).real)
    np.testing.assert_allclose(layer.matrix, expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(layer.location, rows.mean(0), rtol=1e-5)
    assert layer.log_det.numpy() == pytest.approx(np.linalg.slogdet(expected)[1], rel=1e-5)


def test_whitened_training_images_have_mean_0_and_covariance_1_and_come_back():
    x = images().astype(np.float32)
    layer = adapted(x)
    y = layer(x)
    rows = y.numpy().reshape(200, 12)
    np.testing.assert_allclose(rows.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(np.cov(rows.T, bias=True), np.eye(12), atol=0.02)
    np.testing.assert_allclose(layer.undo(y), x, atol=1e-5)
    np.testing.assert_allclose(Unwhiten(layer).forward(Unwhiten(layer).inverse(x)), x, atol=1e-5)


def test_log_determinant_of_the_bijector_is_that_of_its_jacobian():
    layer = adapted(images())
    y = tf.constant(np.random.default_rng(1).normal(size=(1, *IMAGE)), tf.float32)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(y)
        x = Unwhiten(layer).forward(y)
    jacobian = tape.jacobian(x, y, experimental_use_pfor=False).numpy().reshape(12, 12)
    expected = np.linalg.slogdet(np.float64(jacobian))[1]
    bijector = Unwhiten(layer)
    assert float(bijector.forward_log_det_jacobian(y, 3)) == pytest.approx(expected, abs=1e-3)
    assert float(bijector.inverse_log_det_jacobian(x, 3)) == pytest.approx(-expected, abs=1e-3)


def test_statistics_are_weights_that_are_not_trained():
    layer = Whitening(IMAGE)
    assert not layer.adapted and layer.trainable_weights == []
    names = ["mean", "matrix", "inverse", "log_det", "num_images"]
    assert [w.name for w in layer.weights] == names
    layer.adapt([images(3).astype(np.float32)])  # Fewer images than dimensions.
    assert layer.adapted and int(layer.num_images.numpy()) == 3
    assert all(np.isfinite(w).all() for w in layer.weights)


@pytest.mark.parametrize(
    ("data", "message"),
    [([], "got 0"), ([images(1)], "got 1"), ([np.full((3, *IMAGE), np.nan)], "finite")],
)
def test_too_few_or_infinite_images_are_refused(data, message):
    with pytest.raises(ValueError, match=message):
        Whitening(IMAGE).adapt(data)
