# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""`matnet compress` and `matnet decompress` on digits, whole and damaged."""

import dataclasses
import json
import struct
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from work_directories import write_run

from matnet_tf import cli
from matnet_tf.compression.networks import Networks
from matnet_tf.config import DataConfig, Experiment, ModelConfig, Scale
from matnet_tf.data import loading

pytestmark = pytest.mark.slow

MODEL = ModelConfig(image_shape=(8, 8, 1), scales=(Scale(1, 8, 2, 1),), top_latents=2, top_units=8)
DATA = DataConfig(name="digits", binarization="threshold")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "digits"
    return write_run(folder, Experiment(model=MODEL, data=DATA))


@pytest.fixture(scope="module")
def compressed(workdir):
    file = workdir / "test.matnet"
    flags = ("--num_images=60", "--block=25", "--batch_size=4")
    assert cli.main(["compress", f"--workdir={workdir}", f"--output={file}", *flags]) == 0
    return file


def decompress(workdir, file, output):
    return cli.main(["decompress", f"--workdir={workdir}", f"--file={file}", f"--output={output}"])


def test_a_split_comes_back_but_for_a_damaged_block(workdir, compressed, tmp_path, capsys):
    x = next(iter(loading.load(DATA, "test").evaluation_dataset(60))).numpy()
    assert decompress(workdir, compressed, tmp_path / "whole") == 0
    files = sorted((tmp_path / "whole").iterdir())
    pixels = np.stack([np.array(Image.open(file)) for file in files])[..., np.newaxis]
    np.testing.assert_array_equal(pixels, 255 * x)
    data = bytearray(compressed.read_bytes())
    data[-1] ^= 1
    (tmp_path / "damaged.matnet").write_bytes(data)
    assert decompress(workdir, tmp_path / "damaged.matnet", tmp_path / "part") == 1
    assert "damaged and lost: block 3 of 3: 040.png to 059.png" in capsys.readouterr().err
    assert sorted(file.name for file in (tmp_path / "part").iterdir()) == [
        file.name for file in files[:40]
    ]
    assert decompress(workdir, compressed, tmp_path / "part") == 2
    assert "exists already" in capsys.readouterr().err


