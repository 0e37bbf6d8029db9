# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Image files and masks in, completions out, a record, and what becomes of an earlier run's."""

import dataclasses
import json
import os
import pathlib
import runpy
import subprocess
import sys

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
from PIL import Image
from test_flags import start
from work_directories import write_run

from matnet_tf import experiment
from matnet_tf.config import DataConfig, Experiment, ImputeConfig
from matnet_tf.imputation import impute_files
from matnet_tf.tiling import impute_picture, plan

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A work directory of a grey model of 8x8 pixels, which is a stand-in."""
    fake_run(tmp_path / "run", monkeypatch)
    return tmp_path / "run"


def changed(config, **changes):
    return dataclasses.replace(config, **changes)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# What is written.


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


def test_the_record_says_of_what_the_completions_are(run, tmp_path, capsys):
    file = save(tmp_path / "a.png", picture_of((13, 11)))
    settings = changed(HOLE, temperature=0.5, draw=True)
    record = impute_files(run, [file], settings)
    folder = run / "imputations"
    assert record == json.loads((folder / "imputations.json").read_text())
    assert record.pop("seconds") > 0 and record.pop("package_version")
    assert record.pop("commit") == experiment.commit()
    assert record == {
        "masks": "",
        "missing_colour": [],
        "tolerance": 0,
        "rectangles": ["2:3:4x4"],
        "num_samples": 2,
        "temperature": 0.5,
        "draw": True,
        "seed": 5,
        "weights": "averaged",
        "checkpoint_step": 7,
        "image_shape": [8, 8, 1],
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
    assert (out, err) == ("", "impute: 1/1 images, 0m00s left\n")


def test_the_settings_reach_the_model(tmp_path, monkeypatch):
    model = fake_run(tmp_path / "run", monkeypatch)
    config = changed(HOLE, num_samples=3, temperature=0.5, draw=True)
    impute_files(tmp_path / "run", good(tmp_path), config)
    ((_, mask, *settings),) = model.calls
    assert settings == [3, 0.5, 5, True]
    np.testing.assert_array_equal(mask[0, ..., 0], MASK)


@pytest.mark.parametrize(
    ("data", "binary"),
    [
        ({"name": "digits"}, True),
        ({"binarization": "threshold"}, True),
        ({"name": "binarized_mnist"}, True),
        ({"binarization": "none"}, False),
        ({"name": "image_folder"}, False),
    ],
)
def test_a_bernoulli_model_is_given_binary_pixels_if_its_training_images_were(
    data, binary, tmp_path, monkeypatch
):
    model = fake_run(tmp_path / "run", monkeypatch, likelihood="bernoulli", data=data)
    picture = picture_of((8, 8))
    record = impute_files(tmp_path / "run", good(tmp_path), HOLE)
    x = model.calls[0][0][0][MASK]
    expected = (picture[MASK] >= 128) if binary else picture[MASK] / np.float32(255)
    np.testing.assert_array_equal(x, expected)
    np.testing.assert_array_equal(read(record["images"][0]["outputs"][0])[MASK], picture[MASK])


def test_an_image_s_completions_do_not_depend_on_the_others(run, tmp_path):
    for number in range(3):
        save(tmp_path / "in" / f"{number}.png", picture_of((12, 9), seed=number))
    impute_files(run, tmp_path / "in", HOLE, tmp_path / "all")
    impute_files(run, tmp_path / "in" / "1.png", HOLE, tmp_path / "alone")
    for output in ("1_1.png", "1_2.png", "1_mean.png"):
        alone = (tmp_path / "alone" / output).read_bytes()
        assert (tmp_path / "all" / output).read_bytes() == alone


def test_outputs_are_upright_and_of_the_model_s_colours(tmp_path, monkeypatch):
    fake_run(tmp_path / "run", monkeypatch, channels=3)
    stored, exif = picture_of((9, 12)), Image.Exif()
    exif[0x0112] = 6  # To be turned by a quarter, clockwise.
    file = save(tmp_path / "a.png", stored, exif=exif)
    about = impute_files(tmp_path / "run", file, HOLE)["images"][0]
    mask, upright = hole_in((12, 9)), np.rot90(stored, -1).repeat(3, axis=-1)
    assert about["size"] == [12, 9]
    for output in about["outputs"]:
        np.testing.assert_array_equal(read(output)[mask], upright[mask])
        with Image.open(output) as image:
            assert not image.getexif()


def test_known_pixels_of_jpeg_files_are_those_that_they_decode_to(run, tmp_path):
    file = save(tmp_path / "a.jpg", picture_of((16, 16)), quality=60)
    output = read(impute_files(run, file, HOLE)["images"][0]["outputs"][0])
    with Image.open(file) as image:
        expected = np.asarray(image)[..., None]
    np.testing.assert_array_equal(output[hole_in((16, 16))], expected[hole_in((16, 16))])


@pytest.mark.parametrize("channels", [1, 3])
def test_a_missing_colour_is_one_of_the_file_s_not_the_model_s(channels, tmp_path, monkeypatch):
    fake_run(tmp_path / "run", monkeypatch, channels=channels)
    picture = picture_of((8, 8), 3) // 2
    picture[~MASK] = (255, 0, 255)
    config = ImputeConfig(missing_colour=(255, 0, 255), num_samples=1)
    record = impute_files(tmp_path / "run", save(tmp_path / "a.png", picture), config)
    assert record["images"][0]["missing_pixels"] == 16


# Models that cannot do it.


MODELS = {
    "unconditional": (
        {"channels": 1},
        r"is of a model of whole images.*stages of at least 1; got 0",
    ),
    "channels": ({"channels": 2, "conditional_stages": 1}, "models of 1 or 3 channels; .* has 2"),
}


@pytest.mark.parametrize(("model", "message"), MODELS.values(), ids=MODELS)
def test_a_model_that_cannot_do_it_is_refused_before_it_is_loaded(model, message, tmp_path):
    data = DataConfig(mask="quadrants" if "conditional_stages" in model else "none")
    experiment.create(tmp_path / "run", Experiment(model_config(**model), data))
    with pytest.raises(ValueError, match=message):
        impute_files(tmp_path / "run", good(tmp_path), HOLE)
    assert names(tmp_path / "run") == ["config.json"]


def test_values_that_are_not_finite_are_an_error_that_names_the_image(tmp_path, monkeypatch):
    fake_run(tmp_path / "run", monkeypatch, noise=np.nan)
    with pytest.raises(ValueError, match="good.png: completions must be finite"):
        impute_files(tmp_path / "run", good(tmp_path), HOLE)


# Files of earlier runs.


def test_outputs_of_an_earlier_run_are_replaced_and_no_surplus_is_left(run, tmp_path):
    file, other = good(tmp_path), save(tmp_path / "other.png", picture_of((8, 8)))
    impute_files(run, [file, other], changed(HOLE, num_samples=4), tmp_path / "out")
    (tmp_path / "out" / "good_5.png").write_text("somebody else's")
    before = names(tmp_path / "out")
    impute_files(run, file, changed(HOLE, seed=1), tmp_path / "out")
    assert set(before) - set(names(tmp_path / "out")) == {"good_3.png", "good_4.png"}
    expected = impute_picture(FakeModel(), picture_of((8, 8)), MASK, 2, seed=1)
    np.testing.assert_array_equal(read(tmp_path / "out" / "good_2.png"), expected[1])


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"images": [{"file": "good.png"}]}'])
def test_a_record_that_is_not_ours_is_replaced_too(run, tmp_path, text):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "imputations.json").write_text(text)
    record = impute_files(run, good(tmp_path), HOLE, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "imputations.json").read_text()) == record


def test_a_full_disk_leaves_older_outputs_as_they_were(run, tmp_path, monkeypatch):
    impute_files(run, good(tmp_path), HOLE, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    write = pathlib.Path.write_bytes

    def full(path, content):
        if "mean" in path.name:
            write(path, content[:10])
            raise OSError(28, "No space left on device", str(path))
        return write(path, content)

    monkeypatch.setattr(pathlib.Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        impute_files(run, good(tmp_path), changed(HOLE, seed=2), tmp_path / "out")
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == before


# The program.


@pytest.fixture
def program(monkeypatch, capsys):
    """Runs bin/impute in this process: status, what it printed, and the lines of its errors."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["bin/impute", *map(str, arguments)])
        monkeypatch.setattr(sys, "path", [*sys.path])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(ROOT / "bin" / "impute"), run_name="__main__")
        out, err = capsys.readouterr()
        lines = [line for line in err.splitlines() if line.startswith("bin/impute: error:")]
        return end.value.code, out, lines

    return call


