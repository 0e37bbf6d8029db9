#!/usr/bin/env python3
# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Measures products, training, compilation and bounds on a GPU, or in small on a CPU, as a table.

Usage: benchmarks/gpu.py [--minutes 8] [--seconds 4] [--small] [--depths 5 10 20 40]

Rows are printed as they come, the most wanted first; what no longer fits into the minutes is left
out and named. Images are random: the speed does not depend on them. FLOPs are those of the forward
pass as TensorFlow's profiler counts them; a training step counts three times that. `--depths`
prints the rows of compilation alone, for models of so many modules.
"""

import argparse
import dataclasses
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import throughput

from matnet_tf import config, flags

# Preset, batch size, whether XLA compiles the step, precision.
TRAINING = (
    ("mnist_conv", 500, True, "mixed_bfloat16"),
    ("mnist_conv", 500, True, "float32"),
    ("mnist_static_deep", 500, True, "mixed_bfloat16"),
    ("mnist_conv", 500, False, "mixed_bfloat16"),
    ("cifar10_deep", 200, True, "mixed_bfloat16"),
)
SMALL_TRAINING = (("digits", 20, False, "float32"),)
DEPTHS, SMALL_DEPTHS = (5, 10, 20, 40), (1,)


def row(*cells) -> None:
    """Prints a row of the table."""
    print(f"| {' | '.join(str(cell) for cell in cells)} |", flush=True)


def products(seconds: float, small: bool) -> dict[str, float]:
    """Prints the rates of large products; returns those in GFLOP/s by precision."""
    import tensorflow as tf

    from matnet_tf.runs.devices import tensor_float_32

    size, rates = 512 if small else 8192, {}
    for name, dtype, tf32 in (
        ("bfloat16", tf.bfloat16, True),
        ("float32, TF32 allowed", tf.float32, True),
        ("float32", tf.float32, False),
    ):
        with tensor_float_32(tf32):
            a = tf.cast(tf.random.stateless_normal([size, size], [0, 1]), dtype)
            product = tf.function(lambda a: tf.reduce_sum(tf.cast(a @ a, tf.float32)))
            rate = throughput.rate_of(lambda f=product, a=a: f(a).numpy(), seconds)
        rates[name] = rate * 2 * size**3 / 1e9
        row(f"product of {size}", name, f"{rates[name] / 1e3:.2f} TFLOP/s")
    return rates


def experiment_of(preset: str, batch: int, jit_compile: bool, precision: str):
    """Returns a preset's experiment with other settings of the step."""
    (found,), _ = flags.parse(config.Experiment, (), [f"--preset={preset}"])
    train = dataclasses.replace(
        found.train,
        batch_size=batch,
        jit_compile=jit_compile,
        precision=precision,
        steps_per_execution=10,
    )
    return dataclasses.replace(found, train=train)


def training(setting: tuple, seconds: float, rates: dict[str, float]) -> None:
    """Prints the first step and the speed of training."""
    import numpy as np
    import tensorflow as tf

    from matnet_tf.runs.models import build_model

    experiment = experiment_of(*setting)
    preset, batch, jit_compile, precision = setting
    model, shape = build_model(experiment), experiment.model.image_shape
    x = (np.random.default_rng(0).random((batch, *shape)) < 0.2).astype(np.float32)
    batches, function = iter(tf.data.Dataset.from_tensors(x).repeat()), model.make_train_function()

    def step():
        return function(batches)["elbo"].numpy()

    first = throughput.seconds_of(step)
    per_second = experiment.train.execution_steps * batch * throughput.rate_of(step, seconds)
    one = tf.TensorSpec([1, *shape]), tf.TensorSpec([2], tf.int32)
    flops = throughput.forward_flops(lambda x, seed: model.hierarchy.elbo(x, seed).elbo, *one)
    teraflops = 3 * flops * per_second / 1e12
    product = rates["bfloat16" if precision == "mixed_bfloat16" else "float32, TF32 allowed"]
    row(
        f"training {preset}, batch {batch}",
        f"{'XLA' if jit_compile else 'graph'}, {precision}",
        f"{per_second:,.0f} images/s, {teraflops:.2f} TFLOP/s, {1e3 * teraflops / product:.3f} of "
        f"the product's; first execution {first:.0f} s; {peak_memory()}",
    )


