# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Figures of components show the images assigned to them, and draws from them."""

import matplotlib.image
import numpy as np
import pytest

from matnet_tf.config import DataConfig, ModelConfig, Scale
from matnet_tf.data import loading
from matnet_tf.model.matnet import MatNet
from matnet_tf.plots import classes, drawing

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("module_eagerly")]


@pytest.fixture(scope="module")
def figures(module_eagerly, tmp_path_factory):
    """A model with a mixture, images, their probabilities, and the folder of the figures."""
    scales = (Scale(1, 8, 2, 2),)
    config = ModelConfig((8, 8, 1), scales, top_latents=3, top_units=8, mixture_components=5)
    model, folder = MatNet(config), tmp_path_factory.mktemp("figures")
    model.hierarchy.top_down.latent_scale.assign(3.0)
    x = next(iter(loading.load(DataConfig(), "test").evaluation_dataset(8, range(8)))).numpy()
    p = 0.05 + 0.75 * np.eye(5)[[0, 1, 1, 1, 4, 4, 4, 4]]
    p[6] = [0.04, 0.04, 0.04, 0.04, 0.84]
    shown, save = [], drawing.save
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            drawing, "save", lambda figure, path: shown.append(figure) or save(figure, path)
        )
        paths = classes.write_class_figures(folder, model, x, p, groups=2, seed=4)
    assert paths == [str(folder / "classes.png"), str(folder / "components.png")]
    return model, x, folder, shown


def drawn(path):
    return np.rint(matplotlib.image.imread(path)[..., :3] * 255).astype(int)[::2, ::2]


def test_classes_show_images_above_what_is_left_of_their_top_levels(figures):
    model, x, folder, (figure, _) = figures
    picture, chosen = drawn(folder / "classes.png"), x[[6, 4, 5, 1, 2, 3]]
    side, top, group = 56, 20, 3 * 56 + 2
    left = picture.shape[1] - 8 - 2 * group - 16
    assert picture.shape[0] == top + side + 8 + 3 * side + 2 + 8, "images, and top 1, 2 and 3 of 3"
    rows = [(top, chosen)]
    for kept in (1, 2, 3):
        y = top + side + 8 + (kept - 1) * (side + 1)
        rows.append((y, model.reconstruct(chosen, kept, seed=4).numpy()))
    for y, images in rows:
        for i, start in enumerate((left, left + group + 16)):
            grid = drawing.image_grid(images[3 * i : 3 * i + 3], 3)
            found = picture[y : y + side, start : start + group]
            assert np.abs(found - grid).max() <= 1  # Two passes may differ in the last bit.
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["component 4", "component 1"]
    labels = ["images", *(f"keep top {k} of 3" for k in (1, 2, 3))]
    assert [text.get_text() for text in axes.get_yticklabels()] == labels


def test_components_show_free_draws_of_the_most_used_ones(figures):
    model, _, folder, (_, figure) = figures
    draws = model.sample(30, seed=4, component=np.repeat([4, 1, 0], 10)).numpy()
    grid, picture = drawing.image_grid(draws, 10), drawn(folder / "components.png")
    height, width = grid.shape[:2]
    assert picture.shape[0] == height + 16
    found = picture[8 : 8 + height, picture.shape[1] - 8 - width : -8]
    np.testing.assert_array_equal(found, grid)
    labels = [f"component {c}, {count} assigned" for c, count in ((4, 4), (1, 3), (0, 1))]
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == labels


def test_without_three_images_of_a_component_there_is_no_figure_of_classes(figures, tmp_path):
    model, x, *_ = figures
    # A figure of an earlier run would look like one of this run.
    (tmp_path / "classes.png").write_text("old")
    paths = classes.write_class_figures(tmp_path, model, x[:4], np.eye(5)[[0, 0, 1, 1]])
    assert paths == [str(tmp_path / "components.png")]
    assert [path.name for path in tmp_path.iterdir()] == ["components.png"]


def test_the_examples_are_the_most_surely_assigned_images_of_large_components():
    p = np.full((14, 4), 0.01)
    of = np.array([0, 0, 1, 1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3])
    sure = [0.9, 0.9, 0.5, 0.7, 0.7, 0.6, 0.8, 0.9, 0.8, 0.8, 0.801, 0.8, 0.8, 0.8]
    p[np.arange(14), of] = sure
    found = classes.example_images(p, groups=6)
    # 2 and 3 differ by less than a percent, and 3 has more images; 0 has only two images.
    assert list(found) == [3, 2, 1]
    assert [list(images) for images in found.values()] == [[10, 9, 11], [7, 6, 8], [3, 4, 5]]
    assert list(classes.example_images(p, groups=2)) == [3, 2]
    assert classes.example_images(p[:2], groups=6) == {}
    for levels, kept in ((2, [1, 2]), (5, [1, 2, 4, 5]), (11, [1, 2, 4, 6, 8, 10])):
        assert classes.kept_levels(levels) == kept
