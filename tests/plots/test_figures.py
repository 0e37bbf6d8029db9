# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The figures of a work directory show what its checkpoint, metrics and test images hold."""

import dataclasses
import pathlib

import matplotlib.image
import numpy as np
import pytest
from work_directories import write_run

from matnet_tf.config import DataConfig, Experiment, ModelConfig, Scale
from matnet_tf.data import loading
from matnet_tf.plots import curves, drawing
from matnet_tf.plots.figures import write_figures
from matnet_tf.runs.models import build_model, load_run
from matnet_tf.runs.workdir import create_workdir, write_metrics

pytestmark = pytest.mark.usefixtures("module_eagerly")
NAMES = ["samples", "samples_by_temperature", "reconstructions", "kl_area", "bits", "curves"]
EXPERIMENT = Experiment(ModelConfig((8, 8, 1), (Scale(1, 8, 3, 2),), top_latents=3, top_units=8))


def write_rows(workdir, model):
    kl = {f"kl/{name}": 1.5 + i for i, name in enumerate(model.level_names)}
    rest = {"elbo": -40.0, "log_likelihood": -30.0, "kl": 7.5, "learning_rate": 1e-3}
    write_metrics(workdir, [{"step": step, **rest, **kl} for step in (1, 2)])


@pytest.fixture(scope="module")
def drawn(tmp_path_factory, module_eagerly):
    """A work directory with two rows of metrics, and its figures with seed 7."""
    folder = write_run(tmp_path_factory.mktemp("drawn"), EXPERIMENT, step=2)
    write_rows(folder, EXPERIMENT.model)
    return folder, {path: pathlib.Path(path).read_bytes() for path in write_figures(folder, seed=7)}


def pixels(path):
    return np.rint(matplotlib.image.imread(path)[..., :3] * 255).astype(int)


@pytest.mark.slow
def test_figures_show_the_checkpoint_and_the_seeds_choice_of_test_images(drawn):
    workdir, folder = drawn[0], drawn[0] / "figures"
    assert list(drawn[1]) == [str(folder / f"{name}.png") for name in NAMES]
    model = load_run(workdir).model
    trace = model.hierarchy.top_down_pass(None, 100, np.array([0, 7], np.int32))
    samples = model.hierarchy.p_x(trace).mean().numpy()
    expected = drawing.image_grid(samples, columns=10)
    np.testing.assert_array_equal(pixels(folder / "samples.png"), expected)

    chosen = np.random.RandomState(7).permutation(297)[:10]
    split = loading.load(EXPERIMENT.data, "test")
    x = next(iter(split.evaluation_dataset(10, chosen))).numpy()
    truth = drawing.image_grid(x, 10)
    picture = pixels(folder / "reconstructions.png")[::2, ::2]  # Files have two dots per pixel.
    height, width = truth.shape[:2]
    left = picture.shape[1] - 8 - width
    np.testing.assert_array_equal(picture[8 : 8 + height, left : left + width], truth)
    last = drawing.image_grid(model.reconstruct(x, 3, seed=7).numpy(), 10)
    # The last bit may differ between two passes, hence the figure by one grey value.
    assert np.abs(picture[-8 - height : -8, left : left + width] - last).max() <= 1


@pytest.mark.slow
def test_the_same_seed_draws_the_same_and_another_seed_others(drawn):
    workdir, first = drawn
    for seed, equal in ((7, [True] * 6), (8, [False] * 3 + [True] * 3)):
        again = [pathlib.Path(path).read_bytes() for path in write_figures(workdir, seed=seed)]
        assert [a == b for a, b in zip(first.values(), again, strict=True)] == equal
    assert min(map(len, again)) > 2000, "an empty picture"


@pytest.mark.slow
def test_bits_are_those_of_the_metrics_of_every_run(drawn, tmp_path, monkeypatch):
    model = EXPERIMENT.model
    real = dataclasses.replace(model, likelihood="normal")
    other = Experiment(real, DataConfig("digits", "", "none", dequantize=True))
    create_workdir(tmp_path / "dequantized", other)
    write_rows(tmp_path / "dequantized", real)
    seen, draw = [], curves.bit_areas
    monkeypatch.setattr(curves, "bit_areas", lambda panels: seen.append(panels) or draw(panels))
    monkeypatch.setattr(drawing, "save", lambda figure, path: None)
    write_figures(drawn[0], compare=[tmp_path / "dequantized"])
    titles, steps, bits = zip(*seen[0], strict=True)
    assert titles == (f"{drawn[0].name}: bernoulli", "dequantized: normal")
    assert steps == ([1, 2], [1, 2])
    scale = 64 * np.log(2)
    levels = {n: 2 * [(1.5 + i) / scale] for i, n in enumerate(model.level_names)}
    # A unit of a density of dequantized values holds 2**8 of the levels that they come from.
    for found, more in zip(bits, (0, 8), strict=True):
        expected = levels | {"03_pixels": 2 * [30 / scale + more]}
        assert list(found) == list(expected)
        for name, values in expected.items():
            np.testing.assert_allclose(found[name], values)


@pytest.mark.slow
def test_samples_of_a_local_model_are_draws(tmp_path, monkeypatch):
    # A local model draws pixel by pixel, so each row of a figure takes a second.
    monkeypatch.setattr("matnet_tf.plots.figures._TEMPERATURES", (1.0,))
    monkeypatch.setattr(drawing, "depths", lambda levels: [levels])
    local = {"autoregressive": True, "autoregressive_layers": 2, "autoregressive_filters": 4}
    experiment = Experiment(dataclasses.replace(EXPERIMENT.model, **local))
    write_run(tmp_path / "local", experiment)
    write_rows(tmp_path / "local", experiment.model)
    paths = write_figures(tmp_path / "local", seed=7)
    samples = build_model(experiment).sample(100, seed=7).numpy()
    assert set(np.unique(samples)) == {0.0, 1.0}
    assert np.mean(pixels(paths[0]) == drawing.image_grid(samples, columns=10)) > 0.99


@pytest.mark.slow
def test_what_is_missing_is_named_in_one_line(drawn, tmp_path):
    with pytest.raises(ValueError, match="is not a work directory: it has no config.json"):
        write_figures(tmp_path)
    create_workdir(tmp_path, EXPERIMENT)
    with pytest.raises(ValueError, match="has no metrics yet"):
        write_figures(tmp_path)
    write_metrics(tmp_path, [{"step": 1, "elbo": -3.0}])
    with pytest.raises(ValueError, match="metrics.csv has no value of kl/00_top in its last row"):
        write_figures(tmp_path)
    write_rows(tmp_path, EXPERIMENT.model)
    with pytest.raises(ValueError, match="no checkpoint"):
        write_figures(tmp_path)
    assert not (tmp_path / "figures").exists()
    with pytest.raises(ValueError, match="averaged"):
        write_figures(drawn[0], weights="averaged")
