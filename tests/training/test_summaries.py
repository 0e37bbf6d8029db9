# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""TensorBoard reads what the callback writes, and what is written again is the same."""

import io

import keras
import matplotlib.image
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from matnet_tf.config import ModelConfig, Scale
from matnet_tf.model.matnet import MatNet
from matnet_tf.plots import curves, drawing
from matnet_tf.training.summaries import Summaries

pytestmark = pytest.mark.usefixtures("module_eagerly")

PICTURES = ["kl_area", "kl_levels", "samples", "reconstructions"]
IMAGES = (np.random.RandomState(0).rand(3, 8, 8, 1) > 0.5).astype(np.float32)


def row_at(step, model):
    kl = {f"kl/{name}": 1.0 + i for i, name in enumerate(model.config.level_names)}
    rest = {"elbo": -90.0 - step, "log_likelihood": -70.5, "kl": sum(kl.values())}
    return {"step": step, **rest, **kl, "learning_rate": 1e-3}


def read(folder):
    """Scalars as {tag: {step: [values]}}, pictures as {tag: {step: [arrays]}}."""
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0, "images": 0, "scalars": 0})
    events.Reload()
    scalars, drawn = {}, {}
    for tag in events.Tags()["tensors"]:
        for event in events.Tensors(tag):
            value, into = tf.make_ndarray(event.tensor_proto), scalars
            if tag in PICTURES:
                _width, _height, png = value
                rgb = matplotlib.image.imread(io.BytesIO(png), format="png")[..., :3]
                value, into = np.rint(rgb * 255).astype(np.uint8), drawn
            into.setdefault(tag, {}).setdefault(event.step, []).append(value)
    return scalars, drawn


TINY = ModelConfig((8, 8, 1), (Scale(1, 16, 4, 2),), top_latents=4, top_units=16)


@pytest.fixture(scope="module")
def model():
    """Tests must not train it."""
    return MatNet(TINY, seed=3)


def make(folder, model, rows=(), images=IMAGES):
    summaries = Summaries(folder, images, seed=5, read_rows=lambda: rows)
    summaries.set_model(model)
    return summaries


def test_scalars_are_written_under_their_names(tmp_path, model):
    summaries = make(tmp_path, model)
    row = row_at(100, model) | {"kl_weight": float("nan"), "seconds": 2}
    held_out = {"val_elbo": -99.0, "val_elbo_averaged": None}
    summaries.write(100, row | held_out, pictures=False)
    scalars, drawn = read(tmp_path)  # Readable before the file is closed.
    assert read(tmp_path / "validation") == ({"elbo": {100: [-99.0]}}, {})
    summaries.on_train_end()
    left_out = {"step", "kl_weight"}  # None and NaN are.
    expected = {tag: {100: [np.float32(v)]} for tag, v in row.items() if tag not in left_out}
    assert scalars == expected
    assert {"kl/00_top", "kl/01_fc", "kl/02_fc"} <= set(scalars)
    assert drawn == {}
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    about = {tag: events.SummaryMetadata(tag).summary_description for tag in scalars}
    assert about["elbo"].startswith("Bound on log p(x)") and "level" in about["kl/01_fc"]


@pytest.mark.slow
def test_pictures_show_samples_reconstructions_and_the_kl(tmp_path, model):
    rows = [row_at(50, model), row_at(100, model)]
    summaries = make(tmp_path, model, rows)
    summaries.write(100, rows[-1], pictures=True)
    drawn = {tag: by_step[100][0] for tag, by_step in read(tmp_path)[1].items()}
    assert sorted(drawn) == sorted(PICTURES)

    seed = np.array([0, 5], np.int32)
    trace = model.hierarchy.top_down_pass(None, 9, seed)
    samples = model.hierarchy.p_x(trace).mean()
    np.testing.assert_array_equal(drawn["samples"], drawing.image_grid(samples, 3))

    rebuilt = [(f"keep top {k} of 3", model.reconstruct(IMAGES, k, seed=5)) for k in range(4)]
    expected = drawing.figure_to_array(drawing.reconstruction_grid(IMAGES, rebuilt))
    # The last bit may differ between two passes, and the picture by one grey level.
    assert np.abs(drawn["reconstructions"].astype(int) - expected).max() <= 1

    kl = {name: [1.0 + i] * 2 for i, name in enumerate(model.config.level_names)}
    expected = drawing.figure_to_array(curves.kl_area([50, 100], kl))
    np.testing.assert_array_equal(drawn["kl_area"], expected)


