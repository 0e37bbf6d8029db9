# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""What is done with a model: its data, its training, its evaluation, and a whole experiment."""

from __future__ import annotations

import dataclasses

from matnet_tf.config.fields import (
    check_at_least,
    check_between,
    check_positive,
    check_types,
    field,
    is_size,
    make_tuple,
    require,
)
from matnet_tf.config.model import ModelConfig

__all__ = ["DataConfig", "EvaluateConfig", "Experiment", "ScoreConfig", "TrainConfig"]

# The fields of `DataConfig` that belong to one kind of mask.
_MASK_FIELDS = {
    "quadrants": ("visible", "quadrant_order"),
    "occluders": ("occluders", "occluder_size"),
    "pixels": ("known_share",),
    "half": ("half",),
    "file": ("mask_file",),
}


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which images, from where, and how they are made into the model's input."""

    name: str = field(
        "digits",
        "mnist, binarized_mnist, omniglot28, fashion_mnist, cifar10, digits, image_folder, or any "
        "TFDS name with an `image` feature",
    )
    dir: str = field("", "TFDS data directory; empty is TFDS's own default")
    binarization: str = field(
        "auto",
        "dynamic: a fresh Bernoulli draw each time an image is seen in training, one fixed draw "
        "for evaluation; threshold: above one half; none: already in [0, 1]; auto: the data "
        "set's own",
        ("auto", "dynamic", "threshold", "none"),
    )
    dequantize: bool = field(
        False,
        "add uniform noise to 8-bit images, (value + U[0, 1)) / 256, as the normal likelihood "
        "needs it: drawn anew each time an image is seen, one fixed draw for evaluation",
    )
    draw_seed: int = field(
        0,
        "of the fixed draw of binarization, dequantization and masks, for validation and test "
        "images",
    )
    validation_images: int = field(
        0, "images cut from the end of the training split for validation; 0 is no validation"
    )
    train_split: str = field("train", "TFDS split to train on")
    test_split: str = field("test", "TFDS split that bin/evaluate touches, and nothing else")
    image_size: tuple[int, ...] = field(
        (),
        "HEIGHT,WIDTH to which stored images are brought, as a set whose images vary in size needs "
        "it: the largest central part of that shape, resized; empty keeps them as they are",
    )
    mask: str = field(
        "none",
        "what of an image is hidden, for conditional models; quadrants: all but `visible` of the "
        "four; occluders: rectangles; pixels: each on its own; half: all but the `half`; file: "
        "what is black in `mask_file`",
        ("none", *_MASK_FIELDS),
    )
    visible: int = field(1, "known quadrants, 1 to 3, for mask quadrants")
    quadrant_order: str = field(
        "fixed",
        "which quadrants are known; fixed: lower left, then upper left, then upper right, as Sohn "
        "et al. (2015) have it; random: that many, drawn for each image",
        ("fixed", "random"),
    )
    occluders: int = field(
        3,
        "rectangles hidden in each image, for mask occluders: each anywhere within it, so they may "
        "overlap",
    )
    occluder_size: tuple[int, int] = field((20, 20), "HEIGHT,WIDTH of the occluders")
    known_share: float = field(
        0.5, "probability that a pixel is known, in [0, 1), for mask pixels; one is always hidden"
    )
    half: str = field(
        "left",
        "the half that is known, for mask half; random: drawn for each image",
        ("left", "right", "top", "bottom", "random"),
    )
    mask_file: str = field(
        "",
        "for mask file: a PNG or JPEG of the images' size, white (128 and above) where a pixel is "
        "known and black where it is hidden, in every image",
    )

    def __post_init__(self):
        make_tuple(self, "image_size", "occluder_size")
        check_types(self)
        require(bool(self.name), "DataConfig.name must name a data set; got ''")
        check_at_least(self, 0, "validation_images", "draw_seed")
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
            not self.image_size or _is_size(self.image_size),
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
        check_between(self, 1, 3, "visible")
        check_at_least(self, 1, "occluders")
        require(
            _is_size(self.occluder_size),
            f"DataConfig.occluder_size must be height and width, whole numbers of at least 1; got "
            f"{self.occluder_size}",
        )
        require(
            0 <= self.known_share < 1,
            f"DataConfig.known_share must lie in [0, 1); got {self.known_share!r}",
        )
        require(
            bool(self.mask_file) or self.mask != "file",
            "DataConfig.mask 'file' needs a mask_file; got ''",
        )

    def unmasked(self) -> DataConfig:
        """The same images with nothing hidden."""
        own = [name for names in _MASK_FIELDS.values() for name in names]
        return dataclasses.replace(
            self, mask="none", **{name: getattr(DataConfig, name) for name in own}
        )


