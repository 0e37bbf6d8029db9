# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The table of known data sets, and the way from a `DataConfig` to batches of `x`.

`load` gives a `Split`, and that gives `x`, float32 `[B, H, W, C]` in [0, 1]: endless batches for
training, of which each is a function of (seed, step) alone, or one pass in order for evaluation.
Where `x` is drawn from the stored images (binarization, dequantization), training draws it anew
each time that an image is seen, and evaluation once and for all. For conditional models a batch is
`{"image": x, "mask": mask}`, and what is drawn of the mask is drawn likewise.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from matnet_tf import datasets, masks, preprocessing
from matnet_tf.config import DataConfig, ModelConfig

__all__ = ["DATA_SETS", "DataSet", "Split", "binarization_of", "known", "load", "load_for"]

Images = datasets.MemoryImages | datasets.StreamedImages
# What the model is given at a time: `x`, or a dictionary of `image` and `mask`.
Batch = tf.Tensor | dict[str, tf.Tensor]

SPLITS = ("train", "validation", "test")

# The embedded digits: 1,500 of the 1,797 are for training, by a fixed draw.
_DIGITS_TRAIN, _DIGITS_SEED = 1500, 0

# What a seed is used for, so that two uses of one seed give unrelated numbers.
_ORDER, _NOISE, _FIXED, _MASKS, _FIXED_MASKS = range(5)


@dataclasses.dataclass(frozen=True)
class DataSet:
    """What is known of a data set.

    Attributes:
      binarization: what `DataConfig.binarization` "auto" means for it.
      white: the stored value that means 1.0.
      embedded: whether it comes with a library, so nothing has to be prepared.
    """

    binarization: str = "none"
    white: int = 255
    embedded: bool = False


DATA_SETS = {
    "mnist": DataSet("dynamic"),
    # TFDS stores these as intensities 0 and 1.
    "binarized_mnist": DataSet("none", white=1),
    "omniglot28": DataSet("dynamic"),
    "fashion_mnist": DataSet("dynamic"),
    "digits": DataSet("dynamic", embedded=True),
    "image_folder": DataSet("none"),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """The images of one split, ready for the model.

    Attributes:
      name: train, validation or test.
      images: the stored images, in memory or streamed.
      image_shape: height, width and channels.
      labels: class of each image, int64 `[N]`, or None where there are none.
      binarization: dynamic, threshold or none.
      dequantized: whether uniform noise spreads every 8-bit value over its bin.
      eight_bit: whether `x` are the values of 8-bit images, exactly value / 255.
      draw_seed: of the fixed draws for evaluation.
      masking: the settings of the masks, or None where nothing is hidden.
    """

    name: str
    images: Images
    image_shape: tuple[int, int, int]
    labels: np.ndarray | None
    binarization: str
    dequantized: bool
    eight_bit: bool
    draw_seed: int
    masking: DataConfig | None = None

    @property
    def num_images(self) -> int:
        """How many images there are."""
        return len(self.images)

    def identity(self) -> dict[str, Any]:
        """What tells these stored images from others: how many, and a digest."""
        return {"count": self.num_images, "digest": self.images.digest()}

    @property
    def mask_record(self) -> dict[str, Any] | None:
        """The settings of the masks for the record of an evaluation, or None."""
        return masks.record(self.masking) if self.masking else None

    def training_dataset(self, batch_size: int, seed: int, first_step: int = 0) -> tf.data.Dataset:
        """Endless batches of `x`, float32 `[B, H, W, C]`, or `{"image": x, "mask": mask}`.

        The batch at a global step is a function of (seed, step) alone: the order is a new
        permutation in every epoch, epochs follow each other without a gap, and dynamic
        binarization, the noise of dequantization and masks are drawn anew each time an image is
        seen. Images in memory start at any step at once; streamed ones read up to one epoch first.

        Args:
          batch_size: B.
          seed: of order and draws.
          first_step: global step of the first batch.

        Raises:
          ValueError: if the batch size is not positive or the first step negative.
        """
        _require_at_least(1, batch_size=batch_size)
        _require_at_least(0, first_step=first_step, seed=seed)
        noise, hidden = _stateless_seed(seed, _NOISE), _stateless_seed(seed, _MASKS)

        def prepare(step: tf.Tensor, images: tf.Tensor) -> Batch:
            x = self._model_input(images, tf.random.fold_in(noise, step))
            return self._with_masks(x, tf.random.fold_in(hidden, step))

        order = _stateless_seed(seed, _ORDER)
        dataset = self.images.shuffled(batch_size, order, first_step).map(prepare)
        return datasets.deterministic(dataset.prefetch(2))

    def evaluation_dataset(
        self, batch_size: int, indices: np.ndarray | None = None
    ) -> tf.data.Dataset:
        """One pass of `x`, or `{"image": x, "mask": mask}`; the last batch may be smaller.

        Dynamic binarization, dequantization and masks are one fixed draw, tied to `draw_seed` and
        to the image's index, so a subset or another batch size gives every image the same pixels.

        Args:
          batch_size: B.
          indices: which images, in this order; None is all of them.

        Raises:
          ValueError: if the batch size is not positive, or the indices are none, or not integers
            of images that there are.
        """
        _require_at_least(1, batch_size=batch_size)
        fixed = _stateless_seed(self.draw_seed, _FIXED)
        fixed_masks = _stateless_seed(self.draw_seed, _FIXED_MASKS)

        def prepare(index: tf.Tensor, images: tf.Tensor) -> Batch:
            return self._with_masks(self._model_input(images, fixed, index), fixed_masks, index)

        dataset = self.images.ordered(batch_size, self._checked(indices)).map(prepare)
        return datasets.deterministic(dataset.prefetch(2))

    def _model_input(
        self, images: tf.Tensor, seed: tf.Tensor, indices: tf.Tensor | None = None
    ) -> tf.Tensor:
        """`x` of stored images; with `indices` what is drawn is fixed for each image."""
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

    def _with_masks(self, x: tf.Tensor, seed: tf.Tensor, indices: tf.Tensor | None = None) -> Batch:
        """`x`, with masks if there are any; with `indices` those are fixed for each image."""
        if not self.masking:
            return x
        if indices is None:
            mask = masks.random_masks(self.masking, self.image_shape, x.shape[0], seed)
        else:
            mask = masks.masks_by_index(self.masking, self.image_shape, indices, seed)
        return {"image": x, "mask": mask}

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
                f"indices must lie in [0, {self.num_images - 1}]; they reach from "
                f"{indices.min()} to {indices.max()}"
            )
        return indices.astype(np.int64)


