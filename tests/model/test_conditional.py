# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Conditional models: what of an image reaches their priors, their walks, and `impute`."""

import dataclasses
import functools

import numpy as np
import numpy_matnet as npm
import pytest
import tensorflow as tf

from matnet_tf.config import ModelConfig, Scale
from matnet_tf.distributions.stateless_random import seed_tensor
from matnet_tf.likelihoods.observation import ObservedPixels
from matnet_tf.model.conditional import ConditionalMatNet

pytestmark = pytest.mark.usefixtures("eagerly")

SEED, SAMPLES, IMAGES = seed_tensor(5), 2, 2
DENSE, CONVOLUTIONAL = (Scale(1, 5, 2, 2),), (Scale(1, 4, 2, 1), Scale((2, 2), 3, 2, 1))
LOCAL = {"autoregressive": True, "autoregressive_layers": 2, "autoregressive_filters": 4}


@dataclasses.dataclass(frozen=True)
class Row:
    """A model, by the choices that what it is given must get through."""

    scales: tuple
    conditional_stages: int
    update: str
    known_everywhere: bool
    likelihood: str
    local: bool = False

    @property
    def config(self) -> ModelConfig:
        shape = (4, 3, 1 if self.likelihood == "bernoulli" else 2)
        choices = dataclasses.asdict(self) | {"scales": self.scales}
        local = LOCAL if choices.pop("local") else {}
        return ModelConfig(shape, top_latents=2, top_units=4, image_filters=3, **choices, **local)


# Between them every choice of every column, and most pairs of choices.
ROWS = {
    "dense": Row(DENSE, 1, "residual", True, "bernoulli"),
    "convolutional, 8 bits": Row(CONVOLUTIONAL, 1, "gru", False, "logistic"),
    "convolutional, mixed pixels": Row(CONVOLUTIONAL, 1, "gru", False, "logistic_mixture"),
    "dense, two stages, real": Row(DENSE, 2, "gru", True, "normal"),
    "convolutional, two stages, local": Row(
        CONVOLUTIONAL, 2, "residual", True, "bernoulli", local=True
    ),
    "dense, two stages, local, 8 bits": Row(DENSE, 2, "residual", False, "logistic", local=True),
}
every_row = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
TWO_STAGES = [ROWS["dense, two stages, real"], ROWS["convolutional, two stages, local"]]


@functools.cache
def made(row: Row) -> ConditionalMatNet:
    """A model with random biases too. Tests must not change it."""
    return npm.randomize(ConditionalMatNet(row.config))


def data(row, number=IMAGES):
    """Images as the row's likelihood has them, and masks that are each another."""
    rng = np.random.default_rng(1)
    levels = rng.integers(0, 256, (number, *row.config.image_shape)).astype(np.float32)
    x = {"bernoulli": levels > 127, "normal": (levels + 0.3) / 256}
    mask = np.float32(rng.random((number, 4, 3, 1)) < 0.5)
    mask[:, 0, 0], mask[:, 3, 2] = 1, 0
    return np.float32(x.get(row.likelihood, levels / 255)), mask


def walk(model, x, mask, **arguments):
    encoding = model.hierarchy.encode(tf.constant(x), tf.constant(mask))
    return model.hierarchy.top_down_pass(encoding, SAMPLES * len(x), SEED, **arguments)


def priors(trace):
    """Means and scales of every prior, level by level."""
    normals = [level.prior.distribution for level in trace.levels]
    return [np.stack([normal.loc, normal.scale]) for normal in normals]


def same_bits(a, b):
    a, b = ([np.asarray(part) for part in parts] for parts in (a, b))
    assert len(a) == len(b) > 0
    for one, other in zip(a, b, strict=True):
        assert one.shape == other.shape and one.tobytes() == other.tobytes()


# What reaches the priors (Eq. 3).


