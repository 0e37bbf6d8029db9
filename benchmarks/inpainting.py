#!/usr/bin/env python3
# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Measures the error of completions: conditional models against simple fillers.

For test images with the masks of the runs, prints the mean absolute error of the hidden values, in
grey levels of 255, for the completions of every work directory (one draw, and the mean of several)
and for three fillers that learn nothing: the mean colour of the known pixels, the nearest known
pixel, and biharmonic inpainting (scikit-image, the extra `benchmarks` of setup.py). All fill the
same pixels of the same images. The last line is the record, in JSON.
"""

import argparse
import dataclasses
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import numpy as np
from scipy import ndimage

from matnet_tf.data import loading
from matnet_tf.runs.models import load_run
from matnet_tf.runs.workdir import read_experiment

BATCH = 24


def mean_colour(x, known):
    """Fills hidden pixels with the mean of the known ones, channel by channel."""
    return np.where(known, x, x[known[..., 0]].mean(axis=0))


def nearest_pixel(x, known):
    """Fills each hidden pixel with the nearest known one."""
    index = ndimage.distance_transform_edt(
        ~known[..., 0], return_distances=False, return_indices=True
    )
    return x[tuple(index)]


def biharmonic(x, known):
    """Fills hidden pixels with the smooth surface through the known ones."""
    from skimage import restoration

    return restoration.inpaint_biharmonic(x, ~known[..., 0], channel_axis=-1)


FILLERS = {f.__name__: f for f in (mean_colour, nearest_pixel, biharmonic)}


def error(completed, x, mask):
    """Returns the sum of absolute errors of hidden values, in grey levels, and their number."""
    hidden = np.broadcast_to(mask < 0.5, x.shape)
    return 255 * np.abs(np.asarray(completed, np.float64) - x)[hidden].sum(), hidden.sum()


def main():
    """Fills hidden pixels and prints the errors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workdirs", nargs="+")
    parser.add_argument("--data_dir", default="")
    parser.add_argument(
        "--images", type=int, default=0, help="number of images, the first ones; 0 is all"
    )
    parser.add_argument("--samples", type=int, default=20, help="number of completions in the mean")
    arguments = parser.parse_args()
    models = {w: load_run(w).model for w in arguments.workdirs}
    settings = [read_experiment(w).data for w in arguments.workdirs]
    if len(set(settings)) > 1:
        sys.exit("the runs must have the same data and masks")
    config = dataclasses.replace(settings[0], dir=arguments.data_dir or settings[0].dir)
    split = loading.load(config, "test")
    total = arguments.images or split.num_images
    errors = {}

    def count(name, completed, x, mask):
        amount, values = error(completed, x, mask)
        before = errors.get(name, (0.0, 0))
        errors[name] = before[0] + amount, before[1] + int(values)

    for position, batch in enumerate(split.evaluation_dataset(BATCH, np.arange(total))):
        x, mask = batch["image"].numpy(), batch["mask"].numpy()
        for name, fill in FILLERS.items():
            filled = [fill(a, b > 0.5) for a, b in zip(x, mask, strict=True)]
            count(name, np.stack(filled), x, mask)
        for name, model in models.items():
            samples, mean = model.impute(x, mask, arguments.samples, seed=position)
            count(f"{name}, one draw", samples[0].numpy(), x, mask)
            count(f"{name}, mean of {arguments.samples}", mean.numpy(), x, mask)
    means = {name: amount / values for name, (amount, values) in errors.items()}
    for name, value in means.items():
        print(f"{value:8.3f}  {name}")
    print(json.dumps({"images": total, "mean_absolute_error": means}))


if __name__ == "__main__":
    main()
