# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""What models are fed: images and masks in every form, and what is said of wrong ones."""

import numpy as np
import pytest
import tensorflow as tf

from matnet_tf import inputs
from matnet_tf.pixels import Bernoulli, Logistic

SHAPE = (3, 2, 2)
PIXELS = Bernoulli(SHAPE)


def images(number=2):
    return np.random.default_rng(0).integers(0, 2, (number, *SHAPE)).astype(np.float32)


def masks(number=2):
    mask = np.ones((number, 3, 2, 1), np.float32)
    mask[:, 1] = 0
    return mask


# Elements of data sets.

X, MASK = images(), masks()


@pytest.mark.parametrize(
    "element",
    [X, (X, 1), [X, 1], {"image": X, "label": 1}, ({"image": X}, 1), (X,), {"image": X, "mask": 1}],
)
def test_images_are_found_in_every_form_of_element(element):
    assert inputs.images_of(element) is X


@pytest.mark.parametrize(
    "element",
    [
        {"image": X, "mask": MASK},
        {"image": X, "mask": MASK, "label": 1},
        (X, MASK),
        [X, MASK],
        (X, MASK, 1),
        ({"image": X, "mask": MASK}, 1),
        ({"image": X, "mask": MASK},),
        ((X, MASK),),
    ],
)
def test_images_and_masks_are_found_in_every_form_of_element(element):
    x, mask = inputs.image_and_mask_of(element)
    assert x is X and mask is MASK


@pytest.mark.parametrize(
    ("of", "element", "message"),
    [
        (inputs.images_of, {"pixels": 1, "label": 2}, r"needs the key 'image'; got \['label', 'pi"),
        (inputs.image_and_mask_of, {"image": X}, r"the keys 'image' and 'mask'; got \['image'\]"),
        (inputs.image_and_mask_of, {"mask": X}, r"needs the key 'image'; got \['mask'\]"),
        (inputs.image_and_mask_of, ({"image": X}, 1), "the keys 'image' and 'mask'"),
        (inputs.image_and_mask_of, X, "needs images and masks, .* got images alone"),
        (inputs.image_and_mask_of, (X,), "needs images and masks, .* got images alone"),
    ],
)
def test_elements_without_images_or_masks_are_refused(of, element, message):
    with pytest.raises(ValueError, match=message):
        of(element)


# Specifications of data sets.


def spec(*shape, dtype=tf.float32):
    return tf.TensorSpec(shape, dtype)


IMAGE = spec(None, *SHAPE)


@pytest.mark.parametrize(
    "specs",
    [
        [IMAGE],
        [spec(5, 3, None, 2)],
        [spec(None, *SHAPE, dtype=tf.float64)],
        [IMAGE, spec(None, 3, 2, 1)],
        [IMAGE, spec(None, 3, 2, 1, dtype=tf.bool)],
        [IMAGE, spec(None, None, None, 1)],
    ],
)
def test_specs_that_may_fit_are_taken(specs):
    inputs.check_specs(specs, SHAPE)


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        ([spec(None, *SHAPE, dtype=tf.uint8)], r"float images \(batch, 3, 2, 2\).* got uint8"),
        ([spec(*SHAPE)], r"batches of float images .* got float32 \(3, 2, 2\)"),
        ([spec(None, 3, 2, 1)], r"got float32 \(None, 3, 2, 1\)"),
        ([IMAGE, IMAGE], r"masks \(batch, 3, 2, 1\); got float32 \(None, 3, 2, 2\)"),
        ([IMAGE, spec(None, 3, 2)], r"batches of masks .* got float32 \(None, 3, 2\)"),
        ([IMAGE, spec(None, dtype=tf.int64)], r"batches of masks .* got int64 \(None,\)"),
        ([IMAGE, spec(None, 2, 3, 1, dtype=tf.bool)], r"got bool \(None, 2, 3, 1\)"),
    ],
)
def test_specs_that_do_not_fit_are_refused(specs, message):
    with pytest.raises(ValueError, match=message):
        inputs.check_specs(specs, SHAPE)


# Masks that are checked at once.


