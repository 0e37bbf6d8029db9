# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Makes this package's classes known to Keras, without importing TensorFlow before Keras does.

`keras.models.load_model` finds only classes whose module has been imported. `import matnet_tf`
imports none, so that a program can refuse a wrong flag at once. So they are imported when Keras is.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys

__all__ = ["check_backend", "register", "register_with_keras"]

_MODULES = ("model.matnet", "model.conditional", "runs.optimizer")
_WITHOUT_TENSORFLOW = {
    *("__main__", "cli", "config", "files", "flags", "interrupts", "presets", "progress"),
    *("registration", "version"),
}


def check_backend() -> None:
    """Refuses another backend of Keras than TensorFlow, before Keras is imported.

    Raises:
      ImportError: If `KERAS_BACKEND` names another one.
    """
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    if backend != "tensorflow":
        raise ImportError(
            f"matnet_tf runs on Keras's backend tensorflow; got KERAS_BACKEND={backend}"
        )


def register() -> None:
    """Imports every module with classes that Keras saves."""
    for name in _MODULES:
        importlib.import_module(f"matnet_tf.{name}")


def register_with_keras() -> None:
    """Registers the classes now if Keras is imported already, else as soon as it is."""
    if "keras" in sys.modules:
        register()
    else:
        sys.meta_path.insert(0, _KerasFinder())


class _KerasFinder:
    """Finds Keras as Python does, once, and has it loaded by `_KerasLoader`."""

    def find_spec(self, name, path=None, target=None):
        if name != "keras":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None:
            spec.loader = _KerasLoader(spec.loader)
        return spec


class _KerasLoader:
    """Loads Keras and then this package's classes."""

    def __init__(self, loader):
        self._loader = loader

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module):
        module.__loader__ = module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        if not _is_in_use():
            register()


def _is_in_use() -> bool:
    """Whether a module of this package that imports TensorFlow has been imported, maybe in part.

    While one of them imports Keras, none can be imported from here.
    """
    loaded = (name.split(".")[1] for name in sys.modules if name.startswith("matnet_tf."))
    return not _WITHOUT_TENSORFLOW.issuperset(loaded)
