# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Graphs of this package need no room in the temporary folder."""

import tempfile

import numpy as np
import pytest
import tensorflow as tf

from matnet_tf.graphs import as_written
from matnet_tf.model import MatNet


@pytest.fixture
def written(monkeypatch):
    """The names of functions that made temporary files."""
    found, make = [], tempfile.NamedTemporaryFile

    def watched(*arguments, **keywords):
        found.append(keywords or arguments)
        return make(*arguments, **keywords)

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", watched)
    return found


def test_a_loop_that_is_left_to_autograph_is_written_to_a_file(written):
    @tf.function
    def count(most):
        done = 0
        while done < most:
            done += 1
        return done

    assert int(count(tf.constant(3))) == 3 and written


@pytest.mark.slow
def test_training_and_bounds_write_none(written, tiny_dense):
    model = MatNet(tiny_dense)
    x = np.zeros((4, *tiny_dense.image_shape), np.float32)

    @as_written
    def work():
        model.compile(optimizer="adam")
        model.fit(tf.data.Dataset.from_tensors(x).map(lambda x: x).repeat(2), verbose=0)
        return model.elbo(x).elbo, model.log_likelihood(x, 2)

    assert all(np.isfinite(part).all() for part in work())
    assert not written
