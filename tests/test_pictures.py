# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Grids hold the right pixels in the right places, areas and curves the right numbers."""

import subprocess
import sys

import matplotlib.image
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from matnet_tf import pictures

STEPS = [100, 200, 300]
KL = {
    "00_top": [1.0, 2.0, 3.0],
    "01_7x7": [0.5, 0.25, 4.0],
    "02_7x7": [0.0, 1.0, 1.5],
    "03_14x14": [2.0, 2.0, 0.125],
}


def drawn_areas(figure, panel=0):
    """Lower and upper edge of each filled area of a panel, at the steps."""
    found = []
    for area in figure.axes[panel].collections:
        x, y = area.get_paths()[0].vertices.T
        found.append([(min(y[x == step]), max(y[x == step])) for step in np.unique(x)])
    return np.array(found)


def line(axes, label):
    return next(one for one in axes.lines if one.get_label() == label)


def test_a_grid_places_every_image_and_leaves_a_grey_pixel_between():
    images = np.random.RandomState(0).rand(5, 28, 14, 1)
    grid = pictures.image_grid(images, columns=3)
    factor = 4  # 14 * 4 = 56
    height, width = 28 * factor, 14 * factor
    assert grid.dtype == np.uint8
    assert grid.shape == (2 * height + 1, 3 * width + 2, 3)
    for index, image in enumerate(images):
        y, x = index // 3 * (height + 1), index % 3 * (width + 1)
        expected = np.kron(np.rint(image * 255), np.ones((factor, factor, 3)))
        np.testing.assert_array_equal(grid[y : y + height, x : x + width], expected)
    assert (grid[height] == 128).all()
    assert (grid[:, width] == 128).all()
    assert (grid[height + 1 :, 2 * (width + 1) :] == 128).all()  # The cell left over.


@pytest.mark.parametrize("side, factor", [(1, 56), (8, 7), (28, 2), (55, 2), (56, 1), (64, 1)])
def test_cells_are_enlarged_by_whole_factors_to_56_pixels_or_more(side, factor):
    grid = pictures.image_grid(np.zeros((1, side, side, 1)), columns=1)
    assert grid.shape == (side * factor, side * factor, 3)


def test_three_channels_are_colours_and_any_other_number_is_their_mean():
    colour = pictures.image_grid(np.broadcast_to([1.0, 0.5, 0.0], (1, 60, 60, 3)), 1)
    np.testing.assert_array_equal(colour[5, 5], [255, 128, 0])
    two = pictures.image_grid(np.broadcast_to([1.0, 0.2], (1, 60, 60, 2)), 1)
    np.testing.assert_array_equal(two[5, 5], [153] * 3)  # 0.6 * 255
    five = pictures.image_grid(np.broadcast_to([1.0, 0, 0, 0, 0], (1, 60, 60, 5)), 1)
    np.testing.assert_array_equal(five[5, 5], [51] * 3)


def test_values_out_of_range_are_clipped_and_nan_is_grey():
    row = np.array([-3.0, 7.0, np.nan, np.inf]).reshape(4, 1, 1, 1)
    grid = pictures.image_grid(row, columns=4)
    np.testing.assert_array_equal(grid[0, [0, 57, 114, 171], 0], [0, 255, 128, 255])


@pytest.mark.parametrize("shape", [(28, 28, 1), (0, 28, 28, 1)])
def test_a_grid_refuses_what_is_not_images(shape):
    with pytest.raises(ValueError, match=r"images must have shape \[N, H, W, C\]; got"):
        pictures.image_grid(np.zeros(shape), columns=1)


def test_a_grid_refuses_to_have_no_columns():
    with pytest.raises(ValueError, match="columns must be at least 1; got 0"):
        pictures.image_grid(np.zeros((1, 8, 8, 1)), columns=0)


@pytest.mark.parametrize("levels", range(1, 30))
def test_depths_rise_from_none_over_the_top_to_all(levels):
    depths = pictures.depths(levels)
    assert depths[:2] == [0, 1]
    assert depths[-1] == levels
    assert depths == sorted(set(depths))
    assert len(depths) == min(6, levels + 1)