def _is_size(values: tuple) -> bool:
    """Whether these are height and width: two whole numbers of at least 1."""
    return len(values) == 2 and all(is_size(value) for value in values)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How the model is trained. Schedules are functions of progress in [0, 1].

    Progress is `step / steps`; with `max_seconds` it is that or `seconds / max_seconds`,
    whichever is further, so a run under a wall-clock budget finishes its schedule on a machine of
    any speed.
    """

    steps: int = field(10000, "optimizer steps")
    batch_size: int = field(100, "images per step, over all replicas")
    max_seconds: float = field(
        0.0, "end the run cleanly after this much wall-clock time, start-up counted; 0 is no limit"
    )
    learning_rate: float = field(1e-3, "Adam's, after warm-up and before any decay")
    warmup_steps: int = field(0, "steps over which the learning rate rises linearly from 0")
    schedule: str = field(
        "constant",
        "of the learning rate between warm-up and the final decay",
        ("constant", "halving", "cosine"),
    )
    halvings: tuple[float, ...] = field(
        (), "progress values in (0, 1) at which the learning rate halves (schedule=halving)"
    )
    decay_from: float = field(
        1.0, "progress from which the learning rate falls linearly to 0; 1 is no final decay"
    )
    beta_1: float = field(0.9, "Adam's; the reference starts at 0.8")
    beta_1_halving: bool = field(
        False, "at each halving also move beta_1 half-way to 0.95, as the reference did"
    )
    beta_2: float = field(0.999, "Adam's; the reference has 0.98")
    epsilon: float = field(1e-7, "Adam's; the reference has 1e-4")
    weight_decay: float = field(0.0, "decoupled: weights shrink by learning rate times this")
    clip_norm: float = field(1000.0, "global norm to which gradients are clipped; 0 is no clip")
    skip_norm: float = field(
        1e6, "a step whose gradient is not finite or has a larger global norm is skipped"
    )
    max_skipped: int = field(50, "skipped steps in a row after which training goes back")
    rollbacks: int = field(
        4,
        "how often a run that skipped max_skipped steps in a row goes back to its last checkpoint, "
        "and on at half the learning rate, before it ends with an error",
    )
    average_decay: float = field(
        0.0, "of the exponential moving average of the weights; 0 keeps none"
    )
    kl_schedule: str = field(
        "constant",
        "constant: 1; linear: weight rises over kl_warmup; squared: the reference's blend "
        "w * KL + (1 - w) * sum of squared KL per latent unit",
        ("constant", "linear", "squared"),
    )
    kl_warmup: float = field(0.0, "progress at which the KL weight reaches 1")
    kl_start: float = field(0.0, "KL weight at the start of the warm-up")
    mixture_kl: str = field(
        "approximate",
        "KL from a mixture prior in the training loss; approximate: Eq. 12, an upper bound; "
        "monte_carlo: the log-ratio at the sample, unbiased, as every reported bound has it",
        ("approximate", "monte_carlo"),
    )
    entropy_penalty: float = field(
        0.0,
        "weight, beside the KL, of the entropy of the mixture's component given z_0; the reference "
        "has 0.4",
    )
    regularizer: str = field(
        "none",
        "updates of the guide alone on images drawn from the model; free_energy: maximizes their "
        "bound (Eq. 13); sleep: maximizes the log-probability of the latents they came from",
        ("none", "free_energy", "sleep"),
    )
    regularizer_start: int = field(0, "steps before the first update by the regularizer")
    regularizer_every: int = field(1, "steps from one update by the regularizer to the next")
    stage_by_stage: float = field(
        0.0,
        "progress up to which the stages of a conditional model are trained one after another, in "
        "equal parts, those before being fixed; afterwards all at once; 0 is all from the start",
    )
    devices: int = field(
        0,
        "of this machine to train on, each with its part of the batch; 0 is all GPUs, or one CPU. "
        "Without GPUs, several are parts of the CPU. Several machines: see TF_CONFIG in the README",
    )
    micro_batches: int = field(
        1,
        "parts in which a device takes its images of a batch, one after another, their gradients "
        "summed before the update: for a global batch that does not fit",
    )
    precision: str = field(
        "float32",
        "of the networks' computations; weights and distributions are float32 in any case, and "
        "with mixed_float16 the loss is scaled",
        ("float32", "mixed_bfloat16", "mixed_float16"),
    )
    jit_compile: bool = field(
        False, "compile the training step with XLA; for one device and one micro-batch"
    )
    steps_per_execution: int = field(1, "steps run between two looks by Python")
    checkpoint_every: int = field(1000, "steps between checkpoints, metrics rows and summaries")
    keep_checkpoints: int = field(2, "checkpoints to keep")
    summary_images: int = field(
        8, "images a side in the pictures written to TensorBoard; 0 writes none"
    )
    pictures_every: int = field(5, "checkpoints between two sets of pictures")

    def __post_init__(self):
        make_tuple(self, "halvings")
        object.__setattr__(self, "halvings", tuple(float(h) for h in self.halvings))
        check_types(self)
        at_least = ("steps", "batch_size", "steps_per_execution", "checkpoint_every")
        check_at_least(self, 1, *at_least, "keep_checkpoints", "max_skipped", "pictures_every")
        check_at_least(self, 1, "micro_batches")
        check_at_least(self, 0, "max_seconds", "warmup_steps", "clip_norm", "weight_decay")
        check_at_least(self, 0, "kl_warmup", "summary_images", "entropy_penalty")
        check_at_least(self, 0, "regularizer_start", "rollbacks", "devices")
        check_at_least(self, 1, "regularizer_every")
        check_positive(self, "learning_rate", "epsilon", "skip_norm")
        check_between(self, 0, 1, "decay_from", "kl_warmup", "kl_start", "stage_by_stage")
        for name in ("beta_1", "beta_2", "average_decay"):
            value = getattr(self, name)
            require(0 <= value < 1, f"TrainConfig.{name} must lie in [0, 1); got {value!r}")
        ok = all(0 < h < 1 for h in self.halvings) and list(self.halvings) == sorted(self.halvings)
        require(ok, f"TrainConfig.halvings must rise within (0, 1); got {self.halvings}")
        require(
            bool(self.halvings) == (self.schedule == "halving"),
            f"TrainConfig.halvings goes with schedule 'halving'; got {self.halvings} with "
            f"{self.schedule!r}",
        )
        require(
            self.micro_batches <= self.batch_size,
            f"TrainConfig.micro_batches must be at most batch_size; got {self.micro_batches} and "
            f"{self.batch_size}",
        )
        require(
            not self.jit_compile or self.micro_batches == 1,
            f"TrainConfig.jit_compile needs micro_batches 1; got {self.micro_batches}",
        )
        require(
            self.checkpoint_every % self.steps_per_execution == 0,
            f"TrainConfig.checkpoint_every must be a multiple of steps_per_execution; got "
            f"{self.checkpoint_every} and {self.steps_per_execution}",
        )
        require(
            self.steps % self.steps_per_execution == 0,
            f"TrainConfig.steps must be a multiple of steps_per_execution; got {self.steps} and "
            f"{self.steps_per_execution}",
        )


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """What `bin/evaluate` measures, and on which images."""

    split: str = field("test", "which images", ("test", "validation", "train"))
    num_samples: int = field(2500, "K, the samples in the importance-weighted bound")
    images: int = field(0, "size of a random subset of the split, without replacement; 0 is all")
    seed: int = field(0, "of the subset and of the samples")
    weights: str = field(
        "auto",
        "raw: as trained; averaged: their moving average; auto: averaged where there is one",
        ("auto", "raw", "averaged"),
    )
    batch_size: int = field(100, "images per bottom-up pass")
    chunk: int = field(
        0, "image-samples per top-down pass, which bounds the memory; 0 chooses by the model's size"
    )

    def __post_init__(self):
        check_types(self)
        check_at_least(self, 1, "num_samples", "batch_size")
        check_at_least(self, 0, "images", "seed", "chunk")


@dataclasses.dataclass(frozen=True)
class ScoreConfig(EvaluateConfig):
    """What `bin/score` measures of every image, and which images: the fields of `EvaluateConfig`.

    Its K is smaller, since there are as many bounds as levels, and one more.
    """

    num_samples: int = field(100, "K, the samples in each of the importance-weighted bounds")


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A model, its data and its training: what `config.json` of a work directory records."""

    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    seed: int = field(0, "of the weights, the order of the images and all noise")

    def __post_init__(self):
        for name, section in (("model", ModelConfig), ("data", DataConfig), ("train", TrainConfig)):
            value = getattr(self, name)
            ok = isinstance(value, section)
            require(ok, f"Experiment.{name} must be a {section.__name__}; got {value!r}")
        check_types(self)
        check_at_least(self, 0, "seed")
        require(
            not self.train.entropy_penalty or self.model.mixture_components > 0,
            f"TrainConfig.entropy_penalty is for a mixture prior, ModelConfig.mixture_components "
            f"of at least 1; got {self.train.entropy_penalty} with none",
        )
        require(
            not self.data.dequantize or self.model.likelihood == "normal",
            f"DataConfig.dequantize goes with ModelConfig.likelihood 'normal'; got "
            f"{self.model.likelihood!r}",
        )
        self._check_conditional()

    def _check_conditional(self):
        stages = self.model.conditional_stages
        require(
            bool(stages) == (self.data.mask != "none"),
            f"a conditional model, ModelConfig.conditional_stages of at least 1, goes with "
            f"DataConfig.mask, and only that does; got {stages} with mask {self.data.mask!r}",
        )
        require(
            not self.train.stage_by_stage or stages > 1,
            f"TrainConfig.stage_by_stage is for ModelConfig.conditional_stages of at least 2; got "
            f"{self.train.stage_by_stage} with {stages}",
        )
