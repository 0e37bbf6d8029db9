# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The functions of the signatures against the methods of the models, and what they refuse."""

import dataclasses
import functools
import io
import itertools
import types

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

from matnet_tf.config import Scale
from matnet_tf.data import image_files
from matnet_tf.model.hierarchy import Hierarchy
from matnet_tf.serving import input_checks, picture_files
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


def ask(model, name, inputs, max_image_samples=0):
    """The outputs of a signature's function, as arrays."""
    signature = signatures_of(model, max_image_samples)[name]
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
        monkeypatch.setattr(Hierarchy, "samples_per_pass", 4 * size)
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


def refusal(model, name, inputs, max_image_samples=0):
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        ask(model, name, inputs, max_image_samples)
    return str(caught.value)


def test_bad_images_and_masks_are_errors_that_name_them():
    model = make_model("conditional")
    x, mask = np.zeros((2, 4, 6, 1), np.float32), np.zeros((2, 4, 6, 1), np.float32)
    bad_mask = "masks must be 0 where a pixel is hidden and 1 where it is known"
    expected = model.hierarchy.likelihood.observation.expected
    cases = [
        (x + 2, mask + np.eye(6, dtype=np.float32)[:4, :, None], f"images must be {expected}"),
        (x[:0], mask[:0], "images must have 1 to 10000 rows"),
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


def test_a_request_for_too_much_is_refused():
    model, conditional, most = make_model("mixture"), make_model("conditional"), 12
    three, four = inputs_of(model, 3), inputs_of(model, 4)
    assert ask(model, "log_likelihood", three | {"num_samples": 4, "seed": 0}, most)
    hidden = inputs_of(conditional, 3)
    assert ask(conditional, "impute", hidden | SETTINGS["impute"] | {"num_samples": 4}, most)
    cases = [
        (model, "log_likelihood", four | {"num_samples": 4, "seed": 0}, "at most 12 in a request"),
        (model, "log_likelihood", three | {"num_samples": [1, 5, 1], "seed": 0}, "got'\n15"),
        (model, "log_likelihood", three | {"num_samples": 13, "seed": 0}, "must lie in [1, 12]"),
        (conditional, "impute", hidden | SETTINGS["impute"] | {"num_samples": 5}, "got'\n15"),
        (model, "sample", {"num": 13, "temperature": 1.0, "seed": 0}, "num must lie in [1, 12]"),
        (model, "serving_default", inputs_of(model, 13), "images must have 1 to 12 rows"),
        # It returns 24 values of an image and as many logits, and twice 3 + 2 + 2 * 6 latents.
        (model, "encode", inputs_of(model, 9) | SETTINGS["encode"], "must have 1 to 8 rows"),
    ]
    for model, name, inputs, message in cases:
        assert message in refusal(model, name, inputs, most), (name, message)


def test_latents_must_be_few_and_finite():
    for kind, most in (("mixture", 10_000), ("mixed pixels", 300)):
        model = make_model(kind)
        latents = zip(model.config.level_names, model.hierarchy.latent_shapes, strict=True)
        z = {f"z_{name}": np.zeros((most + 1, *shape)) for name, shape in latents}
        assert f"z_00_top must have 1 to {most} rows" in refusal(model, "decode", z)
        z = {name: value[:2] for name, value in z.items()}
        for bad in (np.nan, np.inf, -np.inf):
            last = list(z)[-1]
            wrong = z | {last: np.where(np.arange(z[last].size).reshape(z[last].shape), 0, bad)}
            assert f"{last} must be finite" in refusal(model, "decode", wrong)


@pytest.mark.parametrize(
    "image_shape, most", [((28, 28, 1), 10_000), ((64, 64, 3), 1365), ((5000, 5000, 3), 1)]
)
def test_the_default_limit_fills_64_mib_with_images(image_shape, most):
    config = dataclasses.replace(
        CONFIGS["mixture"], image_shape=image_shape, scales=(Scale(1, 8, 2, 1),)
    )
    assert input_checks.most_image_samples(types.SimpleNamespace(config=config)) == most


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
        return picture_files.pixels_of_files("images", files, shape, 2)

    @functools.partial(tf.function, autograph=False, input_signature=[tf.TensorSpec(None)])
    def check(images):
        return input_checks.check_rows("images", images, tf.shape(images)[0], shape, 2)

    png = tf.io.encode_png(np.zeros(shape, np.uint8)).numpy()
    wide = np.zeros((4, 7, 1), np.uint8)
    bitmap = io.BytesIO()
    Image.fromarray(wide[..., 0]).save(bitmap, "bmp")
    size = "images must be files of 4x6 pixels; got height and width"
    for function, value, message in [
        (decode, [png, b"no picture"], "images must be PNG or JPEG files"),
        (decode, [b""], "images must be PNG or JPEG files"),
        (decode, [bitmap.getvalue()], "images must be PNG or JPEG files"),
        (decode, [png[:40]], "images_as_PNG_or_JPEG"),
        (decode, [b"\xff\xd8\xff" + 60 * b"\0"], "images_as_PNG_or_JPEG"),
        (decode, [tf.io.encode_png(wide).numpy()], f"{size}.*4 7"),
        (decode, [tf.io.encode_jpeg(wide).numpy()], f"{size}.*4 7"),
        (decode, [png[:16] + b"\0\0\x4e\x20" * 2 + png[24:]], f"{size}.*20000 20000"),
        # A header elsewhere than at the start is not the one that libpng reads.
        (decode, [png[:8] + b"\0\0\0\x08abcd" + png[16:24] + png], "PNG or JPEG files"),
        (decode, [png + bytes(2**17)], "files of at most 65728 bytes"),
        (decode, [png] * 3, "images must have 1 to 2 rows"),
        (decode, np.zeros(0, str), "images must have 1 to 2 rows"),
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
        found = picture_files.pixels_of_files("images", strings, (32, 24, channels), 2).numpy()
        expected = [image_files.pixels(image_files.read(path), channels) for path in files]
        np.testing.assert_array_equal(found, expected)
