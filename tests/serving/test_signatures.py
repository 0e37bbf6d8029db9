# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The functions of the signatures against the methods of the models, and what they refuse."""

import functools
import itertools

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from served_models import (
    CONFIGS,
    EXPORTED,
    VARIANTS,
    answered,
    as_arrays,
    assert_close,
    inputs_of,
    make_model,
)

from matnet_tf.data import image_files
from matnet_tf.model.hierarchy import Hierarchy
from matnet_tf.serving import input_checks
from matnet_tf.serving.signatures import signatures_of

pytestmark = pytest.mark.usefixtures("eagerly")

make_model = functools.cache(make_model)
SETTINGS = {
    "serving_default": {},
    "log_likelihood": {"num_samples": 3, "seed": 3},
    "encode": {"seed": 2},
    "reconstruct": {"num_inferred": 1, "seed": 1},
    "impute": {"num_samples": 2, "temperature": 0.7, "seed": 1},
}


def ask(model, name, inputs):
    """The outputs of a signature's function, as arrays."""
    signature = signatures_of(model)[name]
    inputs = {key: tf.constant(v, signature.specs[key].dtype) for key, v in inputs.items()}
    return as_arrays(signature.function(**inputs))


def settings_of(model):
    """Settings for the signatures of a model that take images."""
    return {name: SETTINGS[name] for name in SETTINGS if name in signatures_of(model)}


@pytest.mark.slow
@pytest.mark.parametrize("kind", CONFIGS)
def test_signatures_return_what_the_methods_return_in_chunks_of_any_size(kind, monkeypatch):
    model, requests = make_model(kind), answered(make_model(kind))
    for name, inputs, expected in requests:
        assert_close(ask(model, name, inputs), expected, kind, name)
    names = {name for name, *_ in requests}
    assert names == {name for name in signatures_of(model) if not name.endswith(VARIANTS)}
    for size in (2, 7):  # Chunks of rows, and one chunk of rows with several of samples.
        monkeypatch.setattr(Hierarchy, "samples_per_pass", size)
        for name, inputs, expected in requests:
            if name in ("sample", "log_likelihood", "impute") and kind in EXPORTED:
                assert_close(ask(model, name, inputs), expected, name, size)


@pytest.mark.slow
@pytest.mark.parametrize("kind", EXPORTED)
def test_a_row_has_the_same_result_in_any_company(kind):
    model = make_model(kind)
    inputs = inputs_of(model, 20)
    for name, settings in settings_of(model).items():
        whole = ask(model, name, inputs | settings)
        for rows in ([11], [3, 11, 5, 0, 2], list(range(20))[::-1]):
            part = {key: value[rows] for key, value in inputs.items()}
            expected = {key: value[rows] for key, value in whole.items()}
            assert_close(ask(model, name, part | settings), expected, name, rows)


@pytest.mark.slow
def test_equal_seeds_give_equal_samples_and_other_seeds_others():
    model = make_model("conditional")
    for name, settings in settings_of(model).items():
        if settings:
            inputs = inputs_of(model, 2) | settings
            first, again, other = (ask(model, name, inputs | {"seed": s}) for s in (1, 1, 2))
            for key in first.keys() - {"loc_00_top"}:  # The top posterior's mean is not random.
                np.testing.assert_array_equal(first[key], again[key])
                assert not np.array_equal(first[key], other[key]), key


@pytest.mark.slow
def test_known_pixels_are_returned_bit_for_bit_and_hidden_ones_have_no_effect():
    model = make_model("two stages, colour")
    inputs, settings = inputs_of(model, 3), SETTINGS["impute"]
    known = np.broadcast_to(inputs["mask"] > 0, inputs["images"].shape)

    def impute(hidden):
        images = np.where(known, inputs["images"], np.float32(hidden))
        return ask(model, "impute", inputs | settings | {"images": images})

    outputs = impute(np.nan)
    for images in (*np.moveaxis(outputs["samples"], 1, 0), outputs["mean"]):
        assert images[known].tobytes() == inputs["images"][known].tobytes()
        assert np.isfinite(images).all()
    for hidden in (0.25, np.inf, -1e30):
        assert_close(impute(hidden), outputs)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mixture", "conditional", "whitened"])
def test_variants_take_bytes_and_files(kind):
    model = make_model(kind)
    pixels = np.random.default_rng(3).integers(0, 256, (3, 4, 6, 1), np.uint8)
    if model.config.likelihood == "bernoulli":
        pixels = np.uint8(255) * (pixels > 127)
    # A density is taken in the middle of a level.
    images = (pixels + 0.5) / 256 if model.config.likelihood == "normal" else pixels / 255
    floats, bytes_ = {"images": np.float32(images)}, {"images": pixels}
    if model.config.conditional_stages:
        mask = inputs_of(model, 3)["mask"]
        floats, bytes_ = floats | {"mask": mask}, bytes_ | {"mask": np.uint8(mask * 255)}
    files = {k: [tf.io.encode_png(image).numpy() for image in v] for k, v in bytes_.items()}
    for name, settings in settings_of(model).items():
        expected = ask(model, name, floats | settings)
        assert_close(ask(model, f"{name}_uint8", bytes_ | settings), expected, name)
        assert_close(ask(model, f"{name}_serialized", files | settings), expected, name)


# Bad inputs.


def refusal(model, name, inputs):
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        ask(model, name, inputs)
    return str(caught.value)