def known(name: str) -> DataSet:
    """What is known of a data set, or assumed of one that is not in `DATA_SETS`."""
    return DATA_SETS.get(name, DataSet())


def binarization_of(config: DataConfig) -> str:
    """How images are binarized: dynamic, threshold or none; `auto` is the data set's own."""
    return known(config.name).binarization if config.binarization == "auto" else config.binarization


def load(config: DataConfig, split: str) -> Split:
    """Loads a split: in memory, or streamed if it is larger than the bound on memory.

    Validation images are the last `validation_images` of the training split, which loses them.

    Args:
      config: which data set, where, its images' size, how it is binarized or dequantized, and what
        of an image is hidden.
      split: train, validation or test.

    Raises:
      ValueError: if there is no such data set or split, it is not prepared (the message says what
        to run; nothing is downloaded), its images cannot be used, splits overlap, images that are
        binary, or stored as floats, are to be dequantized, binary ones or the digits to be resized,
        or masks are not for the images.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {list(SPLITS)}; got {split!r}")
    if split == "validation" and not config.validation_images:
        raise ValueError("there is no validation split: DataConfig.validation_images is 0")
    kind, binarization = known(config.name), binarization_of(config)
    if config.dequantize:
        _check_dequantizable(config.name, kind, binarization)
    if config.image_size:
        _check_resizable(config.name, kind)
    images, labels = _digits(config, split) if kind.embedded else _stored(config, split, kind)
    if config.dequantize and images.dtype != np.uint8:
        raise ValueError(
            f"DataConfig.dequantize is for 8-bit images; those of {config.name} are stored as "
            f"{images.dtype.name}"
        )
    if config.mask != "none":
        masks.check(config, images.image_shape)
    values_of_8_bits = images.dtype == np.uint8 and kind.white == 255
    return Split(
        name=split,
        images=images,
        image_shape=images.image_shape,
        labels=labels,
        binarization=binarization,
        dequantized=config.dequantize,
        eight_bit=values_of_8_bits and binarization == "none" and not config.dequantize,
        draw_seed=config.draw_seed,
        masking=config if config.mask != "none" else None,
    )


def load_for(model: ModelConfig, config: DataConfig, split: str) -> Split:
    """Loads a split as `load` does, and refuses images that are not for the model.

    Raises:
      ValueError: as `load`; or if there are no images, they are not of the model's shape, or its
        likelihood is not for them.
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
    """Refuses images that the likelihood is not for."""
    if likelihood == "logistic" and not split.eight_bit:
        raise ValueError(
            f"likelihood logistic is for 8-bit images, 256 levels a value; those of {name} are "
            f"{'dequantized' if split.dequantized else 'binary or real'}"
        )
    discrete = split.images.dtype == np.uint8 or split.binarization != "none"
    if likelihood == "normal" and discrete and not split.dequantized:
        kind, way = "binary", "use likelihood bernoulli"
        if split.eight_bit:
            kind, way = "8-bit", "add --data.dequantize"
        raise ValueError(
            f"likelihood normal is a density, which has no bound on discrete values such as those "
            f"of the {kind} images of {name}: {way}"
        )


