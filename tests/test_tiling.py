# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Windows cover what is missing once, from the rim inward, each knowing what was filled before."""

import numpy as np
import pytest
from fake_imputers import FakeModel, Imputation, model_config, picture_of

from matnet_tf.conditional import ConditionalMatNet
from matnet_tf.tiling import impute_picture, plan

# Pictures and windows of odd and of even sides, of equal ones, and windows of a single pixel.
SIZES = [
    ((8, 8), (8, 8)),
    ((9, 8), (8, 8)),
    ((33, 47), (8, 8)),
    ((30, 17), (7, 5)),
    ((21, 64), (3, 16)),
    ((12, 11), (2, 1)),
    ((6, 5), (1, 1)),
    ((16, 40), (16, 10)),
]


def blobs(size, seed):
    """A mask with holes of all sizes, some of them single pixels, some at the edges."""
    random, mask = np.random.RandomState(seed), np.ones(size, bool)
    for _ in range(random.randint(1, 5)):
        top, left = random.randint(size[0]), random.randint(size[1])
        mask[top : top + random.randint(1, size[0]), left : left + random.randint(1, size[1])] = 0
    return mask


def masks_of(size):
    """Masks of every kind: from all missing to a single missing pixel."""
    last = np.ones(size, bool)
    last[-1, -1] = False
    random = np.random.RandomState(0)
    scattered = [random.rand(*size) < share for share in (0.1, 0.5, 0.9)]
    return [np.zeros(size, bool), last, *scattered, *(blobs(size, seed) for seed in range(6))]


# The plan.


@pytest.mark.parametrize(("size", "side"), SIZES, ids=str)
def test_every_missing_pixel_is_filled_exactly_once_and_no_other(size, side):
    for mask in masks_of(size):
        known = mask.copy()
        for tile in plan(mask, side):
            np.testing.assert_array_equal(tile.known, known[tile.place])
            assert tile.known.shape == tile.filled.shape == side
            assert tile.filled.any() and not (tile.filled & tile.known).any()
            known[tile.place] |= tile.filled
        assert known.all()


@pytest.mark.parametrize(("size", "side"), SIZES, ids=str)
def test_what_is_kept_lies_a_quarter_of_the_side_inside_or_at_the_picture_s_own_edge(size, side):
    for mask in masks_of(size):
        for tile in plan(mask, side):
            for axis, start in enumerate((tile.top, tile.left)):
                kept = np.flatnonzero(tile.filled.any(axis=1 - axis))
                end = start + side[axis]
                assert start == 0 or kept.min() >= side[axis] // 4
                assert end == size[axis] or kept.max() < side[axis] - side[axis] // 4


@pytest.mark.parametrize(("size", "side"), SIZES, ids=str)
def test_the_window_of_which_most_is_known_goes_first(size, side):
    for mask in masks_of(size):
        tiles, known = plan(mask, side), mask.copy()
        for number, tile in enumerate(tiles):
            counts = [np.count_nonzero(known[other.place]) for other in tiles[number:]]
            assert counts[0] == max(counts)
            known[tile.place] |= tile.filled


def test_holes_are_closed_from_the_known_side():
    mask = np.zeros((8, 40), bool)
    mask[:, 32:] = True
    assert [tile.left for tile in plan(mask, (8, 8))] == [28, 24, 20, 16, 12, 8, 4, 0]


def test_windows_with_nothing_to_fill_are_left_out():
    mask = np.ones((64, 64), bool)
    mask[3, 60] = False
    (tile,) = plan(mask, (8, 8))
    assert (tile.top, tile.left) == (0, 56)
    assert plan(np.ones((64, 64), bool), (8, 8)) == []


def test_a_picture_of_the_windows_size_is_one_window():
    mask = blobs((9, 7), 0)
    (tile,) = plan(mask, (9, 7))
    np.testing.assert_array_equal(tile.filled, ~mask)


@pytest.mark.parametrize("side", [(9, 8), (8, 9), (0, 8)])
def test_windows_larger_than_the_picture_or_empty_are_refused(side):
    with pytest.raises(ValueError, match="windows must be of 1x1 to 8x8 pixels; got"):
        plan(np.zeros((8, 8), bool), side)


def test_a_large_picture_is_planned_in_no_time():
    mask = np.ones((600, 600), bool)
    mask[100:500, 150:450] = False
    tiles = plan(mask, (32, 32))
    assert sum(np.count_nonzero(tile.filled) for tile in tiles) == 400 * 300
    assert len(tiles) <= 26 * 20, "only those that the hole reaches into"


# The pixels.


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("likelihood", ["bernoulli", "logistic", "normal"])
def test_known_bytes_are_untouched_and_all_others_filled(channels, likelihood):
    size, side = (19, 26), (8, 10)
    model = FakeModel((*side, channels), likelihood, noise=0.5)
    picture = picture_of(size, channels)
    for mask in masks_of(size):
        made = impute_picture(model, picture, mask, num_samples=3, seed=4)
        assert made.dtype == np.uint8 and made.shape == (3, *size, channels)
        for completion in made:
            np.testing.assert_array_equal(completion[mask], picture[mask])
        assert np.mean(made[0][~mask] != made[1][~mask]) > 0.3


