# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Areas and curves show the right numbers, in the right colours and under the right names."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from matnet_tf.plots.curves import bit_areas, kl_area, kl_bars, training_curves

STEPS = [100, 200, 300]
KL = {
    "00_top": [1.0, 2.0, 3.0],
    "01_7x7": [0.5, 0.25, 4.0],
    "02_7x7": [0.0, 1.0, 1.5],
    "03_14x14": [2.0, 2.0, 0.125],
}


def drawn_areas(figure, panel=0):
    """Lower and upper edge of each filled area of a panel, at the steps."""
    found = []
    for area in figure.axes[panel].collections:
        x, y = area.get_paths()[0].vertices.T
        found.append([(min(y[x == step]), max(y[x == step])) for step in np.unique(x)])
    return np.array(found)


def line(axes, label):
    return next(one for one in axes.lines if one.get_label() == label)


def test_the_stacked_areas_are_the_cumulative_sums():
    areas = drawn_areas(kl_area(STEPS, KL))
    upper = np.cumsum(list(KL.values()), axis=0)
    lower = upper - list(KL.values())
    np.testing.assert_allclose(areas[..., 0], lower)
    np.testing.assert_allclose(areas[..., 1], upper)


def test_dark_lines_run_between_scales_and_light_ones_between_modules():
    axes = kl_area(STEPS, KL).axes[0]
    upper = np.cumsum(list(KL.values()), axis=0)
    dark = [one.get_ydata() for one in axes.lines if max(to_rgb(one.get_color())) < 0.3]
    light = [one.get_ydata() for one in axes.lines if min(to_rgb(one.get_color())) > 0.9]
    np.testing.assert_allclose(dark, upper[[0, 2, 3]])
    np.testing.assert_allclose(light, upper[[1]])


def test_a_scale_has_one_hue_that_pales_from_module_to_module():
    levels = ["00_top", "01_fc", "02_fc", "03_fc", "04_4x4", "05_4x4"]
    figure = kl_area([1, 2], {name: [1.0, 1.0] for name in levels})
    colours = [a.get_facecolor()[0][:3] for a in figure.axes[0].collections]
    for scale in (colours[1:4], colours[4:]):
        base = scale[0]
        for paler, next_one in zip(scale, scale[1:], strict=False):
            assert (next_one >= paler).all()
            assert next_one.sum() > paler.sum() + 0.1
        # A mixture with white keeps the direction from white.
        direction = (1 - scale[-1]) / np.linalg.norm(1 - scale[-1])
        np.testing.assert_allclose(direction, (1 - base) / np.linalg.norm(1 - base), atol=1e-6)
    assert np.abs(colours[1] - colours[4]).max() > 0.3


def test_the_legend_names_the_scales_in_the_order_of_the_stack_and_the_last_nats():
    axes = kl_area(STEPS, KL).axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "14x14, 1 level: 0.1 nats",
        "7x7, 2 levels: 5.5 nats",
        "top, 1 level: 3.0 nats",
    ]
    assert axes.get_xlabel() == "training step"
    assert "nats" in axes.get_ylabel()


def test_a_single_step_is_a_bar_around_it():
    figure = kl_area([500], {name: values[:1] for name, values in KL.items()})
    areas = drawn_areas(figure)
    assert areas.shape == (4, 2, 2)
    np.testing.assert_allclose(areas[:, 0, 1], [1.0, 1.5, 1.5, 3.5])
    np.testing.assert_allclose(areas[:, 0], areas[:, 1])
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["500"]
    assert axes.get_xlim() == (499.5, 500.5)


def test_bars_show_every_level_and_which_are_dead():
    axes = kl_bars({"00_top": 3.0, "01_fc": 0.002, "02_fc": 0.0}).axes[0]
    heights = [bar.get_height() for bar in axes.patches]
    np.testing.assert_allclose(heights, [3.0, 0.002, 0.001])
    colours = [bar.get_facecolor() for bar in axes.patches]
    assert colours[1] == colours[2] != colours[0]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["00_top", "01_fc", "02_fc"]


def test_runs_side_by_side_have_their_own_areas_and_one_axis():
    bits = KL | {"04_pixels": [5.0, 4.5, 4.0]}
    local = {"00_top": [0.5, 0.25], "01_pixels": [3.0, 2.5]}
    figure = bit_areas([("plain", STEPS, bits), ("local", [50, 100], local)])
    np.testing.assert_allclose(drawn_areas(figure)[:, :, 1], np.cumsum(list(bits.values()), 0))
    np.testing.assert_allclose(drawn_areas(figure, 1)[:, :, 1], np.cumsum(list(local.values()), 0))
    first, second = figure.axes
    assert first.get_ylim() == second.get_ylim() == (0, pytest.approx(1.06 * 12.625))
    assert [axes.get_title("left") for axes in (first, second)] == ["plain", "local"]
    texts = [text.get_text() for text in second.get_legend().get_texts()]
    assert texts == ["pixels: 2.500 bits/dim", "top, 1 level: 0.250 bits/dim"]
    about = "4 levels, at the last step\n(of a scale, the top one is darkest)"
    assert first.get_legend().get_title().get_text() == about


