# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Images and masks in every form that users have them, and one clear line for wrong ones."""

import numpy as np
import pytest
import tensorflow as tf

from matnet_tf.config import ModelConfig, Scale
from matnet_tf.likelihoods.observation import Bernoulli, Logistic
from matnet_tf.model.conditional import ConditionalMatNet
from matnet_tf.model.input_checks import (
    ImageInputs,
    MaskedImageInputs,
    check_specs,
    checked_mask,
    data_errors,
)
from matnet_tf.model.matnet import MatNet

SHAPE = (3, 2, 2)
IMAGES, MASKED = ImageInputs(Bernoulli(SHAPE)), MaskedImageInputs(Bernoulli(SHAPE))


def images(number=2, shape=SHAPE):
    return np.random.default_rng(0).integers(0, 2, (number, *shape)).astype(np.float32)


def masks(number=2):
    mask = np.ones((number, 3, 2, 1), np.float32)
    mask[:, 1] = 0
    return mask


def changed(array, value, where):
    array = array.copy()
    array[where] = value
    return array


def dataset(elements, batch=2):
    options = tf.data.Options()
    options.autotune.enabled = False
    return tf.data.Dataset.from_tensor_slices(elements).batch(batch).with_options(options)


def refused(message, call, *arguments, **keywords):
    with pytest.raises(ValueError, match=message) as error:
        call(*arguments, **keywords)
    assert "\n" not in str(error.value)


# Elements and specs of data sets.

X, MASK = images(), masks()


def test_images_and_masks_are_found_in_every_form_of_element():
    for element in (X, (X, 1), [X, 1], {"image": X, "label": 1}, ({"image": X}, 1), (X,)):
        assert IMAGES.unpack(element)[0] is X
    both = {"image": X, "mask": MASK}
    for element in (both, both | {"label": 1}, (X, MASK), [X, MASK], (X, MASK, 1), (both, 1)):
        x, mask = MASKED.unpack(element)
        assert x is X and mask is MASK
    assert MASKED.unpack(((X, MASK),))[1] is MASK


def test_elements_without_images_or_masks_are_refused():
    refused(r"needs the key 'image'; got \['label', 'pi", IMAGES.unpack, {"pixels": 1, "label": 2})
    refused(r"the keys 'image' and 'mask'; got \['image'\]", MASKED.unpack, {"image": X})
    refused(r"needs the key 'image'; got \['mask'\]", MASKED.unpack, {"mask": X})
    refused("the keys 'image' and 'mask'", MASKED.unpack, ({"image": X}, 1))
    for alone in (X, (X,)):
        refused("needs images and masks, .* got images alone", MASKED.unpack, alone)


def test_specs_that_cannot_be_the_models_are_refused():
    def spec(*shape, dtype=tf.float32):
        return tf.TensorSpec(shape, dtype)

    image = spec(None, *SHAPE)
    for good in (
        [image],
        [spec(5, 3, None, 2)],
        [spec(None, *SHAPE, dtype=tf.float64)],
        [image, spec(None, 3, 2, 1, dtype=tf.bool)],
        [image, spec(None, None, None, 1)],
    ):
        check_specs(good, SHAPE)
    for bad, message in (
        ([spec(None, *SHAPE, dtype=tf.uint8)], r"float images \(batch, 3, 2, 2\).* got uint8"),
        ([spec(*SHAPE)], r"batches of float images .* got float32 \(3, 2, 2\)"),
        ([spec(None, 3, 2, 1)], r"got float32 \(None, 3, 2, 1\)"),
        ([image, image], r"masks \(batch, 3, 2, 1\); got float32 \(None, 3, 2, 2\)"),
        ([image, spec(None, 3, 2)], r"batches of masks .* got float32 \(None, 3, 2\)"),
        ([image, spec(None, dtype=tf.int64)], r"batches of masks .* got int64 \(None,\)"),
    ):
        refused(message, check_specs, bad, SHAPE)


# Masks, eagerly.


def test_a_mask_may_be_of_any_kind_of_number_and_for_all_images():
    for kind in (bool, np.uint8, np.float16, np.float64):
        mask = masks(4).astype(kind)
        for given in (mask, mask[0], tf.constant(mask), mask.tolist()):
            checked = checked_mask(given, 4, SHAPE)
            assert checked.dtype == tf.float32
            np.testing.assert_array_equal(checked, masks(4))


