# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""A fake conditional model, work directories with it, and image files for it."""

import types
from typing import NamedTuple

import numpy as np
from PIL import Image

from matnet_tf.config import DataConfig, Experiment, ImputeConfig, ModelConfig, Scale
from matnet_tf.likelihoods.observation import OBSERVATIONS
from matnet_tf.runs.models import LoadedRun
from matnet_tf.runs.workdir import create_workdir

# The pixels of this rectangle are missing.
HOLE = ImputeConfig(rectangles=("2:3:4x4",), num_samples=2, seed=5)


def hole_in(size):
    """Returns the mask of a picture with that rectangle, bool `[H, W]`."""
    mask = np.ones(size, bool)
    mask[2:6, 3:7] = False
    return mask


MASK = hole_in((8, 8))


class Imputation(NamedTuple):
    samples: np.ndarray
    mean: np.ndarray


class FakeModel:
    """Fills a window with the mean of its known pixels plus noise from the seed.

    Where nothing is known, the level comes from the seed, too. Known pixels come back changed, so
    code that does not take them from the picture fails its test. `calls` keeps all arguments.

    Args:
      shape: Shape of the images, `(H, W, C)`.
      likelihood: Name of the likelihood.
      noise: Scale of the noise.
      most: Largest number of rows in a pass.
    """

    def __init__(self, shape=(8, 8, 1), likelihood="logistic", noise=0.1, most=5000):
        self.config = types.SimpleNamespace(image_shape=shape, likelihood=likelihood)
        likelihood = types.SimpleNamespace(observation=OBSERVATIONS[likelihood](shape))
        self.hierarchy = types.SimpleNamespace(likelihood=likelihood)
        self.samples_per_pass, self.noise, self.calls = most, noise, []

    def impute(self, x, mask, num_samples=1, temperature=1.0, seed=0, draw=False):
        assert x.dtype == mask.dtype == np.float32 and set(np.unique(mask)) <= {0, 1}
        assert x.shape[1:] == self.config.image_shape and mask.shape == (*x.shape[:3], 1)
        assert (mask == 0).any(axis=(1, 2, 3)).all(), "nothing to predict"
        assert len(x) <= self.samples_per_pass and (len(x) == 1 or num_samples == 1)
        self.calls.append((x.copy(), mask.copy(), num_samples, temperature, seed, draw))
        random = np.random.default_rng(seed)
        noise = random.normal(0, self.noise * temperature, (num_samples, *x.shape))
        count = mask.sum(axis=(1, 2, 3), keepdims=True)
        known = (x * mask).sum(axis=(1, 2), keepdims=True) / np.maximum(count, 1)
        samples = np.clip(np.where(count, known, random.random()) + noise, 0, 1)
        samples = np.where(mask, 1 - x, samples).astype(np.float32)
        return Imputation(samples, samples.mean(axis=0))


def picture_of(size, channels=1, seed=0):
    return np.random.RandomState(seed).randint(0, 256, (*size, channels)).astype(np.uint8)


def model_config(channels=1, **changes):
    return ModelConfig((8, 8, channels), (Scale(1, 4, 2, 1),), 2, 4, 2, **changes)


def fake_run(
    folder, monkeypatch, channels=1, likelihood="logistic", data=None, images=None, **fake
):
    """Creates a work directory whose model, when loaded, is the fake one; returns the fake."""
    config = model_config(channels, likelihood=likelihood, conditional_stages=1)
    settings = Experiment(config, DataConfig(mask="quadrants", **(data or {})))
    create_workdir(folder, settings, images)
    model = FakeModel(config.image_shape, likelihood, **fake)
    loaded = LoadedRun(settings, model, 7, "averaged")
    monkeypatch.setattr("matnet_tf.imputation.impute.load_run", lambda workdir, weights: loaded)
    return model


def save(path, pixels, **options):
    """Writes pixels `[H, W, C]` or an image to a file and returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(pixels, np.ndarray):
        pixels = Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels)
    pixels.save(path, **options)
    return path


def read(path):
    """Reads the pixels of a PNG file, `[H, W, C]`, as any other program does."""
    with Image.open(path) as image:
        assert (image.format, image.mode in ("L", "RGB")) == ("PNG", True)
        pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def good(tmp_path):
    return save(tmp_path / "in" / "good.png", picture_of((8, 8)))
