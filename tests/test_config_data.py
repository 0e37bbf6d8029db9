# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The settings of the data: what does not go together, and what is out of range."""

import dataclasses
import re

import pytest

from matnet_tf.config import DataConfig
from matnet_tf.flags import parse
from matnet_tf.serialization import from_json, to_json

# A value of each field that belongs to one kind of mask, other than its default.
OF_ONE_KIND = {
    "visible": ("quadrants", 2),
    "quadrant_order": ("quadrants", "random"),
    "occluders": ("occluders", 1),
    "occluder_size": ("occluders", (20, 10)),
    "known_share": ("pixels", 0.0),
    "half": ("half", "top"),
    "mask_file": ("file", "mask.png"),
}
REFUSED = [
    # settings, message
    *(
        (
            {"dequantize": True, "binarization": kind},
            f"dequantize is for images that are not binarized; got binarization '{kind}'",
        )
        for kind in ("dynamic", "threshold")
    ),
    ({"name": ""}, "DataConfig.name must name a data set; got ''"),
    ({"name": 3}, "DataConfig.name must be a str; got 3"),
    ({"binarization": "fixed"}, "DataConfig.binarization must be one of"),
    ({"validation_images": -1}, "DataConfig.validation_images must be at least 0"),
    ({"draw_seed": -1}, "DataConfig.draw_seed must be at least 0"),
    ({"test_split": "train"}, "train_split and test_split must differ; both are 'train'"),
    ({"image_size": 64}, "DataConfig.image_size must be a list; got 64"),
    *(
        (
            {"image_size": size},
            "DataConfig.image_size must be empty or height and width, whole numbers of at least "
            f"1; got {size}",
        )
        for size in ((64,), (64, 64, 3), (64, 0), (64.0, 64), (True, 64), ("64", "64"))
    ),
    ({"mask": "circles"}, "DataConfig.mask must be one of .*; got 'circles'"),
    *(
        ({name: value}, f"DataConfig.{name} goes with mask '{kind}'; got {value!r} with 'none'")
        for name, (kind, value) in OF_ONE_KIND.items()
    ),
    (
        {"mask": "half", "visible": 2},
        "DataConfig.visible goes with mask 'quadrants'; got 2 with 'half'",
    ),
    *(
        ({"mask": "quadrants", "visible": n}, f"DataConfig.visible must lie in [1, 3]; got {n}")
        for n in (0, 4)
    ),
    ({"mask": "quadrants", "visible": 1.5}, "DataConfig.visible must be a whole number; got 1.5"),
    ({"mask": "quadrants", "quadrant_order": "any"}, "DataConfig.quadrant_order must be one of"),
    ({"mask": "occluders", "occluders": 0}, "DataConfig.occluders must be at least 1; got 0"),
    ({"mask": "occluders", "occluder_size": 20}, "DataConfig.occluder_size must be a list; got 20"),
    *(
        (
            {"mask": "occluders", "occluder_size": size},
            "DataConfig.occluder_size must be height and width, whole numbers of at least 1; got "
            f"{size}",
        )
        for size in ((), (20,), (0, 20), (20, 20.5))
    ),
    *(
        (
            {"mask": "pixels", "known_share": share},
            f"DataConfig.known_share must lie in [0, 1); got {share}",
        )
        for share in (-0.1, 1.0)
    ),
    ({"mask": "half", "half": "upper"}, "DataConfig.half must be one of .*; got 'upper'"),
    ({"mask": "file"}, "DataConfig.mask 'file' needs a mask_file; got ''"),
]


@pytest.mark.parametrize(("settings", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_wrong_settings_of_the_data_are_refused_in_one_line(settings, message):
    with pytest.raises(ValueError) as caught:
        DataConfig(**settings)
    pattern = ".*".join(re.escape(part) for part in message.split(".*"))
    assert re.search(pattern, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "kind", "value"), [(n, *v) for n, v in OF_ONE_KIND.items()])
def test_settings_of_masks_go_with_their_kind(name, kind, value):
    assert getattr(DataConfig(mask=kind, **{name: value}), name) == value


def test_sizes_survive_json_and_flags_as_pairs():
    config = DataConfig(image_size=[48, 64], mask="occluders", occluder_size=[5, 7])
    assert (config.image_size, config.occluder_size) == ((48, 64), (5, 7))
    assert from_json(DataConfig, to_json(config)) == config
    given = ("--image_size=48,64", "--mask=occluders", "--occluder_size=5,7")
    assert parse(DataConfig, (), given) == ([config], {})
    assert parse(DataConfig, (), ["--image_size="]) == ([DataConfig()], {})


@pytest.mark.parametrize(("name", "kind", "value"), [(n, *v) for n, v in OF_ONE_KIND.items()])
def test_without_masks_the_rest_is_as_it_was(name, kind, value):
    rest = {"name": "mnist", "draw_seed": 3, "image_size": (9, 8)}
    masked = DataConfig(mask=kind, **rest, **({"mask_file": "a"} if kind == "file" else {}))
    masked = dataclasses.replace(masked, **{name: value})
    assert masked.unmasked() == DataConfig(**rest)
