# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The parts of a model as `keras.Model.summary(expand_nested=True)` lists them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras

from matnet_tf.layers.base import Configured

__all__ = ["listed_parts"]


@contextlib.contextmanager
def listed_parts(layer: keras.Layer) -> Iterator[None]:
    """Gives networks an attribute `layers`, which Keras lists below them, inside a with statement.

    They do not keep it, since saved files would then have other paths for their weights.

    Args:
      layer: The hierarchy; its networks, and theirs, get the attribute too.
    """
    listed = []

    def show(layer):
        if isinstance(layer, Configured):
            object.__setattr__(layer, "layers", _parts(layer))
            listed.append(layer)
            for part in layer.layers:
                show(part)

    show(layer)
    try:
        yield
    finally:
        for layer in listed:
            object.__delattr__(layer, "layers")


def _parts(layer: keras.Layer) -> list[keras.Layer]:
    """The layers that a layer consists of, in the order in which it made them."""
    values = [value for name, value in vars(layer).items() if not name.startswith("_")]
    found = [part for part in keras.tree.flatten(values) if isinstance(part, keras.Layer)]
    return list({id(part): part for part in found}.values())
