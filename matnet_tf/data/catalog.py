# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The data sets that this package knows more about than TFDS tells."""

from __future__ import annotations

import dataclasses

from matnet_tf.config import DataConfig

__all__ = ["DATA_SETS", "DataSetInfo", "binarization_of", "data_set_info"]

_IDX_FILES = "{train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz]"


@dataclasses.dataclass(frozen=True)
class DataSetInfo:
    """Facts about a data set; the defaults hold for any set that is not in `DATA_SETS`.

    Attributes:
      binarization: The meaning of `DataConfig.binarization="auto"` for this set.
      white: Stored uint8 value that stands for an intensity of 1.0.
      source: Files that `matnet prepare --source` reads; empty if there is no reader.
      local_only: Whether TFDS cannot download the set.
      embedded: Whether a library ships the images, so that nothing needs to be prepared.
    """

    binarization: str = "none"
    white: int = 255
    source: str = ""
    local_only: bool = False
    embedded: bool = False


DATA_SETS = {
    "mnist": DataSetInfo("dynamic", source=_IDX_FILES),
    "fashion_mnist": DataSetInfo("dynamic", source=_IDX_FILES),
    # TFDS stores the intensities 0 and 1.
    "binarized_mnist": DataSetInfo(white=1, source="binarized_mnist_{train,valid,test}.amat"),
    "omniglot28": DataSetInfo("dynamic", source="chardata.mat", local_only=True),
    "cifar10": DataSetInfo(source="data_batch_{1..5}.bin and test_batch.bin"),
    "image_folder": DataSetInfo(
        source="{train,test}/CLASS/*.{png,jpg}, or images in one folder", local_only=True
    ),
    "digits": DataSetInfo("dynamic", embedded=True),
}


def data_set_info(name: str) -> DataSetInfo:
    """Returns the entry of `DATA_SETS`, or the defaults for any other name."""
    return DATA_SETS.get(name, DataSetInfo())


def binarization_of(config: DataConfig) -> str:
    """Returns dynamic, threshold or none, with `auto` resolved for the data set."""
    if config.binarization == "auto":
        return data_set_info(config.name).binarization
    return config.binarization