@pytest.mark.parametrize("kind", [bool, np.uint8, np.int64, np.float16, np.float64])
def test_a_mask_may_be_of_any_kind_of_number_and_for_all_images(kind):
    mask = masks(4).astype(kind)
    for given in (mask, mask[0], tf.constant(mask), mask.tolist()):
        checked = inputs.checked_mask(given, 4, SHAPE)
        assert checked.dtype == tf.float32
        np.testing.assert_array_equal(checked, masks(4))


def changed(value, where, number=3):
    mask = masks(number)
    mask[where] = value
    return mask


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (masks(2), r"shape \(3, 3, 2, 1\), one for each image, or \(3, 2, 1\) for all; got \(2, 3"),
        (masks()[0, ..., 0], r"for all; got \(3, 2\)"),
        (np.ones((3, *SHAPE)), r"for all; got \(3, 3, 2, 2\)"),
        (1, r"for all; got \(\)"),
        (changed(0.5, (0, 0, 0)), "1 where a pixel is known and 0 elsewhere; got other values"),
        (changed(255, 1), "1 where a pixel is known and 0 elsewhere; got other values"),
        (changed(-1, (2, 1)), "1 where a pixel is known and 0 elsewhere; got other values"),
        (changed(np.nan, (0, 0)), "1 where a pixel is known and 0 elsewhere; got other values"),
        (masks(3).astype(str), "1 where a pixel is known and 0 elsewhere; got other values"),
        (changed(1, 2), "the mask of image 2 leaves nothing to predict: all is known"),
        (np.ones((3, 2, 1)), "the mask of image 0 leaves nothing to predict"),
    ],
)
def test_what_is_no_mask_is_refused(mask, message):
    with pytest.raises(ValueError, match=message):
        inputs.checked_mask(mask, 3, SHAPE)


# Images and masks that are checked where they pass.


def passes(function, values, *arguments):
    """What a data set with the check in it gives."""
    dataset = tf.data.Dataset.from_tensors(values).map(lambda part: function(part, *arguments))
    with inputs.OneClearError():
        return next(iter(dataset))


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.float16])
def test_images_pass_as_float32(kind):
    x = passes(inputs.valid_images, images().astype(kind), PIXELS)
    assert x.dtype == tf.float32
    np.testing.assert_array_equal(x, images())


@pytest.mark.parametrize("kind", [bool, np.int32, np.float32])
def test_masks_pass_as_float32(kind):
    mask = passes(inputs.valid_masks, masks().astype(kind))
    assert mask.dtype == tf.float32
    np.testing.assert_array_equal(mask, masks())


def bad_images(*values):
    x = images()
    x.flat[: len(values)] = values
    return x


@pytest.mark.parametrize(
    ("values", "pixels", "message"),
    [
        ([-0.1, 1.1, np.nan], PIXELS, r"images must be finite and lie in \[0, 1\]; .* with 3 val"),
        ([0.5], Logistic(SHAPE), "images must be 8-bit values divided by 255.* with 1 values"),
    ],
)
def test_bad_images_stop_a_data_set_with_their_number(values, pixels, message):
    with pytest.raises(ValueError, match=message) as error:
        passes(inputs.valid_images, bad_images(*values), pixels)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("mask", "count"),
    [
        (changed(0.5, (0, 0, 0)), 1),
        (changed(np.nan, (slice(0, 2), 0, 0)), 2),
        (changed(2, (slice(None), 1)), 3),
        (changed(1, 1), 1),
        (np.ones((3, 3, 2, 1), np.float32), 3),
    ],
)
def test_bad_masks_stop_a_data_set_with_their_number(mask, count):
    message = "masks must be 0 or 1 .known., and leave something to predict; .* with "
    with pytest.raises(ValueError, match=f"{message}{count} ") as error:
        passes(inputs.valid_masks, mask)
    assert "\n" not in str(error.value)


def test_other_failures_inside_a_data_set_keep_their_own_words():
    with pytest.raises(tf.errors.InvalidArgumentError, match="nothing like it"):
        passes(
            lambda part: tf.debugging.check_numerics(part, "nothing like it"), np.float32(np.nan)
        )
    with pytest.raises(KeyError), inputs.OneClearError():
        raise KeyError("image")