@pytest.mark.parametrize("likelihood", ["bernoulli", "logistic", "normal"])
def test_a_picture_of_the_model_s_size_is_what_the_model_s_own_method_gives(likelihood):
    model, picture, mask = FakeModel((8, 8, 3), likelihood), picture_of((8, 8), 3), blobs((8, 8), 2)
    made = impute_picture(model, picture, mask, 5, temperature=0.7, seed=11, draw=True)
    ((x, known, *settings),) = model.calls
    assert settings == [5, 0.7, 11, True]
    np.testing.assert_array_equal(known, mask[None, ..., None])
    (found,) = FakeModel((8, 8, 3), likelihood).impute(x, known, *settings).samples.swapaxes(0, 1)
    scale = np.floor(found * 256) if likelihood == "normal" else np.rint(found * 255)
    np.testing.assert_array_equal(made[:, ~mask], np.clip(scale, 0, 255)[:, ~mask])


REAL = {
    "bernoulli": {},
    "logistic": {"likelihood": "logistic"},
    "normal": {"likelihood": "normal"},
    "two stages": {"conditional_stages": 2},
}


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("settings", REAL.values(), ids=REAL)
def test_a_real_model_fills_in_pictures_of_its_size_and_larger_ones(settings):
    config = model_config(3, **{"conditional_stages": 1, **settings})
    model, kind = ConditionalMatNet(config, seed=1), config.likelihood
    picture, mask = picture_of((8, 8), 3), blobs((8, 8), 2)
    made = impute_picture(model, picture, mask, 3, temperature=0.7, seed=11)
    x = {"normal": (picture + 0.5) / 256, "bernoulli": picture > 127}.get(kind, picture / 255)
    known = mask[None, ..., None].astype(np.float32)
    found = model.impute(np.float32(x)[None], known, 3, temperature=0.7, seed=11)
    levels = found.samples[:, 0].numpy() * (256 if kind == "normal" else 255)
    levels = np.floor(levels) if kind == "normal" else np.rint(levels)
    np.testing.assert_array_equal(made[:, ~mask], np.clip(levels, 0, 255)[:, ~mask])

    picture, mask = picture_of((13, 11), 3), blobs((13, 11), 2)
    made, again = (impute_picture(model, picture, mask, 2, seed=4, draw=True) for _ in range(2))
    np.testing.assert_array_equal(made[:, mask], np.repeat(picture[None], 2, 0)[:, mask])
    np.testing.assert_array_equal(made, again)
    assert np.any(made[0] != made[1])


LEVELS = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
READ = {
    "logistic": (LEVELS.astype(np.float32) / np.float32(255), True),
    "bernoulli": ((LEVELS >= 128).astype(np.float32), True),
    "bernoulli, not binary": (LEVELS.astype(np.float32) / np.float32(255), False),
    "normal": ((LEVELS.astype(np.float32) + np.float32(0.5)) / np.float32(256), True),
}


@pytest.mark.parametrize("kind", READ)
def test_the_model_is_given_known_pixels_as_its_likelihood_has_them(kind):
    expected, binary = READ[kind]
    model = FakeModel((16, 16, 1), kind.partition(",")[0])
    mask = np.ones((16, 16), bool)
    mask[7, 9] = False
    made = impute_picture(model, LEVELS, mask, 1, binary=binary)
    x = model.calls[0][0]
    np.testing.assert_array_equal(x[0][mask], expected[mask])
    np.testing.assert_array_equal(made[0][mask], LEVELS[mask])


@pytest.mark.parametrize("likelihood", ["logistic", "normal"])
def test_what_a_window_reads_of_one_before_is_what_was_stored(likelihood):
    """Every level survives the way from the model into the picture and back."""
    model = FakeModel((16, 16, 1), likelihood)
    x = READ[likelihood][0]
    model.impute = lambda *_, **__: Imputation(x[None, None], x[None])
    made = impute_picture(model, np.zeros_like(LEVELS), np.zeros((16, 16), bool), 1)
    np.testing.assert_array_equal(made[0], LEVELS)


def test_what_lies_under_the_mask_plays_no_part():
    mask, one, other = blobs((20, 20), 3), picture_of((20, 20)), picture_of((20, 20), seed=1)
    other[mask] = one[mask]
    made = [impute_picture(FakeModel(), picture, mask, 2) for picture in (one, other)]
    np.testing.assert_array_equal(*made)


