# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""How well scores tell outliers from inliers, and which data are scored."""

import dataclasses

import numpy as np
import pytest

from matnet_tf.config import DataConfig
from matnet_tf.evaluation.scores import auroc, scored_data

NAMES = ["log_p", "bits_per_dim"]
NAMES += ["L>1", "log_p-L>1", "L>2", "log_p-L>2", "L>3", "log_p-L>3"]


def write_scores(path, values, levels=1):
    """Writes a file of scores with these values `[N, columns]`."""
    header = ",".join(["index", "label", "class", "file", *NAMES[: 2 + 2 * levels]])
    rows = [",".join([str(i), "", "", "", *map(str, row)]) for i, row in enumerate(values)]
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def area_by_counting(outliers, inliers):
    """The share of pairs with the outlier above, ties counted by half."""
    above = outliers[:, None] > inliers[None, :]
    level = outliers[:, None] == inliers[None, :]
    return (above + 0.5 * level).mean()


def test_auroc_counts_the_pairs_that_are_told_apart(tmp_path):
    generator = np.random.default_rng(0)
    # Few values, so that there are many ties.
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


HEADER = "index,label,class,file,log_p,bits_per_dim,L>1,log_p-L>1\n"
NO_SCORES = "in.csv is not a file of scores by matnet score: "
WRONG_FILES = {
    None: "^cannot read the scores in .*in.csv: No such file or directory$",
    "": NO_SCORES + "it has other columns$",
    "index,label,nll\n0,,1,1,1,1\n": NO_SCORES + "it has other columns$",
    "index,label,class,file,log_p,bits_per_dim\n0,,,,1,1\n": "it has other columns$",  # No levels.
    "index,label,class,file,log_p,bits_per_dim,log_p-L>1,L>1\n0,,,,1,1,1,1\n": "other columns$",
    HEADER + "0,,,,1,1,1\n": "must have whole rows of finite scores, at least one$",
    HEADER + "0,,,,1,1,1,1\n1,,,,2\n": "must have whole rows of finite scores",
    HEADER + "0,,,,1,x,1,1\n": "must have whole rows of finite scores",
    HEADER + "0,,,,1,nan,1,1\n": "must have whole rows of finite scores",
    HEADER: "must have whole rows of finite scores",
    "\udcff\udcfe": NO_SCORES + ".*decode",
}


def test_a_file_that_is_not_one_of_scores_gets_one_clear_line(tmp_path):
    out = write_scores(tmp_path / "out.csv", [[1.0, 1.0, 1.0, 1.0]])
    for text, message in WRONG_FILES.items():
        if text is not None:
            (tmp_path / "in.csv").write_text(text, errors="surrogateescape")
        for pair in ((out, tmp_path / "in.csv"), (tmp_path / "in.csv", out)):
            with pytest.raises(ValueError, match=message) as error:
                auroc(*pair)
            assert "\n" not in str(error.value)
    two = write_scores(tmp_path / "two.csv", np.ones((3, 6)), 2)
    with pytest.raises(ValueError, match="two.csv has .* a model with 2 levels; expected 1 levels"):
        auroc(two, out)


RUN = DataConfig(name="mnist", dir="/d", draw_seed=3, validation_images=5, test_split="test[:50%]")
MASKED = DataConfig("mnist", image_size=(14, 14), mask="quadrants", visible=2)
CHANGED = {"name": "kmnist", "binarization": "threshold", "dir": "", "test_split": "a"}


CHANGES = (
    (RUN, {}, RUN),
    (RUN, {"draw_seed": 4}, dataclasses.replace(RUN, draw_seed=4)),
    (RUN, {"name": "mnist"}, RUN),
    (RUN, DataConfig(name="digits"), DataConfig(name="digits")),  # A whole config.
    (RUN, CHANGED, DataConfig("kmnist", draw_seed=3, binarization="threshold", test_split="a")),
    (MASKED, {"draw_seed": 1}, DataConfig("mnist", image_size=(14, 14), draw_seed=1)),
)
ANOTHER_SET = (
    (RUN, DataConfig("a", dir="/d", draw_seed=3, binarization="dynamic")),
    (DataConfig("mnist", binarization="threshold"), DataConfig("a", binarization="threshold")),
    (DataConfig("mnist", binarization="none"), DataConfig("a", binarization="none")),
    (DataConfig("cifar10", "", "none", dequantize=True), DataConfig("a", "", "none", True)),
    (DataConfig("mnist", mask="file", mask_file="/a"), DataConfig("a", binarization="dynamic")),
    (DataConfig("binarized_mnist"), DataConfig("a", binarization="dynamic")),
)


def test_another_data_set_is_preprocessed_as_the_runs():
    for run, changes, expected in (*CHANGES, *((r, {"name": "a"}, e) for r, e in ANOTHER_SET)):
        assert scored_data(run, changes) == expected
