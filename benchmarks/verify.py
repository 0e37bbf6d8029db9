#!/usr/bin/env python3
# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Measures the presets' trained models again and compares with their records (`make verify`).

    python benchmarks/verify.py [--num_samples K] [--data_dir TFDS_DIR] [NAME ...]

Each model is measured on the whole split of its record, with K as recorded, or with a smaller K
whose bound the record has too. With equal noise (the same K, batches and compiler) the bounds must
agree within SAME nats, else within OTHER, a few standard errors of the noise. The bounds of the
ten images in the folder must agree within 0.01 nats on a CPU. A model whose data set is not there
is said to be left out. Exits with 1 if a bound differs.
"""

import argparse
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from matnet_tf import presets

SAME, OTHER, SINGLE = 0.001, 0.1, 0.01  # Nats.
NOISE = ("num_samples", "seed", "batch_size", "chunk", "jit_compile")


def verify(name: str, num_samples: int, data_dir: str) -> bool:
    """Measures one model, prints a line, and returns whether it is the one of its record."""
    import numpy as np

    from matnet_tf.config import EvaluateConfig
    from matnet_tf.evaluation.evaluate import evaluate
    from matnet_tf.model.importance import compiles_bounds
    from matnet_tf.serving.publish import stored_bounds

    record = presets.read_record(presets.trained(name))["evaluation"]
    count = num_samples or record["num_samples"]
    if str(count) not in record["nll_by_num_samples"]:
        raise ValueError(f"{name} has bounds of K {', '.join(record['nll_by_num_samples'])} only")
    found, recorded = stored_bounds(presets.trained(name))
    largest = float(np.abs(found - recorded).max())
    single = compiles_bounds() or largest < SINGLE  # XLA draws other noise.
    settings = {key: record[key] for key in ("split", "seed", "batch_size")}
    with tempfile.TemporaryDirectory() as folder:
        workdir = presets.checkout(name, pathlib.Path(folder) / name)
        ours = evaluate(workdir, EvaluateConfig(num_samples=count, **settings), data_dir)
    if ours["data_digest"] != record["data_digest"]:
        raise ValueError(f"the images of {record['data']} are not those of the record of {name}")
    expected = record["nll_by_num_samples"][str(count)]
    same = all(ours.get(key) == record.get(key) for key in NOISE)
    good = single and abs(ours["nll"] - expected) < (SAME if same else OTHER)
    print(
        f"{name}: {ours['nll']:.4f} nats, recorded {expected:.4f} (K={count}, "
        f"{ours['images']['count']:,} images, {'the same' if same else 'other'} noise); ten images "
        f"within {largest:.4f}: {'as recorded' if good else 'DIFFERENT'}",
        flush=True,
    )
    return good


def main() -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="presets; by default all with a trained model")
    parser.add_argument("--num_samples", type=int, default=0, help="K; by default as recorded")
    parser.add_argument("--data_dir", default="", help="TFDS directory")
    arguments = parser.parse_args()
    good = True
    for name in arguments.names or presets.trained_names():
        try:
            good &= verify(name, arguments.num_samples, arguments.data_dir)
        except ValueError as error:
            if "matnet prepare" not in str(error):  # What a missing data set asks for.
                raise
            print(f"{name}: left out: {' '.join(str(error).split())}", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