@pytest.mark.slow
@every_row
def test_no_hidden_pixel_reaches_a_prior_or_a_draw_bit_for_bit(row):
    model, (x, mask) = made(row), data(row)
    trace = walk(model, x, mask)
    other = walk(model, np.where(mask, x, 1 - x), mask, latents=trace.z)
    same_bits(priors(other), priors(trace))
    same_bits(*[[model.hierarchy.images(each, SEED, draw=True)] for each in (trace, other)])
    for a, b in zip(trace.levels, other.levels, strict=True):
        assert not np.allclose(a.posterior.mean(), b.posterior.mean(), rtol=1e-5)
    nothing = ObservedPixels.of(tf.constant(np.where(mask, x, np.nan)), tf.constant(mask))
    unseen = model.hierarchy.top_down_pass(
        model.hierarchy.encode_observed(nothing), len(trace.h_td), SEED, latents=trace.z
    )
    same_bits(priors(unseen), priors(trace))
    assert all(level.posterior is None for level in unseen.levels)


@pytest.mark.slow
@every_row
def test_a_known_pixel_reaches_every_prior_of_its_image_and_the_state_if_asked_for(row):
    model, (x, mask) = made(row), data(row)
    other = x.copy()
    other[0, 0, 0, 0] = 1 - x[0, 0, 0, 0]
    traces = [walk(model, x, mask)]
    traces.append(walk(model, other, mask, latents=traces[0].z))
    for a, b in zip(*map(priors, traces), strict=True):
        a, b = (p.reshape(2, SAMPLES, IMAGES, -1) for p in (a, b))
        assert (a != b)[:, :, 0].any(-1).all(), "the level does not see it"
        np.testing.assert_allclose(a[:, :, 1], b[:, :, 1], rtol=1e-6)
    changed = not np.array_equal(traces[0].h_td, traces[1].h_td)
    assert changed == row.known_everywhere


@pytest.mark.slow
@pytest.mark.parametrize("row", [ROWS["dense"], TWO_STAGES[1]], ids=["one stage", "two stages"])
def test_a_black_pixel_that_is_known_is_told_from_a_hidden_one(row):
    model, (x, mask) = made(row), data(row)
    x[:, 0, 0] = 0
    less = mask.copy()
    less[:, 0, 0] = 0
    trace = walk(model, x, mask)
    other = walk(model, x, less, latents=trace.z)
    for a, b in zip(priors(trace), priors(other), strict=True):
        assert (a != b).any(axis=tuple(range(2, a.ndim))).all()


# The second stage.