def test_bad_images_and_masks_are_errors_that_name_them():
    model = make_model("conditional")
    x, mask = np.zeros((2, 4, 6, 1), np.float32), np.zeros((2, 4, 6, 1), np.float32)
    bad_mask = "masks must be 0 where a pixel is hidden and 1 where it is known"
    expected = model.hierarchy.likelihood.observation.expected
    cases = [
        (x + 2, mask + np.eye(6, dtype=np.float32)[:4, :, None], f"images must be {expected}"),
        (x[:0], mask[:0], "images must have 1 to 4096 rows"),
        (x, mask[:1], "mask must have one row for each image"),
        (x, np.concatenate([mask, mask]), "mask must have one row for each image"),
        (x, mask + 0.5, bad_mask),
        (x, mask * np.nan, bad_mask),
        (x, np.stack([mask[0], mask[0] + 1]), bad_mask),
    ]
    for name in ("serving_default", "impute"):
        for images, masks, message in cases:
            inputs = {"images": images, "mask": masks} | SETTINGS[name]
            assert message in refusal(model, name, inputs), (name, message)
    halves = {"images": x + 100.5 / 255, "mask": mask}
    assert "8-bit values divided by 255" in refusal(model, "serving_default", halves)
    bad = {"images": x * np.nan, "mask": mask}
    assert f"images must be {expected}" in refusal(model, "serving_default", bad)


def test_too_many_rows_are_refused(monkeypatch):
    monkeypatch.setattr(input_checks, "MOST_ROWS", 4)
    model = make_model("mixture")
    assert "images must have 1 to 4 rows" in refusal(model, "serving_default", inputs_of(model, 5))
    latents = zip(model.config.level_names, model.hierarchy.latent_shapes, strict=True)
    z = {f"z_{name}": np.zeros((5, *shape)) for name, shape in latents}
    assert "z_00_top must have 1 to 4 rows" in refusal(model, "decode", z)


def test_bad_settings_are_errors_that_name_them():
    cases = [
        ("log_likelihood", {"num_samples": 0}, "num_samples must lie in [1, 10000]"),
        ("log_likelihood", {"num_samples": 10_001}, "num_samples must lie in [1, 10000]"),
        ("log_likelihood", {"num_samples": [1, 2, 3]}, "num_samples must be one number, or one"),
        ("reconstruct", {"num_inferred": 4}, "num_inferred must lie in [0, 3]"),
        ("reconstruct", {"num_inferred": -1}, "num_inferred must lie in [0, 3]"),
        ("encode", {"seed": [1, 2, 3]}, "seed must be one number, or one for each image"),
        ("encode", {"seed": -1}, "seed must lie in [0, 2147483647]"),
        ("impute", {"num_samples": 0}, "num_samples must lie in [1, 10000]"),
        ("impute", {"num_samples": []}, "num_samples must be one number"),
        ("impute", {"temperature": np.nan}, "temperature must be at least 0"),
        ("impute", {"temperature": [1, 2]}, "temperature must be one number"),
    ]
    model = make_model("conditional")
    for name, bad, message in cases:
        inputs = inputs_of(model, 2) | SETTINGS[name] | bad
        assert message in refusal(model, name, inputs), (name, bad)
    model = make_model("mixture")
    for bad, message in [
        ({"num": 0}, "num must lie in [1, 10000]"),
        ({"num": 10**6}, "num must lie in [1, 10000]"),
        ({"temperature": -1}, "temperature must be at least 0"),
        ({"component": 3}, "component must lie in [0, 2]"),
    ]:
        inputs = {"component": 0, "num": 1, "temperature": 1.0, "seed": 0} | bad
        assert message in refusal(model, "sample_component", inputs)


def test_errors_of_a_graph_name_the_images():
    """Eager errors lack the names of operations, which are what a server's client sees."""
    tf.config.run_functions_eagerly(False)
    shape = (4, 6, 1)

    @functools.partial(tf.function, autograph=False)
    def decode(files):
        return input_checks.pixel_bytes("images", files, shape)

    @functools.partial(tf.function, autograph=False, input_signature=[tf.TensorSpec(None)])
    def check(images):
        return input_checks.check_rows("images", images, tf.shape(images)[0], shape)

    png = tf.io.encode_png(np.zeros(shape, np.uint8)).numpy()
    wide = tf.io.encode_png(np.zeros((4, 7, 1), np.uint8)).numpy()
    for function, value, message in [
        (decode, [png, b"no picture"], "images_as_PNG_or_JPEG"),
        (decode, [png[:40]], "images_as_PNG_or_JPEG"),
        (decode, [wide], "images_of_4x6_pixels"),
        (check, np.zeros((2, 4, 7, 1), np.float32), "shape_of_images"),
        (check, np.zeros((2, 4, 6), np.float32), "shape_of_images"),
    ]:
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            function(tf.constant(value))


def test_files_are_decoded_to_the_pixels_that_training_read(tmp_path):
    waves = np.sin(np.arange(32 * 24 * 3).reshape(32, 24, 3) / [7.0, 11.0, 5.0])
    colour = np.rint(127.5 + 127.5 * waves).astype(np.uint8)
    for array, channels in itertools.product((colour, colour[..., 0]), (1, 3)):
        files = [tmp_path / "a.jpg", tmp_path / "b.png"]
        for path in files:
            Image.fromarray(array).save(path)
        strings = tf.constant([path.read_bytes() for path in files])
        found = input_checks.pixel_bytes("images", strings, (32, 24, channels)).numpy()
        expected = [image_files.pixels(image_files.read(path), channels) for path in files]
        np.testing.assert_array_equal(found, expected)
