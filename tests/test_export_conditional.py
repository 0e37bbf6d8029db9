# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The SavedModel of a conditional model: its signatures against the Python model."""

import numpy as np
import numpy_matnet as npm
import pytest
import tensorflow as tf
from served_models import CHUNK, LOCAL, NUM_SAMPLES, answers, calls_with_images, number
from served_models import saved as shared
from test_bin import run
from test_export import differences_in_a_fresh_process, stored_sizes
from work_directories import write_run

from matnet_tf import experiment
from matnet_tf.conditional import ConditionalMatNet
from matnet_tf.config import DataConfig, Experiment, ModelConfig, Stage
from matnet_tf.signatures import signatures_of

SLOW = pytest.mark.slow
SHAPE, AREA = (4, 6, 2), (4, 6, 1)
DENSE, CONVOLUTIONAL = (Stage(1, 8, 2, 1),), (Stage(1, 8, 2, 1), Stage((2, 3), 6, 2, 1))
TWO_STAGES = {"conditional_stages": 2}
KINDS = {
    "bernoulli": {"stages": CONVOLUTIONAL},
    "normal, two stages": {"stages": CONVOLUTIONAL, "likelihood": "normal", **TWO_STAGES},
    "local logistic": {"stages": CONVOLUTIONAL, "likelihood": "logistic", **LOCAL},
}
SETTINGS = {  # What each signature takes beside images and masks.
    "serving_default": {},
    "log_likelihood": {"num_samples": number(2), "seed": number(1)},
    "encode": {"seed": number(1)},
    "reconstruct": {"num_inferred": number(1), "seed": number(1)},
    "impute": {"num_samples": number(2), "temperature": np.float32(0.7), "seed": number(1)},
}


@pytest.fixture(scope="module", autouse=True)
def small_passes():
    """Samples come in several passes, in Python and in the graphs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ConditionalMatNet, "samples_per_pass", CHUNK)
        yield


def config_of(**choices):
    sizes = {"top_latents": 3, "top_units": 8, "image_filters": 4}
    return ModelConfig(SHAPE, **{"conditional_stages": 1, **sizes, **choices})


def make_model(**choices):
    """A model with random biases too."""
    return npm.randomize(ConditionalMatNet(config_of(**choices)))


def data(model, count, seed=0):
    """Images, and masks that are each another; the first image's hides all of it."""
    rng = np.random.default_rng(seed)
    x, mask = rng.integers(0, 256, (count, *SHAPE)), rng.random((count, *AREA)) < 0.5
    mask[0], mask[:, 1, 2] = False, False
    binary = model.config.likelihood == "bernoulli"
    return np.float32(x > 127 if binary else x / 255), np.float32(mask)


def masked(x, mask, hidden=np.nan):
    """Images with another value in the place of hidden pixels."""
    return np.where(mask > 0, x, np.float32(hidden))


def asking(name, x, mask, **settings):
    """The inputs of a signature."""
    settings = {key: number(value) for key, value in settings.items()}
    return {"images": x, "mask": mask} | SETTINGS[name] | settings


def calls(model):
    """Requests `(signature, inputs)` with what the Python model answers."""
    x, mask = data(model, 5, seed=5)
    hidden = SHAPE[-1] * (1 - mask).sum(axis=(1, 2, 3))
    yield from calls_with_images(model, {"images": x, "mask": mask}, hidden)
    inputs = asking("impute", masked(x, mask), mask, num_samples=NUM_SAMPLES, seed=6)
    yield "impute", inputs, completions(model, x, mask, NUM_SAMPLES, 6)


def completions(model, x, mask, num_samples, seed):
    """What the model's own method gives, images first."""
    seeds, temperature = [seed] * len(x), np.float32(0.7)
    samples, mean = model.impute(x, mask, num_samples, temperature=temperature, seed=seeds)
    return {"samples": np.moveaxis(samples.numpy(), 0, 1), "mean": mean.numpy()}


# Every signature, out of a SavedModel.


@pytest.fixture(scope="module", params=[pytest.param(kind, marks=SLOW) for kind in KINDS])
def saved(request, tmp_path_factory):
    """A model, its SavedModel, and requests with answers."""
    model = make_model(**KINDS[request.param])
    return shared(f"conditional {request.param}", model, calls, tmp_path_factory)


def test_a_process_without_the_package_gives_what_the_model_gives(saved, tmp_path):
    differences = differences_in_a_fresh_process(saved, tmp_path)
    assert {name for name, *_ in differences} == set(SETTINGS)
    assert max(difference for *_, difference in differences) < 1e-5, differences


def test_every_signature_names_its_inputs_and_outputs(saved):
    model, path, _ = saved
    levels = model.config.level_names
    z, loc, kl = ([f"{kind}_{level}" for level in levels] for kind in ("z", "loc", "kl"))
    mean = [] if model.config.autoregressive else ["reconstruction"]
    expected = {
        "serving_default": ["elbo", "log_likelihood", *kl, *mean],
        "log_likelihood": ["log_likelihood", "bits_per_dim"],
        "encode": [*z, *loc],
        "reconstruct": ["images"],
        "impute": ["samples", "mean"],
    }
    signatures = tf.saved_model.load(str(path)).signatures
    # Files have 1, 3 or 4 channels, these images 2.
    assert set(signatures) == {*expected, *(f"{name}_uint8" for name in expected)}
    for name, outputs in expected.items():
        specs = signatures[name].structured_input_signature[1]
        assert set(specs) == {"images", "mask", *SETTINGS[name]}
        assert specs["images"].shape.as_list() == [None, *SHAPE]
        assert specs["mask"] == tf.TensorSpec([None, *AREA], tf.float32, "mask")
        assert set(signatures[name].structured_outputs) == set(outputs)