def test_the_program_ends_with_its_record_and_says_by_its_status_how_it_went(
    run, tmp_path, program
):
    arguments = (f"--workdir={run}", "--rectangles=2:3:4x4,0:0:1x1", "--num_samples=1")
    file = good(tmp_path)
    status, out, lines = program(*arguments, f"--images={file}")
    record = json.loads(out.splitlines()[-1])
    assert (status, lines) == (0, [])
    assert record == json.loads((run / "imputations" / "imputations.json").read_text())
    assert record["images"][0]["missing_pixels"] == 17
    save(tmp_path / "in" / "bad.png", picture_of((20, 7)))
    status, out, lines = program(*arguments, f"--images={file},{tmp_path}/in/bad.png")
    assert (status, lines) == (1, [])
    assert len(json.loads(out.splitlines()[-1])["skipped"]) == 1
    status, out, (line,) = program(*arguments, f"--images={tmp_path}/in/bad.png")
    assert (status, out) == (2, "")
    assert line.startswith("bin/impute: error: none of the 1 images could be filled in; the first")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--images=a"], "ImputeConfig needs exactly one of masks, missing_colour, rectangles"),
        (["--images=a", "--rectangles=1:2:3"], "a rectangle must read TOP:LEFT:HEIGHTxWIDTH"),
        (["--images=a", "--missing_colour=red"], "flag --missing_colour=red: expected a whole"),
        (["--masks=a"], "--images is required: PNG and JPEG files"),
    ],
)
def test_wrong_flags_are_refused_before_tensorflow_is_imported(arguments, message, tmp_path):
    done = start("impute", f"--workdir={tmp_path}", *arguments)
    assert (done.returncode, done.stdout) == (2, "False\n")
    assert done.stderr.startswith(f"bin/impute: error: {message}")
    assert done.stderr.count("\n") == 1