def captured(monkeypatch, guide):
    """The inputs of a guide."""
    seen, encode = [], type(guide).encode

    def recorded(self, x):
        if self is guide:
            seen.append(x.numpy())
        return encode(self, x)

    monkeypatch.setattr(type(guide), "encode", recorded)
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("row", TWO_STAGES, ids=["dense", "convolutional"])
def test_the_second_stage_encodes_the_mean_image_so_far_around_the_known_pixels(row, monkeypatch):
    model, (x, mask) = made(row), data(row)
    by_generator, by_guide = (
        captured(monkeypatch, getattr(model.hierarchy.stages[1], name))
        for name in ("generator", "guide")
    )
    walk(model, x, mask)
    first = walk(model, x, mask, stages=1)
    parameters, channels = model.hierarchy.likelihood(first.h_td), x.shape[-1]
    if row.local:
        known = model.hierarchy.likelihood.add_observed(parameters, first.observed)
        last = known[..., -model.hierarchy.likelihood.convolutions[-1].width :]
        parameters = last[..., None]
    mean = model.hierarchy.likelihood.observation.distribution(parameters).mean().numpy()
    x, mask = (np.tile(part, (SAMPLES, 1, 1, 1)) for part in (x, mask))
    read = model.hierarchy.likelihood.observation.standardize(
        np.where(mask, x, np.clip(mean, 0, 1))
    )
    np.testing.assert_allclose(by_generator[0][..., :channels], read, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(by_generator[0][..., channels:], mask)
    same_bits([by_guide[0][..., : channels + 1]], by_generator)
    whole = model.hierarchy.likelihood.observation.standardize(x)
    np.testing.assert_array_equal(by_guide[0][..., channels + 1 :], whole)


@pytest.mark.slow
@pytest.mark.parametrize("row", TWO_STAGES, ids=["dense", "convolutional"])
def test_latents_of_the_first_stage_reach_the_priors_of_the_second_by_the_guess(row):
    model, (x, mask) = made(row), data(row)
    trace, half = walk(model, x, mask), row.config.levels_per_stage
    moved = [z + 1.0 for z in trace.z[:half]]
    other = walk(model, x, mask, latents=[*moved, *trace.z[half:]])
    for a, b in zip(priors(trace)[half:], priors(other)[half:], strict=True):
        assert (a != b).any(axis=tuple(range(2, a.ndim))).all()


@pytest.mark.parametrize("row", TWO_STAGES, ids=["dense", "convolutional"])
def test_the_first_of_two_stages_is_the_model_of_one_stage(row):
    model, (x, mask) = made(row), data(row)
    alone = ConditionalMatNet(dataclasses.replace(row.config, conditional_stages=1))
    alone.hierarchy.stages[0].set_weights(model.hierarchy.stages[0].get_weights())
    alone.hierarchy.likelihood.set_weights(model.hierarchy.likelihood.get_weights())
    x, mask = tf.constant(x), tf.constant(mask)
    bound, trace = model.hierarchy.bound_and_trace(x, mask, SEED, stages=1)
    expected, of_one = alone.hierarchy.bound_and_trace(x, mask, SEED)
    same_bits(trace.z, of_one.z)
    same_bits(bound[:2], expected[:2])
    names = row.config.level_names
    assert tuple(bound.kl) == names and len(trace.levels) == len(expected.kl) == len(names) // 2
    for name in names:
        np.testing.assert_array_equal(bound.kl[name], expected.kl.get(name, np.zeros(IMAGES)))


def test_the_states_of_the_stages_add_up():
    row = TWO_STAGES[0]
    model, (x, mask) = made(row), data(row)
    both = walk(model, x, mask)
    first = walk(model, x, mask, stages=1, latents=both.z[:3])
    last = model.hierarchy.stages[1].top_down.image_out
    kept = last.get_weights()
    last.set_weights([0 * weight for weight in kept])
    silent = walk(model, x, mask, latents=both.z)
    last.set_weights(kept)
    same_bits([silent.h_td], [first.h_td])
    assert not np.allclose(both.h_td, first.h_td)


# Levels.


def test_the_kl_is_that_of_every_level_in_order():
    row = TWO_STAGES[0]
    model, (x, mask) = made(row), data(row)
    bound = model.elbo(x, mask, seed=1)
    assert tuple(bound.kl) == row.config.level_names
    assert [name.split("_", 1)[1] for name in bound.kl] == ["top", "fc", "fc", "s2_top"] + [
        "s2_fc"
    ] * 2
    np.testing.assert_allclose(bound.elbo, bound.log_likelihood - sum(bound.kl.values()), rtol=1e-5)
    trace = model.hierarchy.top_down_pass(
        model.hierarchy.encode(*map(tf.constant, (x, mask))), len(x), seed_tensor(1)
    )
    for level, kl in zip(trace.levels, bound.kl.values(), strict=True):
        pair = level.posterior, level.prior
        q, p = ((d.mean().numpy(), 2 * np.log(d.stddev())) for d in pair)
        np.testing.assert_allclose(kl, npm.sum_per_image(npm.kl_per_unit(q, p)), rtol=1e-4)


@pytest.mark.parametrize("count", [0, 2, 3, 4, 6])
def test_levels_are_inferred_from_the_top_across_the_stages(count):
    row = TWO_STAGES[0]
    model, (x, mask) = made(row), data(row)
    whole, trace = walk(model, x, mask), walk(model, x, mask, num_inferred=count)
    same_bits([SEED, *trace.z[:count]], [SEED, *whole.z[:count]])
    inferred = [level.posterior is not None for level in trace.levels]
    assert inferred == [i < count for i in range(row.config.num_levels)]
    same_bits(walk(model, x, mask, num_inferred=tf.constant(count)).z, trace.z)
    # What is not inferred is drawn from priors, which know no hidden pixel.
    other = np.where(mask, x, 1 - x)
    below = walk(model, other, mask, latents=trace.z[:count], num_inferred=0)
    same_bits(below.z, trace.z)


def test_latents_and_temperatures_are_given_level_by_level():
    row = TWO_STAGES[0]
    model, (x, mask) = made(row), data(row)
    drawn = walk(model, x, mask, num_inferred=0)
    given = [None if i in (2, 4) else 2.0 + z for i, z in enumerate(drawn.z)]
    cold = [1.0, 1.0, 0.0, 1.0, 0.0, 1.0]
    trace = walk(model, x, mask, latents=given, num_inferred=0, temperature=cold)
    for level, value in zip(trace.levels, given, strict=True):
        expected = level.prior.mean() if value is None else value
        np.testing.assert_array_equal(level.z, expected)


def test_infer_gives_every_sample_of_every_image_a_row():
    row = TWO_STAGES[0]
    model, (x, mask) = made(row), data(row, 3)
    trace = model.infer(x, mask, num_samples=4, seed=2)
    assert [tuple(z.shape) for z in trace.z] == [(12, *s) for s in model.hierarchy.latent_shapes]
    assert len(trace.levels) == row.config.num_levels
    np.testing.assert_array_equal(trace.observed.mask, np.tile(mask, (4, 1, 1, 1)))
    top = trace.levels[0].posterior.mean().numpy().reshape(4, 3, -1)
    np.testing.assert_allclose(top, np.tile(top[:1], (4, 1, 1)), rtol=1e-6)
    assert len({z.tobytes() for z in trace.z[0].numpy()}) == 12


@pytest.mark.slow
@pytest.mark.parametrize("row", [ROWS["dense"], TWO_STAGES[0]], ids=["one stage", "two stages"])
def test_reconstructions_keep_the_known_pixels_and_know_what_is_inferred(row):
    model, (x, mask) = made(row), data(row)
    levels = row.config.num_levels
    of = functools.partial(model.reconstruct, mask=mask, temperature=0.5, seed=3)
    images = [of(x, num_inferred=n).numpy() for n in (0, levels // 2 + 1, levels, None)]
    shown = np.broadcast_to(mask > 0, x.shape)
    for image in images:
        assert image[shown].tobytes() == x[shown].tobytes()
    hidden = np.where(mask, x, 1 - x)
    same_bits([of(hidden, num_inferred=0)], images[:1])
    same_bits(images[2:3], images[3:])
    assert not np.array_equal(of(hidden, num_inferred=levels), images[2])
    assert len({image.tobytes() for image in images}) == 3


# Completions of images that nobody knows.


def hidden_and_shown(x, mask):
    shown = np.broadcast_to(mask > 0, x.shape)
    return ~shown, shown


REAL, BINARY, TWO_LOCAL = TWO_STAGES[0], ROWS["dense"], TWO_STAGES[1]


@pytest.mark.parametrize("draw", [False, True])
@pytest.mark.parametrize("row", [REAL, BINARY], ids=["real", "binary"])
def test_completions_have_the_known_pixels_bit_for_bit_and_so_has_their_mean(row, draw):
    model, (x, mask) = made(row), data(row)
    samples, mean = model.impute(x, mask, num_samples=7, draw=draw)
    assert samples.shape == (7, *x.shape) and mean.shape == x.shape
    hidden, shown = hidden_and_shown(x, mask)
    for image in (*samples.numpy(), mean.numpy()):
        assert image[shown].tobytes() == x[shown].tobytes()
    plain = tf.reduce_mean(samples, axis=0).numpy()
    np.testing.assert_array_equal(mean.numpy()[hidden], plain[hidden])
    if row is REAL:
        assert plain[shown].tobytes() != x[shown].tobytes(), "seven equal numbers need rounding"
    assert len({sample.numpy().tobytes() for sample in samples}) == 7


@pytest.mark.slow
@pytest.mark.parametrize("row", [BINARY, TWO_LOCAL], ids=["one stage", "two, local"])
def test_what_stands_in_the_place_of_hidden_pixels_does_not_matter(row):
    model, (x, mask) = made(row), data(row)
    expected = model.impute(x, mask, 2, seed=4)
    for anything in (np.nan, 1e30, -np.inf):
        same_bits(model.impute(np.where(mask, x, anything), mask, 2, seed=4), expected)
    other = model.impute(x, mask, 2, seed=5)
    assert not np.array_equal(other.samples, expected.samples)


@pytest.mark.slow
def test_completions_come_in_as_many_passes_as_the_memory_asks_for(monkeypatch):
    model, (x, mask) = made(REAL), data(REAL)
    passes, impute = [], model.hierarchy.impute

    def recorded(observed, num_samples, *rest):
        passes.append(num_samples)
        return impute(observed, num_samples, *rest)

    monkeypatch.setattr(model.hierarchy, "impute", recorded)
    for most, expected in ((1, [1] * 5), (5, [2, 2, 1])):
        monkeypatch.setattr(ConditionalMatNet, "samples_per_pass", most)
        passes.clear()
        samples = model.impute(x, mask, 5, seed=2).samples.numpy()
        assert passes == expected
        assert samples.shape == (5, *x.shape) and len({s.tobytes() for s in samples}) == 5
        same_bits([samples[:1]], [model.impute(x, mask, expected[0], seed=2).samples[:1]])


def test_without_temperature_all_completions_are_equal():
    model, (x, mask) = made(BINARY), data(BINARY)
    cold = model.impute(x, mask, 4, temperature=0.0).samples.numpy()
    np.testing.assert_allclose(cold, np.repeat(cold[:1], 4, 0), rtol=1e-6)
    same_bits(model.impute(x, mask, 4, temperature=[0, 0, 0]), model.impute(x, mask, 4, 0.0))
    warm = model.impute(x, mask, 4, temperature=[0, 0, 1]).samples.numpy()
    assert len({sample.tobytes() for sample in warm}) == 4


@pytest.mark.parametrize(
    "row",
    [BINARY, ROWS["convolutional, 8 bits"], REAL, TWO_LOCAL],
    ids=["binary", "8 bits", "real", "local"],
)
def test_drawn_pixels_are_values_that_the_likelihood_has(row):
    model, (x, mask) = made(row), data(row)
    hidden, _ = hidden_and_shown(x, mask)
    drawn, means = (model.impute(x, mask, 3, draw=draw).samples for draw in (True, False))
    assert not model.hierarchy.likelihood.observation.invalid(drawn).numpy().any()
    levels = {"bernoulli": 1, "normal": 0}.get(row.likelihood, 255) * drawn.numpy()
    np.testing.assert_allclose(levels, np.rint(levels), atol=1e-3)
    if row.local:
        same_bits([means], [drawn])
    else:
        levels = 255 * means.numpy()[:, hidden]
        assert (abs(levels - np.rint(levels)) > 1e-3).any(), "means are between the values"


def test_bounds_and_inference_need_whole_images():
    model, (x, mask) = made(BINARY), data(BINARY)
    for call in (model.elbo, model.log_likelihood, model.infer, model.reconstruct):
        with pytest.raises(ValueError, match="images must be 0 or 1, .* and NaN"):
            call(np.where(mask, x, np.nan).astype(np.float32), mask)
