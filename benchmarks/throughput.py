#!/usr/bin/env python3
# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Training and evaluation speed of presets, beside this machine's matrix-multiplication rate.

Usage: benchmarks/throughput.py [--seconds N] configs/mnist_fc.flags [configs/mnist_conv.flags ...]

Prints one JSON line per preset: images/s in training, FLOPs per image (counted by TensorFlow's
profiler in the graph of the forward pass, and three times that for a training step), the share of
the float32 matmul rate measured in the same run, image-samples/s of the importance-weighted bound,
and what running the bottom-up pass once per image gains over running it for every sample. Images
are random: the speed does not depend on them.

Every rate is over N seconds or one call, whichever is longer, after a call that compiles. So that a
call of a large preset does not take minutes, a training execution has one step where the preset's
own `steps_per_execution` would not fit into N seconds, and the bound is measured on fewer images
where ten would not; both numbers are printed.
"""

import argparse
import json
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from matnet_tf import config, flags


def seconds_of(step) -> float:
    """How long one call of `step` takes."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def rate_of(step, seconds: float) -> float:
    """Calls of `step` per second, over `seconds` or over one call if that takes longer.

    The first call, which compiles, does not count. Neither does the second, which still warms up,
    unless it took all of the time.
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
    """float32 GFLOP/s of a large matrix product."""
    import tensorflow as tf

    a = tf.random.stateless_normal([size, size], [0, 1])
    product = tf.function(lambda: tf.reduce_sum(a @ a))
    return rate_of(lambda: product().numpy(), seconds) * 2 * size**3 / 1e9


def forward_flops(function, *specs) -> int:
    """Floating-point operations in the graph of `function`, by TensorFlow's profiler."""
    import tensorflow as tf

    graph = tf.function(function).get_concrete_function(*specs).graph
    options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
    options["output"] = "none"
    with graph.as_default():
        return tf.compat.v1.profiler.profile(graph, options=options).total_float_ops


def measure(experiment: config.Experiment, seconds: float) -> dict:
    """All the figures of one preset."""
    import numpy as np
    import tensorflow as tf

    from matnet_tf import experiment as experiments

    train, shape = experiment.train, experiment.model.image_shape
    model = experiments.build_model(experiment)
    x = (np.random.default_rng(0).random((train.batch_size, *shape)) < 0.2).astype(np.float32)
    steps, rate = training_rate(model, x, seconds)
    training = train.batch_size * rate
    one = tf.TensorSpec([1, *shape]), tf.TensorSpec([2], tf.int32)
    flops = forward_flops(lambda x, seed: model.bound_and_trace(x, seed)[0].elbo, *one)
    matmul = matmul_rate(seconds / 2)
    return {
        "parameters": int(sum(np.prod(v.shape) for v in model.trainable_variables)),
        "batch_size": train.batch_size,
        "jit_compile": train.jit_compile,
        "steps_per_execution": steps,
        "training_images_per_second": round(training, 1),
        "forward_mflops_per_image": round(flops / 1e6, 2),
        "training_gflops_per_second": round(3 * flops * training / 1e9, 1),
        "matmul_gflops_per_second": round(matmul, 1),
        "share_of_matmul_rate": round(3 * flops * training / 1e9 / matmul, 3),
        **evaluation_rates(model, x, seconds),
    }


def training_rate(model, x, seconds: float) -> tuple[int, float]:
    """Steps of an execution, and steps per second.

    An execution has the steps that the model was compiled with if they fit into `seconds`, going
    by the speed of single steps, and one step otherwise.
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
    """Image-samples/s of the bound, with the bottom-up pass once per image and once per sample.

    A call has up to ten images: as many as fit into `seconds`, going by the speed of one, but at
    least that one.
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
    """A call that runs the bottom-up pass for every row of `x`, and `num_samples` draws for it."""
    import tensorflow as tf

    seed = tf.constant([0, 0])
    function = tf.function(lambda: model.log_weight(x, model.guide.watch(x), num_samples, seed))
    return lambda: function().numpy()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("presets", nargs="+", help="flagfiles")
    arguments = parser.parse_args()
    for preset in arguments.presets:
        (experiment,), _ = flags.parse(config.Experiment, (), [f"--flagfile={preset}"])
        print(json.dumps({"preset": preset, **measure(experiment, arguments.seconds)}), flush=True)
