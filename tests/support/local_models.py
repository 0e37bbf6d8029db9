# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""What a local model gives images when it meets their values one after the other."""

import numpy as np


def log_prob_in_order(layer, context, x, observed=None):
    """log p [B] of images by the parameters that `values_in_order` has at each value."""
    places, terms = layer.places(), []
    hidden = np.ones([*x.shape[:3], 1]) if observed is None else 1 - observed.mask.numpy()

    def choose(row, column, parameters):
        rows, columns, channels = next(places)
        assert (int(row), int(column)) == (rows.start, columns.start)
        value = x[:, rows, columns]
        log_probs = layer.observation.log_probs(parameters, value).numpy()[..., channels]
        terms.append((hidden[:, rows, columns] * log_probs).sum((1, 2, 3)))
        return value

    walked = layer.values_in_order(context, choose, observed)
    np.testing.assert_array_equal(walked, x)
    return np.sum(terms, axis=0)
