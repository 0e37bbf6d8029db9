# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Which pixels are hidden, against plain loops and against chance."""

import itertools

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from PIL import Image

from matnet_tf import masks
from matnet_tf.config import DataConfig

SEED = tf.constant([3, 5], tf.int32)
ALMOST_ONE = np.nextafter(np.float32(1), np.float32(0))
SHAPE = (6, 5, 3)

# Every kind that needs no file, as small as SHAPE needs it.
CONFIGS = {
    "fixed quadrants": DataConfig(mask="quadrants", visible=3),
    "random quadrants": DataConfig(mask="quadrants", visible=2, quadrant_order="random"),
    "occluders": DataConfig(mask="occluders", occluders=2, occluder_size=(2, 3)),
    "pixels": DataConfig(mask="pixels", known_share=0.7),
    "half": DataConfig(mask="half", half="top"),
    "random half": DataConfig(mask="half", half="random"),
}
RANDOM = [name for name in CONFIGS if name not in ("fixed quadrants", "half")]
every_kind = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


def draw(config, num=1, seed=SEED, shape=SHAPE):
    return masks.random_masks(config, shape, num, seed).numpy()


def picture(*rows):
    """A mask `[1, H, W, 1]` from rows of text, such as "01"."""
    return np.array([[float(pixel) for pixel in row] for row in rows], np.float32)[None, ..., None]


def uniform(*shape):
    return np.random.RandomState(0).uniform(size=shape).astype(np.float32)


def equally_likely(counts):
    return scipy.stats.chisquare(counts).pvalue > 0.01


# Quadrants and halves.


EVEN = {
    1: ("0000", "0000", "1100", "1100"),
    2: ("1100", "1100", "1100", "1100"),
    3: ("1111", "1111", "1100", "1100"),
}
# Of an odd side the upper or left part is the smaller one.
ODD = {
    1: ("000", "000", "100", "100", "100"),
    2: ("100", "100", "100", "100", "100"),
    3: ("111", "111", "100", "100", "100"),
}


@pytest.mark.parametrize("visible", [1, 2, 3])
@pytest.mark.parametrize(("shape", "expected"), [((4, 4, 1), EVEN), ((5, 3, 1), ODD)])
def test_fixed_quadrants_are_known_in_the_order_of_sohn_et_al(shape, expected, visible):
    found = draw(DataConfig(mask="quadrants", visible=visible), 2, shape=shape)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.repeat(picture(*expected[visible]), 2, axis=0))