def test_an_evaluation_has_the_measured_rate(workdir, capsys):
    command = ["evaluate", f"--workdir={workdir}", "--images=200", "--num_samples=2", "--json"]
    assert cli.main(command) == 0
    bound = json.loads(capsys.readouterr().out)
    assert cli.main([*command, "--coded"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record == bound | {"coded_bits_per_dim": record["coded_bits_per_dim"]}
    assert json.loads((workdir / "evaluation.json").read_text()) == [record]
    rate, error = bound["neg_elbo"], 3 * bound["neg_elbo_se"]
    assert abs(record["coded_bits_per_dim"] * 64 * np.log(2) - rate) < error


def test_picture_files_come_back(workdir, tmp_path, capsys):
    values = 255 * np.random.RandomState(0).randint(0, 2, (5, 8, 8)).astype(np.uint8)
    for i, value in enumerate(values):
        Image.fromarray(value).save(tmp_path / f"a{i}.png")
    run, file = (f"--workdir={workdir}", f"--images={tmp_path}"), tmp_path / "out.matnet"
    assert cli.main(["compress", *run, "--estimate", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sampled"] == 5
    assert cli.main(["compress", *run, f"--output={file}"]) == 0
    assert decompress(workdir, file, tmp_path / "back") == 0
    for i, value in enumerate(values):
        np.testing.assert_array_equal(np.array(Image.open(tmp_path / f"back/a{i}.png")), value)


@pytest.mark.parametrize("threads", [1, 2])
def test_images_come_back_in_another_process(threads, tmp_path):
    model = dataclasses.replace(
        MODEL, mixture_components=3, autoregressive=True, autoregressive_layers=2
    )
    run = write_run(tmp_path / "run", Experiment(model=model, data=DATA))
    program, file = [sys.executable, "-m", "matnet_tf"], tmp_path / "test.matnet"
    flags = [f"--threads={threads}", "--num_images=40", "--batch_size=4", "--verify=false"]
    for command in (
        ["compress", f"--workdir={run}", f"--output={file}", *flags],
        ["decompress", f"--workdir={run}", f"--file={file}", f"--output={tmp_path / 'back'}"],
    ):
        subprocess.run([*program, *command], check=True, capture_output=True)
    x = next(iter(loading.load(DATA, "test").evaluation_dataset(40))).numpy()
    for i, image in enumerate(x[..., 0]):
        back = np.array(Image.open(tmp_path / f"back/{i:03d}.png"))
        np.testing.assert_array_equal(back, 255 * image)


def test_known_pixels_are_given_again(tmp_path, capsys):
    model = dataclasses.replace(MODEL, conditional_stages=1)
    data = dataclasses.replace(DATA, mask="half", half="random")
    run = write_run(tmp_path / "run", Experiment(model=model, data=data))
    known, file = tmp_path / "known", tmp_path / "test.matnet"
    command = ["compress", f"--workdir={run}", f"--output={file}", "--num_images=40", "--json"]
    assert cli.main([*command, "--batch_size=4"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["bits_per_dim"] == 8 * record["bytes"] / (40 * 32) and record["others"] == {}
    assert decompress(run, file, tmp_path / "whole") == 0
    batch = next(iter(loading.load(data, "test").evaluation_dataset(40)))
    known.mkdir()
    for i, (x, mask) in enumerate(zip(batch["image"].numpy(), batch["mask"].numpy(), strict=True)):
        whole = np.array(Image.open(tmp_path / f"whole/{i:03d}.png"))
        np.testing.assert_array_equal(whole, 255 * x[..., 0])
        Image.fromarray(np.uint8(255 * (x * mask)[..., 0])).save(known / f"{i:03d}.png")
    command = ["decompress", f"--workdir={run}", f"--file={file}", f"--known={known}"]
    assert cli.main([*command, f"--output={tmp_path / 'again'}"]) == 0
    for again in (tmp_path / "again").iterdir():
        assert again.read_bytes() == (tmp_path / "whole" / again.name).read_bytes()
    capsys.readouterr()
    Image.new("L", (8, 8), 255).save(known / "007.png")
    assert cli.main([*command, f"--output={tmp_path / 'other'}"]) == 2
    error = capsys.readouterr().err
    assert "made with other known pixels" in error and error.count("\n") == 1
    (known / "007.png").unlink()
    assert cli.main([*command, f"--output={tmp_path / 'other'}"]) == 2
    assert "007.png" in capsys.readouterr().err and not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("picture", "word"),
    [
        (Image.new("L", (8, 9), 255), "9x8 pixels"),
        (Image.new("RGB", (8, 8)), "mode RGB"),
        (Image.new("LA", (8, 8)), "mode LA"),
        (Image.new("I;16", (8, 8)), "mode I;16"),
        (Image.new("L", (8, 8), 7), "grey pixels"),
    ],
)
def test_other_pictures_are_refused(workdir, tmp_path, capsys, picture, word):
    picture.save(tmp_path / "a.png")
    run = (f"--workdir={workdir}", f"--images={tmp_path}", f"--output={tmp_path / 'out'}")
    assert cli.main(["compress", *run]) == 2
    error = capsys.readouterr().err
    assert word in error and error.count("\n") == 1 and not (tmp_path / "out").exists()


def test_another_model_and_another_machine_are_refused(
    workdir, compressed, tmp_path, capsys, monkeypatch
):
    other = write_run(tmp_path / "other", Experiment(model=MODEL, data=DATA, seed=1))
    assert decompress(other, compressed, tmp_path / "out") == 2
    assert "another model" in capsys.readouterr().err
    monkeypatch.setattr(Networks, "fingerprint", lambda self: "0" * 16)
    assert decompress(workdir, compressed, tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "fingerprint 0000" in error and "tensorflow 2" in error
    assert not (tmp_path / "out").exists()
    (tmp_path / "foreign").write_bytes(struct.pack("<Q", 5))
    assert decompress(workdir, tmp_path / "foreign", tmp_path / "out") == 2
    assert "not written by matnet compress" in capsys.readouterr().err
