# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The parts of the page, without the page: pictures, captions, scores, and lines about errors."""

import base64
import html
import io
import re
import socket
import sys
import types

import numpy as np
import pytest
from PIL import Image

from matnet_tf import ConditionalMatNet, MatNet, ModelConfig, Scale, presets
from matnet_tf.config import DataConfig, Experiment, ExploreConfig
from matnet_tf.evaluation.scores import image_scores
from matnet_tf.explore import serve
from matnet_tf.explore.examples import Examples, load_examples
from matnet_tf.explore.pictures import canvas_of, of_canvas
from matnet_tf.explore.views import Views
from matnet_tf.runs.workdir import read_experiment

pytestmark = pytest.mark.slow
OPTIONS = {"top_latents": 2, "top_units": 4}
SCALES = (Scale(1, 4, 2, 2),)
CONFIG = ModelConfig((8, 6, 1), SCALES, **OPTIONS)
COLOUR = ModelConfig((8, 6, 3), SCALES, likelihood="logistic", conditional_stages=1, **OPTIONS)
X = np.random.default_rng(1).integers(0, 2, [3, 8, 6, 1]).astype(np.float32)
KNOWN = np.ones((8, 6), bool)
KNOWN[2:5, 1:4] = False


@pytest.fixture(scope="module")
def views(module_eagerly):
    return Views(MatNet(CONFIG, seed=1), Examples(X, None, "3 of 9 test images of dots"), 2)


@pytest.fixture(scope="module")
def filling(module_eagerly):
    x = np.random.default_rng(2).integers(0, 256, [1, 8, 6, 3]).astype(np.float32) / 255
    return Views(ConditionalMatNet(COLOUR, seed=1), Examples(x, KNOWN[None], "1 test image"))


def pictures_in(text):
    files = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    return [np.array(Image.open(io.BytesIO(base64.b64decode(file)))) for file in files]


def caption(text):
    found = re.findall("<figcaption>(.*?)</figcaption>", text)
    return html.unescape(found[0])


def test_a_canvas_gives_back_what_it_got(views, filling):
    for shown, index in ((views, 2), (filling, 0)):
        picture, known = of_canvas(shown.model, shown.example(index))
        np.testing.assert_array_equal(picture, np.rint(255 * shown.examples.x[index]))
        np.testing.assert_array_equal(known, KNOWN if shown is filling else True)


def test_there_is_a_first_question_of_every_kind(views, filling):
    answers = [ask() for ask in (*views.first_questions(), *filling.first_questions())]
    starts = ["The image, and", "From the first", "Images from the prior", "log p(x) is", "6 compl"]
    assert len(answers) == len(starts)
    assert all(map(str.startswith, map(caption, answers), starts))


def test_levels_show_the_image_and_every_number_of_kept_levels(views):
    text = views.levels(views.example(0), 1, 5)
    image, kept, *row = pictures_in(text)
    np.testing.assert_array_equal(image, 255 * X[0, ..., 0])
    expected = [views.model.reconstruct(X[:1], k, seed=[5])[0, ..., 0] for k in range(4)]
    np.testing.assert_allclose(row, 255 * np.stack(expected), atol=1)
    np.testing.assert_array_equal(kept, row[1])
    assert "with the top 1 of 3 levels: they are drawn given the image, the 2" in caption(text)
    assert len(set(re.findall('alt="([^"]+)"', text))) == 5


def test_images_between_two_say_which_levels_are_mixed(views):
    names = views.model.config.level_names
    text = views.between(views.example(0), views.example(1), [names[0]], 3)
    expected = views.model.interpolate(X[:1], X[1:2], 8, [0], seed=[3])[:, 0, ..., 0]
    np.testing.assert_allclose(pictures_in(text), 255 * expected.numpy(), atol=1)
    assert "latents of 1 levels are mixed linearly, those of the other 2 drawn" in caption(text)


def test_samples_follow_the_temperatures(views):
    still = pictures_in(views.sample(1, 0.0, 0.0))
    assert len(still) == 16 and all(np.array_equal(still[0], other) for other in still)
    moving = pictures_in(views.sample(1, 1.0, 1.0))
    assert any(not np.array_equal(moving[0], other) for other in moving)


def test_scores_say_where_the_image_stands_among_the_test_images(views):
    before = views.score(views.example(0))
    assert "not compared yet" in before and "%" not in before
    progress = [*views.compare()]
    assert len(progress) == 4 and "1 of 3" in progress[1] and progress[3] == ""
    table = views.score(views.example(1))
    rows = re.findall(r"<tr><th>([^<]*)</th><td>(.*?)</td><td>(.*?)%</td></tr>", table)
    scores = [image_scores(views.model, X[i : i + 1], 2, [0]) for i in range(3)]
    assert [html.unescape(name) for name, *_ in rows] == list(scores[0])
    for name, value, share in rows:
        column = np.array([float(one[html.unescape(name)][0]) for one in scores])
        np.testing.assert_allclose(float(value), column[1], atol=0.006)
        assert int(share) == round(100 * np.mean(column < column[1] - 1e-9)), name
    assert "(3 of 9 test images of dots) have lower values" in caption(table)
    assert [*views.compare()] == [""], "they are scored once"