def test_each_completion_of_a_window_is_given_its_own_pixels_of_those_before():
    model, picture, mask = FakeModel(), picture_of((24, 20)), np.zeros((24, 20), bool)
    mask[:, :4] = True
    made = impute_picture(model, picture, mask, num_samples=4, seed=2)
    tiles, given = plan(mask, (8, 8)), 0
    assert len(model.calls) == len(tiles)
    for tile, (x, known, num_samples, *_) in zip(tiles, model.calls, strict=True):
        assert num_samples * len(x) == 4
        np.testing.assert_array_equal(known, np.repeat(tile.known[None, ..., None], len(x), 0))
        # Pixels are filled once, so what was there at its turn is there at the end.
        expected = made[: len(x), *tile.place][:, tile.known] / np.float32(255)
        np.testing.assert_array_equal(x[:, tile.known], expected)
        before = tile.known & ~mask[tile.place]
        given += before.any()
        assert (len(x) == 4) == before.any(), "only canvases that differ are watched one by one"
    assert given == len(tiles) - 1, "all but the first overlap one before"


def test_a_level_is_carried_from_window_to_window_without_a_seam():
    """A window that were only given the file's pixels would know none, and guess a level."""
    for level in (0, 77, 255):
        picture, mask = np.full((40, 40, 1), level, np.uint8), np.zeros((40, 40), bool)
        mask[:, :5] = True
        np.testing.assert_array_equal(
            impute_picture(FakeModel(noise=0.0), picture, mask, 2), np.repeat(picture[None], 2, 0)
        )


class Planes(FakeModel):
    """Continues the plane that fits the known pixels best."""

    def impute(self, x, mask, num_samples=1, **_):
        height, width, _ = self.config.image_shape
        y, column = np.indices((height, width))
        basis = np.stack([np.ones_like(y), y, column], -1)
        samples = np.empty_like(x)
        for row, known, sample in zip(x, mask[..., 0] > 0, samples, strict=True):
            fit = np.linalg.lstsq(basis[known], row[known], rcond=None)[0]
            sample[:] = basis @ fit
        return Imputation(np.repeat(samples[None], num_samples, 0), samples)


def test_a_slope_goes_on_across_borders_of_windows():
    y, x = np.indices((40, 44))
    picture = (3 * x + 2 * y + 10).astype(np.uint8)[..., None]
    mask = np.ones((40, 44), bool)
    mask[9:31, 7:35] = False
    made = impute_picture(Planes((16, 16, 1)), picture, mask, 1)[0].astype(int)
    assert np.abs(made - picture).max() <= 1


def test_the_seed_says_what_is_drawn():
    picture, mask = picture_of((24, 24)), blobs((24, 24), 1)
    one, again, other = (
        impute_picture(FakeModel(), picture, mask, 2, seed=seed) for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(one, again)
    assert np.mean(one[:, ~mask] != other[:, ~mask]) > 0.8
    model = FakeModel()
    impute_picture(model, picture, np.zeros((24, 24), bool), 2, seed=3)
    seeds = [call[4] for call in model.calls]
    assert len(set(seeds)) == len(seeds) and seeds[0] == 3 and 0 <= min(seeds) < 2**62


def test_passes_of_many_completions_are_bounded_and_differ():
    model, picture, mask = FakeModel(most=3), picture_of((12, 12)), np.zeros((12, 12), bool)
    made = impute_picture(model, picture, mask, num_samples=8, seed=1)
    first, *others = plan(mask, (8, 8))
    rows = [len(call[0]) for call in model.calls]
    assert rows == [1, *[3, 3, 2] * len(others)], "of the first window the model makes eight"
    assert len({completion[first.place].tobytes() for completion in made}) == 8
    for tile in others:
        filled = made[:, *tile.place][:, tile.filled]
        assert len({values.tobytes() for values in filled}) == 8


WRONG_CALLS = {
    "type": (np.zeros((8, 8, 1), np.float32), np.zeros((8, 8), bool), 1, "must be uint8 .*float32"),
    "channels": (picture_of((8, 8), 3), np.zeros((8, 8), bool), 1, r"width, 1\]; got uint8 \[8, "),
    "size": (picture_of((9, 7)), np.zeros((9, 7), bool), 1, "it has 9x7 pixels; the model needs"),
    "mask's size": (picture_of((9, 8)), np.zeros((8, 9), bool), 1, r"of 9x8 .*got bool \[8, 9\]"),
    "mask's type": (picture_of((8, 8)), np.zeros((8, 8)), 1, "must be bool .* got float64"),
    "nothing missing": (picture_of((8, 8)), np.ones((8, 8), bool), 1, "leaves nothing to predict"),
    "no samples": (picture_of((8, 8)), np.zeros((8, 8), bool), 0, "at least 1; got 0"),
}


@pytest.mark.parametrize(
    ("picture", "mask", "num_samples", "message"), WRONG_CALLS.values(), ids=WRONG_CALLS
)
def test_wrong_input_gets_one_clear_line(picture, mask, num_samples, message):
    with pytest.raises(ValueError, match=message) as error:
        impute_picture(FakeModel(), picture, mask, num_samples)
    assert "\n" not in str(error.value)


def test_values_that_are_not_finite_are_an_error():
    with pytest.raises(ValueError, match="completions must be finite"):
        impute_picture(FakeModel(noise=np.nan), picture_of((8, 8)), np.zeros((8, 8), bool))
