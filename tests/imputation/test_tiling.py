# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Windows fill every missing pixel once, from the rims of holes inward, and leave no seams."""

import numpy as np
import pytest
from fake_imputers import FakeModel, Imputation, model_config, picture_of

from matnet_tf.imputation.tiling import impute_picture, plan
from matnet_tf.model.conditional import ConditionalMatNet

# Pictures and windows with odd and even sides, of equal size, and windows of a single pixel.
SIZES = [
    ((8, 8), (8, 8)),
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
def test_a_plan_fills_every_missing_pixel_once_well_inside_windows_best_known_first(size, side):
    for mask in masks_of(size):
        tiles, known = plan(mask, side), mask.copy()
        for number, tile in enumerate(tiles):
            np.testing.assert_array_equal(tile.known, known[tile.place])
            assert tile.known.shape == tile.filled.shape == side
            assert tile.filled.any() and not (tile.filled & tile.known).any()
            counts = [np.count_nonzero(known[other.place]) for other in tiles[number:]]
            assert counts[0] == max(counts)
            for axis, start in enumerate((tile.top, tile.left)):
                kept, margin = np.flatnonzero(tile.filled.any(axis=1 - axis)), side[axis] // 4
                assert start == 0 or kept.min() >= margin
                assert start + side[axis] == size[axis] or kept.max() < side[axis] - margin
            known[tile.place] |= tile.filled
        assert known.all()


def test_holes_are_closed_from_the_known_side_and_windows_without_one_are_left_out():
    mask = np.zeros((8, 40), bool)
    mask[:, 32:] = True
    assert [tile.left for tile in plan(mask, (8, 8))] == [28, 24, 20, 16, 12, 8, 4, 0]
    mask = np.ones((64, 64), bool)
    assert plan(mask, (8, 8)) == []
    mask[3, 60] = False
    (tile,) = plan(mask, (8, 8))
    assert (tile.top, tile.left) == (0, 56)
    mask = np.ones((600, 600), bool)
    mask[100:500, 150:450] = False
    tiles = plan(mask, (32, 32))
    assert sum(np.count_nonzero(tile.filled) for tile in tiles) == 400 * 300
    assert len(tiles) <= 26 * 20
    for side in ((9, 8), (8, 9), (0, 8)):
        with pytest.raises(ValueError, match="windows must be of 1x1 to 8x8 pixels; got"):
            plan(np.zeros((8, 8), bool), side)


# The pixels.


def test_known_bytes_are_untouched_and_all_others_filled_whatever_lay_there():
    size, side = (19, 26), (8, 10)
    for channels, likelihood in ((1, "bernoulli"), (3, "logistic"), (3, "normal")):
        model = FakeModel((*side, channels), likelihood, noise=0.5)
        picture = picture_of(size, channels)
        for mask in masks_of(size):
            made = impute_picture(model, picture, mask, num_samples=3, seed=4)
            assert made.dtype == np.uint8 and made.shape == (3, *size, channels)
            np.testing.assert_array_equal(made[:, mask], np.repeat(picture[None], 3, 0)[:, mask])
            assert np.mean(made[0][~mask] != made[1][~mask]) > 0.3
        other = np.where(mask[..., None], picture, 255 - picture)
        np.testing.assert_array_equal(impute_picture(model, other, mask, 3, seed=4), made)


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize(("stages", "likelihood"), [(1, "normal"), (2, "bernoulli")])
def test_a_picture_of_the_models_size_is_what_impute_gives(stages, likelihood):
    config = model_config(3, conditional_stages=stages, likelihood=likelihood)
    model, kind = ConditionalMatNet(config, seed=1), config.likelihood
    picture, mask = picture_of((8, 8), 3), blobs((8, 8), 2)
    made = impute_picture(model, picture, mask, 3, temperature=0.7, seed=11)
    x = (picture + 0.5) / 256 if kind == "normal" else picture > 127
    known = mask[None, ..., None].astype(np.float32)
    found = model.impute(np.float32(x)[None], known, 3, temperature=0.7, seed=11)
    samples = found.samples[:, 0].numpy()
    levels = np.floor(256 * samples) if kind == "normal" else np.rint(255 * samples)
    np.testing.assert_array_equal(made[:, ~mask], np.clip(levels, 0, 255)[:, ~mask])


LEVELS = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
READ = {
    "logistic": LEVELS.astype(np.float32) / np.float32(255),
    "bernoulli": (LEVELS >= 128).astype(np.float32),
    "normal": (LEVELS.astype(np.float32) + np.float32(0.5)) / np.float32(256),
}


def test_the_model_gets_pixels_as_its_likelihood_takes_them_and_every_level_survives():
    for kind, expected in READ.items():
        model = FakeModel((16, 16, 1), kind)
        mask = np.ones((16, 16), bool)
        mask[7, 9] = False
        made = impute_picture(model, LEVELS, mask, 1)
        np.testing.assert_array_equal(model.calls[0][0][0][mask], expected[mask])
        np.testing.assert_array_equal(made[0][mask], LEVELS[mask])
    for kind in ("logistic", "normal"):
        model, x = FakeModel((16, 16, 1), kind), READ[kind]
        model.impute = lambda *_, x=x, **__: Imputation(x[None, None], x[None])
        made = impute_picture(model, np.zeros_like(LEVELS), np.zeros((16, 16), bool), 1)
        np.testing.assert_array_equal(made[0], LEVELS)


def test_each_completion_of_a_window_gets_its_own_pixels_of_earlier_windows():
    model, picture, mask = FakeModel(), picture_of((24, 20)), np.zeros((24, 20), bool)
    mask[:, :4] = True
    made = impute_picture(model, picture, mask, num_samples=4, seed=2)
    tiles, given = plan(mask, (8, 8)), 0
    assert len(model.calls) == len(tiles)
    for tile, (x, known, num_samples, *_) in zip(tiles, model.calls, strict=True):
        assert num_samples * len(x) == 4
        np.testing.assert_array_equal(known, np.repeat(tile.known[None, ..., None], len(x), 0))
        # A pixel is filled once, so what a window was given is there at the end.
        expected = made[: len(x), *tile.place][:, tile.known] / np.float32(255)
        np.testing.assert_array_equal(x[:, tile.known], expected)
        before = tile.known & ~mask[tile.place]
        given += before.any()
        assert (len(x) == 4) == before.any(), "only canvases that differ are encoded separately"
    assert given == len(tiles) - 1, "all but the first overlap an earlier window"


def test_a_level_goes_on_across_the_borders_of_windows():
    for level in (0, 77, 255):
        picture, mask = np.full((40, 40, 1), level, np.uint8), np.zeros((40, 40), bool)
        mask[:, :5] = True
        made = impute_picture(FakeModel(noise=0.0), picture, mask, 2)
        np.testing.assert_array_equal(made, np.repeat(picture[None], 2, 0))


def test_the_seed_decides_the_completions_and_every_window_has_its_own():
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
    assert [len(call[0]) for call in model.calls] == [1, *[3, 3, 2] * len(others)]
    assert len({completion[first.place].tobytes() for completion in made}) == 8
    for tile in others:
        filled = made[:, *tile.place][:, tile.filled]
        assert len({values.tobytes() for values in filled}) == 8


def test_wrong_input_gets_one_clear_line():
    grey, hole = picture_of((8, 8)), np.zeros((8, 8), bool)
    for picture, mask, num_samples, message in (
        (grey.astype(np.float32), hole, 1, "must be uint8 .*float32"),
        (picture_of((8, 8), 3), hole, 1, r"width, 1\]; got uint8 \[8, "),
        (picture_of((9, 7)), hole, 1, "it has 9x7 pixels; the model needs"),
        (picture_of((9, 8)), np.zeros((8, 9), bool), 1, r"of 9x8 .*got bool \[8, 9\]"),
        (grey, hole.astype(float), 1, "must be bool .* got float64"),
        (grey, ~hole, 1, "leaves nothing to predict"),
        (grey, hole, 0, "at least 1; got 0"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            impute_picture(FakeModel(), picture, mask, num_samples)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="completions must be finite"):
        impute_picture(FakeModel(noise=np.nan), grey, hole)
