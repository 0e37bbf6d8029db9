#!/usr/bin/env python3
# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Measures where bits and time of lossless compression go, beside other formats.

Usage: benchmarks/compression.py [--images N] [--data_dir DIR] [--others] WORKDIR_OR_PRESET ...

Prints one JSON line for each model, of N images of its test split (160) on a stack with enough
bits, with one thread:

bits_per_dim       what the stack grew
coder              what it grew above the masses that the coder was asked to code, as a share
grid               what those are above log q(z given x) - log p(x, z) at the latents on the grid
milliseconds       of a CPU for an image: the networks to encode and to decode, the entropy coder
                   alone, and all to encode
others             with --others, bits per dimension: PNG, WebP and, if pillow-jxl-plugin is
                   installed, JPEG XL of each of the first 1,000 images; xz and bz2 over the split
"""

import argparse
import bz2
import dataclasses
import json
import lzma
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import numpy as np
import tensorflow as tf
from constriction import stream
from scipy import special

from matnet_tf import presets
from matnet_tf.compression import pictures
from matnet_tf.compression.codec import TYPICAL, Codec
from matnet_tf.runs.models import load_run

PLENTY = 2**22  # Words.
ALONE = 1000


class Ledger:
    """A stack that also counts the bits that symbols should take, and the coder's time."""

    def __init__(self, codec: Codec):
        words = np.random.RandomState(0).randint(0, 2**32, PLENTY, np.uint32)
        self.codec = codec
        self.stack = stream.stack.AnsCoder(words, seal=True)
        self.begin = self.stack.num_valid_bits()
        self.batches = 0
        self.masses = self.densities = self.seconds = 0.0
        self.symbols = 0

    def __getattr__(self, name):
        return getattr(self.stack, name)

    def push(self, part, steps):
        """Codes a batch."""
        self.stack = self.codec.scrambled(self.stack, self.batches)
        self.codec.push(self, part, steps)
        self.batches += 1

    def decode(self, model, *parameters):
        """Decodes symbols, whose bits leave the stack."""
        started = time.thread_time()
        symbols = self.stack.decode(model, *parameters)
        self.seconds += time.thread_time() - started
        self._count(-1, symbols, model, parameters)
        return symbols

    def encode_reverse(self, symbols, model, *parameters):
        """Encodes symbols."""
        started = time.thread_time()
        self.stack.encode_reverse(symbols, model, *parameters)
        self.seconds += time.thread_time() - started
        self._count(1, symbols, model, parameters)

    def _count(self, sign, symbols, model, parameters):
        self.symbols += len(symbols)
        if isinstance(model, stream.model.QuantizedGaussian):
            mean, deviation = parameters
            standard = (symbols - mean) / deviation
            log_density = -0.5 * (standard**2 + np.log(2 * np.pi)) - np.log(deviation)
            # Taken from the lower tail, where the difference keeps its digits.
            low, high = -abs(symbols - mean) - 0.5, -abs(symbols - mean) + 0.5
            log_mass = np.log(special.ndtr(high / deviation) - special.ndtr(low / deviation))
        elif isinstance(model, stream.model.Bernoulli):
            (p,) = parameters
            log_density = log_mass = np.log(np.where(symbols, p, 1 - p))
        else:
            (masses,) = parameters
            chosen = np.take_along_axis(masses, symbols[:, np.newaxis], axis=1)[:, 0]
            log_density = log_mass = np.log(chosen / masses.sum(axis=1))
        self.masses -= sign * log_mass.sum() / np.log(2)
        self.densities -= sign * log_density.sum() / np.log(2)


def cpu_milliseconds(work, images: int) -> float:
    """Milliseconds of a CPU that work on so many images takes for one."""
    started = time.process_time()
    work()
    return 1000 * (time.process_time() - started) / images


def networks_alone(codec: Codec, part) -> dict[str, float]:
    """Milliseconds for an image of the networks in both directions, with nothing coded."""
    networks, x = codec.networks, part.images.astype(np.float32) / codec.pixels.largest
    places = list(networks.hierarchy.likelihood.places())
    hidden = np.ascontiguousarray(part.hidden)

    def down(encoding):
        rest = iter(places)
        context = networks.descend(encoding, lambda index, gaussians: gaussians.posterior_loc)
        networks.values(context, lambda parameters: x[(slice(None), *next(rest)[:2])])

    def encode():
        down(networks.encode(x, hidden))

    def decode():
        down(networks.encode_known(x, hidden))
        encoding = networks.encode(x, hidden)
        networks.descend(encoding, lambda index, gaussians: gaussians.posterior_loc)

    both = {"networks_encode": encode, "networks_decode": decode}
    return {name: min(cpu_milliseconds(f, len(x)) for _ in range(5)) for name, f in both.items()}


def other_rates(images: np.ndarray, largest: int) -> dict[str, float]:
    """Bits per dimension of other formats, each image alone and all packed together."""
    some = images[:ALONE]
    alone = pictures.other_sizes(some, largest)
    raw = (np.packbits(images) if largest == 1 else images).tobytes()
    packed = {"xz": len(lzma.compress(raw, preset=9)), "bz2": len(bz2.compress(raw))}
    rates = {name: 8 * size / some.size for name, size in alone.items()}
    return rates | {name: 8 * size / images.size for name, size in packed.items()}


def measured(name: str, arguments) -> dict:
    """The record of one model."""
    workdir = name if pathlib.Path(name).is_dir() else presets.trained(name)
    run = load_run(workdir)
    data = run.experiment.data
    data = dataclasses.replace(data, dir=arguments.data_dir or data.dir)
    largest = 1 if run.experiment.model.likelihood == "bernoulli" else 255
    every, _ = pictures.from_split(run.experiment.model, data, "test", largest)
    batch = 32 if run.experiment.model.autoregressive else 8
    codec, part = Codec(run.model.hierarchy, batch), every[: arguments.images]
    steps = codec.suitable_steps(every[:TYPICAL], 1.0)
    codec.bits(part[:batch], steps)
    ledger = Ledger(codec)
    for some in part.batches(batch):
        ledger.push(some, steps)
    bits = ledger.stack.num_valid_bits() - ledger.begin
    times = {"coder": 1000 * ledger.seconds / len(part)}
    times["encode"] = cpu_milliseconds(lambda: codec.bits(part, steps), len(part))
    record = {
        "model": name,
        "images": len(part),
        "bits_per_dim": bits / part.dims,
        "coder": bits / ledger.masses - 1,
        "grid": ledger.masses / ledger.densities - 1,
        "symbols_per_image": ledger.symbols / len(part),
        "milliseconds": times | networks_alone(codec, part[:batch]),
    }
    if arguments.others:
        record["others"] = other_rates(every.images, largest)
    return record


def main():
    """Measures every model."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="+", help="work directories, or names of presets")
    parser.add_argument("--images", type=int, default=160, help="images to code")
    parser.add_argument("--data_dir", default="", help="where the data sets lie")
    parser.add_argument("--others", action="store_true", help="measure other formats, too")
    arguments = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    for name in arguments.models:
        print(json.dumps(measured(name, arguments)), flush=True)


if __name__ == "__main__":
    main()
