# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Images: from source files to TFDS data sets, and from there to batches for a model.

Importing this package loads neither TensorFlow nor TFDS: the names below are imported on first use.
"""

__all__ = ["DATA_SETS", "Split", "load", "load_for"]


def __getattr__(name):
    if name in __all__:
        from matnet_tf.data import loading

        return getattr(loading, name)
    raise AttributeError(f"module 'matnet_tf.data' has no attribute {name!r}")