def test_the_stacked_areas_are_the_cumulative_sums():
    areas = drawn_areas(pictures.kl_area(STEPS, KL))
    upper = np.cumsum(list(KL.values()), axis=0)
    lower = upper - list(KL.values())
    np.testing.assert_allclose(areas[..., 0], lower)
    np.testing.assert_allclose(areas[..., 1], upper)


def test_dark_lines_run_between_stages_and_light_ones_between_modules():
    axes = pictures.kl_area(STEPS, KL).axes[0]
    upper = np.cumsum(list(KL.values()), axis=0)
    dark = [one.get_ydata() for one in axes.lines if max(to_rgb(one.get_color())) < 0.3]
    light = [one.get_ydata() for one in axes.lines if min(to_rgb(one.get_color())) > 0.9]
    np.testing.assert_allclose(dark, upper[[0, 2, 3]])
    np.testing.assert_allclose(light, upper[[1]])


def test_a_stage_has_one_hue_that_pales_from_module_to_module():
    levels = ["00_top", "01_fc", "02_fc", "03_fc", "04_4x4", "05_4x4"]
    figure = pictures.kl_area([1, 2], {name: [1.0, 1.0] for name in levels})
    colours = [a.get_facecolor()[0][:3] for a in figure.axes[0].collections]
    for stage in (colours[1:4], colours[4:]):
        base = stage[0]
        for paler, next_one in zip(stage, stage[1:], strict=False):
            assert (next_one >= paler).all()
            assert next_one.sum() > paler.sum() + 0.1
        # A mixture with white keeps the direction from white.
        direction = (1 - stage[-1]) / np.linalg.norm(1 - stage[-1])
        np.testing.assert_allclose(direction, (1 - base) / np.linalg.norm(1 - base), atol=1e-6)
    assert np.abs(colours[1] - colours[4]).max() > 0.3


def test_the_legend_names_the_stages_in_the_order_of_the_stack_and_the_last_nats():
    axes = pictures.kl_area(STEPS, KL).axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "14x14, 1 level: 0.1 nats",
        "7x7, 2 levels: 5.5 nats",
        "top, 1 level: 3.0 nats",
    ]
    assert axes.get_xlabel() == "training step"
    assert "nats" in axes.get_ylabel()


def test_a_single_step_is_a_bar_around_it():
    figure = pictures.kl_area([500], {name: values[:1] for name, values in KL.items()})
    areas = drawn_areas(figure)
    assert areas.shape == (4, 2, 2)
    np.testing.assert_allclose(areas[:, 0, 1], [1.0, 1.5, 1.5, 3.5])
    np.testing.assert_allclose(areas[:, 0], areas[:, 1])
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["500"]
    assert axes.get_xlim() == (499.5, 500.5)


def test_runs_side_by_side_have_their_own_areas_and_one_axis():
    bits = KL | {"04_pixels": [5.0, 4.5, 4.0]}
    local = {"00_top": [0.5, 0.25], "01_pixels": [3.0, 2.5]}
    figure = pictures.bit_areas([("plain", STEPS, bits), ("local", [50, 100], local)])
    np.testing.assert_allclose(drawn_areas(figure)[:, :, 1], np.cumsum(list(bits.values()), 0))
    np.testing.assert_allclose(drawn_areas(figure, 1)[:, :, 1], np.cumsum(list(local.values()), 0))
    first, second = figure.axes
    assert first.get_ylim() == second.get_ylim() == (0, pytest.approx(1.06 * 12.625))
    assert [axes.get_title("left") for axes in (first, second)] == ["plain", "local"]
    texts = [text.get_text() for text in second.get_legend().get_texts()]
    assert texts == ["pixels: 2.500 bits/dim", "top, 1 level: 0.250 bits/dim"]
    assert first.get_legend().get_title().get_text() == "4 levels, at the last step"


def test_no_run_at_all_is_refused():
    with pytest.raises(ValueError, match="at least one run"):
        pictures.bit_areas([])


def test_rows_with_nan_are_left_out_of_the_area():
    kl = {"00_top": [1.0, np.nan, 3.0], "01_fc": [1.0, 5.0, 3.0]}
    areas = drawn_areas(pictures.kl_area(STEPS, kl))
    np.testing.assert_allclose(areas[..., 1], [[1, 3], [2, 6]])