def _check_dequantizable(name: str, kind: DataSet, binarization: str) -> None:
    """What can be said before any image is read."""
    if kind.white != 255:
        raise ValueError(
            f"DataConfig.dequantize is for 8-bit images; those of {name} have the values 0 to "
            f"{kind.white}"
        )
    if binarization != "none":
        raise ValueError(
            f"DataConfig.dequantize is for images that are not binarized; the binarization of "
            f"{name} is {binarization} unless you add --data.binarization=none"
        )


def _check_resizable(name: str, kind: DataSet) -> None:
    """What can be said before any image is read."""
    if kind.embedded or kind.white != 255:
        reason = "is embedded at 8x8" if kind.embedded else "has binary images"
        raise ValueError(
            f"DataConfig.image_size is for sets that are stored with intensities; {name} {reason}"
        )


def _part(config: DataConfig, split: str, total: int) -> slice:
    """Which positions of the underlying split, of `total` images, a split takes."""
    held_out = config.validation_images
    if split == "test":
        return slice(0, total)
    if held_out >= total:
        raise ValueError(
            f"DataConfig.validation_images must be below the {total} images of "
            f"{config.name} {config.train_split}; got {held_out}"
        )
    return slice(0, total - held_out) if split == "train" else slice(total - held_out, total)


def _stored(config: DataConfig, split: str, kind: DataSet) -> tuple[Images, np.ndarray | None]:
    """Images and labels of a split of a prepared TFDS data set."""
    folder = datasets.find(config.name, config.dir)
    if folder is None:
        raise ValueError(_missing(config))
    datasets.check_disjoint(folder, config.train_split, config.test_split)
    source = config.test_split if split == "test" else config.train_split
    part = _part(config, split, datasets.split_size(folder, source))
    return datasets.read(folder, source, part, kind.white, config.image_size or None)


def _digits(config: DataConfig, split: str) -> tuple[Images, np.ndarray]:
    """Images and labels of a split of scikit-learn's digits."""
    if (config.train_split, config.test_split) != ("train", "test"):
        raise ValueError(
            "digits has the splits train and test only; got "
            f"{config.train_split!r} and {config.test_split!r}"
        )
    images, labels = _all_digits()
    rows = slice(_DIGITS_TRAIN, None) if split == "test" else slice(_DIGITS_TRAIN)
    images, labels = images[rows], labels[rows]
    part = _part(config, split, len(images))
    return datasets.MemoryImages(images[part]), labels[part]


@functools.cache
def _all_digits() -> tuple[np.ndarray, np.ndarray]:
    """All 1,797 digits, uint8 `[N, 8, 8, 1]`, in the order of a fixed draw, and their labels."""
    # scikit-learn takes its time to import, and only this set needs it.
    from sklearn.datasets import load_digits

    loaded = load_digits()
    images = np.rint(loaded.images * (255 / 16)).astype(np.uint8)[..., None]
    # NumPy promises that RandomState gives the same numbers in every later version.
    order = np.random.RandomState(_DIGITS_SEED).permutation(len(images))
    return images[order], loaded.target[order].astype(np.int64)


def _missing(config: DataConfig) -> str:
    """What to say, and to run, when a data set is not there."""
    where = datasets.data_dir(config.dir)
    source = "--source=DIR " if config.name in datasets.SOURCES else ""
    if not source and not datasets.in_tfds(config.name):
        names = [*DATA_SETS, *tfds.list_builders(with_community_datasets=False)]
        near = difflib.get_close_matches(config.name, names, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        return f"{where} holds no {config.name!r}, and neither is it a name of TFDS{hint}"
    return (
        f"{config.name} is not prepared in {where}; run: bin/prepare --data.name={config.name} "
        f"{source}--data.dir={where}"
    )


def _stateless_seed(seed: int, purpose: int) -> tf.Tensor:
    """An int32 `[2]` seed for one purpose, from a Python int of up to 62 bits."""
    words = tf.constant([seed % 2**31, (seed >> 31) % 2**31], tf.int32)
    return tf.random.fold_in(words, purpose)


def _require_at_least(least: int, **values: int) -> None:
    for name, value in values.items():
        if value < least:
            raise ValueError(f"{name} must be at least {least}; got {value!r}")
