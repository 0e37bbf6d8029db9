# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Image files of every kind are read as people see them; and which of their pixels are missing."""

import dataclasses
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from source_files import pixels

from matnet_tf.config import ImputeConfig, Rectangle
from matnet_tf.data import image_files

MASK = np.ones((8, 8), bool)
MASK[2:6, 3:7] = False


def picture_of(size, channels=1):
    return pixels(1, (*size, channels))[0]


def save(path, picture, **options):
    """Saves an array or an image and returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(picture, np.ndarray):
        picture = Image.fromarray(picture[..., 0] if picture.shape[2:] == (1,) else picture)
    picture.save(path, **options)
    return path


def as_grey(mask):
    return mask[..., None] * np.uint8(255)


def test_files_of_any_mode_become_grey_or_colour(tmp_path):
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        image = Image.fromarray(picture_of((7, 9), 3)).convert(mode)
        file = save(tmp_path / "a.png", image)
        for channels, read_mode in ((1, "L"), (3, "RGB")):
            found = image_files.pixels(image_files.read(file), channels)
            expected = np.asarray(image.convert(read_mode)).reshape(7, 9, channels)
            assert found.dtype == np.uint8
            np.testing.assert_array_equal(found, expected)
    for mode in ("L", "RGB", "CMYK"):
        image = Image.fromarray(picture_of((7, 9), 3)).convert(mode)
        file = save(tmp_path / "a.JPG", image, quality=70)
        with Image.open(file) as decoded:
            expected = np.asarray(decoded.convert("RGB"))
        np.testing.assert_array_equal(image_files.pixels(image_files.read(file), 3), expected)


def exif(orientation):
    found = Image.Exif()
    found[0x0112] = orientation
    return found


def test_images_are_upright_as_exif_says(tmp_path):
    for orientation in range(1, 9):
        for ending in ("png", "jpg"):
            picture, options = picture_of((9, 12)), {"exif": exif(orientation)}
            file = save(tmp_path / f"a.{ending}", picture, **options)
            with Image.open(file) as image:
                stored = np.asarray(image)
            # The standard says at which sides the stored rows and columns start.
            turned = stored.T if orientation >= 5 else stored
            from_below, from_the_right = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
            upright = turned[:: -1 if from_below else 1, :: -1 if from_the_right else 1]
            found = image_files.pixels(image_files.read(file), 1)
            np.testing.assert_array_equal(found[..., 0], upright)
            assert image_files.shape(file) == (*upright.shape, 1)


def test_png_keeps_pixels_exactly(tmp_path):
    for channels in (1, 3):
        picture, file = picture_of((7, 9), channels), tmp_path / "a.png"
        file.write_bytes(image_files.png(picture))
        np.testing.assert_array_equal(image_files.pixels(image_files.read(file), channels), picture)


def cut_png(path):
    path.write_bytes(save(path, picture_of((40, 40))).read_bytes()[:-300])


def cut_jpeg(path):
    save(path, picture_of((40, 40)), format="jpeg")
    path.write_bytes(path.read_bytes()[:-300])


def write_png(path, side, bits, kind, rows):
    header = struct.pack(">IIBBBBB", side, side, bits, kind, 0, 0, 0)
    chunks = b"".join(
        struct.pack(">I", len(data)) + tag + data + struct.pack(">I", zlib.crc32(tag + data))
        for tag, data in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)


def huge_png(path):
    """Its header announces ten billion pixels."""
    write_png(path, 100000, 8, 0, b"")


def text_png(path):
    """2 KB that unpack to 2 MB of text."""
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", 2**21 * "a", zip=True)
    save(path, picture_of((8, 8)), pnginfo=text)


def deep_colour_png(path):
    """8x8 pixels of 16 bits per channel; each row starts with a byte for its filter."""
    write_png(path, 8, 16, 2, (b"\0" + bytes(range(48))) * 8)


def deep_png(path):
    save(path, Image.fromarray(np.full((8, 8), 40000, np.uint16)))


def test_files_that_cannot_be_read_say_why(tmp_path):
    for number, (make, reason) in enumerate(
        (
            (cut_png, "it cannot be read: "),
            (cut_jpeg, "it cannot be read: image file is truncated"),
            (huge_png, "it cannot be read: Image size .* exceeds limit"),
            (text_png, "it cannot be read: Decompressed data too large"),
            (
                lambda p: p.write_text("no image"),
                "it is not a PNG, JPEG, WebP or BMP image, or its header is",
            ),
            (deep_png, "it has pixels of mode I;16; expected 8-bit grey or colour"),
            (deep_colour_png, "it has pixels of mode RGB;16B; expected 8-bit grey or colour"),
            (lambda p: None, "it cannot be read: .*No such file"),
        )
    ):
        path = tmp_path / f"{number}.png"
        make(path)
        with pytest.raises(ValueError, match=f"^{reason}") as caught:
            image_files.read(path)
        assert "\n" not in str(caught.value)


def test_damaged_bytes_raise_no_other_error(tmp_path):
    random, path = np.random.RandomState(0), tmp_path / "a.png"
    whole = save(path, picture_of((9, 12), 3), exif=exif(6)).read_bytes()
    for _ in range(100):
        damaged = bytearray(whole)
        for place in random.randint(len(whole), size=3):
            damaged[place] = random.randint(256)
        path.write_bytes(damaged)
        try:
            image_files.read(path)
        except ValueError as error:
            assert str(error).startswith("it ")


def test_folders_stand_for_their_picture_files_sorted_and_once(tmp_path):
    for name in ("b.png", "a.JPEG", "c.jpg", "c/d.png"):
        save(tmp_path / name, picture_of((2, 2)))
    (tmp_path / "notes.txt").write_text("no image")
    found = image_files.find([tmp_path, tmp_path / "b.png", str(tmp_path / "c")])
    expected = ["a.JPEG", "b.png", "c.jpg", "c/d.png"]
    assert [str(path.relative_to(tmp_path)) for path in found] == expected
    (tmp_path / "empty").mkdir()
    for paths, message in (
        ([], "expected a file or a folder of images, or several; got none"),
        ([tmp_path / "x.png"], "there is no file or folder .*x.png"),
        (tmp_path / "empty", r"empty holds no images \(.png, .jpg, .jpeg, "),
    ):
        with pytest.raises(ValueError, match=message):
            image_files.find(paths)


def mask_of(config, path, picture):
    return image_files.Missing(config).mask(path, image_files.read(save(path, picture)))


def test_a_mask_is_white_where_a_pixel_is_known(tmp_path):
    for kind, ending in (("L", "png"), ("RGBA", "png"), ("L", "jpg")):
        grey = np.where(MASK, 255, 0).astype(np.uint8)
        if ending == "png":
            grey[0, 0], grey[2, 3] = 128, 127  # The two values at the limit.
        image = Image.fromarray(grey)
        if kind == "RGBA":
            alpha = Image.fromarray(picture_of((8, 8))[..., 0])
            image = Image.merge("RGBA", (image, image, image, alpha))
        config = ImputeConfig(masks=str(save(tmp_path / f"mask.{ending}", image)))
        found = mask_of(config, tmp_path / "a.png", picture_of((8, 8)))
        np.testing.assert_array_equal(found, MASK)
    # Orientation 5 exchanges rows and columns.
    turned = save(tmp_path / "turned.png", as_grey(MASK[:7].T), exif=exif(5))
    found = mask_of(ImputeConfig(masks=str(turned)), tmp_path / "a.png", picture_of((7, 8)))
    np.testing.assert_array_equal(found, MASK[:7])


def test_a_folder_has_a_mask_of_the_same_name_for_each_image(tmp_path):
    masks = {"a": MASK, "b": MASK.T}
    for name, ending in (("a", "jpg"), ("b", "png")):
        save(tmp_path / "masks" / f"{name}.{ending}", as_grey(masks[name]))
    config = ImputeConfig(masks=str(tmp_path / "masks"))
    for name, mask in masks.items():
        found = mask_of(config, tmp_path / f"{name}.png", picture_of((8, 8)))
        np.testing.assert_array_equal(found, mask)


def test_pixels_within_the_tolerance_of_a_colour_are_missing(tmp_path):
    picture = picture_of((8, 8), 3) // 2
    picture[~MASK], picture[0, 0] = (255, 0, 255), (250, 3, 255)
    magenta = ImputeConfig(missing_colour=(255, 0, 255))
    for tolerance, expected in ((0, True), (4, True), (5, False)):
        config = dataclasses.replace(magenta, tolerance=tolerance)
        found = mask_of(config, tmp_path / "a.png", picture)
        assert found[0, 0] == expected
        np.testing.assert_array_equal(found.ravel()[1:], MASK.ravel()[1:])
    # A grey value is that value in all channels, in colour and grey files.
    picture[~MASK], picture[0, 0] = 200, (200, 200, 199)
    for file in (picture, np.where(MASK, 10, 200).astype(np.uint8)[..., None]):
        found = mask_of(ImputeConfig(missing_colour=(200,)), tmp_path / "a.png", file)
        np.testing.assert_array_equal(found, MASK)


def test_the_colour_of_a_hole_in_a_jpeg_file_needs_a_tolerance(tmp_path):
    picture, hole = np.full((32, 32, 3), 40, np.uint8), np.zeros((32, 32), bool)
    hole[8:24, 8:24] = True
    picture[hole] = (250, 0, 250)
    config, file = ImputeConfig(missing_colour=(250, 0, 250)), tmp_path / "a.jpg"
    near = dataclasses.replace(config, tolerance=70)
    np.testing.assert_array_equal(mask_of(near, file, picture), ~hole)
    with pytest.raises(ValueError, match="no pixel is within 0 of the colour 250,0,250"):
        mask_of(config, file, picture)


def test_rectangles_are_missing_in_every_image(tmp_path):
    config = ImputeConfig(rectangles=("0:0:1x9", "5:7:2x2"))
    expected = np.ones((7, 9), bool)
    expected[0], expected[5:7, 7:9] = False, False
    found = mask_of(config, tmp_path / "a.png", picture_of((7, 9)))
    np.testing.assert_array_equal(found, expected)
    assert str(Rectangle.parse("5:7:2x3")) == "5:7:2x3"
    assert Rectangle.parse("5:7:2x3") == Rectangle(top=5, left=7, height=2, width=3)


def test_masks_that_do_not_suit_the_image_say_why(tmp_path):
    masks = tmp_path / "masks"
    for name, mask in {"small": MASK[:7], "whole": np.ones((8, 8), bool), "two": MASK}.items():
        save(masks / f"{name}.png", as_grey(mask))
    save(masks / "two.jpg", as_grey(MASK))
    (masks / "damaged.png").write_text("no image")
    of_folder = ImputeConfig(masks=str(masks))
    for name, config, reason in (
        ("none", of_folder, f"expected one mask named none in {masks}; got none"),
        ("two", of_folder, f"expected one mask named two in {masks}; got two.jpg and two.png"),
        (
            "damaged",
            of_folder,
            f"mask {masks}/damaged.png: it is not a PNG, JPEG, WebP or BMP image",
        ),
        ("small", of_folder, "it has 8x8 pixels, but its mask has 7x8"),
        ("whole", of_folder, "its mask leaves nothing to predict: no pixel is missing"),
        ("a", ImputeConfig(rectangles=("8:0:1x8",)), "rectangle 8:0:1x8 reaches out of its 8x8 p"),
    ):
        with pytest.raises(ValueError, match=f"^{reason}") as caught:
            mask_of(config, tmp_path / f"{name}.png", picture_of((8, 8)))
        assert "\n" not in str(caught.value)
    for path, message in (
        ("/no/masks", "no file or folder /no/masks"),
        (__file__, "mask .*py: it"),
    ):
        with pytest.raises(ValueError, match=message):
            image_files.Missing(ImputeConfig(masks=path))
