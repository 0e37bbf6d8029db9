# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Which pixels masks hide, against plain loops and against chance."""

import itertools

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from PIL import Image

from matnet_tf.config import DataConfig
from matnet_tf.data import masks

SEED = tf.constant([3, 5], tf.int32)
ALMOST_ONE = np.nextafter(np.float32(1), np.float32(0))
SHAPE = (6, 5, 3)

# Every kind that needs no file, and whether it is drawn.
KINDS = (
    (DataConfig(mask="quadrants", visible=3), False),
    (DataConfig(mask="quadrants", visible=2, quadrant_order="random"), True),
    (DataConfig(mask="occluders", occluders=2, occluder_size=(2, 3)), True),
    (DataConfig(mask="pixels", known_share=0.7), True),
    (DataConfig(mask="half", half="top"), False),
    (DataConfig(mask="half", half="random"), True),
)


def draw(config, num=1, seed=SEED, shape=SHAPE):
    return masks.random_masks(config, shape, num, seed).numpy()


def by_index(config, indices, seed=SEED):
    return masks.masks_by_index(config, SHAPE, indices, seed).numpy()


def picture(*rows):
    """A mask [1, H, W, 1] from rows of text, such as "01"."""
    return np.array([[float(pixel) for pixel in row] for row in rows], np.float32)[None, ..., None]


def uniform(*shape):
    return np.random.RandomState(0).uniform(size=shape).astype(np.float32)


def equally_likely(counts):
    return scipy.stats.chisquare(counts).pvalue > 0.01


def test_fixed_quadrants_are_known_in_the_order_of_sohn_et_al():
    even = ("0000 0000 1100 1100", "1100 1100 1100 1100", "1111 1111 1100 1100")
    # For odd sides the upper or left part is the smaller one.
    odd = ("000 000 100 100 100", "100 100 100 100 100", "111 111 100 100 100")
    for shape, pictures in (((4, 4, 1), even), ((5, 3, 1), odd)):
        for visible, rows in enumerate(pictures, 1):
            found = draw(DataConfig(mask="quadrants", visible=visible), 2, shape=shape)
            assert found.dtype == np.float32
            np.testing.assert_array_equal(found, np.repeat(picture(*rows.split()), 2, axis=0))