def test_a_peak_at_the_start_does_not_flatten_the_rest():
    steps = np.arange(1, 101) * 10
    kl = np.full(100, 20.0)
    kl[:5] = 900.0
    low, high = pictures.kl_area(steps, {"00_top": kl}).axes[0].get_ylim()
    assert low == 0
    assert 20 < high < 25


@pytest.mark.parametrize(
    "kl, message",
    [
        ({}, "value; got {}"),
        ({"00_top": [1.0]}, "each of 3 steps a value; got {'00_top': 1}"),
        ({"00_top": [np.nan] * 3}, "a row of finite values; got none in 3 rows"),
    ],
)
def test_an_area_refuses_what_it_cannot_draw(kl, message):
    with pytest.raises(ValueError, match=message):
        pictures.kl_area(STEPS, kl)


def metrics(steps=STEPS):
    return [
        {
            "step": s,
            "elbo": -80 - 1000 / s,
            "log_likelihood": -60 - 1000 / s,
            "kl": 20 + s / 100,
            "learning_rate": 1e-3,
            "val_elbo": -82 - 1000 / s,
            "val_elbo_averaged": -81.5 - 1000 / s,
        }
        for s in steps
    ]


def test_the_curves_are_the_rows_and_carry_labels():
    rows = metrics()
    figure = pictures.training_curves(rows)
    elbo, log_likelihood, kl, learning_rate = figure.axes
    for axes, label, key in (
        (elbo, "training", "elbo"),
        (elbo, "validation, raw weights", "val_elbo"),
        (elbo, "validation, averaged weights", "val_elbo_averaged"),
        (log_likelihood, "training", "log_likelihood"),
        (kl, "training", "kl"),
        (learning_rate, "learning rate", "learning_rate"),
    ):
        drawn = line(axes, label)
        np.testing.assert_array_equal(drawn.get_xdata(), STEPS)
        np.testing.assert_array_equal(drawn.get_ydata(), [row[key] for row in rows])
    assert [text.get_text() for text in elbo.get_legend().get_texts()] == [
        "training",
        "validation, raw weights",
        "validation, averaged weights",
    ]
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "ELBO",
        "log-likelihood",
        "KL",
        "learning rate",
    ]
    assert all("nats" in axes.get_ylabel() for axes in (elbo, log_likelihood, kl))


def test_curves_leave_out_what_is_missing_none_or_nan():
    rows = metrics()
    for row in rows:
        del row["val_elbo_averaged"]
    rows[0]["val_elbo"], rows[1]["elbo"] = None, float("nan")
    elbo = pictures.training_curves(rows).axes[0]
    assert len(elbo.lines) == 2
    np.testing.assert_array_equal(line(elbo, "validation, raw weights").get_xdata(), [200, 300])
    np.testing.assert_array_equal(line(elbo, "training").get_xdata(), [100, 300])


def test_one_row_is_a_visible_point():
    for axes in pictures.training_curves(metrics([100])).axes:
        assert all(one.get_marker() == "o" for one in axes.lines)
        low, high = axes.get_ylim()
        assert low < axes.lines[0].get_ydata()[0] < high


def test_the_range_of_a_curve_is_that_of_the_last_nine_tenths():
    rows = metrics(range(1, 101))
    low, high = pictures.training_curves(rows).axes[0].get_ylim()
    assert -82 - 1000 / 10 - 20 < low < -82 - 1000 / 10  # The lowest curve at step 10.
    assert -90 < high < -80


def test_curves_need_a_row():
    with pytest.raises(ValueError, match="at least one row of metrics; got none"):
        pictures.training_curves([])