@pytest.mark.slow
def test_a_step_written_again_after_a_crash_is_written_equal(tmp_path, model):
    rows = [row_at(50, model), row_at(100, model)]
    make(tmp_path, model, rows).write(100, rows[-1], pictures=True)
    # The crashed run had gone further; the resumed one does not have the row of this step yet.
    for later in ([*rows, row_at(150, model) | {"kl/00_top": 99.0}], rows[:1]):
        make(tmp_path, model, later).write(100, rows[-1], pictures=True)
    for found in read(tmp_path):
        assert found
        for by_step in found.values():
            first, *others = by_step[100]
            assert len(others) == 2
            for other in others:
                np.testing.assert_array_equal(first, other)


@pytest.mark.slow
def test_other_weights_give_other_pictures(tmp_path, model):
    make(tmp_path / "a", model).write(1, row_at(1, model), pictures=True)
    make(tmp_path / "b", MatNet(TINY, seed=4)).write(1, row_at(1, model), pictures=True)
    (_, a), (_, b) = read(tmp_path / "a"), read(tmp_path / "b")
    assert (a["samples"][1][0] != b["samples"][1][0]).any()
    assert (a["reconstructions"][1][0] != b["reconstructions"][1][0]).any()
    np.testing.assert_array_equal(a["kl_area"][1][0], b["kl_area"][1][0])


def test_a_folder_that_cannot_be_made_is_one_error(tmp_path, model):
    (tmp_path / "file").write_text("")
    summaries = make(tmp_path / "file", model)
    with pytest.raises(OSError, match="^the summaries in .*file could not be written: "):
        summaries.write(3, row_at(3, model), pictures=False)


def test_the_end_of_training_closes_the_file_and_a_later_write_opens_another(tmp_path, model):
    summaries = Summaries(tmp_path, IMAGES, seed=5, read_rows=list)
    training = keras.callbacks.CallbackList([summaries], model=model)  # As `fit` makes it.
    training.on_train_begin()
    summaries.write(1, row_at(1, model), pictures=True)
    summaries.write(2, row_at(2, model), pictures=False)
    training.on_train_end()
    assert len(list(tmp_path.glob("events.*"))) == 1
    summaries.on_train_end()  # Closing twice does no harm.
    summaries.write(3, row_at(3, model), pictures=False)
    assert len(list(tmp_path.glob("events.*"))) == 2
    scalars, drawn = read(tmp_path)
    assert scalars["elbo"] == {1: [-91.0], 2: [-92.0], 3: [-93.0]}
    assert {tag: list(by_step) for tag, by_step in drawn.items()} == dict.fromkeys(PICTURES, [1])


def test_images_of_another_shape_are_refused_when_training_starts(tmp_path, model):
    model.compile()
    summaries = Summaries(tmp_path, np.zeros((2, 9, 9, 1), np.float32), 0, list)
    with pytest.raises(ValueError, match=r"images must have shape \(batch, 8, 8, 1\)"):
        model.fit(IMAGES, batch_size=3, callbacks=[summaries], verbose=0)
    assert int(model.step.numpy()) == 0


def test_without_images_only_numbers_are_written(tmp_path, model):
    for name, images in (("none", None), ("empty", IMAGES[:0])):
        make(tmp_path / name, model, images=images).write(1, row_at(1, model), pictures=True)
        scalars, drawn = read(tmp_path / name)
        assert "elbo" in scalars and drawn == {}


def test_a_kl_that_is_nan_from_the_start_leaves_out_only_its_picture(tmp_path, model):
    row = row_at(1, model) | {"kl/00_top": float("nan")}
    make(tmp_path, model).write(1, row, pictures=True)
    assert sorted(read(tmp_path)[1]) == ["reconstructions", "samples"]
