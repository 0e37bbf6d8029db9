# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Matryoshka Networks: deep hierarchical latent-variable models of images.

    import matnet_tf as matnet

    model = matnet.MatNet(matnet.ModelConfig((28, 28, 1), (matnet.Scale(1, 400, 32, 4),)))

Names are imported when first used, so that a program can refuse a wrong flag before TensorFlow is
loaded.
"""

import importlib
import os

from matnet_tf.registration import check_backend, register, register_with_keras

# oneDNN is off by default on some processors and roughly doubles training there; it must be asked
# for before TensorFlow is imported.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

register_with_keras()

# Where public names are: `name -> module`, or `name -> module:name` of an alias.
_NAMES = {
    "ClusterConfig": "config",
    "ConditionalMatNet": "model.conditional",
    "DataConfig": "config",
    "ElboLoss": "config",
    "EvaluateConfig": "config",
    "Experiment": "config",
    "ImputeConfig": "config",
    "MatNet": "model.matnet",
    "ModelConfig": "config",
    "Scale": "config",
    "ScoreConfig": "config",
    "Stage": "config:Scale",  # The name that `Scale` had.
    "TrainConfig": "config",
    "__version__": "version",
    "from_preset": "runs.models",
    "initialize": "runs.models",
    "load": "runs.models",
    "suggest": "data.suggestion",
}
_MODULES = {
    "bounds": "model.bounds",
    "config": "config",
    "data": "data",
    "devices": "runs.devices",
    "presets": "presets",
}

__all__ = [*_NAMES, *_MODULES]  # noqa: PLE0604 - every name is a string.


def __getattr__(name):
    if name not in _NAMES and name not in _MODULES:
        raise AttributeError(f"module 'matnet_tf' has no attribute {name!r}")
    module, _, attribute = _NAMES.get(name, _MODULES.get(name)).partition(":")
    if module not in ("config", "presets", "version"):
        check_backend()
        register()
    found = importlib.import_module(f"matnet_tf.{module}")
    return getattr(found, attribute or name) if name in _NAMES else found


def __dir__():
    return sorted(__all__)
