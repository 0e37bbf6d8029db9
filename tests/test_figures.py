# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The figures of a work directory show what its checkpoint, metrics and test images hold."""

import dataclasses
import pathlib
import shutil

import matplotlib.image
import numpy as np
import pytest
from work_directories import write_run

from matnet_tf import data, experiment, figures, pictures
from matnet_tf.config import DataConfig, Experiment, ModelConfig, Stage, TrainConfig

NAMES = ["samples", "samples_by_temperature", "reconstructions", "kl_area", "bits", "curves"]


@pytest.fixture(scope="module")
def setup() -> Experiment:
    model = ModelConfig((8, 8, 1), (Stage(1, 16, 4, 2),), top_latents=4, top_units=16)
    return Experiment(model=model, data=DataConfig("digits"), train=TrainConfig(steps=2))


@pytest.fixture(scope="module")
def trained(setup, tmp_path_factory):
    """A work directory with two rows of metrics and one checkpoint; not to be changed."""
    folder = write_run(tmp_path_factory.mktemp("trained"), setup, step=2)
    write_rows(folder, setup)
    return folder


@pytest.fixture
def workdir(trained, tmp_path):
    """A work directory of the test's own."""
    return shutil.copytree(trained, tmp_path / "run")


def write_rows(workdir, setup):
    kl = {f"kl/{name}": 1.5 + i for i, name in enumerate(setup.model.level_names)}
    rest = {"elbo": -40.0, "log_likelihood": -30.0, "kl": 7.5, "learning_rate": 1e-3}
    rows = [{"step": step, **rest, **kl} for step in (1, 2)]
    experiment.write_metrics(workdir, rows)


def pixels(path):
    return np.rint(matplotlib.image.imread(path)[..., :3] * 255).astype(int)


def test_figures_show_the_checkpoint_and_the_seeds_choice_of_test_images(
    workdir, setup, eagerly, monkeypatch
):
    save = pictures.save
    compared = ("samples.png", "reconstructions.png")
    monkeypatch.setattr(pictures, "save", lambda f, path: path.endswith(compared) and save(f, path))
    paths = figures.write_figures(workdir, seed=7)
    folder = workdir / "figures"
    assert paths == [str(folder / f"{name}.png") for name in NAMES]
    model = experiment.load(workdir).model
    trace = model.walk(None, 100, np.array([0, 7], np.int32))
    samples = model.p_x(trace).mean().numpy()
    np.testing.assert_array_equal(
        pixels(folder / "samples.png"), pictures.image_grid(samples, columns=10)
    )

    chosen = np.random.RandomState(7).permutation(297)[:10]
    split = data.load(setup.data, "test")
    x = next(iter(split.evaluation_dataset(10, chosen))).numpy()
    truth = pictures.image_grid(x, 10)
    drawn = pixels(folder / "reconstructions.png")[::2, ::2]  # Files have two dots a pixel.
    height, width = truth.shape[:2]
    left = drawn.shape[1] - 8 - width
    np.testing.assert_array_equal(drawn[8 : 8 + height, left : left + width], truth)
    last = pictures.image_grid(model.reconstruct(x, 3, seed=7).numpy(), 10)
    difference = drawn[-8 - height : -8, left : left + width] - last
    # The last bit may differ between two walks, hence the picture by one grey value.
    assert np.abs(difference).max() <= 1


@pytest.mark.slow
def test_the_same_seed_draws_the_same_and_another_seed_others(workdir):
    first = [pathlib.Path(p).read_bytes() for p in figures.write_figures(workdir, seed=1)]
    again = [pathlib.Path(p).read_bytes() for p in figures.write_figures(workdir, seed=1)]
    other = [pathlib.Path(p).read_bytes() for p in figures.write_figures(workdir, seed=2)]
    assert first == again
    assert min(map(len, first)) > 2000, "an empty picture"
    assert [a == b for a, b in zip(first, other, strict=True)] == [False] * 3 + [True] * 3


def test_bits_are_those_of_the_metrics_of_every_run(workdir, setup, tmp_path, monkeypatch):
    real = dataclasses.replace(setup.model, likelihood="normal")
    other = Experiment(real, DataConfig("digits", "", "none", dequantize=True), setup.train)
    experiment.create(tmp_path / "dequantized", other)
    write_rows(tmp_path / "dequantized", other)
    seen = []
    draw = pictures.bit_areas
    monkeypatch.setattr(pictures, "bit_areas", lambda panels: seen.append(panels) or draw(panels))
    monkeypatch.setattr(pictures, "save", lambda figure, path: None)
    figures.write_figures(workdir, compare=[tmp_path / "dequantized"])
    titles, steps, bits = zip(*seen[0], strict=True)
    assert titles == (f"{workdir.name}: bernoulli", "dequantized: normal")
    assert steps == ([1, 2], [1, 2])
    scale = 64 * np.log(2)
    levels = {n: 2 * [(1.5 + i) / scale] for i, n in enumerate(setup.model.level_names)}
    # A unit of a density of dequantized values holds 2**8 of the levels that they come from.
    for found, more in zip(bits, (0, 8), strict=True):
        expected = levels | {"03_pixels": 2 * [30 / scale + more]}
        assert list(found) == list(expected)
        for name, values in expected.items():
            np.testing.assert_allclose(found[name], values)


@pytest.mark.slow
def test_samples_of_a_local_model_are_draws(tmp_path, setup):
    local = {"autoregressive": True, "autoregressive_layers": 2, "autoregressive_filters": 4}
    setup = dataclasses.replace(setup, model=dataclasses.replace(setup.model, **local))
    write_run(tmp_path, setup, step=2)
    write_rows(tmp_path, setup)
    paths = figures.write_figures(tmp_path, seed=7)
    samples = experiment.build_model(setup).sample(100, seed=7).numpy()
    assert set(np.unique(samples)) == {0.0, 1.0}
    drawn, expected = pixels(paths[0]), pictures.image_grid(samples, columns=10)
    assert np.mean(drawn == expected) > 0.99


def test_what_is_missing_is_named_in_one_line(tmp_path, setup):
    with pytest.raises(ValueError, match="is not a work directory: it has no config.json"):
        figures.write_figures(tmp_path)
    experiment.create(tmp_path, setup)
    with pytest.raises(ValueError, match="has no metrics yet"):
        figures.write_figures(tmp_path)
    experiment.write_metrics(tmp_path, [{"step": 1, "elbo": -3.0}])
    with pytest.raises(ValueError, match="metrics.csv has no value of kl/00_top in its last row"):
        figures.write_figures(tmp_path)
    write_rows(tmp_path, setup)
    with pytest.raises(ValueError, match="no checkpoint"):
        figures.write_figures(tmp_path)
    assert not (tmp_path / "figures").exists()


def test_averaged_weights_are_refused_where_none_were_kept(workdir):
    with pytest.raises(ValueError, match="averaged"):
        figures.write_figures(workdir, weights="averaged")