def test_what_is_no_mask_is_refused():
    other = "1 where a pixel is known and 0 elsewhere; got other values"
    for mask, message in (
        (masks(2), r"shape \(3, 3, 2, 1\), one for each image, or \(3, 2, 1\) for all; got \(2, 3"),
        (masks()[0, ..., 0], r"for all; got \(3, 2\)"),
        (np.ones((3, *SHAPE)), r"for all; got \(3, 3, 2, 2\)"),
        (1, r"for all; got \(\)"),
        (changed(masks(3), 0.5, (0, 0, 0)), other),
        (changed(masks(3), 255, 1), other),
        (changed(masks(3), np.nan, (0, 0)), other),
        (masks(3).astype(str), other),
        (changed(masks(3), 1, 2), "the mask of image 2 leaves nothing to predict: all is known"),
        (np.ones((3, 2, 1)), "the mask of image 0 leaves nothing to predict"),
    ):
        refused(message, checked_mask, mask, 3, SHAPE)


# Images and masks in a data set.


def passed(form, *values):
    """What a data set with the assertions in it gives."""
    data = tf.data.Dataset.from_tensors(values).map(form.assert_valid)
    with data_errors():
        return next(iter(data))


def test_values_pass_as_float32_and_bad_ones_stop_the_data_set_with_their_number():
    for kind in (np.float64, np.float16):
        (x,) = passed(IMAGES, images().astype(kind))
        assert x.dtype == tf.float32
        np.testing.assert_array_equal(x, images())
    for kind in (bool, np.int32):
        np.testing.assert_array_equal(passed(MASKED, X, masks().astype(kind))[1], masks())
    bad = changed(images(), [-0.1, 1.1], (0, 0, 0))
    refused("images must be 0 or 1, .* with 2 val", passed, IMAGES, bad)
    grey, eight_bit = changed(images(), 0.5, (0, 0, 0, 0)), ImageInputs(Logistic(SHAPE))
    refused("images must be 8-bit values divided by 255.* 1 values", passed, eight_bit, grey)
    for mask, count in (
        (changed(masks(3), 0.5, (0, 0, 0)), 1),
        (changed(masks(3), np.nan, (slice(0, 2), 0, 0)), 2),
        (changed(masks(3), 1, 1), 1),
        (np.ones((3, 3, 2, 1), np.float32), 3),
    ):
        message = "masks must be 0 where a pixel is hidden and 1 where .* everywhere; .* with "
        refused(f"{message}{count} ", passed, MASKED, images(3), mask)


def test_other_failures_inside_a_data_set_keep_their_own_words():
    with pytest.raises(tf.errors.InvalidArgumentError, match="other"), data_errors():
        tf.debugging.check_numerics(np.float32(np.nan), "other")
    with pytest.raises(KeyError), data_errors():
        raise KeyError("image")


# What a user of a model sees.

CONFIG = ModelConfig((4, 3, 1), (Scale(1, 3, 2, 1), Scale((2, 2), 3, 2, 1)), 2, 2)
ONE = ModelConfig((3, 2, 1), (Scale(1, 3, 2, 1),), 2, 2, conditional_stages=1)


@pytest.fixture(scope="module")
def model() -> MatNet:
    made = MatNet(CONFIG)
    made.compile(optimizer="sgd", run_eagerly=True)
    return made


def own(number=4, shape=CONFIG.image_shape):
    return images(number, shape)


def test_wrong_images_get_one_clear_line_from_every_method(model):
    for x, message in (
        (own(2, (3, 4, 1)), r"shape \(batch, 4, 3, 1\).*got \(2, 3, 4, 1\)"),
        (own()[0], r"shape \(batch, 4, 3, 1\).*got \(4, 3, 1\)"),
        (own().astype(np.uint8), "float32, 0 or 1, .* got dtype uint8: divide"),
        (255 * own(), "must be 0 or 1, .*; got values from 0 to 255"),
        (changed(own(), np.nan, (1, 0, 0)), "must be 0 or 1, .*; got .* and NaN"),
        (np.full_like(own(), np.inf), "must be 0 or 1, .*; got values from inf to inf"),
        (own(0), "one.*; got an empty batch"),
    ):
        for call in (model.elbo, model.infer, model.reconstruct, model.predict):
            refused(message, call, x)
        refused(message, model.fit, x, verbose=0)


def test_wrong_arguments_get_one_clear_line(model):
    for call, message in (
        (lambda: model.log_likelihood(own(), num_samples=0), "at least 1; got 0"),
        (lambda: model.infer(own(), 1.5), "whole number of at least 1"),
        (lambda: model.log_likelihood(own(), chunk=0), "chunk must be .*; got 0"),
        (lambda: model.sample(0), "num must be a whole number of at least 1; got 0"),
        (lambda: model.sample(1, temperature=-1.0), "one number >= 0 .*got -1"),
        (lambda: model.sample(1, temperature=np.nan), "one number >= 0"),
        (lambda: model.sample(1, temperature="hot"), "one number >= 0 .*got 'hot'"),
        (lambda: model.sample(1, temperature=[1, 1]), r"one per level \(3\)"),
        (lambda: model.reconstruct(own(), 4), r"in \[0, 3\].*got 4"),
        (lambda: model.log_likelihood(own(), 5, num_inferred=True), "whole number .*got True"),
        (lambda: model.sample(2, latents=[np.zeros((1, 2))]), r"00_top .*\(2, 2\).*\(1, 2\)"),
        (lambda: model.sample(1, latents=[np.zeros((1, 2))] * 4), "has 3 levels; got 4"),
        (lambda: model.decode([]), "at least one level; got none"),
        (lambda: MatNet(3), "takes a ModelConfig; got int"),
        (lambda: MatNet(ONE), "takes conditional_stages 0; got 1, which ConditionalMatNet"),
        (lambda: ConditionalMatNet(CONFIG), "of at least 1; got 0, which MatNet takes"),
    ):
        refused(message, call)


