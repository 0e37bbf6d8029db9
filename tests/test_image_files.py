# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Image files of every kind are read as people see them; and which of their pixels are known."""

import dataclasses

import numpy as np
import pytest
from fake_imputers import MASK, picture_of, save
from PIL import Image

from matnet_tf import image_files
from matnet_tf.config import ImputeConfig, Rectangle

# Files of all kinds.


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_png_files_of_any_mode_become_grey_or_colour(tmp_path, channels, mode):
    image = Image.fromarray(picture_of((7, 9), 3)).convert(mode)
    found = image_files.pixels(image_files.read(save(tmp_path / "a.png", image)), channels)
    expected = np.asarray(image.convert("L" if channels == 1 else "RGB")).reshape(7, 9, channels)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg_files_are_what_they_decode_to(tmp_path, mode):
    image = Image.fromarray(picture_of((7, 9), 3)).convert(mode)
    file = save(tmp_path / "a.JPG", image, quality=70)
    with Image.open(file) as decoded:
        expected = np.asarray(decoded.convert("RGB"))
    np.testing.assert_array_equal(image_files.pixels(image_files.read(file), 3), expected)


def exif(orientation):
    found = Image.Exif()
    found[0x0112] = orientation
    return found


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_images_are_upright_as_exif_says(tmp_path, orientation, ending):
    file = save(tmp_path / f"a.{ending}", picture_of((9, 12)), exif=exif(orientation))
    with Image.open(file) as image:
        stored = np.asarray(image)
    # What the standard's table says of the sides that the stored rows and columns are at.
    turned = stored.T if orientation >= 5 else stored
    from_below, from_the_right = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    upright = turned[:: -1 if from_below else 1, :: -1 if from_the_right else 1]
    found = image_files.pixels(image_files.read(file), 1)
    np.testing.assert_array_equal(found[..., 0], upright)


@pytest.mark.parametrize("channels", [1, 3])
def test_png_files_hold_the_pixels_exactly(tmp_path, channels):
    picture, file = picture_of((7, 9), channels), tmp_path / "a.png"
    file.write_bytes(image_files.png(picture))
    np.testing.assert_array_equal(image_files.pixels(image_files.read(file), channels), picture)


def test_folders_give_their_png_and_jpeg_files_sorted_and_once(tmp_path):
    for name in ("b.png", "a.JPEG", "c.jpg", "c/d.png"):
        save(tmp_path / name, picture_of((2, 2)))
    (tmp_path / "notes.txt").write_text("no image")
    found = image_files.find([tmp_path, tmp_path / "b.png", str(tmp_path / "c")])
    expected = ["a.JPEG", "b.png", "c.jpg", "c/d.png"]
    assert [str(path.relative_to(tmp_path)) for path in found] == expected


# What is missing.


def missing(config, path, pixels):
    image = image_files.read(save(path, pixels))
    return image_files.Missing(config).mask(path, image)


@pytest.mark.parametrize("kind", ["png", "jpg", "RGBA"])
def test_a_mask_is_white_where_a_pixel_is_known(tmp_path, kind):
    grey = np.where(MASK, 255, 0).astype(np.uint8)
    if kind != "jpg":
        grey[0, 0], grey[2, 3] = 128, 127  # The nearest to each other that differ.
    image = Image.fromarray(grey)
    if kind == "RGBA":
        alpha = Image.fromarray(np.random.RandomState(0).randint(0, 256, (8, 8)).astype(np.uint8))
        image = Image.merge("RGBA", (image, image, image, alpha))
    file = save(tmp_path / f"mask.{'jpg' if kind == 'jpg' else 'png'}", image)
    found = missing(ImputeConfig(masks=str(file)), tmp_path / "a.png", picture_of((8, 8)))
    np.testing.assert_array_equal(found, MASK)


def test_masks_are_turned_as_exif_says_too(tmp_path):
    mask = Image.fromarray(MASK[:7].T * np.uint8(255))
    file = save(tmp_path / "mask.png", mask, exif=exif(5))  # Rows and columns are exchanged.
    found = missing(ImputeConfig(masks=str(file)), tmp_path / "a.png", picture_of((7, 8)))
    np.testing.assert_array_equal(found, MASK[:7])


def test_a_folder_has_a_mask_of_the_same_name_for_each_image(tmp_path):
    masks = {"a": MASK, "b": MASK.T}
    for name, ending in (("a", "jpg"), ("b", "png")):
        save(tmp_path / "masks" / f"{name}.{ending}", masks[name][..., None] * np.uint8(255))
    config = ImputeConfig(masks=str(tmp_path / "masks"))
    for name, mask in masks.items():
        found = missing(config, tmp_path / f"{name}.png", picture_of((8, 8)))
        np.testing.assert_array_equal(found, mask)


def test_pixels_within_the_tolerance_of_a_colour_are_missing(tmp_path):
    picture = picture_of((8, 8), 3) // 2
    picture[~MASK], picture[0, 0] = (255, 0, 255), (250, 3, 255)
    magenta = ImputeConfig(missing_colour=(255, 0, 255))
    for tolerance, expected in ((0, True), (4, True), (5, False)):
        config = dataclasses.replace(magenta, tolerance=tolerance)
        found = missing(config, tmp_path / "a.png", picture)
        assert found[0, 0] == expected
        np.testing.assert_array_equal(found.ravel()[1:], MASK.ravel()[1:])


def test_one_grey_value_stands_for_all_channels(tmp_path):
    picture = picture_of((8, 8), 3) // 2
    picture[~MASK], picture[0, 0] = 200, (200, 200, 199)
    found = missing(ImputeConfig(missing_colour=(200,)), tmp_path / "a.png", picture)
    np.testing.assert_array_equal(found, MASK)
    grey = np.where(MASK, 10, 200).astype(np.uint8)[..., None]
    found = missing(ImputeConfig(missing_colour=(200,)), tmp_path / "b.png", grey)
    np.testing.assert_array_equal(found, MASK)


def test_the_colour_of_a_hole_in_a_jpeg_file_needs_a_tolerance(tmp_path):
    picture, hole = np.full((32, 32, 3), 40, np.uint8), np.zeros((32, 32), bool)
    hole[8:24, 8:24] = True
    picture[hole] = (250, 0, 250)
    config, file = ImputeConfig(missing_colour=(250, 0, 250)), tmp_path / "a.jpg"
    near = dataclasses.replace(config, tolerance=70)
    np.testing.assert_array_equal(missing(near, file, picture), ~hole)
    with pytest.raises(ValueError, match="no pixel is within 0 of the colour 250,0,250"):
        missing(config, file, picture)


def test_rectangles_are_missing_in_every_image(tmp_path):
    found = missing(
        ImputeConfig(rectangles=("0:0:1x9", "5:7:2x2")), tmp_path / "a.png", picture_of((7, 9))
    )
    expected = np.ones((7, 9), bool)
    expected[0], expected[5:7, 7:9] = False, False
    np.testing.assert_array_equal(found, expected)
    assert str(Rectangle.parse("5:7:2x3")) == "5:7:2x3"
    assert Rectangle.parse("5:7:2x3") == Rectangle(top=5, left=7, height=2, width=3)