def test_the_saved_model_holds_the_weights_of_the_model(saved):
    model, path, _ = saved
    assert stored_sizes(path) == sorted(int(np.prod(v.shape)) for v in model.trainable_variables)


@SLOW
def test_the_program_exports_the_model_of_a_work_directory(tmp_path):
    settings = Experiment(config_of(stages=DENSE), DataConfig(mask="half"))
    status, out, err = run("export", f"--workdir={write_run(tmp_path / 'run', settings)}")
    assert status == 0, err
    model = experiment.load(tmp_path / "run").model
    x, mask = data(model, 2)
    signatures = tf.saved_model.load(out.splitlines()[-1]).signatures
    answer = signatures["serving_default"](images=tf.constant(x), mask=tf.constant(mask))
    np.testing.assert_allclose(answer["elbo"], model.elbo(x, mask, seed=[0, 0]).elbo, rtol=1e-5)


# One model's, as they are before they are saved.


@pytest.fixture(scope="module")
def model():
    return make_model(stages=DENSE)


@pytest.fixture(scope="module")
def signatures(model):
    return {name: signature.function for name, signature in signatures_of(model).items()}


def ask(signature, inputs):
    """Its answer, as arrays."""
    answer = signature(**{name: tf.constant(value) for name, value in inputs.items()})
    return {name: value.numpy() for name, value in answer.items()}


@pytest.mark.slow
def test_every_signature_gives_what_the_model_gives(model, signatures):
    for name, inputs, expected in answers(model, calls):
        answer = ask(signatures[name], inputs)
        assert set(answer) == set(expected)
        for key, value in expected.items():
            np.testing.assert_allclose(answer[key], value, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("num_samples", [1, CHUNK // 5, CHUNK // 5 + 1])
def test_completions_are_the_models_at_the_end_of_a_pass(num_samples, model, signatures, eagerly):
    x, mask = data(model, 5)
    answer = ask(signatures["impute"], asking("impute", x, mask, num_samples=num_samples))
    assert answer["samples"].shape == (5, num_samples, *SHAPE)
    for key, value in completions(model, x, mask, num_samples, 1).items():
        np.testing.assert_allclose(answer[key], value, rtol=1e-5, atol=1e-6)


def test_known_pixels_come_back_bit_for_bit_and_hidden_ones_have_no_effect(model, signatures):
    x = np.random.default_rng(3).random((5, *SHAPE), np.float32)
    _, mask = data(model, 5)

    def complete(hidden):
        inputs = asking("impute", masked(x, mask, hidden), mask, num_samples=NUM_SAMPLES)
        return ask(signatures["impute"], inputs)

    answer, known = complete(np.nan), np.broadcast_to(mask > 0, x.shape)
    for image in (*np.moveaxis(answer["samples"], 0, 1), answer["mean"]):
        assert image[known].tobytes() == x[known].tobytes()
        assert np.isfinite(image).all()
    for hidden in (0, 0.25, np.inf, -1e30):
        again = complete(hidden)
        assert all(again[key].tobytes() == answer[key].tobytes() for key in answer)


@pytest.mark.parametrize("name", [name for name in SETTINGS if "seed" in SETTINGS[name]])
def test_equal_seeds_give_equal_draws_and_others_others(name, model, signatures):
    inputs = asking(name, *data(model, 3))
    first, again, other = (
        ask(signatures[name], inputs | {"seed": number(seed)}) for seed in (1, 1, 2)
    )
    for key, value in first.items():
        np.testing.assert_array_equal(value, again[key])
        # The top posterior's mean is no draw.
        assert key == "loc_00_top" or not np.array_equal(value, other[key]), key


X, MASK = np.zeros((2, *SHAPE), np.float32), np.zeros((2, *AREA), np.float32)
BAD_MASK = "masks must be 0 or 1 (known), and leave something to predict"
BAD_INPUTS = [
    # images, masks, message
    (X + 2, MASK + np.eye(6, dtype=np.float32)[:4, :, None], "images must be finite and lie in"),
    (X[:0], MASK[:0], "images must be 1 to 4096"),
    (X, MASK[:1], "mask must have one row for each image"),
    (X, np.concatenate([MASK, MASK]), "mask must have one row for each image"),
    (X, MASK + 0.5, BAD_MASK),
    (X, MASK * np.nan, BAD_MASK),
    (X, np.stack([MASK[0], MASK[0] + 1]), BAD_MASK),
]


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize(("x", "mask", "message"), BAD_INPUTS)
def test_bad_images_and_masks_are_errors_that_name_them(signatures, name, x, mask, message):
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        ask(signatures[name], asking(name, x, mask))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "bad", "message"),
    [
        ("log_likelihood", {"num_samples": number(0)}, "num_samples must lie in [1, 10000]"),
        ("reconstruct", {"num_inferred": number(3)}, "num_inferred must lie in [0, 2]"),
        ("impute", {"num_samples": number(0)}, "num_samples must lie in [1, 10000]"),
        ("impute", {"temperature": np.float32(-1)}, "temperature must be at least 0"),
        ("impute", {"temperature": np.float32(np.nan)}, "temperature must be at least 0"),
        ("impute", {"temperature": np.float32([1, 2])}, "temperature must be one number"),
        ("impute", {"num_samples": np.int32([])}, "num_samples must be one number"),
        ("encode", {"seed": np.int32([1, 2, 3])}, "seed must be one number, or one for each image"),
        ("encode", {"seed": number(-1)}, "seed must lie in [0, 2147483647]"),
    ],
)
def test_bad_settings_are_errors_that_name_them(signatures, name, bad, message):
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        ask(signatures[name], asking(name, X, MASK) | bad)
    assert message in str(caught.value)
