# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""From a `DataConfig` to batches of `x`, float32 [B, H, W, C] in [0, 1].

`load` returns a `Split`, which makes endless batches for training, each a function of (seed, step)
alone, and single ordered passes for evaluation. Binarization, dequantization noise and masks are
drawn anew each time training sees an image, and once per image for evaluation. For conditional
models a batch is `{"image": x, "mask": mask}`.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from matnet_tf.config import DataConfig, ModelConfig
from matnet_tf.data import masks, preprocessing
from matnet_tf.data.batching import MemoryImages, StreamedImages, deterministic
from matnet_tf.data.catalog import DATA_SETS, DataSetInfo, binarization_of, data_set_info
from matnet_tf.data.sources.digits import read_digits
from matnet_tf.data.tfds_reader import Stored, check_disjoint, in_tfds, read, split_size
from matnet_tf.data.tfds_writer import data_dir, find

__all__ = ["DATA_SETS", "Split", "fixed_masks", "load", "load_for"]

Images = MemoryImages | StreamedImages
# A batch for the model: `x`, or a dictionary of `image` and `mask`.
Batch = tf.Tensor | dict[str, tf.Tensor]

SPLITS = ("train", "validation", "test")

# Each use of a seed folds in its own constant, so that two uses of one seed are unrelated.
_ORDER, _NOISE, _FIXED, _MASKS, _FIXED_MASKS, _VALIDATION = range(6)


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """The images of one split and the way in which they become batches.

    Attributes:
      name: train, validation or test.
      images: Stored images, in memory or streamed.
      image_shape: Height, width and channels.
      labels: Class of each image, int64 [N], or None.
      binarization: dynamic, threshold or none.
      dequantized: Whether uniform noise spreads every 8-bit value over its bin.
      eight_bit: Whether `x` takes the values of 8-bit images, exactly value / 255.
      draw_seed: Seed of the fixed draws for evaluation.
      mask_config: Settings of the masks, or None if nothing is hidden.
      classes: Names of the classes, or None.
      files: Name of the file of each image, or None.
      tiles_of: Median height and width of the pictures that the images are tiles of, or None.
    """

    name: str
    images: Images
    image_shape: tuple[int, int, int]
    labels: np.ndarray | None
    binarization: str
    dequantized: bool
    eight_bit: bool
    draw_seed: int
    mask_config: DataConfig | None = None
    classes: list[str] | None = None
    files: np.ndarray | None = None
    tiles_of: tuple[int, int] | None = None

    @property
    def num_images(self) -> int:
        """Number of images."""
        return len(self.images)

    def identity(self) -> dict[str, Any]:
        """Returns the number of stored images and a digest, to tell one set from another.

        `tiles_of` is there too if the images are tiles.
        """
        with self.images.reading():
            found = {"count": self.num_images, "digest": self.images.digest()}
        return found | ({"tiles_of": list(self.tiles_of)} if self.tiles_of else {})

    def columns(self, indices: np.ndarray) -> dict[str, list]:
        """What is known of images beside their pixels: `index`, `label`, `class` and `file`.

        `class` is the label's name, `file` the name of the image's file. What is not known is "".
        """
        labels = names = unknown = [""] * len(indices)
        if self.labels is not None:
            # TFDS marks an example without a label by -1.
            labels = [label if label >= 0 else "" for label in self.labels[indices].tolist()]
        if self.labels is not None and self.classes:
            names = [self.classes[label] if label != "" else "" for label in labels]
        files = unknown if self.files is None else self.files[indices].tolist()
        return {"index": indices.tolist(), "label": labels, "class": names, "file": files}

    @property
    def mask_record(self) -> dict[str, Any] | None:
        """Settings of the masks as an evaluation records them, or None."""
        return masks.record(self.mask_config) if self.mask_config else None

    def training_dataset(self, batch_size: int, seed: int, first_step: int = 0) -> tf.data.Dataset:
        """Returns endless batches of `x`, float32 [B, H, W, C], or `{"image": x, "mask": mask}`.

        The batch at a global step is a function of (seed, step) alone. Every epoch is a new
        permutation, and batches run across the end of an epoch. Images in memory start at any step
        at no cost; streamed images read up to one epoch first.

        Args:
          batch_size: Batch size B.
          seed: Integer seed of the order and of all draws.
          first_step: Global step of the first batch.

        Raises:
          ValueError: If the batch size is not positive, or the seed or first step is negative.
        """
        _require_at_least(1, batch_size=batch_size)
        _require_at_least(0, first_step=first_step, seed=seed)
        noise_seed, mask_seed = _stateless_seed(seed, _NOISE), _stateless_seed(seed, _MASKS)

        def prepare(step: tf.Tensor, images: tf.Tensor) -> Batch:
            x = self._model_input(images, tf.random.fold_in(noise_seed, step))
            if not self.mask_config:
                return x
            own_seed = tf.random.fold_in(mask_seed, step)
            mask = masks.random_masks(self.mask_config, self.image_shape, x.shape[0], own_seed)
            return {"image": x, "mask": mask}

        order_seed = _stateless_seed(seed, _ORDER)
        dataset = self.images.shuffled(batch_size, order_seed, first_step).map(prepare)
        return deterministic(dataset.prefetch(2))

    def evaluation_dataset(
        self, batch_size: int, indices: np.ndarray | None = None
    ) -> tf.data.Dataset:
        """Returns one pass of `x`, or `{"image": x, "mask": mask}`; the last batch may be smaller.

        Binarization, dequantization and masks are drawn from `draw_seed` and the image's index, so
        a subset or another batch size gives every image the same pixels. A validation image's draws
        are unrelated to those of the test image with its index.

        Args:
          batch_size: Batch size B.
          indices: Indices of the images, in order; None takes all of them.

        Raises:
          ValueError: If the batch size is not positive, or the indices are empty, not integers or
            out of range.
        """
        _require_at_least(1, batch_size=batch_size)
        noise_seed = _fixed_seed(self.draw_seed, _FIXED, self.name)

        def prepare(index: tf.Tensor, images: tf.Tensor) -> Batch:
            x = self._model_input(images, noise_seed, index)
            if not self.mask_config:
                return x
            mask = fixed_masks(self.mask_config, self.image_shape, self.name, index)
            return {"image": x, "mask": mask}

        dataset = self.images.ordered(batch_size, self._checked(indices)).map(prepare)
        return deterministic(dataset.prefetch(2))

    def _model_input(
        self, images: tf.Tensor, seed: tf.Tensor, indices: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Returns `x` of stored images; with `indices`, draws depend on them."""
        if self.dequantized and indices is None:
            return preprocessing.dequantize(images, seed)
        if self.dequantized:
            return preprocessing.dequantize_by_index(images, indices, seed)
        x = preprocessing.scale(images)
        if self.binarization == "threshold":
            return preprocessing.threshold(x)
        if self.binarization == "none":
            return x
        if indices is None:
            return preprocessing.binarize(x, seed)
        return preprocessing.binarize_by_index(x, indices, seed)

    def _checked(self, indices: np.ndarray | None) -> np.ndarray:
        if indices is None:
            return np.arange(self.num_images)
        indices = np.asarray(indices)
        if indices.ndim != 1 or not indices.size or indices.dtype.kind not in "iu":
            raise ValueError(
                f"indices must be a list of at least one integer; got {indices.dtype} "
                f"{list(indices.shape)}"
            )
        if indices.min() < 0 or indices.max() >= self.num_images:
            raise ValueError(
                f"indices must lie in [0, {self.num_images - 1}]; got {indices.min()} to "
                f"{indices.max()}"
            )
        return indices.astype(np.int64)


def load(config: DataConfig, split: str) -> Split:
    """Loads a split, into memory if it fits and streamed otherwise. Nothing is downloaded.

    The validation split is the last `validation_images` of the training split, which loses them.

    Args:
      config: Data set, directory, preprocessing and masks.
      split: train, validation or test.

    Raises:
      ValueError: If the data set is unknown or not prepared (the message says what to run), there
        is no such split, splits overlap, the images do not suit the settings for binarization,
        dequantization, size or masks, or the files are damaged.
    """
    _check_split(config, split)
    info, binarization = data_set_info(config.name), binarization_of(config)
    if config.dequantize:
        _check_dequantizable(config.name, info, binarization)
    if config.image_size:
        _check_resizable(config.name, info)
    stored = _digits(config, split) if info.embedded else _stored(config, split, info)
    images = stored.images
    if config.dequantize and images.dtype != np.uint8:
        raise ValueError(
            f"DataConfig.dequantize requires 8-bit images; those of {config.name} are stored as "
            f"{images.dtype.name}"
        )
    if config.mask != "none":
        masks.check(config, images.image_shape)
    stored_as_8_bit = images.dtype == np.uint8 and info.white == 255
    return Split(
        name=split,
        images=images,
        image_shape=images.image_shape,
        labels=stored.labels,
        binarization=binarization,
        dequantized=config.dequantize,
        eight_bit=stored_as_8_bit and binarization == "none" and not config.dequantize,
        draw_seed=config.draw_seed,
        mask_config=config if config.mask != "none" else None,
        classes=stored.classes,
        files=stored.files,
        tiles_of=stored.tiles_of,
    )


def load_for(model: ModelConfig, config: DataConfig, split: str) -> Split:
    """Loads a split and checks that its images fit a model.

    Raises:
      ValueError: As for `load`, or if the split is empty, or the images do not have the model's
        shape or do not suit its likelihood.
    """
    loaded = load(config, split)
    if loaded.image_shape != model.image_shape:
        raise ValueError(
            f"the images of {config.name} have shape {loaded.image_shape}, but "
            f"model.image_shape is {model.image_shape}"
        )
    if loaded.num_images == 0:
        raise ValueError(f"{config.name} has no {split} images")
    _check_likelihood(loaded, config.name, model.likelihood)
    return loaded


def _check_likelihood(split: Split, name: str, likelihood: str) -> None:
    if likelihood in ("logistic", "logistic_mixture") and not split.eight_bit:
        raise ValueError(
            f"likelihood {likelihood} requires 8-bit images with 256 levels per value; those of "
            f"{name} are {'dequantized' if split.dequantized else 'binary or real'}"
        )
    if likelihood == "bernoulli" and (split.eight_bit or split.dequantized):
        raise ValueError(
            f"likelihood bernoulli requires images of 0 and 1; those of {name} are "
            f"{'dequantized' if split.dequantized else '8-bit'}: add --model.likelihood="
            f"{'normal' if split.dequantized else 'logistic'}, or binarize them by "
            f"--data.binarization=dynamic or threshold"
        )
    discrete = split.images.dtype == np.uint8 or split.binarization != "none"
    if likelihood == "normal" and discrete and not split.dequantized:
        kind, advice = "binary", "add --model.likelihood=bernoulli"
        if split.eight_bit:
            kind, advice = "8-bit", "add --data.dequantize"
        raise ValueError(
            f"likelihood normal is a density and unbounded on discrete values such as the {kind} "
            f"images of {name}: {advice}"
        )


def _check_split(config: DataConfig, split: str) -> None:
    if split not in SPLITS:
        raise ValueError(f"split must be one of {list(SPLITS)}; got {split!r}")
    if split == "validation" and not config.validation_images:
        raise ValueError("there is no validation split: DataConfig.validation_images is 0")


def _check_dequantizable(name: str, info: DataSetInfo, binarization: str) -> None:
    """Refuses what can be refused before any image is read."""
    if info.white != 255:
        raise ValueError(
            f"DataConfig.dequantize requires 8-bit images; those of {name} have the values 0 to "
            f"{info.white}"
        )
    if binarization != "none":
        raise ValueError(
            f"DataConfig.dequantize requires images that are not binarized; {name} has "
            f"binarization {binarization} unless you add --data.binarization=none"
        )


def _check_resizable(name: str, info: DataSetInfo) -> None:
    if info.embedded or info.white != 255:
        reason = "is embedded at 8x8" if info.embedded else "has binary images"
        raise ValueError(
            f"DataConfig.image_size requires images stored as intensities; {name} {reason}"
        )


def _part(config: DataConfig, split: str, total: int) -> slice:
    """Returns the positions of a split within the TFDS split of `total` images."""
    held_out = config.validation_images
    if split == "test":
        return slice(0, total)
    if held_out >= total:
        raise ValueError(
            f"DataConfig.validation_images must be below the {total} images of "
            f"{config.name} {config.train_split}; got {held_out}"
        )
    return slice(0, total - held_out) if split == "train" else slice(total - held_out, total)


def _stored(config: DataConfig, split: str, info: DataSetInfo) -> Stored:
    """Reads a prepared TFDS data set."""
    folder = find(config.name, config.dir)
    if folder is None:
        raise ValueError(_missing(config))
    check_disjoint(folder, config.train_split, config.test_split)
    source = config.test_split if split == "test" else config.train_split
    part = _part(config, split, split_size(folder, source))
    return read(folder, source, part, info.white, config.image_size or None)


def _digits(config: DataConfig, split: str) -> Stored:
    """Reads scikit-learn's digits."""
    if (config.train_split, config.test_split) != ("train", "test"):
        raise ValueError(
            "digits has the splits train and test only; got "
            f"{config.train_split!r} and {config.test_split!r}"
        )
    images, labels = read_digits("test" if split == "test" else "train")
    part = _part(config, split, len(images))
    return Stored(MemoryImages(images[part]), labels[part], [str(n) for n in range(10)])


def _missing(config: DataConfig) -> str:
    """Returns the error message for a data set that is not prepared."""
    where, info = data_dir(config.dir), data_set_info(config.name)
    if not info.source and not in_tfds(config.name):
        names = [*DATA_SETS, *tfds.list_builders(with_community_datasets=False)]
        near = difflib.get_close_matches(config.name, names, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        return f"{where} holds no {config.name!r}, and TFDS has no data set of that name{hint}"
    source = "--source=DIR " if info.source else ""
    return (
        f"{config.name} is not prepared in {where}; run: matnet prepare --data.name={config.name} "
        f"{source}--data.dir={where}"
    )


def fixed_masks(
    config: DataConfig, image_shape: Sequence[int], split: str, indices: tf.Tensor
) -> tf.Tensor:
    """The masks [B, H, W, 1] that evaluation gives the images at indices [B] of a split."""
    seed = _fixed_seed(config.draw_seed, _FIXED_MASKS, split)
    return masks.masks_by_index(config, image_shape, indices, seed)


def _fixed_seed(draw_seed: int, purpose: int, split: str) -> tf.Tensor:
    """The seed of draws for evaluation, int32 [2]."""
    seed = _stateless_seed(draw_seed, purpose)
    # Reported figures depend on the test split's draws, which were there first.
    return tf.random.fold_in(seed, _VALIDATION) if split == "validation" else seed


def _stateless_seed(seed: int, purpose: int) -> tf.Tensor:
    """Folds a purpose into a Python seed of up to 62 bits and returns an int32 seed [2]."""
    words = tf.constant([seed % 2**31, (seed >> 31) % 2**31], tf.int32)
    return tf.random.fold_in(words, purpose)


def _require_at_least(least: int, **values: int) -> None:
    for name, value in values.items():
        if value < least:
            raise ValueError(f"{name} must be at least {least}; got {value!r}")
