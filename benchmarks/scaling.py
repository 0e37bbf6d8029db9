#!/usr/bin/env python3
# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Measures what a second device, bfloat16 and XLA gain on this machine.

    python benchmarks/scaling.py --preset=mnist_cpu --data.dir=TFDS_DIR --steps=300

Trains an experiment for some steps in several ways, each in a process of its own, evaluates the
model, and prints one JSON line per way: images/s in training (second half of the steps),
image-samples/s in evaluation (over --seconds), the bound of the same test images with the same
noise, and all of these relative to the first way:

    float32                one device with one thread on one core, without XLA
    two replicas           two devices with one thread each on two cores, each with a whole batch
    two workers            the same in two processes on one core each
    mixed_bfloat16, XLA    one device with one thread on one core

With two replicas or workers the global batch is twice as large, so the bound differs. They need two
free cores; on a busy machine every ratio is meaningless.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pathlib
import socket
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from matnet_tf import config, flags

WAYS = {
    "float32": {},
    "two replicas": {"devices": 2},
    "two workers": {"workers": 2},
    "mixed_bfloat16": {"precision": "mixed_bfloat16"},
    "XLA": {"jit_compile": True},
}


def main() -> None:
    """Measures one way, or every way, and prints the records."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog="Other flags are those of `matnet train`."
    )
    parser.add_argument("--steps", type=int, default=300, help="steps to train in each way")
    parser.add_argument("--seconds", type=float, default=10.0, help="seconds of evaluation to time")
    parser.add_argument(
        "--images", type=int, default=200, help="number of test images in the bound"
    )
    parser.add_argument(
        "--num_samples", type=int, default=10, help="samples K per image in the bound"
    )
    parser.add_argument("--way", choices=WAYS, help="measure this way, in this process")
    options, rest = parser.parse_known_args()
    if options.way:
        (experiment,), _ = flags.parse(config.Experiment, (), rest)
        print(json.dumps(measure(experiment, WAYS[options.way], options)))
        return
    first = {}
    for name, settings in WAYS.items():
        record = run(name, settings)
        first = first or record
        ratios = {
            "training_ratio": record["training_images_per_second"]
            / first["training_images_per_second"],
            "evaluation_ratio": record["evaluation_image_samples_per_second"]
            / first["evaluation_image_samples_per_second"],
            "bound_difference_nats": record["bound_nats"] - first["bound_nats"],
        }
        ratios = {key: round(value, 3) for key, value in ratios.items()}
        print(json.dumps({"way": name, **record, **ratios}), flush=True)


def run(name: str, settings: dict) -> dict:
    """Measures a way, in one process per worker; evaluation rates of workers add up."""
    workers = settings.get("workers", 1)
    cores = sorted(os.sched_getaffinity(0))
    if settings.get("devices", workers) > len(cores):
        raise ValueError(f"{name} needs {settings.get('devices', workers)} cores; got {cores}")
    addresses = [f"127.0.0.1:{port}" for port in free_ports(workers)]
    processes = []
    for index in range(workers):
        environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
        if workers > 1:
            task = {"type": "worker", "index": index}
            cluster = {"cluster": {"worker": addresses}, "task": task}
            environment["TF_CONFIG"] = json.dumps(cluster)
        own = set(cores[:2]) if settings.get("devices") == 2 else {cores[index]}
        processes.append(
            subprocess.Popen(
                [sys.executable, *sys.argv, f"--way={name}"],
                stdout=subprocess.PIPE,
                text=True,
                env=environment,
                preexec_fn=lambda own=own: os.sched_setaffinity(0, own),
            )
        )
    texts = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise ValueError(f"the measurement of {name!r} failed")
    records = [json.loads(text.splitlines()[-1]) for text in texts]
    evaluated = sum(record["evaluation_image_samples_per_second"] for record in records)
    return records[0] | {"evaluation_image_samples_per_second": evaluated}


def free_ports(number: int) -> list[int]:
    """Returns unused ports of this machine."""
    sockets = [socket.socket() for _ in range(number)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def measure(experiment: config.Experiment, settings: dict, options: argparse.Namespace) -> dict:
    """Trains and evaluates in one way, in this process."""
    import tensorflow as tf

    from matnet_tf.data import loading
    from matnet_tf.runs import devices
    from matnet_tf.runs.models import build_model

    own = settings.get("devices", 1)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    # MirroredStrategy waits for each of its devices in a thread.
    tf.config.threading.set_inter_op_parallelism_threads(own)
    train = dataclasses.replace(
        experiment.train,
        precision=settings.get("precision", "float32"),
        jit_compile=settings.get("jit_compile", False),
        batch_size=experiment.train.batch_size * own * settings.get("workers", 1),
    )
    experiment = dataclasses.replace(experiment, train=train)
    with devices.strategy_for(settings.get("devices", 0)).scope():
        model = build_model(experiment)
    split = loading.load_for(experiment.model, experiment.data, "train")
    batches = split.training_dataset(train.batch_size, experiment.seed)
    rate = steps_per_second(model, batches, options.steps) * train.batch_size
    test = loading.load_for(experiment.model, experiment.data, "test").evaluation_dataset(
        options.images
    )
    bound, evaluated = evaluate(model, next(iter(test)), options.num_samples, own, options.seconds)
    return {
        "training_images_per_second": round(rate, 1),
        "evaluation_image_samples_per_second": round(evaluated, 1),
        "bound_nats": round(bound, 4),
    }


def steps_per_second(model, batches, steps: int) -> float:
    """Trains for `steps` steps; returns the speed of the second half."""
    import keras

    started = []
    clock = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: started.append(time.perf_counter())
    )
    model.fit(
        batches, steps_per_epoch=steps // 2, epochs=2, verbose=0, shuffle=False, callbacks=[clock]
    )
    return steps // 2 / (time.perf_counter() - started[1])


def evaluate(model, x, num_samples: int, replicas: int, seconds: float) -> tuple[float, float]:
    """Returns the mean bound of images in nats, and image-samples/s over `seconds`."""
    import numpy as np
    import tensorflow as tf

    from matnet_tf.model.importance import log_weights_on_replicas

    batches = [model.input_form.check(part) for part in tf.split(x, replicas)]

    def log_weights(seed: int) -> list[np.ndarray]:
        seeds = [tf.constant([seed, part]) for part in range(replicas)]
        pieces = list(log_weights_on_replicas(model, batches, num_samples, seeds))
        return [np.concatenate(piece) for piece in zip(*pieces, strict=True)]

    whole = np.concatenate(log_weights(0), axis=1).astype(np.float64)
    bound = np.mean(np.logaddexp.reduce(whole, axis=0)) - np.log(num_samples)
    calls, started = 0, time.perf_counter()
    while not calls or time.perf_counter() - started < seconds:
        calls += 1
        log_weights(calls)
    rate = calls * whole.size / (time.perf_counter() - started)
    return float(bound), rate


if __name__ == "__main__":
    main()
