# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Which images a measurement takes, and which of its values it refuses."""

import numpy as np
import pytest

from matnet_tf.config import EvaluateConfig, ScoreConfig
from matnet_tf.evaluation.protocol import check_finite, chosen_images


def subset(seed, images):
    return chosen_images(EvaluateConfig(seed=seed, images=images), 297)


def test_a_subset_is_random_without_replacement_and_a_function_of_its_seed():
    chosen = subset(3, 100)
    assert len(set(chosen)) == 100 and chosen.min() >= 0 and chosen.max() < 297
    assert list(chosen) == sorted(chosen)
    np.testing.assert_array_equal(chosen, subset(3, 100))
    assert set(chosen) != set(subset(4, 100))
    assert set(subset(3, 10)) < set(chosen)
    np.testing.assert_array_equal(subset(3, 0), np.arange(297))
    assert len(set(subset(2**40, 100))) == 100  # More than NumPy's seeds hold.
    for config in (EvaluateConfig, ScoreConfig):
        message = f"^{config.__name__}.images must be at most 5, .* the train split; got 6$"
        with pytest.raises(ValueError, match=message):
            chosen_images(config(split="train", images=6), 5)


def test_the_first_value_that_is_not_finite_is_named_by_its_image():
    check_finite(np.zeros(3), 10)
    with pytest.raises(ValueError, match="bound of image 12 must be finite; got inf"):
        check_finite(np.array([0.0, 1.0, np.inf, np.nan]), 10)
