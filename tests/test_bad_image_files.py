# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Bad image files are named and skipped, the others done; what cannot be done at all is refused."""

import dataclasses
import pathlib

import numpy as np
import pytest
from fake_imputers import HOLE, MASK, fake_run, good, picture_of, save
from PIL import Image

from matnet_tf import flags
from matnet_tf.config import ImputeConfig
from matnet_tf.imputation import impute_files

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A work directory of a grey model of 8x8 pixels, which is a stand-in."""
    fake_run(tmp_path / "run", monkeypatch)
    return tmp_path / "run"


# What is skipped.


def masks_of(tmp_path, **others):
    """A folder of masks, with one for the good image."""
    for name, mask in {"good": MASK, **others}.items():
        save(tmp_path / "masks" / f"{name}.png", mask[..., None] * np.uint8(255))
    return ImputeConfig(masks=str(tmp_path / "masks"), num_samples=1)


def deep(tmp_path):
    image = Image.fromarray(np.full((8, 8), 40000, np.uint16))
    save(tmp_path / "in" / "bad.png", image)
    return HOLE


def cut(tmp_path, ending="png"):
    file = save(tmp_path / "in" / f"bad.{ending}", picture_of((40, 40)))
    file.write_bytes(file.read_bytes()[:-300])
    return HOLE


def no_image(tmp_path):
    (good(tmp_path).with_name("bad.png")).write_text("no image")
    return HOLE


def with_mask(mask, size=(8, 8)):
    def make(tmp_path):
        save(tmp_path / "in" / "bad.png", picture_of(size))
        return masks_of(tmp_path, **({} if mask is None else {"bad": mask}))

    return make


def two_masks(tmp_path):
    config = with_mask(MASK)(tmp_path)
    save(tmp_path / "masks" / "bad.jpg", MASK[..., None] * np.uint8(255))
    return config


def damaged_mask(tmp_path):
    config = with_mask(MASK)(tmp_path)
    (tmp_path / "masks" / "bad.png").write_bytes(b"no image")
    return config


def small(tmp_path):
    save(tmp_path / "in" / "bad.png", picture_of((20, 7)))
    return HOLE


def narrow(tmp_path):
    save(tmp_path / "in" / "bad.png", picture_of((9, 8)))
    save(tmp_path / "in" / "good.png", picture_of((10, 8)))
    return dataclasses.replace(HOLE, rectangles=("9:0:1x8",))


def no_such_colour(tmp_path):
    save(tmp_path / "in" / "bad.png", np.zeros((8, 8, 1), np.uint8))
    picture = np.zeros((8, 8, 1), np.uint8)
    picture[3, 3] = 9
    save(tmp_path / "in" / "good.png", picture)
    return ImputeConfig(missing_colour=(9,), num_samples=1)


SKIPPED = {
    "cut png": (cut, "it cannot be read: "),
    "cut jpeg": (lambda tmp_path: cut(tmp_path, "jpg"), "it cannot be read: image file is trunc"),
    "no image": (no_image, "it is no PNG or JPEG image, or its header is damaged"),
    "16 bits": (deep, "it has pixels of mode I;16; expected 8-bit grey or colour"),
    "too narrow": (small, "it has 20x7 pixels; the model needs at least 8x8"),
    "no mask": (with_mask(None), "expected one mask named bad in {masks}; got none"),
    "two masks": (two_masks, "expected one mask named bad in {masks}; got bad.jpg and bad.png"),
    "damaged mask": (damaged_mask, "mask {masks}/bad.png: it is no PNG or JPEG image"),
    "mask of another size": (
        with_mask(MASK[:7]),
        "it has 8x8 pixels, but its mask has 7x8",
    ),
    "mask of all pixels": (
        with_mask(np.ones((8, 8), bool)),
        "its mask leaves nothing to predict: no pixel is missing",
    ),
    "rectangle": (narrow, "rectangle 9:0:1x8 reaches out of its 9x8 pixels"),
    "colour": (no_such_colour, "nothing is missing: no pixel is within 0 of the colour 9"),
}


@pytest.mark.parametrize(("make", "reason"), SKIPPED.values(), ids=SKIPPED)
def test_a_bad_image_is_named_and_skipped_and_the_others_are_done(
    make, reason, run, tmp_path, capsys
):
    good(tmp_path)
    config, reason = make(tmp_path), reason.format(masks=tmp_path / "masks")
    record = impute_files(run, tmp_path / "in", config, tmp_path / "out")
    (bad,) = record["skipped"]
    assert pathlib.Path(bad["file"]).stem == "bad" and bad["reason"].startswith(reason)
    assert [pathlib.Path(about["file"]).name for about in record["images"]] == ["good.png"]
    written = {path.name.partition("_")[0] for path in (tmp_path / "out").iterdir()}
    assert written == {"good", "contact", "imputations.json"}
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith(f"impute: {bad['file']} is skipped: {reason}")
    assert last.startswith("impute: 2/2 images")


# What is refused before any work, or when there is nothing to show for it.


def two_names(tmp_path):
    save(tmp_path / "in" / "a.jpg", picture_of((8, 8)))
    return [save(tmp_path / "in" / "a.png", picture_of((8, 8))).parent]


def empty(tmp_path):
    (tmp_path / "empty").mkdir()
    return [good(tmp_path), tmp_path / "empty"]


def onto_itself(tmp_path):
    return [save(tmp_path / "out" / name, picture_of((8, 8))) for name in ("a.png", "a_2.png")]


def onto_the_sheet(tmp_path):
    return [save(tmp_path / "out" / "contact_sheet.png", picture_of((8, 8)))]


def only_bad_ones(tmp_path):
    small(tmp_path)
    (tmp_path / "in" / "z.png").write_text("no image")
    return [tmp_path / "in"]


REFUSED = {
    "none": (lambda _: [], HOLE, "expected a file or a folder of images, or several; got none"),
    "no file": (lambda t: [t / "x.png"], HOLE, "there is no file or folder .*x.png"),
    "no images": (empty, HOLE, r"empty holds no images \(.png, .jpg, .jpeg\)"),
    "equal names": (two_names, HOLE, "a.jpg and .*a.png would both be written to a_1.png"),
    "over an input": (onto_itself, HOLE, "output .*out/a_2.png would overwrite a file that is"),
    "sheet over an input": (onto_the_sheet, HOLE, "output .*contact_sheet.png would overwrite"),
    "no masks": (
        lambda t: [good(t)],
        ImputeConfig(masks="/no/masks"),
        "there is no file or folder /no/masks",
    ),
    "no mask for all": (
        lambda t: [good(t)],
        ImputeConfig(masks=str(ROOT / "setup.py")),
        "mask .*setup.py: it is no PNG or JPEG image",
    ),
    "all skipped": (
        only_bad_ones,
        HOLE,
        "none of the 2 images could be filled in; the first, .*bad.png: it has 20x7 pixels",
    ),
}


@pytest.mark.parametrize(("make", "config", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_done_is_refused_and_leaves_nothing(make, config, message, run, tmp_path):
    images = make(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=message) as error:
        impute_files(run, images, config, tmp_path / "out")
    assert "\n" not in str(error.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_mask_is_not_overwritten_either(run, tmp_path):
    mask = save(tmp_path / "good_mean.png", MASK[..., None] * np.uint8(255))
    with pytest.raises(ValueError, match="good_mean.png would overwrite a file that is read"):
        impute_files(run, good(tmp_path), ImputeConfig(masks=str(mask)), tmp_path)


def test_the_output_must_be_a_folder(run, tmp_path):
    with pytest.raises(ValueError, match="the output must be a folder; got the file .*good.png"):
        impute_files(run, good(tmp_path), HOLE, good(tmp_path))


# Settings.


WRONG_SETTINGS = {
    "nothing is missing": ({}, "exactly one of masks, missing_colour, rectangles.*; got none"),
    "two ways": (
        {"masks": "a", "rectangles": ("0:0:1x1",)},
        "exactly one of .*; got masks and rectangles",
    ),
    "two values": ({"missing_colour": (1, 2)}, "R,G,B or one grey value.*; got 1,2"),
    "no colour": ({"missing_colour": (1, 2, 256)}, "from 0 to 255; got 1,2,256"),
    "tolerance": ({"missing_colour": (1,), "tolerance": 256}, r"lie in \[0, 255\]; got 256"),
    "tolerance alone": ({"masks": "a", "tolerance": 3}, "goes with missing_colour; got 3 without"),
    "rectangle": ({"rectangles": ("1:2:3",)}, "TOP:LEFT:HEIGHTxWIDTH in pixels.*; got '1:2:3'"),
    "no rectangle": ({"rectangles": ("1:2:0x3",)}, "sides of at least 1; got '1:2:0x3'"),
    "samples": ({"masks": "a", "num_samples": 0}, "num_samples must be at least 1; got 0"),
    "temperature": ({"masks": "a", "temperature": -1.0}, "temperature must be at least 0; got -1"),
    "seed": ({"masks": "a", "seed": -1}, "seed must be at least 0; got -1"),
    "weights": ({"masks": "a", "weights": "best"}, "weights must be one of"),
}


@pytest.mark.parametrize(("fields", "message"), WRONG_SETTINGS.values(), ids=WRONG_SETTINGS)
def test_wrong_settings_are_refused_in_one_line(fields, message):
    with pytest.raises(ValueError, match=message) as error:
        ImputeConfig(**fields)
    assert "\n" not in str(error.value)


def test_settings_survive_their_flags():
    for config in (
        ImputeConfig(missing_colour=(255, 0, 255), tolerance=9, num_samples=3, draw=True),
        ImputeConfig(rectangles=("0:0:1x9", "5:7:2x2"), temperature=0.5, seed=4, weights="raw"),
        ImputeConfig(masks="a folder/b"),
    ):
        assert flags.parse(ImputeConfig, (), flags.to_flags(config))[0] == [config]
