# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""How well scores tell outliers from inliers, and which data are scored: what needs no model."""

import dataclasses

import numpy as np
import pytest

from matnet_tf.config import DataConfig
from matnet_tf.scores import auroc, scored_data

NAMES = ["log_p", "bits_per_dim"]
NAMES += ["L>1", "log_p-L>1", "L>2", "log_p-L>2", "L>3", "log_p-L>3"]


def write_scores(path, values, levels=1):
    """A file of scores with these values `[N, columns]`."""
    header = ",".join(["index", "label", *NAMES[: 2 + 2 * levels]])
    rows = [",".join([str(i), "", *map(str, row)]) for i, row in enumerate(values)]
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def area_by_counting(outliers, inliers):
    """Pairs in which the outlier is above, and half of those in which it is level."""
    above = outliers[:, None] > inliers[None, :]
    level = outliers[:, None] == inliers[None, :]
    return (above + 0.5 * level).mean()


def test_auroc_counts_the_pairs_that_are_told_apart(tmp_path):
    generator = np.random.default_rng(0)
    # Few values, so that many pairs are level.
    out = generator.integers(0, 6, (13, 6)).astype(float)
    inner = generator.integers(2, 9, (17, 6)).astype(float)
    areas = auroc(
        write_scores(tmp_path / "out.csv", out, 2), write_scores(tmp_path / "in.csv", inner, 2)
    )
    assert list(areas) == NAMES[:6]
    for i, name in enumerate(NAMES[:6]):
        sign = -1 if name in ("log_p", "L>1", "L>2") else 1
        expected = area_by_counting(sign * out[:, i], sign * inner[:, i])
        assert areas[name] == pytest.approx(expected, rel=1e-12)
    assert areas["log_p"] > 0.7 and areas["log_p-L>1"] < 0.3


def with_other_cells(header="index,label,log_p,bits_per_dim,L>1,log_p-L>1", row="0,,1,1,1,1"):
    return f"{header}\n{row}\n"


WRONG_FILES = {
    "missing": (None, "^cannot read the scores in .*in.csv: No such file or directory$"),
    "empty": ("", "in.csv is not a file of scores by bin/score: it has other columns$"),
    "other columns": (with_other_cells("index,label,nll"), "it has other columns$"),
    "no levels": (with_other_cells("index,label,log_p,bits_per_dim"), "it has other columns$"),
    "other order": (
        with_other_cells("index,label,log_p,bits_per_dim,log_p-L>1,L>1"),
        "it has other columns$",
    ),
    "a cut row": (with_other_cells(row="0,,1,1,1"), "of one or more images, and no cut row$"),
    "a ragged row": (with_other_cells(row="0,,1,1,1,1\n1,,2"), "and no cut row$"),
    "no number": (with_other_cells(row="0,,1,x,1,1"), "must have finite scores of one or more"),
    "not finite": (with_other_cells(row="0,,1,nan,1,1"), "must have finite scores"),
    "no row": (with_other_cells(row=""), "must have finite scores"),
    "no text": ("\udcff\udcfe", "in.csv is not a file of scores by bin/score: .*decode"),
}


@pytest.mark.parametrize(("text", "message"), WRONG_FILES.values(), ids=WRONG_FILES)
def test_a_file_that_is_none_of_scores_gets_one_clear_line(text, message, tmp_path):
    if text is not None:
        (tmp_path / "in.csv").write_text(text, errors="surrogateescape")
    out = write_scores(tmp_path / "out.csv", [[1.0, 1.0, 1.0, 1.0]])
    for pair in ((out, tmp_path / "in.csv"), (tmp_path / "in.csv", out)):
        with pytest.raises(ValueError, match=message) as error:
            auroc(*pair)
        assert "\n" not in str(error.value)


def test_files_of_models_with_other_levels_do_not_compare(tmp_path):
    two = write_scores(tmp_path / "two.csv", np.ones((3, 6)), 2)
    one = write_scores(tmp_path / "one.csv", np.ones((3, 4)), 1)
    with pytest.raises(ValueError, match="two.csv has .* a model with 2 levels; expected 1 levels"):
        auroc(two, one)


# Which data.


RUN = DataConfig(name="mnist", dir="/d", draw_seed=3, validation_images=5, test_split="test[:50%]")
OTHERS = {
    "nothing": (RUN, {}, RUN),
    "a field": (RUN, {"draw_seed": 4}, dataclasses.replace(RUN, draw_seed=4)),
    "the same name": (RUN, {"name": "mnist"}, RUN),
    "a whole config": (RUN, DataConfig(name="digits"), DataConfig(name="digits")),
    "another set": (
        RUN,
        {"name": "kmnist"},
        DataConfig("kmnist", dir="/d", draw_seed=3, binarization="dynamic"),
    ),
    "another set and fields": (
        RUN,
        {"name": "kmnist", "binarization": "threshold", "dir": "", "test_split": "a"},
        DataConfig("kmnist", draw_seed=3, binarization="threshold", test_split="a"),
    ),
    "thresholded": (
        dataclasses.replace(RUN, binarization="threshold"),
        {"name": "omniglot28"},
        DataConfig("omniglot28", dir="/d", draw_seed=3, binarization="threshold"),
    ),
    "8 bits": (
        DataConfig("fashion_mnist", binarization="none"),
        {"name": "mnist"},
        DataConfig("mnist", binarization="none"),
    ),
    "dequantized": (
        DataConfig("cifar10", dequantize=True),
        {"name": "svhn_cropped"},
        DataConfig("svhn_cropped", dequantize=True, binarization="none"),
    ),
    "masked": (
        DataConfig("mnist", image_size=(14, 14), mask="quadrants", visible=2),
        {"draw_seed": 1},
        DataConfig("mnist", image_size=(14, 14), draw_seed=1),
    ),
    "masked by a file": (
        DataConfig("mnist", mask="file", mask_file="/a.png"),
        {"name": "kmnist"},
        DataConfig("kmnist", binarization="dynamic"),
    ),
    "stored binary": (
        DataConfig("binarized_mnist"),
        {"name": "omniglot28"},
        DataConfig("omniglot28", binarization="dynamic"),
    ),
}


@pytest.mark.parametrize(("run_data", "changes", "expected"), OTHERS.values(), ids=OTHERS)
def test_another_data_set_becomes_input_in_the_way_of_the_runs(run_data, changes, expected):
    assert scored_data(run_data, changes) == expected