def quadrants_of(mask):
    """Which quadrants of a mask `[H, W]` are known; each must be known or hidden as a whole."""
    height, width = mask.shape
    known = []
    for rows in (range(height // 2), range(height // 2, height)):
        for columns in (range(width // 2), range(width // 2, width)):
            (value,) = {float(mask[row, column]) for row in rows for column in columns}
            known.append(value)
    return tuple(known)


@pytest.mark.parametrize("visible", [1, 2, 3])
def test_random_quadrants_are_every_choice_of_that_many_equally_often(visible):
    config = DataConfig(mask="quadrants", visible=visible, quadrant_order="random")
    found = [quadrants_of(mask[..., 0]) for mask in draw(config, 3000)]
    choices = [c for c in itertools.product([0.0, 1.0], repeat=4) if sum(c) == visible]
    counts = [found.count(choice) for choice in choices]
    assert sum(counts) == 3000 and equally_likely(counts)


HALVES = {
    "left": ("100", "100", "100"),
    "right": ("011", "011", "011"),
    "top": ("111", "000", "000"),
    "bottom": ("000", "111", "111"),
}


@pytest.mark.parametrize("half", HALVES)
def test_the_half_that_is_named_is_known(half):
    found = draw(DataConfig(mask="half", half=half), shape=(3, 3, 2))
    np.testing.assert_array_equal(found, picture(*HALVES[half]))


def test_a_random_half_is_each_of_the_four_equally_often():
    found = draw(DataConfig(mask="half", half="random"), 2000, shape=(3, 3, 2))
    counts = [int((found == picture(*rows)).all((1, 2, 3)).sum()) for rows in HALVES.values()]
    assert sum(counts) == 2000 and equally_likely(counts)


@pytest.mark.parametrize("noise", [0.0, ALMOST_ONE])
@pytest.mark.parametrize("count", [2, 3, 4, 6, 7])
def test_the_most_extreme_draws_are_the_first_and_the_last_choice(noise, count):
    patterns = np.arange(count, dtype=np.float32).reshape(count, 1, 1)
    found = masks.one_of(tf.constant([[noise]], tf.float32), patterns)
    assert found.numpy().item() == (count - 1 if noise else 0)


# Occluders.


def occluders_by_loops(noise, shape, size):
    """The mask of one image, pixel by pixel."""
    mask = np.ones(shape[:2], np.float32)
    for row_noise, column_noise in noise.reshape(-1, 2):
        top = int(row_noise * (shape[0] - size[0] + 1))
        left = int(column_noise * (shape[1] - size[1] + 1))
        for row in range(top, top + size[0]):
            for column in range(left, left + size[1]):
                mask[row, column] = 0
    return mask[..., None]


@pytest.mark.parametrize(
    ("shape", "size", "count"),
    [
        ((7, 9, 3), (2, 4), 1),
        ((7, 9, 3), (3, 2), 3),
        ((5, 4, 1), (5, 1), 2),
        ((3, 3, 1), (3, 3), 1),
    ],
)
def test_occluders_hide_the_rectangles_that_plain_loops_hide(shape, size, count):
    noise = uniform(20, 2 * count)
    found = masks.occluders(noise, shape, size)
    np.testing.assert_array_equal(found, [occluders_by_loops(n, shape, size) for n in noise])
    if count == 1:
        assert ((found.numpy() == 0).sum((1, 2, 3)) == size[0] * size[1]).all()


def test_occluders_reach_every_position_equally_often():
    config = DataConfig(mask="occluders", occluders=1, occluder_size=(2, 3))
    hidden = draw(config, 4000, shape=(5, 4, 1))[..., 0] == 0
    tops, lefts = hidden.any(2).argmax(1), hidden.any(1).argmax(1)
    # Rows 0 to 3 and columns 0 and 1: the last position is one of them.
    counts = np.bincount(2 * tops + lefts, minlength=8)
    assert len(counts) == 8 and equally_likely(counts)


@pytest.mark.parametrize("side", [20, 33, 64, 224])
def test_the_most_extreme_draws_are_the_first_and_the_last_position(side):
    noise = np.array([[0, ALMOST_ONE]], np.float32)
    hidden = masks.occluders(noise, (side, side, 3), (20, 20)).numpy()[0, ..., 0] == 0
    assert hidden[:20, -20:].all() and hidden.sum() == 400


def test_several_occluders_are_placed_independently_of_each_other():
    config = DataConfig(mask="occluders", occluders=2, occluder_size=(1, 1))
    hidden = (draw(config, 4000, shape=(2, 2, 1)) == 0).sum((1, 2, 3))
    # The second lies on the first in one of four cases.
    assert (hidden == 1).sum() + (hidden == 2).sum() == 4000
    assert (hidden == 1).mean() == pytest.approx(1 / 4, abs=4 * np.sqrt(3 / 16 / 4000))


# Single pixels.


@pytest.mark.parametrize("share", [0.0, 0.25, 0.9])
def test_pixels_are_known_with_the_given_probability_one_by_one(share):
    found = draw(DataConfig(mask="pixels", known_share=share), 1000, shape=(10, 9, 3))
    assert found.shape == (1000, 10, 9, 1) and set(np.unique(found)) <= {0.0, 1.0}
    error = np.sqrt(share * (1 - share) / 1000)
    np.testing.assert_allclose(found.mean(0), share, atol=5 * error)
    assert found.mean() == pytest.approx(share, abs=4 * error / np.sqrt(90))
    # Neighbours must not share their noise, within an image or between images.
    for one, other in ((found[:, 1:], found[:, :-1]), (found[1:], found[:-1])):
        both = share**2 + (1 - share) ** 2
        assert (one == other).mean() == pytest.approx(both, abs=0.01)


def test_pixels_are_those_whose_noise_is_below_the_share():
    noise = uniform(20, 12)
    found = masks.pixels(noise, (3, 4, 1), 0.5)
    np.testing.assert_array_equal(found, (noise < 0.5).reshape(20, 3, 4, 1))


def test_where_chance_would_hide_no_pixel_that_of_the_highest_noise_is_hidden():
    noise = np.array([[0.1, 0.3, 0.2, 0.0]], np.float32)
    np.testing.assert_array_equal(masks.pixels(noise, (2, 2, 1), 0.5), picture("10", "11"))
    np.testing.assert_array_equal(masks.pixels(noise, (2, 2, 1), 0.25), picture("10", "11"))
    np.testing.assert_array_equal(masks.pixels(noise, (2, 2, 1), 0.15), picture("10", "01"))


# Files.


def save(path, values, mode="L"):
    Image.fromarray(np.array(values, np.uint8)).convert(mode).save(path)
    return DataConfig(mask="file", mask_file=str(path))


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "1"])
def test_a_file_is_known_where_it_is_white(mode, tmp_path):
    # A picture of one bit has no greys.
    dark, light = (0, 255) if mode == "1" else (127, 128)
    config = save(tmp_path / "a mask.png", [[0, 255, dark], [light, 255, 0]], mode)
    found = draw(config, 2, shape=(2, 3, 3))
    np.testing.assert_array_equal(found, np.repeat(picture("010", "110"), 2, axis=0))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros([3, 2]), "mask.png must have the images' 2x3 pixels; got 3x2$"),
        (np.full([2, 3], 255), "mask.png leaves nothing to predict: no pixel is dark$"),
    ],
)
def test_a_file_that_is_not_for_the_images_is_refused(values, message, tmp_path):
    config = save(tmp_path / "mask.png", values)
    with pytest.raises(ValueError, match=f"DataConfig.mask_file .*{message}") as caught:
        masks.check(config, (2, 3, 1))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"), [(None, "No such file"), (b"no", "no PNG or JPEG")]
)
def test_a_file_that_cannot_be_read_is_named(content, message, tmp_path):
    path = tmp_path / "mask.png"
    if content:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=f"DataConfig.mask_file {path}: .*{message}") as caught:
        masks.check(DataConfig(mask="file", mask_file=str(path)), (2, 3, 1))
    assert "\n" not in str(caught.value)