def test_rows_of_reconstructions_stand_pixel_for_pixel_below_the_truth():
    images = np.random.RandomState(1).rand(3, 2, 8, 8, 1)
    rows = [("keep top 0", images[1]), ("keep top 3", images[2])]
    figure = pictures.reconstruction_grid(images[0], rows)
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["images", *dict(rows)]
    drawn = pictures.figure_to_array(figure)
    grids = [pictures.image_grid(row, columns=2) for row in images]
    height, width = grids[0].shape[:2]
    tops = [8, 8 + height + 8, 8 + height + 8 + height + 1]
    left = drawn.shape[1] - 8 - width
    for top, grid in zip(tops, grids, strict=True):
        np.testing.assert_array_equal(drawn[top : top + height, left : left + width], grid)
    middles = [top - 8 + height / 2 - 0.5 for top in tops]
    np.testing.assert_allclose(axes.get_yticks(), middles, atol=0.51)
    assert (drawn[8 + height : 8 + height + 8, left : left + width] == 255).all()
    # Labels are inside the picture: ink, but none at its edge.
    assert drawn[:, :left].min() < 100
    assert (drawn[:, :4] == 255).all()


def test_groups_of_columns_stand_apart_below_their_titles():
    images = np.random.RandomState(3).rand(2, 5, 8, 8, 1)
    groups = [("component 7", 3), ("12", 2)]
    figure = pictures.reconstruction_grid(images[0], [("keep top 1", images[1])], groups)
    drawn, axes = pictures.figure_to_array(figure), figure.axes[0]
    side, top = 56, 20
    height, width = 8 + 2 * side, (3 * side + 2) + 16 + (2 * side + 1)
    left = drawn.shape[1] - 8 - width
    assert drawn.shape[0] == top + height + 8
    for columns, x in ((slice(0, 3), left), (slice(3, 5), left + 3 * side + 2 + 16)):
        for row, y in zip(images, (top, top + side + 8), strict=True):
            grid = pictures.image_grid(row[columns], columns=len(row[columns]))
            found = drawn[y : y + side, x : x + grid.shape[1]]
            np.testing.assert_array_equal(found, grid)
    gap = drawn[top : top + height, left + 3 * side + 2 :][:, :16]
    assert (gap == 255).all()
    assert [text.get_text() for text in axes.get_xticklabels()] == ["component 7", "12"]
    middles = [(3 * side + 2) / 2, 3 * side + 2 + 16 + (2 * side + 1) / 2]
    np.testing.assert_allclose(axes.get_xticks(), middles, atol=0.51)
    assert axes.get_xaxis().get_ticks_position() == "top"
    # Titles are inside the picture: ink above each group, but none at the edge.
    assert drawn[:top, left : left + 3 * side].min() < 100
    assert drawn[:top, left + 3 * side + 18 :].min() < 100
    assert (drawn[:2] == 255).all()


@pytest.mark.parametrize("groups", [[("a", 2)], [("a", 2), ("b", 2)]])
def test_groups_that_do_not_fit_the_columns_are_refused(groups):
    rows = [("a", np.zeros((3, 8, 8, 1)))]
    with pytest.raises(ValueError, match=r"groups must have 3 columns in all; got \[\('a', 2\)"):
        pictures.labelled_rows(rows, groups=groups)


def test_rows_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match=r"of one shape; got \[\(2, 8, 8, 1\), \(3, 8, 8, 1\)\]"):
        pictures.labelled_rows([("a", np.zeros((2, 8, 8, 1))), ("b", np.zeros((3, 8, 8, 1)))])


def test_the_same_numbers_give_the_same_pixels():
    first, second = (pictures.figure_to_array(pictures.kl_area(STEPS, KL)) for _ in range(2))
    assert first.dtype == np.uint8
    assert first.shape == (440, 800, 3)
    np.testing.assert_array_equal(first, second)


def test_pictures_are_saved_as_png(tmp_path):
    grid = pictures.image_grid(np.random.RandomState(2).rand(2, 8, 8, 3), columns=2)
    pictures.save(grid, str(tmp_path / "grid.png"))
    read = matplotlib.image.imread(tmp_path / "grid.png")
    np.testing.assert_array_equal(np.rint(read[..., :3] * 255), grid)
    pictures.save(pictures.kl_area(STEPS, KL), str(tmp_path / "area.png"))
    assert matplotlib.image.imread(tmp_path / "area.png").shape[:2] == (880, 1600)


def test_drawing_needs_neither_tensorflow_nor_global_state():
    code = (
        "import sys, matnet_tf.pictures as p; p.save(p.kl_area([1], {'00_top': [1]}), '/dev/null');"
        "assert not {'tensorflow', 'keras', 'matplotlib.pyplot'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
