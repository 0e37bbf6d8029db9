# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The images of an experiment, and how they become the model's input."""

from __future__ import annotations

import dataclasses

from matnet_tf.config.validation import check_fields, field, is_size, make_tuple, require

__all__ = ["DataConfig"]

# The fields of `DataConfig` that only one kind of mask uses.
_MASK_FIELDS = {
    "quadrants": ("visible", "quadrant_order"),
    "occluders": ("occluders", "occluder_size"),
    "pixels": ("known_share",),
    "half": ("half",),
    "file": ("mask_file",),
}


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The images of an experiment, their preprocessing, and their masks.

    Raises:
      ValueError: If a field is out of range, or fields do not go together.
    """

    name: str = field(
        "digits",
        "data set: mnist, binarized_mnist, omniglot28, fashion_mnist, cifar10, digits, "
        "image_folder, or any TFDS name with an `image` feature",
    )
    dir: str = field("", "TFDS data directory; empty is TFDS's own default")
    binarization: str = field(
        "auto",
        "how pixels become 0 or 1; dynamic: by a Bernoulli draw, a new one each time an image is "
        "seen in training and a fixed one for evaluation; threshold: 1 above one half; none: "
        "images keep their values in [0, 1]; auto: as is usual for the data set",
        ("auto", "dynamic", "threshold", "none"),
    )
    dequantize: bool = field(
        False,
        "add uniform noise to 8-bit images, (value + U[0, 1)) / 256, as the normal likelihood "
        "requires: new noise each time an image is seen in training, fixed noise for evaluation",
    )
    draw_seed: int = field(
        0,
        "seed of the fixed draws of binarization, dequantization and masks for validation and test "
        "images",
        at_least=0,
    )
    validation_images: int = field(
        0,
        "number of images held out from the end of the training split for validation; 0 is no "
        "validation",
        at_least=0,
    )
    train_split: str = field("train", "TFDS split to train on")
    test_split: str = field("test", "TFDS split that is used only after training, for evaluation")
    image_size: tuple[int, ...] = field(
        (),
        "HEIGHT,WIDTH to which stored images are resized, after they are cropped to the largest "
        "central part of that shape; required if sizes vary; empty keeps images as they are",
    )
    mask: str = field(
        "none",
        "which part of an image is hidden, for conditional models; quadrants: all but `visible` of "
        "the four; occluders: rectangles; pixels: each independently; half: all but the `half`; "
        "file: what is black in `mask_file`",
        ("none", *_MASK_FIELDS),
    )
    visible: int = field(
        1, "number of known quadrants, 1 to 3, for mask quadrants", at_least=1, at_most=3
    )
    quadrant_order: str = field(
        "fixed",
        "which quadrants are known, for mask quadrants; fixed: lower left, then upper left, then "
        "upper right, as in Sohn et al. (2015); random: drawn for each image",
        ("fixed", "random"),
    )
    occluders: int = field(
        3,
        "number of rectangles hidden in each image, for mask occluders; their places are random, "
        "so they may overlap",
        at_least=1,
    )
    occluder_size: tuple[int, int] = field((20, 20), "HEIGHT,WIDTH of the occluders")
    known_share: float = field(
        0.5,
        "probability that a pixel is known, in [0, 1), for mask pixels; at least one is hidden",
        at_least=0,
        below=1,
    )
    half: str = field(
        "left",
        "the half that is known, for mask half; random: drawn for each image",
        ("left", "right", "top", "bottom", "random"),
    )
    mask_file: str = field(
        "",
        "picture file of the images' size, for mask file: white (128 and above) where a pixel "
        "is known and black where it is hidden, in every image",
    )

    def __post_init__(self):
        make_tuple(self, "image_size", "occluder_size")
        check_fields(self)
        require(bool(self.name), "DataConfig.name must name a data set; got ''")
        require(
            not self.dequantize or self.binarization in ("auto", "none"),
            f"DataConfig.dequantize is for images that are not binarized; got binarization "
            f"{self.binarization!r}",
        )
        require(
            self.train_split != self.test_split,
            f"DataConfig.train_split and test_split must differ; both are {self.train_split!r}",
        )
        require(
            not self.image_size or _is_shape(self.image_size),
            f"DataConfig.image_size must be empty or height and width, whole numbers of at least "
            f"1; got {self.image_size}",
        )
        self._check_mask()

    def _check_mask(self):
        for kind, names in _MASK_FIELDS.items():
            for name in names if self.mask != kind else ():
                value = getattr(self, name)
                require(
                    value == getattr(DataConfig, name),
                    f"DataConfig.{name} goes with mask {kind!r}; got {value!r} with {self.mask!r}",
                )
        require(
            _is_shape(self.occluder_size),
            f"DataConfig.occluder_size must be height and width, whole numbers of at least 1; got "
            f"{self.occluder_size}",
        )
        require(
            bool(self.mask_file) or self.mask != "file",
            "DataConfig.mask 'file' needs a mask_file; got ''",
        )

    def unmasked(self) -> DataConfig:
        """Returns the same images with nothing hidden."""
        names = [name for names in _MASK_FIELDS.values() for name in names]
        defaults = {name: getattr(DataConfig, name) for name in names}
        return dataclasses.replace(self, mask="none", **defaults)


def _is_shape(values: tuple) -> bool:
    """Returns whether the values are a height and a width."""
    return len(values) == 2 and all(is_size(value) for value in values)
