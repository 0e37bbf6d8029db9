# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The contact sheet shows the right pixels in the right places, whatever the pictures' sizes."""

import dataclasses

import numpy as np
import pytest
from fake_imputers import HOLE, MASK, fake_run, picture_of, read, save

from matnet_tf import contact_sheet
from matnet_tf.contact_sheet import ContactSheet, thumbnail
from matnet_tf.imputation import impute_files


def places(sheet, picture):
    """Where in a sheet [h, w, 3] a picture lies, exactly."""
    picture = np.broadcast_to(picture, (*picture.shape[:2], 3))
    windows = np.lib.stride_tricks.sliding_window_view(sheet, picture.shape[:2], axis=(0, 1))
    corner = (sheet == picture[0, 0]).all(-1)[: windows.shape[0], : windows.shape[1]]
    found = [(y, x) for y, x in np.argwhere(corner) if _equal(sheet, picture, y, x)]
    return [tuple(map(int, place)) for place in found]


def _equal(sheet, picture, y, x):
    return np.array_equal(sheet[y : y + len(picture), x : x + picture.shape[1]], picture)


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
    (top, left), (second, second_left), (third, third_left) = corners
    assert (second, second_left) == (top + 129 + 4, left + 34)
    assert (third, third_left) == (top + 258 + 60, left)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((8, 8), (128, 128)), ((28, 20), (112, 80)), ((128, 1), (128, 1)), ((129, 2), (128, 2))],
)
def test_thumbnails_are_of_65_to_128_pixels_and_enlarged_by_whole_factors(size, expected):
    made = thumbnail(picture_of(size))
    assert made.shape == (*expected, 1)
    if max(size) <= 128:
        factor = expected[0] // size[0]
        np.testing.assert_array_equal(made[::factor, ::factor], picture_of(size))


def add(sheet, name="a.png", count=2):
    picture = picture_of((8, 8))
    sheet.add(name, picture, MASK, np.stack([picture] * count), picture)


def test_the_sheet_has_a_limit_of_rows_and_of_completions(capsys, monkeypatch):
    assert contact_sheet._MOST_ROWS == 24
    monkeypatch.setattr(contact_sheet, "_MOST_ROWS", 3)
    shapes = {}
    for total in (3, 4):
        sheet = ContactSheet(total)
        for _ in range(total):
            add(sheet, count=9)
        shapes[total] = sheet.draw().shape
        said = "impute: the contact sheet shows the first 3 images\n"
        assert capsys.readouterr().err == said * (total == 4)
    assert shapes[3] == shapes[4]
    assert 3 * 128 < shapes[3][0] < 4 * 128 and 8 * 128 < shapes[3][1] < 10 * 128


def test_rows_and_columns_are_named(monkeypatch):
    calls, draw = [], contact_sheet.pictures.labelled_rows

    def watched(rows, groups):
        calls.append(([label for label, _ in rows], groups))
        return draw(rows, groups=groups)

    monkeypatch.setattr(contact_sheet.pictures, "labelled_rows", watched)
    for count in (2, 9):
        sheet = ContactSheet(1)
        add(sheet, "a$b$ and a very long name.png", count)
        sheet.draw()
    few = [("known", 1), ("completions", 2), ("mean", 1)]
    many = [("known", 1), ("completions 1 to 6 of 9", 6), ("mean", 1)]
    label = [r"a\$b\$ and a very long na…"]
    assert calls == [(label, few), (label, many)]


def test_names_that_the_font_has_no_letters_for_do_not_matter():
    sheet = ContactSheet(1)
    add(sheet, "図 $1.png")
    assert sheet.draw().shape[2] == 3
