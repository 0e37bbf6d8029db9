# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Image files and masks in; completions, a record and a contact sheet out."""

import dataclasses
import json
import os
import pathlib

import numpy as np
import pytest
from fake_imputers import (
    HOLE,
    MASK,
    FakeModel,
    fake_run,
    good,
    hole_in,
    model_config,
    picture_of,
    read,
    save,
)
from PIL import Image, ImageCms, ImageOps
from work_directories import write_run

from matnet_tf.config import DataConfig, Experiment, ImputeConfig
from matnet_tf.imputation.impute import impute_files
from matnet_tf.imputation.tiling import impute_picture, plan
from matnet_tf.runs.workdir import create_workdir, source_commit


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A work directory of a grey model of 8x8 pixels, which is the fake one."""
    fake_run(tmp_path / "run", monkeypatch)
    return tmp_path / "run"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_every_image_gets_its_completions_and_their_mean(run, tmp_path):
    pictures = {"a": picture_of((8, 8)), "b": picture_of((13, 11), seed=1)}
    for name, picture in pictures.items():
        save(tmp_path / "in" / f"{name}.png", picture)
    record = impute_files(run, [tmp_path / "in"], HOLE, tmp_path / "out")
    outputs = [f"{name}_{k}.png" for name in "ab" for k in ("1", "2", "mean")]
    assert names(tmp_path / "out") == [*outputs, "contact_sheet.png", "imputations.json"]
    for (name, picture), about in zip(pictures.items(), record["images"], strict=True):
        assert about["outputs"] == [str(tmp_path / "out" / o) for o in outputs if o[0] == name]
        mask = hole_in(picture.shape[:2])
        *completions, mean = map(read, about["outputs"])
        expected = impute_picture(FakeModel(), picture, mask, 2, seed=5)
        np.testing.assert_array_equal(completions, expected)
        np.testing.assert_array_equal(mean, np.rint(expected.astype(float).mean(axis=0)))
        for output in (*completions, mean):
            np.testing.assert_array_equal(output[mask], picture[mask])
        assert np.any(completions[0] != completions[1])
    impute_files(run, tmp_path / "in" / "b.png", HOLE, tmp_path / "alone")
    for output in ("b_1.png", "b_2.png", "b_mean.png"):
        alone = (tmp_path / "alone" / output).read_bytes()
        assert (tmp_path / "out" / output).read_bytes() == alone


def test_the_record_has_the_settings_and_the_settings_reach_the_model(
    tmp_path, monkeypatch, capsys
):
    model, run = fake_run(tmp_path / "run", monkeypatch), tmp_path / "run"
    file = save(tmp_path / "a.png", picture_of((13, 11)))
    settings = dataclasses.replace(HOLE, temperature=0.5, draw=True)
    record = impute_files(run, [file], settings)
    _, mask, *given = model.calls[0]
    assert given == [2, 0.5, 5, True] and not mask.all()
    folder = run / "imputations"
    assert record == json.loads((folder / "imputations.json").read_text())
    assert record.pop("seconds") > 0 and record.pop("package_version")
    assert record.pop("commit") == source_commit()
    assert record == {
        **{"masks": "", "missing_colour": [], "tolerance": 0, "rectangles": ["2:3:4x4"]},
        "transparent": False,
        **{"num_samples": 2, "temperature": 0.5, "draw": True, "seed": 5},
        **{"weights": "averaged", "checkpoint_step": 7, "image_shape": [8, 8, 1]},
        "images": [
            {
                "file": str(file),
                "size": [13, 11],
                "missing_pixels": 16,
                "tiles": len(plan(hole_in((13, 11)), (8, 8))),
                "outputs": [str(folder / f"a_{k}.png") for k in ("1", "2", "mean")],
            }
        ],
        "skipped": [],
        "contact_sheet": str(folder / "contact_sheet.png"),
    }
    out, err = capsys.readouterr()
    assert out == "" and err.strip().startswith("impute:") and "1/1" in err


def test_a_bernoulli_model_gets_known_pixels_thresholded(tmp_path, monkeypatch):
    picture = picture_of((8, 8))
    model = fake_run(tmp_path / "run", monkeypatch, likelihood="bernoulli")
    record = impute_files(tmp_path / "run", good(tmp_path), HOLE)
    np.testing.assert_array_equal(model.calls[0][0][0][MASK], picture[MASK] >= 128)
    np.testing.assert_array_equal(read(record["images"][0]["outputs"][0])[MASK], picture[MASK])


def test_transparent_pixels_can_be_the_missing_ones(run, tmp_path):
    grey = picture_of((8, 8))[..., 0]
    alpha = np.where(MASK, 200, 100).astype(np.uint8)
    file = tmp_path / "a.png"
    Image.merge("LA", [Image.fromarray(grey), Image.fromarray(alpha)]).save(file)
    config = ImputeConfig(transparent=True, num_samples=2, seed=5)
    output = read(impute_files(run, file, config)["images"][0]["outputs"][0])[..., 0]
    np.testing.assert_array_equal(output[MASK], grey[MASK])
    assert (output[~MASK] != grey[~MASK]).any()
    opaque = save(tmp_path / "b.png", picture_of((8, 8)))
    with pytest.raises(ValueError, match="b.png: nothing is missing: no pixel is transparent"):
        impute_files(run, opaque, config)


def test_colour_profile_and_resolution_are_kept(tmp_path, monkeypatch):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    more = {"icc_profile": profile, "dpi": (300, 300)}
    file = save(tmp_path / "a.png", picture_of((8, 8), 3), **more)
    for channels, expected in ((3, profile), (1, None)):
        run = tmp_path / f"run{channels}"
        fake_run(run, monkeypatch, channels=channels)
        output = impute_files(run, file, HOLE)["images"][0]["outputs"][0]
        with Image.open(output) as image:
            assert image.info.get("icc_profile") == expected
            assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)


def test_the_first_picture_of_another_scale_is_named(tmp_path, monkeypatch, capsys):
    files = [save(tmp_path / f"{n}.png", picture_of((24, 16))) for n in range(2)]
    files.append(save(tmp_path / "like.png", picture_of((16, 16))))
    for number, (tiles_of, expected) in enumerate(
        (
            ({}, "trained on pictures of 8x8: it does"),
            ({"tiles_of": [64, 48]}, "trained on tiles of pictures of 64x48: it does"),
            ({"tiles_of": [32, 32]}, ""),
        )
    ):
        run, images = tmp_path / str(number), {"count": 1, "digest": "a", **tiles_of}
        fake_run(run, monkeypatch, images=images)
        impute_files(run, files, HOLE)
        message = capsys.readouterr().err
        assert message.count("does not know") == bool(expected) and expected in message
        assert (f"0.png has 24x16 pixels, but the model was {expected}" in message) == bool(
            expected
        )


def test_a_comma_in_a_name_is_part_of_it(run, tmp_path):
    for name in ("a,b.png", "c.png", "d, e, f.png"):
        save(tmp_path / name, picture_of((8, 8)))
    given = ",".join(str(tmp_path / name) for name in ("a,b.png", "c.png", "d, e, f.png"))
    record = impute_files(run, tuple(given.split(",")), HOLE)
    files = [pathlib.Path(image["file"]).name for image in record["images"]]
    assert files == ["a,b.png", "c.png", "d, e, f.png"]


def test_one_odd_file_does_not_end_the_others(run, tmp_path, monkeypatch, capsys):
    names = ["good", "a" * 250, os.fsdecode(b"no\xffutf8"), "strange"]
    for name in names:
        save(tmp_path / "in" / f"{name}.png", picture_of((8, 8)))
    transpose = ImageOps.exif_transpose

    def strange(image):  # As Pillow does for EXIF that it cannot parse.
        if "strange" in str(image.filename):
            raise TypeError("a bytes-like object is required")
        return transpose(image)

    monkeypatch.setattr(ImageOps, "exif_transpose", strange)
    record = impute_files(run, tmp_path / "in", HOLE, tmp_path / "out")
    done = [pathlib.Path(image["file"]).stem for image in record["images"]]
    assert sorted(done) == ["good", "no\ufffdutf8"]
    reasons = {pathlib.Path(item["file"]).stem[:7]: item["reason"] for item in record["skipped"]}
    assert "its name is too long" in reasons["a" * 7]
    assert reasons["strange"] == "it cannot be read: a bytes-like object is required"
    json.dumps(record).encode()
    assert capsys.readouterr().err.count("is skipped: ") == 2


def test_files_are_read_upright_and_in_the_models_channels(run, tmp_path, monkeypatch):
    picture = picture_of((8, 8), 3) // 2
    picture[~MASK] = (255, 0, 255)  # Compared with the file's colours, not with the model's.
    files = save(tmp_path / "a.png", picture), save(tmp_path / "b.jpg", picture_of((16, 16)))
    config = ImputeConfig(missing_colour=(255, 0, 255), num_samples=1)
    assert impute_files(run, files[0], config)["images"][0]["missing_pixels"] == 16
    output = read(impute_files(run, files[1], HOLE)["images"][0]["outputs"][0])
    with Image.open(files[1]) as image:
        decoded, known = np.asarray(image)[..., None], hole_in((16, 16))
    np.testing.assert_array_equal(output[known], decoded[known])

    fake_run(tmp_path / "colour", monkeypatch, channels=3)
    stored, exif = picture_of((9, 12)), Image.Exif()
    exif[0x0112] = 6  # To be turned by a quarter, clockwise.
    file = save(tmp_path / "a.png", stored, exif=exif)
    about = impute_files(tmp_path / "colour", file, HOLE)["images"][0]
    mask, upright = hole_in((12, 9)), np.rot90(stored, -1).repeat(3, axis=-1)
    assert about["size"] == [12, 9]
    for output in about["outputs"]:
        np.testing.assert_array_equal(read(output)[mask], upright[mask])
        with Image.open(output) as image:
            assert not image.getexif()


# Files that are skipped, calls that are refused.


def test_bad_images_are_named_and_skipped_and_the_others_are_done(run, tmp_path, capsys):
    folder = good(tmp_path).parent
    save(folder / "a_small.png", picture_of((20, 7)))
    (folder / "b_damaged.png").write_text("no image")
    save(folder / "c_unmasked.png", picture_of((8, 8)))
    save(folder / "d_whole.png", picture_of((8, 8)))
    masks = tmp_path / "masks"
    for name, mask in {"good": MASK, "b_damaged": MASK, "d_whole": MASK | True}.items():
        save(masks / f"{name}.png", mask[..., None] * np.uint8(255))
    expected = {
        "a_small": "it has 20x7 pixels; the model needs at least 8x8",
        "b_damaged": "it is not a PNG, JPEG, WebP or BMP image, or its header is damaged",
        "c_unmasked": f"expected one mask named c_unmasked in {masks}; got none",
        "d_whole": "its mask leaves nothing to predict: no pixel is missing",
    }
    config = ImputeConfig(masks=str(masks), num_samples=1)
    record = impute_files(run, folder, config, tmp_path / "out")
    found = {pathlib.Path(bad["file"]).stem: bad["reason"] for bad in record["skipped"]}
    assert found == expected
    assert [pathlib.Path(about["file"]).name for about in record["images"]] == ["good.png"]
    written = ["contact_sheet.png", "good_1.png", "good_mean.png", "imputations.json"]
    assert names(tmp_path / "out") == written
    messages = capsys.readouterr().err
    for name, reason in expected.items():
        assert f"{folder / name}.png is skipped: {reason}" in messages
    (folder / "good.png").unlink()
    with pytest.raises(
        ValueError, match="none of the 4 images could be filled in; the first, .*a_"
    ):
        impute_files(run, folder, config, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_outputs_never_overwrite_inputs_or_each_other_and_wrong_files_are_refused(run, tmp_path):
    save(tmp_path / "two" / "a.jpg", picture_of((8, 8)))
    mask = save(tmp_path / "masks" / "good_mean.png", MASK[..., None] * np.uint8(255))
    save(tmp_path / "two" / "a.png", picture_of((8, 8)))
    inputs = [save(tmp_path / "out" / n, picture_of((8, 8))) for n in ("a.png", "a_2.png")]
    sheet = save(tmp_path / "out" / "contact_sheet.png", picture_of((8, 8)))
    image, masked = good(tmp_path), ImputeConfig(masks=str(mask))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*g")}
    for images, config, output, message in (
        (tmp_path / "two", HOLE, "new", "a.jpg and .*a.png would both be written to a_1.png"),
        (inputs, HOLE, "out", "output .*out/a_2.png would overwrite an input file"),
        (sheet, HOLE, "out", "output .*contact_sheet.png would overwrite an input file"),
        (image, masked, "masks", "output .*good_mean.png would overwrite an input file"),
        (image, HOLE, "in/good.png", "the output must be a folder; got the file .*good.png"),
        ([], HOLE, "new", "expected a file or a folder of images, or several; got none"),
        (image, ImputeConfig(masks="/no/masks"), "new", "there is no file or folder /no/masks"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            impute_files(run, images, config, tmp_path / output)
        assert "\n" not in str(error.value)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*g")} == before
    assert not (tmp_path / "new").exists()


def test_models_that_cannot_impute_are_refused(tmp_path, monkeypatch):
    for number, (model, mask, message) in enumerate(
        (
            ({}, "none", "unconditional and cannot fill in images.* at least 1; got 0"),
            ({"channels": 2, "conditional_stages": 1}, "half", "1 or 3 channels; .* has 2"),
        )
    ):
        run = tmp_path / str(number)
        create_workdir(run, Experiment(model_config(**model), DataConfig(mask=mask)))
        with pytest.raises(ValueError, match=message):
            impute_files(run, good(tmp_path), HOLE)
        assert names(run) == ["config.json"]
    fake_run(tmp_path / "run", monkeypatch, noise=np.nan)
    with pytest.raises(ValueError, match="good.png: completions must be finite"):
        impute_files(tmp_path / "run", good(tmp_path), HOLE)


# Files of earlier runs.


def test_outputs_of_an_earlier_run_are_replaced_and_no_surplus_is_left(run, tmp_path):
    out, file, other = (
        tmp_path / "out",
        good(tmp_path),
        save(tmp_path / "o.png", picture_of((8, 8))),
    )
    impute_files(run, [file, other], dataclasses.replace(HOLE, num_samples=4), out)
    (out / "good_5.png").write_text("somebody else's")
    before = names(out)
    impute_files(run, file, dataclasses.replace(HOLE, seed=1), out)
    assert set(before) - set(names(out)) == {"good_3.png", "good_4.png"}
    expected = impute_picture(FakeModel(), picture_of((8, 8)), MASK, 2, seed=1)
    np.testing.assert_array_equal(read(out / "good_2.png"), expected[1])
    images = '"images": [{"file": "good.png"}]'
    for text in ("{", "[]", "{}", f"{{{images}}}", f'{{{images}, "num_samples": 1e15}}'):
        (out / "imputations.json").write_text(text)
        record = impute_files(run, file, HOLE, out)
        assert json.loads((out / "imputations.json").read_text()) == record


def test_a_full_disk_leaves_older_outputs_as_they_were(run, tmp_path, monkeypatch):
    impute_files(run, good(tmp_path), HOLE, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    written = []

    def full(descriptor):
        written.append(descriptor)
        if len(written) == 3:  # The mean, after both completions.
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        impute_files(run, good(tmp_path), dataclasses.replace(HOLE, seed=2), tmp_path / "out")
    monkeypatch.undo()
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == before


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
def test_a_real_model_fills_in_files_by_their_masks_and_repeats_itself(tmp_path):
    model = model_config(likelihood="logistic", conditional_stages=1)
    data = DataConfig(mask="quadrants", binarization="none")
    run = write_run(tmp_path / "run", Experiment(model, data))
    pictures = {"a": picture_of((8, 8)), "b": picture_of((8, 12), seed=1)}
    for name, picture in pictures.items():
        save(tmp_path / "in" / f"{name}.png", picture)
        mask = hole_in(picture.shape[:2])[..., None] * np.uint8(255)
        save(tmp_path / "masks" / f"{name}.png", mask)
    config = ImputeConfig(masks=str(tmp_path / "masks"), num_samples=2, draw=True)
    for output in ("one", "again"):
        record = impute_files(run, tmp_path / "in", config, tmp_path / output)
    assert (record["weights"], record["checkpoint_step"], record["draw"]) == ("raw", 7, True)
    assert [about["tiles"] > 1 for about in record["images"]] == [False, True]
    for path in (tmp_path / "one").glob("[ab]_*.png"):
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()
        picture = pictures[path.name[0]]
        known = hole_in(picture.shape[:2])
        np.testing.assert_array_equal(read(path)[known], picture[known])
        assert np.mean(read(path)[~known] != picture[~known]) > 0.5
