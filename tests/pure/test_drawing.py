# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Grids hold the right pixels in the right places, with labels and titles beside them."""

import subprocess
import sys

import matplotlib.image
import numpy as np
import pytest

from matnet_tf.plots import drawing


def test_a_grid_places_every_image_and_leaves_a_grey_pixel_between():
    images = np.random.RandomState(0).rand(5, 28, 14, 1)
    grid = drawing.image_grid(images, columns=3)
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
    for side, factor in ((1, 56), (8, 7), (55, 2), (56, 1), (64, 1)):
        grid = drawing.image_grid(np.zeros((1, side, side, 1)), columns=1)
        assert grid.shape == (side * factor, side * factor, 3)


def test_three_channels_are_colours_other_numbers_are_averaged_and_values_are_clipped():
    for pixel, expected in (
        ([1.0, 0.5, 0.0], [255, 128, 0]),
        ([1.0, 0.2], [153] * 3),  # 0.6 * 255
        ([1.0, 0, 0, 0, 0], [51] * 3),
        ([-3.0], [0] * 3),
        ([7.0], [255] * 3),
        ([np.inf], [255] * 3),
        ([np.nan], [128] * 3),
    ):
        grid = drawing.image_grid(np.broadcast_to(pixel, (1, 60, 60, len(pixel))), 1)
        np.testing.assert_array_equal(grid[5, 5], expected)


def test_depths_rise_from_none_over_the_top_to_all():
    for levels in range(1, 30):
        depths = drawing.depths(levels)
        assert depths[:2] == [0, 1] and depths[-1] == levels
        assert depths == sorted(set(depths)) and len(depths) == min(6, levels + 1)


def test_rows_of_reconstructions_stand_pixel_for_pixel_below_the_truth():
    images = np.random.RandomState(1).rand(3, 2, 8, 8, 1)
    rows = [("keep top 0", images[1]), ("keep top 3", images[2])]
    figure = drawing.reconstruction_grid(images[0], rows)
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["images", *dict(rows)]
    drawn = drawing.figure_to_array(figure)
    grids = [drawing.image_grid(row, columns=2) for row in images]
    height, width = grids[0].shape[:2]
    tops = [8, 8 + height + 8, 8 + height + 8 + height + 1]
    left = drawn.shape[1] - 8 - width
    for top, grid in zip(tops, grids, strict=True):
        np.testing.assert_array_equal(drawn[top : top + height, left : left + width], grid)
    middles = [top - 8 + height / 2 - 0.5 for top in tops]
    np.testing.assert_allclose(axes.get_yticks(), middles, atol=0.51)
    assert (drawn[8 + height : 8 + height + 8, left : left + width] == 255).all()
    # Labels are inside the figure: ink, but none at its edge.
    assert drawn[:, :left].min() < 100
    assert (drawn[:, :4] == 255).all()


def test_groups_of_columns_stand_apart_below_their_titles():
    images = np.random.RandomState(3).rand(2, 5, 8, 8, 1)
    groups = [("component 7", 3), ("12", 2)]
    figure = drawing.reconstruction_grid(images[0], [("keep top 1", images[1])], groups)
    drawn, axes = drawing.figure_to_array(figure), figure.axes[0]
    side, top = 56, 20
    height, width = 8 + 2 * side, (3 * side + 2) + 16 + (2 * side + 1)
    left = drawn.shape[1] - 8 - width
    assert drawn.shape[0] == top + height + 8
    for columns, x in ((slice(0, 3), left), (slice(3, 5), left + 3 * side + 2 + 16)):
        for row, y in zip(images, (top, top + side + 8), strict=True):
            grid = drawing.image_grid(row[columns], columns=len(row[columns]))
            found = drawn[y : y + side, x : x + grid.shape[1]]
            np.testing.assert_array_equal(found, grid)
    gap = drawn[top : top + height, left + 3 * side + 2 :][:, :16]
    assert (gap == 255).all()
    assert [text.get_text() for text in axes.get_xticklabels()] == ["component 7", "12"]
    middles = [(3 * side + 2) / 2, 3 * side + 2 + 16 + (2 * side + 1) / 2]
    np.testing.assert_allclose(axes.get_xticks(), middles, atol=0.51)
    assert axes.get_xaxis().get_ticks_position() == "top"
    # Titles are inside the figure: ink above each group, but none at the edge.
    assert drawn[:top, left : left + 3 * side].min() < 100
    assert drawn[:top, left + 3 * side + 18 :].min() < 100
    assert (drawn[:2] == 255).all()


def test_wrong_images_rows_and_groups_are_refused():
    rows = [("a", np.zeros((3, 8, 8, 1)))]
    for call, message in (
        (lambda: drawing.image_grid(np.zeros((28, 28, 1)), 1), r"shape \[N, H, W, C\]; got \[28"),
        (lambda: drawing.image_grid(np.zeros((0, 8, 8, 1)), 1), r"shape \[N, H, W, C\]; got \[0"),
        (lambda: drawing.image_grid(np.zeros((1, 8, 8, 1)), 0), "at least 1; got 0"),
        (lambda: drawing.labelled_rows(rows, groups=[("a", 2)]), "groups must have 3 columns"),
        (lambda: drawing.labelled_rows(rows, groups=[("a", 2)] * 2), "must have 3 columns in all"),
        (lambda: drawing.labelled_rows([*rows, ("b", np.zeros((2, 8, 8, 1)))]), "of one shape"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_pictures_are_saved_as_png(tmp_path):
    images = np.random.RandomState(2).rand(2, 8, 8, 3)
    grid, figure = drawing.image_grid(images, columns=2), drawing.labelled_rows([("a", images)])
    drawing.save(grid, str(tmp_path / "grid.png"))
    read = matplotlib.image.imread(tmp_path / "grid.png")
    np.testing.assert_array_equal(np.rint(read[..., :3] * 255), grid)
    drawing.save(figure, str(tmp_path / "figure.png"))
    height, width = drawing.figure_to_array(figure).shape[:2]
    assert matplotlib.image.imread(tmp_path / "figure.png").shape[:2] == (2 * height, 2 * width)


def test_drawing_needs_neither_tensorflow_nor_global_state():
    code = (
        "import sys; from matnet_tf.plots import curves as c, drawing as d;"
        "d.save(c.kl_area([1], {'00_top': [1]}), '/dev/null');"
        "assert not {'tensorflow', 'keras', 'matplotlib.pyplot'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
