# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Exported models, and requests to them with what the Python model answers.

Saving one takes longer than most tests: the processes of a run share what one of them saved.
"""

import contextlib
import fcntl
import os
import pickle
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from matnet_tf import export
from matnet_tf.config import ModelConfig, Stage
from matnet_tf.hierarchy import Hierarchy
from matnet_tf.model import MatNet

SLOW = pytest.mark.slow
DENSE, CONVOLUTIONAL = (Stage(1, 16, 4, 1),), (Stage(1, 16, 4, 1), Stage(4, 8, 2, 1))
TWINS = ("_uint8", "_serialized")
LOCAL = {"autoregressive": True, "autoregressive_layers": 2, "autoregressive_filters": 4}
KINDS = {
    "dense mixture": {"stages": DENSE, "mixture_components": 3},
    "convolutional logistic": {
        "stages": CONVOLUTIONAL,
        "likelihood": "logistic",
        "likelihood_scale": "channel",
    },
    "whitened": {"stages": CONVOLUTIONAL, "likelihood": "normal", "whitening": True},
    "local logistic": {"stages": DENSE, "likelihood": "logistic", **LOCAL},
}
BITS_OF_THE_DENSITY = {"bernoulli": 0, "logistic": 0, "normal": 8}
NUM_SAMPLES = 23
CHUNK = 20  # Small, so that the samples of a bound come in several chunks.


def make_model(kind):
    config = ModelConfig((8, 8, 1), top_latents=4, top_units=16, image_filters=8, **KINDS[kind])
    model = MatNet(config)
    model.adapt([images_for(model, 40)])
    return model


def images_for(model, count, seed=0):
    levels = np.random.RandomState(seed).randint(0, 256, (count, 8, 8, 1))
    binary = model.config.likelihood == "bernoulli"
    return (levels > 178 if binary else levels / 255).astype(np.float32)


def binary_images(count):
    return (np.random.RandomState(0).rand(count, 8, 8, 1) < 0.3).astype(np.float32)


class Saved(NamedTuple):
    """A model, its SavedModel, and a file of requests with answers."""

    model: Hierarchy
    path: Path
    requests: Path


@contextlib.contextmanager
def alone_in(name, tmp_path_factory):
    """A folder that the processes of a run share, while no other of them is here."""
    base = tmp_path_factory.getbasetemp()
    folder = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = folder / "served" / name.replace(" ", "_")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield folder


def saved(name, model, calls, tmp_path_factory):
    """A model's SavedModel and requests, written by the first process that asks for this name.

    Args:
      name: tells the model from others.
      model: whose weights are the same in every process.
      calls: of the model: gives requests with answers, see `calls`.
      tmp_path_factory: of pytest.
    """
    with alone_in(name, tmp_path_factory) as folder, pytest.MonkeyPatch.context() as patch:
        found = Saved(model, folder / "1", folder / "requests")
        if not found.requests.exists():
            # Small, so that the samples of a bound come in several passes.
            patch.setattr(type(model), "samples_per_pass", CHUNK)
            export.save(model, found.path)
            found.requests.write_bytes(pickle.dumps(answers(model, calls)))
    return found


def number(value):
    return np.int32(value)


def calls_with_images(model, inputs, dims):
    """Requests `(signature, inputs)` with what the Python model answers.

    `inputs` are images, or images and masks, by their names; `dims` is how many values of each
    image the model predicts.
    """
    given, more_bits = inputs.values(), BITS_OF_THE_DENSITY[model.config.likelihood]
    count = len(inputs["images"])
    zeros, equal, rising = [0] * count, [4] * count, list(range(3, 3 + count))
    bound, trace = model.elbo(*given, seed=zeros), model.infer(*given, seed=equal)
    expected = {"elbo": bound.elbo, "log_likelihood": bound.log_likelihood}
    expected |= {f"kl_{level}": kl for level, kl in bound.kl.items()}
    if not model.config.autoregressive:
        expected["reconstruction"] = model.reconstruct(*given, seed=zeros)
    yield "serving_default", inputs, expected
    nats = model.log_likelihood(*given, NUM_SAMPLES, seed=rising, chunk=CHUNK)
    bits = -nats / (dims * np.log(2)) + more_bits
    samples = {"num_samples": number(NUM_SAMPLES), "seed": np.int32(rising)}
    yield "log_likelihood", inputs | samples, {"log_likelihood": nats, "bits_per_dim": bits}
    z = {f"z_{level.name}": level.z for level in trace.levels}
    loc = {f"loc_{level.name}": level.posterior.mean() for level in trace.levels}
    yield "encode", inputs | {"seed": number(4)}, z | loc
    for num_inferred in range(model.config.num_levels + 1):
        settings = {"num_inferred": number(num_inferred), "seed": np.int32(rising)}
        expected = model.reconstruct(*given, num_inferred, seed=rising)
        yield "reconstruct", inputs | settings, {"images": expected}


def calls(model):
    """Requests with the answers."""
    x = images_for(model, 5)
    yield from calls_with_images(model, {"images": x}, 64)
    trace = model.infer(x, seed=4)
    z = {f"z_{level.name}": level.z.numpy() for level in trace.levels}
    images = model.decode(trace.z, seed=[0] * len(x))
    yield "decode", z, {"images": images} | parameters(model, trace)
    inputs = {"num": number(6), "temperature": np.float32(0.7), "seed": number(2)}
    seeds = list(range(2, 8))
    yield "sample", inputs, {"images": model.sample(6, temperature=0.7, seed=seeds)}
    if model.config.mixture_components:
        drawn = model.sample(6, temperature=0.7, seed=seeds, component=1)
        yield "sample_component", inputs | {"component": number(1)}, {"images": drawn}


def parameters(model, trace):
    """Those of p(x | z), from the distribution itself."""
    if model.config.autoregressive:
        return {}
    p_x = model.p_x(trace)
    if model.config.likelihood == "normal" and model.config.whitening:
        return {"loc": p_x.distribution.mean(), "scale": p_x.distribution.stddev()}
    values = p_x.distribution
    if model.config.likelihood == "bernoulli":
        return {"logits": values.logits}
    return {"loc": values.loc, "scale": values.scale + tf.zeros_like(values.loc)}


def answers(model, calls):
    """What `calls` gives, without tracing: only the signatures have to be graphs.

    The loops of the local model are longer than its tracing.
    """
    tf.config.run_functions_eagerly(not model.config.autoregressive)
    try:
        return [
            (name, inputs, {key: np.asarray(value) for key, value in expected.items()})
            for name, inputs, expected in calls(model)
        ]
    finally:
        tf.config.run_functions_eagerly(False)


def quantiles(model):
    """How much of an output must be equal, where not all of it has to be.

    A draw of a level may be the next one where two computations differ in the last bit.
    """
    draws = {"images": 0.98, "samples": 0.98, "mean": 0.9}
    return draws if model.config.autoregressive else {}
