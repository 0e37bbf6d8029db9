# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""`evaluate` and `predict`: the noise of their batches, and images that the means leave out."""

import numpy as np
import numpy_matnet as npm
import pytest
import tensorflow as tf
from test_training_step import CONFIG, images, made

from matnet_tf.model.matnet import MatNet


def evaluated(strategy, batches=3, **settings):
    """The bound of one image in every row of every batch, and its reconstructions."""
    with strategy.scope():
        model = npm.randomize(MatNet(CONFIG))
        model.compile("sgd", **settings)
    x = np.tile(images(1), (4 * batches, 1, 1, 1))
    elbo = [model.evaluate(x, batch_size=4, verbose=0, return_dict=True)["elbo"] for _ in range(2)]
    assert elbo[0] == elbo[1]
    history = model.fit(x, batch_size=4, validation_data=x, verbose=0).history
    after = model.evaluate(x, batch_size=4, verbose=0, return_dict=True)["elbo"]
    assert history["val_elbo"][0] == after != elbo[0]
    return elbo[0], model.predict(x, batch_size=4, verbose=0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_every_batch_of_an_evaluation_or_prediction_has_its_own_noise(two_devices):
    one = tf.distribute.get_strategy()
    elbo, x = evaluated(one, run_eagerly=True)
    assert elbo != pytest.approx(evaluated(one, 1, run_eagerly=True)[0], abs=0.01)
    assert len(np.unique(x, axis=0)) == 12
    assert evaluated(one)[0] == pytest.approx(elbo, rel=1e-5)
    assert evaluated(one, steps_per_execution=2)[0] == pytest.approx(elbo, rel=1e-5)
    elbo, x = evaluated(two_devices)
    assert elbo != pytest.approx(evaluated(two_devices, 1)[0], abs=0.01)
    assert len(np.unique(x, axis=0)) == 12
    assert evaluated(two_devices, steps_per_execution=2)[0] == pytest.approx(elbo, rel=1e-5)


@pytest.mark.slow
def test_images_left_out_of_the_means_are_reported(capsys):
    model, x = made(), images(6)
    elbo = model.hierarchy.bound_and_trace

    def spoiled(x, *arguments):
        bound, trace = elbo(x, *arguments)
        bad = tf.reduce_sum(x, [1, 2, 3]) > limit
        return bound._replace(elbo=tf.where(bad, np.nan, bound.elbo)), trace

    model.hierarchy.bound_and_trace, limit = spoiled, np.inf
    assert model.fit(x, validation_data=x, verbose=0).history["non_finite"] == [0]
    assert not capsys.readouterr().err
    limit = np.median(x.sum((1, 2, 3)))
    number = int((x.sum((1, 2, 3)) > limit).sum())
    history = model.fit(x, validation_data=x, verbose=0).history
    assert history["non_finite"] == history["val_non_finite"] == [number] and 0 < number < 6
    assert np.isfinite(history["val_elbo"]).all()
    lines = [f"step 2: {number} images whose bound is not finite" for _ in range(2)]
    printed = capsys.readouterr().err.splitlines()
    assert len(printed) == 2 and all(line in p for line, p in zip(lines, printed, strict=True))
    limit = -1.0
    result = model.evaluate(x, verbose=0, return_dict=True)
    assert np.isnan(result["elbo"]) and result["non_finite"] == 6
    assert "evaluation, step 2: 6 images" in capsys.readouterr().err