def peak_memory() -> str:
    """Returns the most memory that TensorFlow has had on the GPU so far."""
    import tensorflow as tf

    if not tf.config.list_physical_devices("GPU"):
        return "no GPU"
    info = tf.config.experimental.get_memory_info("GPU:0")
    tf.config.experimental.reset_memory_stats("GPU:0")
    return f"{info['peak'] / 2**30:.1f} GiB at most"


def compilation(modules: int, jit_compile: bool, small: bool) -> None:
    """Prints the seconds to trace and to compile the step of a deep model, and of a later step."""
    import tensorflow as tf

    from matnet_tf.runs.models import build_model
    from matnet_tf.tracing import tf_function

    side, filters, image = (8, 8, (8, 8, 1)) if small else (7, 32, (28, 28, 1))
    scale = config.Scale(side, filters, 4, modules)
    model = config.ModelConfig(image, (scale,), image_filters=filters, activation="elu")
    train = config.TrainConfig(batch_size=20, jit_compile=jit_compile)
    built, x = build_model(config.Experiment(model=model, train=train)), tf.zeros((20, *image))
    function = tf_function(built.train_step, jit_compile)
    started, parts = time.perf_counter(), [processor_seconds(function.get_concrete_function, x)]
    parts.append(processor_seconds(lambda: function(x)["elbo"].numpy()))
    first = time.perf_counter() - started
    parts.append(min(processor_seconds(lambda: function(x)["elbo"].numpy()) for _ in range(5)))
    times = "trace {:.1f}, compile and run {:.1f}, later steps {:.3f} s of processor time"
    row(
        f"step of {modules} modules at {side}x{side}",
        "XLA" if jit_compile else "graph",
        f"{times.format(*parts)}; {first:.1f} s until the first step has ended",
    )


def processor_seconds(function, *arguments) -> float:
    """Returns the processor time that a call takes, of all threads of this process."""
    before = time.process_time()
    function(*arguments)
    return time.process_time() - before


def bounds(preset: str, chunk: int, seconds: float) -> None:
    """Prints the speed of the importance-weighted bound, as `matnet evaluate` computes it."""
    import numpy as np

    from matnet_tf.runs.devices import tensor_float_32
    from matnet_tf.runs.models import build_model

    model, images = build_model(experiment_of(preset, 10, False, "float32"), "float32"), 100
    x = (np.random.default_rng(0).random((images, *model.config.image_shape)) < 0.2) * 1.0
    samples = max(1, chunk // images) * 2
    x = x.astype(np.float32)
    with tensor_float_32(False):
        rate = throughput.rate_of(lambda: model.log_likelihood(x, samples, 0, chunk), seconds)
    row(
        f"bounds of {preset}, chunks of {chunk:,}",
        "float32",
        f"{rate * images * samples:,.0f} image-samples/s; {peak_memory()}",
    )


def speeds(given) -> list:
    """Prints the rates of products; returns what prints the rows of training and of bounds."""
    rates = products(given.seconds / 4, given.small)
    settings = SMALL_TRAINING if given.small else TRAINING
    preset, chunks = ("digits", (500,)) if given.small else ("mnist_conv", (2_000, 20_000, 100_000))
    parts = [lambda s=s: training(s, given.seconds, rates) for s in settings[:1]]
    parts += [lambda c=c: bounds(preset, c, given.seconds) for c in chunks]
    return parts + [lambda s=s: training(s, given.seconds, rates) for s in settings[1:]]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=8.0, help="time for everything")
    parser.add_argument("--seconds", type=float, default=4.0, help="seconds per measurement")
    parser.add_argument("--small", action="store_true", help="small models, for a CPU")
    parser.add_argument("--depths", type=int, nargs="+", help="compile models of so many modules")
    given, started = parser.parse_args(), time.monotonic()
    from matnet_tf.runs.devices import described

    for line in described():
        print(line, flush=True)
    row("what", "how", "result")
    row("---", "---", "---")
    parts = [] if given.depths else speeds(given)
    depths = given.depths or (SMALL_DEPTHS if given.small else DEPTHS)
    # Graphs first: in a process that has used XLA they take up to 2.6 times as long to optimize.
    compiled = [(n, j) for j in (False, True) for n in depths]
    parts += [lambda of=of: compilation(*of, given.small) for of in compiled]
    for index, part in enumerate(parts):
        if time.monotonic() - started > 60 * given.minutes:
            print(f"{given.minutes:g} minutes are over: {len(parts) - index} rows are left out")
            return
        part()


if __name__ == "__main__":
    main()
