# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Models for images of every shape and kind, without a network designed by hand."""

import pytest

from matnet_tf.config.suggestion import KINDS, SIZES, suggested_model, suggested_training


def test_scales_are_the_halved_sizes_from_32_to_4():
    for shape, expected in (
        ((28, 28), [4, 7, 14]),
        ((32, 32), [4, 8, 16]),
        ((64, 64), [4, 8, 16, 32]),
        ((100, 37), [(4, 2), (7, 3), (13, 5), (25, 10)]),
        ((8, 8), [4]),
        ((40, 3), [(5, 1), (10, 1), (20, 2)]),
        ((5, 7), [(3, 4)]),
        ((3, 3), [1]),
        ((1, 1), [1]),
    ):
        for size in SIZES:
            model = suggested_model((*shape, 1), "binary", size)
            assert [scale.size for scale in model.scales] == expected, shape
            dense = model.scales[0].dense
            filters, latents, modules = SIZES[size][2 if dense else 1]
            for scale in model.scales:
                assert (scale.filters, scale.latents, scale.modules) == (filters, latents, modules)


def test_the_likelihood_is_that_of_the_values():
    for kind, likelihood in KINDS.items():
        model = suggested_model((9, 7, 3), kind)
        assert (model.likelihood, model.image_shape) == (likelihood, (9, 7, 3))
    assert suggested_model((8, 8, 1), "binary", conditional=True).conditional_stages == 1
    with pytest.raises(ValueError, match="kind must be one of binary, .*; got 'grey'"):
        suggested_model((8, 8, 1), "grey")
    with pytest.raises(ValueError, match="size must be one of small, medium, large; got 'huge'"):
        suggested_model((8, 8, 1), "binary", "huge")


def test_large_images_have_smaller_batches_and_shorter_intervals():
    for shape, expected in (
        ((28, 28, 1), (100, 1000)),
        ((32, 32, 3), (100, 1000)),
        ((64, 64, 3), (25, 25)),
        ((48, 64, 1), (33, 25)),
        ((256, 256, 3), (8, 25)),
    ):
        train = suggested_training(shape)
        assert (train.batch_size, train.checkpoint_every) == expected