def test_completions_keep_what_is_known(filling):
    text = filling.complete(filling.example(0), 1.0, 4)
    found, picture = np.stack(pictures_in(text)), np.rint(255 * filling.examples.x[0])
    assert found.shape == (7, 8, 6, 3) and "6 completions of the 9 hidden" in caption(text)
    assert (found[:, KNOWN] == picture[KNOWN]).all()
    np.testing.assert_allclose(found[6], found[:6].mean(axis=0), atol=0.51)
    assert "Paint over what" in filling.complete(canvas_of(found[0]), 1.0, 4)


def save(path, kind):
    rows = (np.arange(40 * 60).reshape(40, 60) % 251).astype(np.uint8)
    if kind == "text":
        path.write_text("not a picture")
    elif kind == "deep":
        Image.fromarray(rows.astype(np.uint16)).save(path)
    elif kind == "huge":
        Image.new("1", (5000, 4001)).save(path)
    else:
        Image.fromarray(rows).convert(kind).save(path)
    return str(path)


@pytest.mark.parametrize("kind", ["L", "RGB", "RGBA", "P"])
def test_uploads_are_fitted_to_the_model(views, filling, kind, tmp_path):
    file = save(tmp_path / "a.png", kind)
    for shown, what in ((views, "6 pixels, black and white"), (filling, "6 pixels, colour")):
        canvas, line = shown.uploaded(file)
        picture, known = of_canvas(shown.model, canvas)
        assert f"Resized to 8x{what}" in line and known.all()
        assert set(np.unique(picture)) <= {0, 255} if shown is views else picture.std() > 0


def test_what_cannot_be_answered_is_one_line(views, tmp_path):
    for kind, expected in {
        "text": "it is not a PNG, JPEG, WebP or BMP image",
        "deep": "it has pixels of mode I;16; expected 8-bit grey or colour",
        "huge": "it has 4001x5000 pixels; at most 20 megapixels are read",
    }.items():
        canvas, line = views.uploaded(save(tmp_path / "a.png", kind))
        assert canvas is None and expected in html.unescape(line), line
    image = views.example(0)
    for index, got in {3: "3", -1: "-1", 1.5: "1.5", None: "None"}.items():
        canvas, line = views.chosen(index)
        expected = f"the test image must be a whole number from 0 to 2; got {got}"
        assert canvas is None and expected in html.unescape(line)
    for line, expected in {
        views.levels(None, 1, 0): "the page sent no picture",
        views.levels({"image": "data:,", "hidden": "x"}, 1, 0): "the page sent no picture",
        views.levels(canvas_of(np.zeros((4, 4, 1), np.uint8)), 1, 0): "must have 8x6 pixels",
        views.levels(image, 9, 0): "the number of levels must be a whole number from 0 to 3",
        views.levels(image, 1, None): "the seed must be a whole number from 0 to",
        views.levels(image, None, 0): "the number of levels must be a whole number from 0 to 3",
        views.sample(0, -1.0, 1.0): "a temperature must be a number of at least 0; got -1.0",
        views.sample(0, 1.0, None): "a temperature must be a number of at least 0; got None",
    }.items():
        assert line.startswith('<p class="error"') and expected in html.unescape(line), line


def test_test_images_are_those_of_the_data_or_of_the_preset(tmp_path):
    folder = presets.trained("digits")
    experiment = read_experiment(folder)
    found = load_examples(folder, experiment, 100)
    assert found.x.shape == (100, 8, 8, 1) and found.source == "100 of 297 test images of digits"
    missing = Experiment(experiment.model, DataConfig(name="mnist", dir=str(tmp_path)))
    own = load_examples(folder, missing, 100)
    np.testing.assert_array_equal(own.x, found.x[:10])
    with pytest.raises(ValueError, match="has shape|is not prepared"):
        load_examples(tmp_path, missing, 100)


def test_a_port_that_is_taken_and_a_missing_framework_are_one_line(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setitem(sys.modules, "matnet_tf.explore.page", types.ModuleType("page"))
        with pytest.raises(ValueError, match=f"port {port} cannot be used: Address already in use"):
            serve.serve(presets.trained("digits"), ExploreConfig(port=port))
    monkeypatch.delitem(sys.modules, "matnet_tf.explore.page")
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ImportError, match=r"pip install 'matnet-tf\[explore\]'"):
        serve.serve(presets.trained("digits"), ExploreConfig())
