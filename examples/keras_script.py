#!/usr/bin/env python3
# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Trains a MatNet as any Keras model, with the usual callbacks, and saves it.

Usage: keras_script.py FOLDER [EPOCHS]
"""

import pathlib
import sys

import keras
import numpy as np
from sklearn.datasets import load_digits

import matnet_tf as matnet


def main(folder: pathlib.Path, epochs: int = 30) -> None:
    """Trains on scikit-learn's digits in black and white; writes everything into the folder."""
    images = (load_digits().images[..., np.newaxis] > 8).astype(np.float32)  # [1797, 8, 8, 1]
    train, test = images[:1500], images[1500:]
    model = matnet.MatNet(matnet.suggest(train, size="small"), seed=0)
    model.compile(optimizer=keras.optimizers.Adam(2e-3), free_bits=0.1)
    callbacks = [
        keras.callbacks.EarlyStopping(patience=4, restore_best_weights=True),
        keras.callbacks.ReduceLROnPlateau(patience=2, factor=0.3),
        keras.callbacks.ModelCheckpoint(folder / "best.keras", save_best_only=True),
        keras.callbacks.TensorBoard(folder / "tensorboard"),
        keras.callbacks.CSVLogger(folder / "log.csv"),
    ]
    model.fit(
        train, batch_size=50, epochs=epochs, validation_split=0.1, callbacks=callbacks, verbose=2
    )
    bound = model.log_likelihood(test, num_samples=50).mean()
    print(f"log p(x) of {len(test)} test images >= {bound:.2f} nats (K=50)")
    model.save(folder / "digits.keras")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), *map(int, sys.argv[2:]))