def unknown_rank(x):
    return dataset(x).map(lambda e: tf.py_function(lambda t: t, [e], tf.float32))


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_wrong_data_sets_get_one_clear_line(model):
    for data, message in (
        (dataset(changed(own(), np.nan, (1, 0, 0))), "0 or 1, .* with 1 values that are"),
        (dataset(np.full_like(own(), 2)), "got a batch with 24 values that are not"),
        (dataset(own(2, (3, 4, 1))), r"\(batch, 4, 3, 1\).*got float32 \(None, 3, 4, 1\)"),
        (dataset(own()).unbatch(), r"got float32 \(4, 3, 1\)"),
        (dataset(own().astype(np.uint8)), "float images .*got uint8"),
        (unknown_rank(own()), "float images .*got float32 <unknown>"),
        (dataset({"pixels": own()}), r"key 'image'; got \['pixels'\]"),
        (dataset(own()).take(0), "the data set is empty"),
        (dataset(own()).filter(lambda x: False), "the data set is empty"),
        (None, "data must be an array of images, .* or a generator; got None"),
    ):
        refused(message, model.fit, data, verbose=0)
        refused(message, model.evaluate, data, verbose=0)
    refused("0 or 1", model.fit, own(), validation_data=dataset(own() * 2), verbose=0)
    assert model.fit(dataset(own()), epochs=2, initial_epoch=2, verbose=0).epoch == []


@pytest.mark.slow
def test_wrong_data_for_a_conditional_model_get_one_clear_line():
    conditional = ConditionalMatNet(ONE)
    conditional.compile(optimizer="sgd", run_eagerly=True)
    x, mask = images(4, ONE.image_shape), masks(4)
    for data, message in (
        (dataset(x), "needs images and masks, .* got images alone"),
        (x, "needs images and masks, .* got images alone"),
        (dataset((x, np.arange(4))), r"batches of masks \(batch, 3, 2, 1\).*int64"),
        (dataset((x, mask[..., 0])), r"masks \(batch, 3, 2, 1\); got .*3, 2\)"),
        (dataset((x, changed(mask, 0.5, (3, 0, 0)))), "masks must be .* with 1 masks that are"),
        ((x, changed(mask, 1, 2)), "the mask of image 2 leaves nothing"),
        (dataset((changed(x, np.nan, (0, 1, 0)), mask)), "images must be 0 or 1, .* 1 values"),
        (dataset((x[:0], mask[:0])), "the data set is empty"),
    ):
        for call in (conditional.fit, conditional.evaluate, conditional.predict):
            refused(message, call, data, verbose=0)


def test_what_cannot_be_completed_is_refused_in_one_line():
    conditional = ConditionalMatNet(ONE)
    x, mask = images(2, ONE.image_shape), masks(2)
    for changes, message in (
        ({"mask": mask[:, :2]}, r"mask must have shape \(2, 3, 2, 1\).* got \(2, 2, 2, 1\)"),
        ({"mask": changed(mask, np.nan, (0, 0, 0))}, "mask must be 1 where a pixel is known"),
        ({"mask": changed(mask, 1, 1)}, "the mask of image 1 leaves nothing to predict"),
        ({"x": x.astype(np.uint8)}, "images must be float32.* got dtype uint8: divide"),
        ({"x": x[:, :2]}, r"images must have shape \(batch, 3, 2, 1\).*\(2, 2, 2, 1\)"),
        ({"x": x[0]}, r"images must have shape .* got \(3, 2, 1\)"),
        ({"x": x[:0], "mask": mask[0]}, "one.*; got an empty batch"),
        ({"x": changed(x, 2, (0, 0, 1))}, "images must be 0 or 1, .*to 2$"),
        ({"num_samples": 0}, "num_samples must be a whole number of at least 1; got 0"),
        ({"temperature": -1.0}, "temperature must be one number >= 0 or one per level"),
    ):
        refused(message, conditional.impute, **{"x": x, "mask": mask} | changes)
