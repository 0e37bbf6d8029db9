#!/usr/bin/env python3
# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Measures training and evaluation speed of presets against the rate of matrix products.

Usage: benchmarks/throughput.py [--seconds N] mnist_fc [mnist_conv ...]

Prints one JSON line per preset: images/s in training, FLOPs per image (counted by TensorFlow's
profiler in the graph of the forward pass; a training step counts three times that), the share of
the float32 matmul rate measured in the same run, image-samples/s of the importance-weighted bound,
and the gain of one bottom-up pass per image over one per sample. Images are random: the speed does
not depend on them.

Every rate is measured over N seconds or one call, whichever is longer, after a call that compiles.
To keep calls of large presets short, a training execution has one step if the preset's own
`steps_per_execution` would take longer than N seconds, and the bound has fewer than ten images if
ten would; both numbers are printed.
"""

import argparse
import json
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from matnet_tf import config, flags


def seconds_of(step) -> float:
    """Returns the seconds that one call of `step` takes."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def rate_of(step, seconds: float) -> float:
    """Returns calls of `step` per second, over `seconds` or over one call if it takes longer.

    The first call, which compiles, does not count. Neither does the second, which still warms up,
    unless it takes all of the time.
    """
    step()
    first = seconds_of(step)
    if first >= seconds:
        return 1 / first
    spent = [seconds_of(step)]
    while sum(spent) < seconds:
        spent.append(seconds_of(step))
    return len(spent) / sum(spent)


def matmul_rate(seconds: float, size: int = 2048) -> float:
    """Returns the float32 GFLOP/s of a large matrix product."""
    import tensorflow as tf

    a = tf.random.stateless_normal([size, size], [0, 1])
    product = tf.function(lambda: tf.reduce_sum(a @ a))
    return rate_of(lambda: product().numpy(), seconds) * 2 * size**3 / 1e9


def forward_flops(function, *specs) -> int:
    """Counts floating-point operations in the graph of `function`, with TensorFlow's profiler."""
    import tensorflow as tf

    def inline(*arguments):
        # The profiler does not look into functions that a graph calls.
        tf.config.run_functions_eagerly(True)
        try:
            return function(*arguments)
        finally:
            tf.config.run_functions_eagerly(False)

    graph = tf.function(inline, autograph=False).get_concrete_function(*specs).graph
    options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
    options["output"] = "none"
    with graph.as_default():
        return tf.compat.v1.profiler.profile(graph, options=options).total_float_ops


def measure(experiment: config.Experiment, seconds: float) -> dict:
    """Measures one preset."""
    import numpy as np
    import tensorflow as tf

    from matnet_tf.runs.models import build_model

    train, shape = experiment.train, experiment.model.image_shape
    model = build_model(experiment)
    x = (np.random.default_rng(0).random((train.batch_size, *shape)) < 0.2).astype(np.float32)
    steps, rate = training_rate(model, x, seconds)
    training = train.batch_size * rate
    one = tf.TensorSpec([1, *shape]), tf.TensorSpec([2], tf.int32)
    flops = forward_flops(lambda x, seed: model.hierarchy.elbo(x, seed).elbo, *one)
    matmul = matmul_rate(seconds / 2)
    return {
        "parameters": int(sum(np.prod(v.shape) for v in model.trainable_variables)),
        "batch_size": train.batch_size,
        "jit_compile": model.jit_compile,
        "steps_per_execution": steps,
        "training_images_per_second": round(training, 1),
        "forward_mflops_per_image": round(flops / 1e6, 2),
        "training_gflops_per_second": round(3 * flops * training / 1e9, 1),
        "matmul_gflops_per_second": round(matmul, 1),
        "share_of_matmul_rate": round(3 * flops * training / 1e9 / matmul, 3),
        **evaluation_rates(model, x, seconds),
    }


def training_rate(model, x, seconds: float) -> tuple[int, float]:
    """Returns the number of steps per execution, and steps per second.

    An execution has as many steps as the model was compiled with, if these are estimated to fit
    into `seconds`, and one step otherwise.
    """
    import tensorflow as tf

    batches = iter(tf.data.Dataset.from_tensors(x).repeat())

    def rate_with(steps: int) -> float:
        model.steps_per_execution = steps
        function = model.make_train_function(force=True)
        return steps * rate_of(lambda: function(batches)["elbo"].numpy(), seconds)

    own = model.steps_per_execution
    single = rate_with(1)
    if own == 1 or own / single > seconds:
        return 1, single
    return own, rate_with(own)


def evaluation_rates(model, x, seconds: float, num_samples: int = 100) -> dict:
    """Measures image-samples/s of the bound, with a bottom-up pass per image and one per sample.

    A call has up to ten images: as many as are estimated to fit into `seconds`, at least one.
    """
    import tensorflow as tf

    single = rate_of(bound_of(model, x[:1], num_samples), 0)
    x = x[: min(10, max(1, int(single * seconds)))]
    count, tiled = num_samples * len(x), tf.tile(x, [num_samples, 1, 1, 1])
    fast = count * rate_of(bound_of(model, x, num_samples), seconds)
    slow = count * rate_of(bound_of(model, tiled, 1), seconds)
    return {
        "evaluation_images": len(x),
        "evaluation_num_samples": num_samples,
        "evaluation_image_samples_per_second": round(fast, 1),
        "gain_of_one_bottom_up_pass": round(fast / slow, 2),
    }


def bound_of(model, x, num_samples: int):
    """Returns a function that computes the log-weights of `x` from one bottom-up pass per row."""
    import tensorflow as tf

    hierarchy, seed = model.hierarchy, tf.constant([0, 0])
    function = tf.function(lambda: hierarchy.log_weight(x, hierarchy.encode(x), num_samples, seed))
    return lambda: function().numpy()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="seconds per measurement")
    parser.add_argument("presets", nargs="+", help="names of presets")
    arguments = parser.parse_args()
    for preset in arguments.presets:
        (experiment,), _ = flags.parse(config.Experiment, (), [f"--preset={preset}"])
        print(json.dumps({"preset": preset, **measure(experiment, arguments.seconds)}), flush=True)