# All of them.


@pytest.mark.parametrize(
    ("config", "shape", "message"),
    [
        (CONFIGS["fixed quadrants"], (1, 8, 1), "at least 2x2 pixels to have .*; got 1x8$"),
        (CONFIGS["random half"], (8, 1, 1), "at least 2x2 pixels to have halves .*; got 8x1$"),
        (
            DataConfig(mask="occluders"),
            (28, 19, 1),
            "DataConfig.occluder_size must fit into the images' 28x19 pixels; got 20x20$",
        ),
        (CONFIGS["occluders"], (1, 8, 1), "must fit into the images' 1x8 pixels; got 2x3$"),
        (DataConfig(), (8, 8, 1), "DataConfig.mask must say what is hidden; got 'none'$"),
    ],
)
def test_masks_that_are_not_for_the_images_are_refused(config, shape, message):
    for call in (
        lambda: masks.check(config, shape),
        lambda: masks.random_masks(config, shape, 2, SEED),
        lambda: masks.masks_by_index(config, shape, [0], SEED),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@every_kind
@pytest.mark.parametrize("shape", [SHAPE, (2, 3, 1)])
def test_no_mask_leaves_nothing_to_predict(config, shape):
    found = draw(config, 500, shape=shape)
    assert found.shape == (500, *shape[:2], 1) and set(np.unique(found)) <= {0.0, 1.0}
    assert ((found == 0).sum((1, 2, 3)) >= 1).all()


@pytest.mark.parametrize("name", CONFIGS)
def test_masks_are_a_function_of_their_seed(name):
    config, drawn = CONFIGS[name], name in RANDOM
    found = draw(config, 50)
    in_graph = tf.function(lambda num, seed: masks.random_masks(config, SHAPE, num, seed))
    np.testing.assert_array_equal(found, in_graph(tf.constant(50), SEED))
    assert (found != draw(config, 50, SEED + 1)).any() == drawn
    assert (found != found[:1]).any() == drawn


@every_kind
def test_the_mask_of_an_image_depends_on_its_index_only(config):
    indices = np.array([4, 0, 7, 2, 9, 2**33])
    every = masks.masks_by_index(config, SHAPE, indices, SEED).numpy()
    assert every.shape == (6, *SHAPE[:2], 1)
    for chosen in ([3], [5, 4, 3, 2, 1, 0], [1, 1, 5]):
        some = masks.masks_by_index(config, SHAPE, indices[chosen], SEED)
        np.testing.assert_array_equal(some, every[chosen])
    in_graph = tf.function(lambda i: masks.masks_by_index(config, SHAPE, i, SEED))
    np.testing.assert_array_equal(in_graph(indices), every)


@pytest.mark.parametrize("name", RANDOM)
def test_masks_by_index_differ_between_images_and_between_seeds(name):
    found = masks.masks_by_index(CONFIGS[name], SHAPE, np.arange(100), SEED).numpy()
    other = masks.masks_by_index(CONFIGS[name], SHAPE, np.arange(100), SEED + 1).numpy()
    assert (found != other).any((1, 2, 3)).mean() > 0.5
    assert (found[1:] != found[:-1]).any((1, 2, 3)).mean() > 0.5
    expected = draw(CONFIGS[name], 4000).mean()
    assert found.mean() == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
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
    ],
)
def test_the_record_says_what_was_hidden_and_by_which_draw(settings, expected):
    assert masks.record(DataConfig(**settings)) == expected
