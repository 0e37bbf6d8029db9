# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Tiny models for tests of serving, with requests and the answers of the Python model."""

import contextlib
import fcntl
import os
import pickle
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy_matnet as npm
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from work_directories import save_checkpoint

from matnet_tf.config import DataConfig, Experiment, ModelConfig, Scale
from matnet_tf.model.hierarchy import Hierarchy
from matnet_tf.runs.models import build_model
from matnet_tf.runs.workdir import create_workdir
from matnet_tf.serving.export import export

VARIANTS = ("_uint8", "_serialized")
CONVOLUTIONAL = (Scale(1, 8, 2, 1), Scale((2, 3), 6, 2, 1))
SIZES = {"top_latents": 3, "top_units": 8, "image_filters": 4}
LOCAL = {"autoregressive": True, "autoregressive_layers": 2, "autoregressive_filters": 4}
CONFIGS = {
    # These two have all signatures; they are exported.
    "mixture": ModelConfig((4, 6, 1), CONVOLUTIONAL, mixture_components=3, **SIZES),
    "conditional": ModelConfig(
        (4, 6, 1), CONVOLUTIONAL, likelihood="logistic", conditional_stages=1, **SIZES
    ),
    "whitened": ModelConfig(
        (4, 6, 1), (Scale(1, 8, 2, 1),), likelihood="normal", whitening=True, **SIZES
    ),
    "local": ModelConfig((3, 4, 1), (Scale(1, 8, 2, 1),), likelihood="logistic", **LOCAL, **SIZES),
    "mixed pixels": ModelConfig(
        (3, 4, 3), (Scale(1, 8, 2, 1),), likelihood="logistic_mixture", **SIZES
    ),
    "two stages, colour": ModelConfig(
        (4, 6, 2), CONVOLUTIONAL, likelihood="normal", conditional_stages=2, **SIZES
    ),
}
EXPORTED = ("mixture", "conditional")


def experiment_of(kind):
    config = CONFIGS[kind]
    return Experiment(config, DataConfig(mask="half" if config.conditional_stages else "none"))


def make_model(kind):
    """A model with random weights; equal in every process."""
    model = npm.randomize(build_model(experiment_of(kind)))
    if model.config.whitening:
        model.adapt([inputs_of(model, 40)["images"]])
    return model


def inputs_of(model, count, seed=0):
    """Images, and masks if the model is conditional; the first mask hides the whole image."""
    rng, shape = np.random.default_rng(seed), model.config.image_shape
    x, mask = rng.integers(0, 256, (count, *shape)), rng.random((count, *shape[:2], 1)) < 0.5
    x = x > 127 if model.config.likelihood == "bernoulli" else x / 255
    if not model.config.conditional_stages:
        return {"images": np.float32(x)}
    mask[0], mask[:, 1, 2] = False, False
    return {"images": np.float32(x), "mask": np.float32(mask)}


def requests_of(model):
    """Yields requests `(signature, inputs, outputs)` with what the model's methods return."""
    inputs, seeds = inputs_of(model, 3), [3, 4, 5]
    yield "serving_default", inputs, elbo_of(model, inputs)
    num_samples = [1, 9, 4]
    nats = np.concatenate(
        [
            model.log_likelihood(*(v[i : i + 1] for v in inputs.values()), k, seed=[seeds[i]])
            for i, k in enumerate(num_samples)
        ]
    )
    settings = {"num_samples": np.int32(num_samples), "seed": np.int32(seeds)}
    outputs = {"log_likelihood": nats, "bits_per_dim": bits_per_dim(model, nats, inputs)}
    yield "log_likelihood", inputs | settings, outputs
    trace = model.infer(*inputs.values(), seed=[4] * 3)
    z = {f"z_{level.name}": level.z for level in trace.levels}
    loc = {f"loc_{level.name}": level.posterior.mean() for level in trace.levels}
    yield "encode", inputs | {"seed": np.int32(4)}, z | loc
    for num_inferred in range(model.config.num_levels + 1):
        settings = {"num_inferred": np.int32(num_inferred), "seed": np.int32(seeds)}
        images = model.reconstruct(*inputs.values(), num_inferred, seed=seeds)
        yield "reconstruct", inputs | settings, {"images": images}
    settings = {"temperature": np.float32(0.7), "seed": np.int32(2)}
    if model.config.conditional_stages:
        hidden = {"images": np.where(inputs["mask"] > 0, inputs["images"], np.float32(np.nan))}
        samples, mean = model.impute(*inputs.values(), 9, temperature=0.7, seed=[2] * 3)
        outputs = {"samples": np.moveaxis(samples.numpy(), 0, 1), "mean": mean}
        yield "impute", inputs | hidden | settings | {"num_samples": np.int32(9)}, outputs
        return
    images = model.decode(trace.z, seed=[0] * 3)
    yield "decode", z, {"images": images} | parameters_of(model, trace)
    settings |= {"num": np.int32(5)}
    yield "sample", settings, {"images": model.sample(5, temperature=0.7, seed=range(2, 7))}
    if model.config.mixture_components:
        images = model.sample(5, temperature=0.7, seed=range(2, 7), component=1)
        yield "sample_component", settings | {"component": np.int32(1)}, {"images": images}