def test_rows_with_nan_are_left_out_of_the_area():
    kl = {"00_top": [1.0, np.nan, 3.0], "01_fc": [1.0, 5.0, 3.0]}
    areas = drawn_areas(kl_area(STEPS, kl))
    np.testing.assert_allclose(areas[..., 1], [[1, 3], [2, 6]])


def test_a_peak_at_the_start_does_not_flatten_the_rest():
    steps = np.arange(1, 101) * 10
    kl = np.full(100, 20.0)
    kl[:5] = 900.0
    low, high = kl_area(steps, {"00_top": kl}).axes[0].get_ylim()
    assert low == 0
    assert 20 < high < 25


def test_figures_refuse_what_they_cannot_draw():
    for call, message in (
        (lambda: kl_area(STEPS, {}), "value; got {}"),
        (lambda: kl_area(STEPS, {"00_top": [1.0]}), "each of 3 steps a value; got {'00_top': 1}"),
        (lambda: kl_area(STEPS, {"00_top": [np.nan] * 3}), "of finite values; got none in 3 rows"),
        (lambda: bit_areas([]), "at least one run; got none"),
        (lambda: training_curves([]), "at least one row of metrics; got none"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def metrics(steps=STEPS):
    keys = {"elbo": -80, "log_likelihood": -60, "kl": 20, "learning_rate": 1e-3}
    keys |= {"val_elbo": -82, "val_elbo_averaged": -81.5}
    return [{"step": s} | {key: last - 1000 / s for key, last in keys.items()} for s in steps]


def test_the_curves_are_the_rows_and_carry_labels():
    rows = metrics()
    figure = training_curves(rows)
    elbo, log_likelihood, kl, learning_rate = figure.axes
    for axes, label, key in (
        (elbo, "training", "elbo"),
        (elbo, "validation, raw weights", "val_elbo"),
        (elbo, "validation, averaged weights", "val_elbo_averaged"),
        (log_likelihood, "training", "log_likelihood"),
        (kl, "training", "kl"),
        (learning_rate, "learning rate", "learning_rate"),
    ):
        drawn = line(axes, label)
        np.testing.assert_array_equal(drawn.get_xdata(), STEPS)
        np.testing.assert_array_equal(drawn.get_ydata(), [row[key] for row in rows])
    names = [text.get_text() for text in elbo.get_legend().get_texts()]
    assert names == ["training", "validation, raw weights", "validation, averaged weights"]
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["ELBO", "log-likelihood", "KL", "learning rate"]
    assert all("nats" in axes.get_ylabel() for axes in (elbo, log_likelihood, kl))
    # The weight of the KL stands beside the curves that it bends, if it varies.
    figure = training_curves([row | {"kl_weight": row["step"] / 100} for row in rows], "a run")
    assert figure.get_suptitle() == "a run"
    (weight,) = [axes for axes in figure.axes if axes.get_ylabel() == "weight in the loss (dashed)"]
    np.testing.assert_allclose(weight.lines[0].get_ydata(), np.array(STEPS) / 100)


def test_curves_leave_out_what_is_missing_none_or_nan():
    rows = metrics()
    for row in rows:
        del row["val_elbo_averaged"]
    rows[0]["val_elbo"], rows[1]["elbo"] = None, float("nan")
    elbo = training_curves(rows).axes[0]
    assert len(elbo.lines) == 2
    np.testing.assert_array_equal(line(elbo, "validation, raw weights").get_xdata(), [200, 300])
    np.testing.assert_array_equal(line(elbo, "training").get_xdata(), [100, 300])


def test_one_row_is_a_visible_point():
    for axes in training_curves(metrics([100])).axes:
        assert all(one.get_marker() == "o" for one in axes.lines)
        low, high = axes.get_ylim()
        assert low < axes.lines[0].get_ydata()[0] < high


def test_the_range_of_a_curve_is_that_of_the_last_nine_tenths():
    rows = metrics(range(1, 101))
    low, high = training_curves(rows).axes[0].get_ylim()
    assert -82 - 1000 / 10 - 20 < low < -82 - 1000 / 10  # The lowest curve at step 10.
    assert -90 < high < -80
