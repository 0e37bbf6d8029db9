# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Completions stand in the right rows; a contact sheet shows the right pixels, whatever sizes."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from fake_imputers import HOLE, MASK, Imputation, fake_run, picture_of, read, save

from matnet_tf.imputation.impute import impute_files
from matnet_tf.plots import drawing
from matnet_tf.plots.completions import completion_grid, contact_row, contact_sheet, thumbnail


def test_completions_stand_between_the_masked_images_and_the_truth():
    random = np.random.RandomState(0)
    x, samples = random.rand(3, 8, 8, 1), random.rand(5, 3, 8, 8, 1)
    mask = (random.rand(3, 8, 8, 1) < 0.5).astype(np.float32)

    class Model:
        def impute(self, x, mask, num_samples, seed):
            assert (num_samples, seed) == (5, 9)
            return Imputation(tf.constant(samples), tf.constant(samples.mean(axis=0)))

    figure = completion_grid(Model(), (x, mask), shown=2, drawn=5, seed=9)
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels == ["given", "completion 1", "completion 2", "mean of 5", "truth"]
    rows = [np.where(mask > 0, x, 0.5), *samples[:2], samples.mean(axis=0), x]
    drawn, top = drawing.figure_to_array(figure), 8
    for number, row in enumerate(rows):
        grid = drawing.image_grid(np.float32(row), 3)
        height, width = grid.shape[:2]
        found = drawn[top : top + height, drawn.shape[1] - 8 - width : -8]
        np.testing.assert_array_equal(found, grid)
        top += height + (8 if number == 0 else 1)


def places(sheet, picture):
    """Where in a sheet [h, w, 3] a picture lies, exactly."""
    picture = np.broadcast_to(picture, (*picture.shape[:2], 3))
    windows = np.lib.stride_tricks.sliding_window_view(sheet, picture.shape[:2], axis=(0, 1))
    corner = (sheet == picture[0, 0]).all(-1)[: windows.shape[0], : windows.shape[1]]
    height, width = picture.shape[:2]
    return [
        (int(y), int(x))
        for y, x in np.argwhere(corner)
        if np.array_equal(sheet[y : y + height, x : x + width], picture)
    ]


def test_the_sheet_shows_what_is_known_the_completions_and_their_mean(tmp_path, monkeypatch):
    fake_run(tmp_path / "run", monkeypatch, channels=3)
    picture = picture_of((8, 8), 3)
    config = dataclasses.replace(HOLE, num_samples=3)
    record = impute_files(tmp_path / "run", save(tmp_path / "a.png", picture), config)
    sheet = read(record["contact_sheet"])
    found = [places(sheet, thumbnail(read(path))) for path in record["images"][0]["outputs"]]
    assert [len(one) for one in found] == [1, 1, 1, 1]
    (top, first), *_, (_, mean) = (one[0] for one in found)
    assert {y for ((y, _),) in found} == {top}
    columns = [x for ((_, x),) in found]
    assert columns == [first, first + 129, first + 258, mean] and mean > first + 3 * 128
    # The two rows of pixels above the hole are in every picture, from the left on.
    known = min(x for y, x in places(sheet, thumbnail(picture)[:32]) if y == top)
    assert known < first - 128
    shown = sheet[top : top + 128, known : known + 128]
    cells = MASK.repeat(16, 0).repeat(16, 1)
    np.testing.assert_array_equal(shown[cells], thumbnail(picture)[cells])
    assert set(np.unique(shown[~cells])) == {96, 160}


def test_pictures_of_different_sizes_are_centred_in_cells_of_one_size(tmp_path, monkeypatch):
    fake_run(tmp_path / "run", monkeypatch)
    sizes = {"a": (8, 8), "b": (20, 10), "c": (16, 300)}
    files = [save(tmp_path / f"{n}.png", picture_of(size)) for n, size in sizes.items()]
    record = impute_files(tmp_path / "run", files, HOLE)
    sheet, corners = read(record["contact_sheet"]), []
    for about in record["images"]:
        (place,) = places(sheet, thumbnail(read(about["outputs"][0])))
        corners.append(place)
    (top, left), *others = corners
    assert others == [(top + 129 + 4, left + 34), (top + 258 + 60, left)]


def test_thumbnails_are_of_65_to_128_pixels_and_enlarged_by_whole_factors():
    for size, expected in (
        *(((8, 8), (128, 128)), ((28, 20), (112, 80))),
        *(((128, 1), (128, 1)), ((129, 2), (128, 2))),
    ):
        made = thumbnail(picture_of(size))
        assert made.shape == (*expected, 1)
        if max(size) <= 128:
            factor = expected[0] // size[0]
            np.testing.assert_array_equal(made[::factor, ::factor], picture_of(size))


def row_of(count, name="a.png"):
    picture = picture_of((8, 8))
    return contact_row(name, picture, MASK, np.stack([picture] * count), picture)


def test_rows_and_columns_are_named_and_at_most_six_completions_shown(monkeypatch):
    calls, draw = [], drawing.labelled_rows

    def record(rows, groups):
        calls.append(([label for label, _ in rows], groups))
        return draw(rows, groups=groups)

    monkeypatch.setattr(drawing, "labelled_rows", record)
    for count in (2, 9):
        sheet = contact_sheet([row_of(count, "a$b$ and a very long name.png")], count)
        assert sheet.shape[1] < 10 * 128
    few = [("known", 1), ("completions", 2), ("mean", 1)]
    many = [("known", 1), ("completions 1 to 6 of 9", 6), ("mean", 1)]
    label = [r"a\$b\$ and a very long na…"]
    assert calls == [(label, few), (label, many)]
    assert contact_sheet([row_of(2, "図 $1.png")], 2).shape[2] == 3  # No letters for it: boxes.


@pytest.mark.parametrize("number", [3, 4])
def test_the_sheet_has_a_row_for_the_first_images_only(tmp_path, monkeypatch, capsys, number):
    monkeypatch.setattr("matnet_tf.imputation.impute._MOST_ROWS", 3)
    fake_run(tmp_path / "run", monkeypatch)
    files = [save(tmp_path / f"{i}.png", picture_of((8, 8), seed=i)) for i in range(number)]
    sheet = read(impute_files(tmp_path / "run", files, HOLE)["contact_sheet"])
    assert 3 * 128 < sheet.shape[0] < 4 * 128
    said = "impute: the contact sheet shows the first 3 images\n"
    assert (said in capsys.readouterr().err) == (number == 4)