def elbo_of(model, inputs):
    """The outputs of `serving_default`."""
    seeds = [0] * len(inputs["images"])
    bound = model.elbo(*inputs.values(), seed=seeds)
    outputs = {"elbo": bound.elbo, "log_likelihood": bound.log_likelihood}
    outputs |= {f"kl_{level}": kl for level, kl in bound.kl.items()}
    if not model.config.autoregressive:
        outputs["reconstruction"] = model.reconstruct(*inputs.values(), seed=seeds)
    return outputs


def bits_per_dim(model, nats, inputs):
    """Bits per predicted value; a density of values in [0, 1] is one of 256 levels."""
    hidden = 1 - inputs.get("mask", np.zeros_like(inputs["images"][..., :1]))
    dims = model.config.image_shape[-1] * hidden.sum(axis=(1, 2, 3))
    return -nats / (dims * np.log(2)) + (8 if model.config.likelihood == "normal" else 0)


def parameters_of(model, trace):
    """The parameters of p(x | z) that `decode` returns, from the distribution itself."""
    if model.config.autoregressive:
        return {}
    pixels = model.hierarchy.p_x(trace).distribution
    if model.config.likelihood == "logistic_mixture":
        names = ("logits", "loc", "scale", "coefficients")
        return {name: pixels.parameters[name] for name in names}
    if model.config.likelihood == "bernoulli":
        return {"logits": pixels.logits}
    return {"loc": pixels.mean(), "scale": pixels.stddev()}


def answered(model):
    """The requests of `requests_of` with arrays, computed eagerly."""
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        return [
            (name, as_arrays(inputs), as_arrays(outputs))
            for name, inputs, outputs in requests_of(model)
        ]
    finally:
        tf.config.run_functions_eagerly(before)


def as_arrays(tensors):
    return {name: np.asarray(value) for name, value in tensors.items()}


def assert_close(found, expected, *message):
    """Asserts that outputs agree within 1e-5, relative to values above 1."""
    assert set(found) == set(expected), message
    for key, value in expected.items():
        np.testing.assert_allclose(
            found[key], value, rtol=1e-5, atol=1e-5, err_msg=f"{message} {key}"
        )


def meta_graph(path):
    """The MetaGraphDef of a SavedModel."""
    content = (path / "saved_model.pb").read_bytes()
    return saved_model_pb2.SavedModel.FromString(content).meta_graphs[0]


class Served(NamedTuple):
    """A work directory with one export, its model, and a file of requests with answers."""

    model: object
    workdir: Path
    requests: Path

    @property
    def path(self):
        return self.workdir / "export" / "1"


def exported(kind, tmp_path_factory):
    """The export of a kind, which the processes of a test run share: it takes ten seconds."""
    model = make_model(kind)
    with _shared_folder(kind, tmp_path_factory) as folder:
        served = Served(model, folder / "run", folder / "requests")
        if not served.requests.exists():
            create_workdir(served.workdir, experiment_of(kind))
            save_checkpoint(served.workdir, model)
            with pytest.MonkeyPatch.context() as patch:
                if kind == "mixture":  # So small that requests take several chunks.
                    patch.setattr(Hierarchy, "samples_per_pass", 8)
                export(served.workdir)
            served.requests.write_bytes(pickle.dumps(answered(model)))
    return served


@contextlib.contextmanager
def _shared_folder(name, tmp_path_factory):
    """A folder for all processes of a test run, locked against the others."""
    base = tmp_path_factory.getbasetemp()
    folder = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = folder / "served" / name
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield folder
