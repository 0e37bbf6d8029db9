#!/usr/bin/env python3
# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Measures how fast the local autoregressive model draws images value by value.

Usage: benchmarks/sampling.py [--images N] [--naive_values M] cifar10_cpu [...]

Prints one JSON line per preset: images/s of the incremental sampler, and of a naive one that runs a
pass over the whole image for every value. The naive one is timed over the first M values (0 is all)
and its time scaled to all values. Weights are random: the speed does not depend on them.
"""

import argparse
import json
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from matnet_tf import config, flags


def seconds_of(call) -> float:
    """Returns the seconds of a call, after one that compiles."""
    call()
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(model_config: config.ModelConfig, images: int, naive_values: int) -> dict:
    """Measures one model."""
    import math

    import tensorflow as tf

    from matnet_tf.model.matnet import MatNet

    model = MatNet(model_config)
    layer, seed = model.hierarchy.likelihood, tf.constant([0, 1])
    context = layer(model.hierarchy.top_down_pass(None, images, seed).h_td)
    noise = tf.random.stateless_uniform([images, *model_config.image_shape], seed)

    @tf.function
    def whole_pass(x):
        return layer.observation.quantile(layer.parameters(x, context), noise)

    values = math.prod(model_config.image_shape)
    timed = min(naive_values or values, values)

    def naive():
        x = tf.zeros_like(noise)
        for _ in range(timed):
            x = whole_pass(x)
        return x.numpy()

    incremental = seconds_of(lambda: layer.sample(context, seed).numpy())
    whole = seconds_of(naive) * values / timed
    return {
        "images": images,
        "values_per_image": values,
        "naive_values_timed": timed,
        "incremental_images_per_second": round(images / incremental, 3),
        "naive_images_per_second": round(images / whole, 4),
        "ratio": round(whole / incremental, 1),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=32, help="number of images drawn together")
    parser.add_argument(
        "--naive_values", type=int, default=0, help="number of values to time; 0 is all"
    )
    parser.add_argument("presets", nargs="+", help="presets with the local model")
    arguments = parser.parse_args()
    for preset in arguments.presets:
        (experiment,), _ = flags.parse(config.Experiment, (), [f"--preset={preset}"])
        figures = measure(experiment.model, arguments.images, arguments.naive_values)
        print(json.dumps({"preset": preset, **figures}), flush=True)