def quadrants_of(mask):
    """Which quadrants of a mask [H, W] are known; each must be known or hidden as a whole."""
    height, width = mask.shape
    known = []
    for rows in (slice(None, height // 2), slice(height // 2, None)):
        for columns in (slice(None, width // 2), slice(width // 2, None)):
            (value,) = np.unique(mask[rows, columns])
            known.append(float(value))
    return tuple(known)


def test_random_quadrants_are_every_choice_of_that_many_equally_often():
    for visible in (1, 2, 3):
        config = DataConfig(mask="quadrants", visible=visible, quadrant_order="random")
        found = [quadrants_of(mask[..., 0]) for mask in draw(config, 1000)]
        choices = [c for c in itertools.product([0.0, 1.0], repeat=4) if sum(c) == visible]
        counts = [found.count(choice) for choice in choices]
        assert sum(counts) == 1000 and equally_likely(counts)


def test_a_half_is_the_one_named_or_each_of_the_four_equally_often():
    halves = {
        "left": ("100", "100", "100"),
        "right": ("011", "011", "011"),
        "top": ("111", "000", "000"),
        "bottom": ("000", "111", "111"),
    }
    for half, rows in halves.items():
        found = draw(DataConfig(mask="half", half=half), shape=(3, 3, 2))
        np.testing.assert_array_equal(found, picture(*rows))
    found = draw(DataConfig(mask="half", half="random"), 2000, shape=(3, 3, 2))
    counts = [int((found == picture(*rows)).all((1, 2, 3)).sum()) for rows in halves.values()]
    assert sum(counts) == 2000 and equally_likely(counts)


def test_the_most_extreme_draws_are_the_first_and_the_last_choice():
    for count in (2, 3, 4, 6, 7):
        patterns = np.arange(count, dtype=np.float32).reshape(count, 1, 1)
        found = masks.one_of(tf.constant([[0.0], [ALMOST_ONE]], tf.float32), patterns)
        assert found.numpy().ravel().tolist() == [0, count - 1]
    for side in (20, 33, 64, 224):
        noise = np.array([[0, ALMOST_ONE]], np.float32)
        hidden = masks.occluders(noise, (side, side, 3), (20, 20)).numpy()[0, ..., 0] == 0
        assert hidden[:20, -20:].all() and hidden.sum() == 400


def occluders_by_loops(noise, shape, size):
    """The mask of one image, rectangle by rectangle."""
    mask = np.ones((*shape[:2], 1), np.float32)
    for row_noise, column_noise in noise.reshape(-1, 2):
        top = int(row_noise * (shape[0] - size[0] + 1))
        left = int(column_noise * (shape[1] - size[1] + 1))
        mask[top : top + size[0], left : left + size[1]] = 0
    return mask


def test_occluders_hide_the_rectangles_that_plain_loops_hide():
    for shape, size, count in (
        ((7, 9, 3), (2, 4), 1),
        ((7, 9, 3), (3, 2), 3),
        ((5, 4, 1), (5, 1), 2),
        ((3, 3, 1), (3, 3), 1),
    ):
        noise = uniform(20, 2 * count)
        found = masks.occluders(noise, shape, size)
        np.testing.assert_array_equal(found, [occluders_by_loops(n, shape, size) for n in noise])


def test_occluders_reach_every_position_equally_often_and_independently():
    config = DataConfig(mask="occluders", occluders=1, occluder_size=(2, 3))
    hidden = draw(config, 4000, shape=(5, 4, 1))[..., 0] == 0
    tops, lefts = hidden.any(2).argmax(1), hidden.any(1).argmax(1)
    # Rows 0 to 3, columns 0 and 1.
    counts = np.bincount(2 * tops + lefts, minlength=8)
    assert len(counts) == 8 and equally_likely(counts)
    config = DataConfig(mask="occluders", occluders=2, occluder_size=(1, 1))
    hidden = (draw(config, 4000, shape=(2, 2, 1)) == 0).sum((1, 2, 3))
    # The second lies on the first in one of four cases.
    assert (hidden == 1).sum() + (hidden == 2).sum() == 4000
    assert (hidden == 1).mean() == pytest.approx(1 / 4, abs=4 * np.sqrt(3 / 16 / 4000))


def test_pixels_are_known_with_the_given_probability_one_by_one():
    for share in (0.0, 0.25, 0.9):
        found = draw(DataConfig(mask="pixels", known_share=share), 1000, shape=(10, 9, 3))
        error = np.sqrt(share * (1 - share) / 1000)
        np.testing.assert_allclose(found.mean(0), share, atol=5 * error)
        assert found.mean() == pytest.approx(share, abs=4 * error / np.sqrt(90))
        # Neighbours must not share their noise, within an image or between images.
        for one, other in ((found[:, 1:], found[:, :-1]), (found[1:], found[:-1])):
            both = share**2 + (1 - share) ** 2
            assert (one == other).mean() == pytest.approx(both, abs=0.01)
    noise = uniform(20, 12)
    found = masks.pixels(noise, (3, 4, 1), 0.5)
    np.testing.assert_array_equal(found, (noise < 0.5).reshape(20, 3, 4, 1))


def test_where_chance_would_hide_no_pixel_that_of_the_highest_noise_is_hidden():
    noise = np.array([[0.1, 0.3, 0.2, 0.0]], np.float32)
    for share, rows in ((0.5, ("10", "11")), (0.25, ("10", "11")), (0.15, ("10", "01"))):
        np.testing.assert_array_equal(masks.pixels(noise, (2, 2, 1), share), picture(*rows))


def of_file(path, values, mode="L"):
    Image.fromarray(np.array(values, np.uint8)).convert(mode).save(path)
    return DataConfig(mask="file", mask_file=str(path))


def test_a_file_is_known_where_it_is_white(tmp_path):
    for mode in ("L", "RGB", "RGBA", "1"):
        # An image of one bit has no greys.
        dark, light = (0, 255) if mode == "1" else (127, 128)
        config = of_file(tmp_path / "a mask.png", [[0, 255, dark], [light, 255, 0]], mode)
        found = draw(config, 2, shape=(2, 3, 3))
        np.testing.assert_array_equal(found, np.repeat(picture("010", "110"), 2, axis=0))


def test_masks_that_do_not_suit_the_images_are_refused_in_one_line(tmp_path):
    small = of_file(tmp_path / "small.png", np.zeros([3, 2]))
    white = of_file(tmp_path / "white.png", np.full([2, 3], 255))
    (tmp_path / "no.png").write_bytes(b"no")
    text = DataConfig(mask="file", mask_file=str(tmp_path / "no.png"))
    gone = DataConfig(mask="file", mask_file="/no/mask.png")
    (quadrants, _), _, (occluders, _), _, _, (half, _) = KINDS
    for config, shape, message in (
        (small, (2, 3, 1), "mask_file .*small.png must have the images' 2x3 pixels; got 3x2$"),
        (white, (2, 3, 1), "mask_file .*white.png leaves nothing to predict: no pixel is dark$"),
        (text, (2, 3, 1), "mask_file .*no.png: it is not a PNG, JPEG, WebP or BMP image"),
        (gone, (2, 3, 1), "mask_file /no/mask.png: it cannot be read: .*No such file"),
        (quadrants, (1, 8, 1), "at least 2x2 pixels to have halves and quadrants; got 1x8$"),
        (half, (8, 1, 1), "at least 2x2 pixels to have .*; got 8x1$"),
        (occluders, (1, 8, 1), "occluder_size must fit into the images' 1x8 pixels; got 2x3$"),
        (DataConfig(), (8, 8, 1), "DataConfig.mask must say what is hidden; got 'none'$"),
    ):
        for call, rest in ((masks.check, ()), (masks.random_masks, (2, SEED))):
            with pytest.raises(ValueError, match=message) as caught:
                call(config, shape, *rest)
            assert "\n" not in str(caught.value)


def test_masks_are_binary_hide_a_pixel_and_are_a_function_of_their_seed():
    for config, drawn in KINDS:
        for shape in (SHAPE, (2, 3, 1)):
            found = draw(config, 500, shape=shape)
            assert found.shape == (500, *shape[:2], 1) and set(np.unique(found)) <= {0.0, 1.0}
            assert ((found == 0).sum((1, 2, 3)) >= 1).all()
        found = draw(config, 50)
        np.testing.assert_array_equal(found, draw(config, 50))
        assert (found != draw(config, 50, SEED + 1)).any() == drawn
        assert (found != found[:1]).any() == drawn


@pytest.mark.slow
def test_the_mask_of_an_image_depends_on_its_index_and_the_seed_only():
    indices = np.array([4, 0, 7, 2, 9, 2**33])
    for config, drawn in KINDS:
        every = by_index(config, indices)
        assert every.shape == (6, *SHAPE[:2], 1)
        for chosen in ([3], [5, 4, 3, 2, 1, 0], [1, 1, 5]):
            np.testing.assert_array_equal(by_index(config, indices[chosen]), every[chosen])
        graph = tf.function(
            lambda i, seed, c=config: masks.masks_by_index(c, SHAPE, i, seed), reduce_retracing=True
        )
        np.testing.assert_array_equal(graph(indices, SEED), every)
        if drawn:
            found, other = (graph(np.arange(100), seed).numpy() for seed in (SEED, SEED + 1))
            assert (found != other).any((1, 2, 3)).mean() > 0.5
            assert (found[1:] != found[:-1]).any((1, 2, 3)).mean() > 0.5
            assert found.mean() == pytest.approx(draw(config, 4000).mean(), abs=0.05)


def test_the_record_says_what_was_hidden_and_by_which_draw():
    for settings, expected in (
        ({}, None),
        ({"mask": "quadrants"}, {"kind": "quadrants", "visible": 1, "order": "fixed"}),
        (
            {"mask": "quadrants", "visible": 2, "quadrant_order": "random", "draw_seed": 3},
            {"kind": "quadrants", "visible": 2, "order": "random", "seed": 3},
        ),
        (
            {"mask": "occluders"},
            {"kind": "occluders", "occluders": 3, "size": [20, 20], "seed": 0},
        ),
        ({"mask": "pixels"}, {"kind": "pixels", "known_share": 0.5, "seed": 0}),
        ({"mask": "half"}, {"kind": "half", "half": "left"}),
        ({"mask": "half", "half": "random"}, {"kind": "half", "half": "random", "seed": 0}),
        ({"mask": "file", "mask_file": "random"}, {"kind": "file", "file": "random"}),
    ):
        assert masks.record(DataConfig(**settings)) == expected