def by_program(*arguments):
    command = [sys.executable, "bin/impute", *map(str, arguments)]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("bin/impute: error:")]
    return done.returncode, done.stdout.splitlines(), errors


@pytest.mark.slow
def test_the_program_fills_in_files_with_a_trained_model_s_weights(tmp_path):
    model = model_config(likelihood="logistic", conditional_stages=1)
    data = DataConfig(mask="quadrants", binarization="none")
    write_run(tmp_path / "run", Experiment(model, data))
    pictures = {"a": picture_of((8, 8)), "b": picture_of((19, 12), seed=1)}
    for name, picture in pictures.items():
        save(tmp_path / "in" / f"{name}.png", picture)
        mask = hole_in(picture.shape[:2])[..., None] * np.uint8(255)
        save(tmp_path / "masks" / f"{name}.png", mask)
    (tmp_path / "in" / "c.jpg").write_text("no image")
    common = (f"--workdir={tmp_path}/run", f"--images={tmp_path}/in", "--draw", "--num_samples=3")
    for output in ("one", "again"):
        paths = (f"--masks={tmp_path}/masks", f"--output={tmp_path}/{output}")
        status, (last,), errors = by_program(*common, *paths)
        assert (status, errors) == (1, [])
    record = json.loads(last)
    assert (record["weights"], record["checkpoint_step"], record["draw"]) == ("raw", 7, True)
    assert [about["tiles"] > 1 for about in record["images"]] == [False, True]
    for path in (tmp_path / "one").glob("[ab]_*.png"):
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()
        picture = pictures[path.name[0]]
        known = hole_in(picture.shape[:2])
        np.testing.assert_array_equal(read(path)[known], picture[known])
        assert np.mean(read(path)[~known] != picture[~known]) > 0.5
    status, out, (error,) = by_program(f"--workdir={tmp_path}", *common[1:], "--rectangles=0:0:1x1")
    assert (status, out) == (2, [])
    assert error == f"bin/impute: error: {tmp_path} is not a work directory: it has no config.json"
