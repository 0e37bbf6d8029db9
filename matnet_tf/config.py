# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""What an experiment is: frozen dataclasses with every check.

Nothing here imports TensorFlow, so a wrong setting is refused in a fraction of a second. The
dataclasses are the truth; `matnet_tf.flags` gives each field a flag, and a preset in `configs/`
is a file of such flags.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

__all__ = [
    "DataConfig",
    "EvaluateConfig",
    "Experiment",
    "ModelConfig",
    "Stage",
    "TrainConfig",
    "halvings",
]


def _field(default: Any, help: str, choices: tuple[str, ...] = ()) -> Any:
    return dataclasses.field(default=default, metadata={"help": help, "choices": choices})


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _check_types(config: Any) -> None:
    """Refuses a field of the wrong type or outside its choices, naming the field."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        name = f"{type(config).__name__}.{field.name}"
        choices = field.metadata.get("choices", ())
        if choices:
            _require(value in choices, f"{name} must be one of {list(choices)}; got {value!r}")
        elif field.type in ("int", "float"):
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            whole = field.type == "float" or isinstance(value, int)
            ok = number and whole and math.isfinite(value)
            kind = "a finite number" if field.type == "float" else "a whole number"
            _require(ok, f"{name} must be {kind}; got {value!r}")
        elif field.type in ("bool", "str"):
            expected = {"bool": bool, "str": str}[field.type]
            _require(isinstance(value, expected), f"{name} must be a {field.type}; got {value!r}")


def _make_tuple(config: Any, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        owner = type(config).__name__
        _require(isinstance(value, (list, tuple)), f"{owner}.{name} must be a list; got {value!r}")
        object.__setattr__(config, name, tuple(value))


def _check_at_least(config: Any, least: float, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        owner = type(config).__name__
        _require(value >= least, f"{owner}.{name} must be at least {least}; got {value!r}")


def _check_between(config: Any, low: float, high: float, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        owner = type(config).__name__
        _require(low <= value <= high, f"{owner}.{name} must lie in [{low}, {high}]; got {value!r}")


@dataclasses.dataclass(frozen=True)
class Stage:
    """One scale of the model, the paper's "meta module" (Sec. 2.2).

    Attributes:
      size: height and width of the states; an int stands for a square. Size 1 is a fully
        connected stage, with states `[B, filters]`.
      filters: channels (or units) of the bottom-up, top-down and merge states.
      latents: channels (or units) of each latent z_i.
      modules: how many top-down modules, hence latents, the stage has.
    """

    size: int | tuple[int, int]
    filters: int
    latents: int
    modules: int

    def __post_init__(self):
        size = self.size
        pair = (size, size) if isinstance(size, int) else tuple(size)
        ok = len(pair) == 2 and all(type(n) is int and n >= 1 for n in pair)
        _require(ok, f"Stage.size must be a positive int or a pair of them; got {size!r}")
        object.__setattr__(self, "size", pair[0] if pair[0] == pair[1] else pair)
        for name in ("filters", "latents", "modules"):
            value = getattr(self, name)
            ok = type(value) is int and value >= 1
            _require(ok, f"Stage.{name} must be a whole number of at least 1; got {value!r}")

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the states."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    @property
    def dense(self) -> bool:
        """Whether the stage is fully connected."""
        return self.shape == (1, 1)

    @property
    def label(self) -> str:
        """How names of modules, tags and figures call the scale, such as `7x7` or `fc`."""
        return "fc" if self.dense else "x".join(map(str, self.shape))

    @classmethod
    def parse(cls, text: str) -> Stage:
        """Reads `size:filters:latents:modules`, such as `7:64:4:5` or `7x14:64:4:5`.

        Raises:
          ValueError: if the text is of another form.
        """
        try:
            size, *rest = text.strip().split(":")
            sides = tuple(int(n) for n in size.split("x"))
            filters, latents, modules = (int(n) for n in rest)
        except ValueError:
            raise ValueError(
                f"a stage must read size:filters:latents:modules, such as 7:64:4:5 or "
                f"7x14:64:4:5; got {text!r}"
            ) from None
        return cls(sides[0] if len(sides) == 1 else sides, filters, latents, modules)

    def __str__(self) -> str:
        size = self.size if isinstance(self.size, int) else self.label
        return f"{size}:{self.filters}:{self.latents}:{self.modules}"


def halvings(fine: int) -> list[int]:
    """Sizes that `fine` reaches by halving (rounding up), itself first and 1 last."""
    sizes = [fine]
    while sizes[-1] > 1:
        sizes.append(-(-sizes[-1] // 2))
    return sizes


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The architecture: a table of stages, top first, and the paper's choices.

    Example: the paper's convolutional model for MNIST is
    `ModelConfig((28, 28, 1), (Stage(7, 64, 4, 5), Stage(14, 64, 4, 5)))`.

    Raises:
      ValueError: if a field is out of range, or a stage's size cannot be reached from the next
        finer one by halving.
    """

    image_shape: tuple[int, int, int] = _field((28, 28, 1), "height, width and channels")
    stages: tuple[Stage, ...] = _field(
        (Stage(7, 64, 4, 5), Stage(14, 64, 4, 5)),
        "size:filters:latents:modules of each scale, top first, separated by commas; "
        "size 1 is fully connected, 7x14 is a rectangle",
    )
    top_latents: int = _field(32, "units of z_0, the top latent")
    top_units: int = _field(128, "units of the dense layers between z_0 and the first state")
    image_filters: int = _field(
        32, "filters of the convolutions next to the image (convolutional models only)"
    )
    kernel_size: int = _field(3, "side of the convolution kernels")
    activation: str = _field(
        "leaky_relu",
        "of every module; leaky_relu has slope 0.1, as the reference had it",
        ("leaky_relu", "tanh", "elu", "gelu", "silu"),
    )
    update: str = _field("residual", "state update, Eq. 7 or GRU gates", ("residual", "gru"))
    shared: bool = _field(False, "one set of parameters per stage, reused over its depth")
    prior: str = _field("learned", "of z_1 on: Eq. 8, or N(0, I)", ("learned", "standard"))
    latent_scale: float = _field(
        0.2, "initial value of the trained scalar on every Gaussian's mean and log-variance"
    )
    log_var_bound: float = _field(
        8.0, "log-variances are squashed smoothly into (-bound, bound), so no input gives inf"
    )
    normalization: str = _field(
        "none", "of hidden units and states; never over the batch", ("none", "layer")
    )
    deterministic_paths: bool = _field(
        True, "carry the top-down state from module to module; false is the ladder special case"
    )
    merge_state: bool = _field(
        True, "carry the merge state from module to module; false is the ladder special case"
    )
    likelihood: str = _field("bernoulli", "of the image given the latents", ("bernoulli",))

    def __post_init__(self):
        if isinstance(self.stages, Stage):
            object.__setattr__(self, "stages", (self.stages,))
        _make_tuple(self, "image_shape", "stages")
        stages = tuple(Stage(*s) if isinstance(s, (list, tuple)) else s for s in self.stages)
        object.__setattr__(self, "stages", stages)
        _check_types(self)
        shape = self.image_shape
        ok = len(shape) == 3 and all(type(n) is int and n >= 1 for n in shape)
        _require(
            ok, f"ModelConfig.image_shape must be (height, width, channels), each >= 1; got {shape}"
        )
        _check_at_least(self, 1, "top_latents", "top_units", "image_filters", "kernel_size")
        for name in ("latent_scale", "log_var_bound"):
            value = getattr(self, name)
            _require(value > 0, f"ModelConfig.{name} must be positive; got {value!r}")
        ok = len(stages) >= 1 and all(isinstance(s, Stage) for s in stages)
        _require(ok, f"ModelConfig.stages must be one or more of Stage; got {self.stages!r}")
        _require(
            self.deterministic_paths or self.prior == "learned",
            "ModelConfig.deterministic_paths=False needs prior='learned': with neither, no latent "
            "above the last one reaches the image",
        )
        self._check_sizes()

    def _check_sizes(self):
        """Every scale must come from the next finer one by halving each side, rounding up."""
        finer, finer_name = self.image_shape[:2], "the image"
        for stage in reversed(self.stages):
            if stage.dense:
                finer, finer_name = (1, 1), f"stage {stage}"
                continue
            options = [halvings(side) for side in finer]
            steps = [
                o.index(n) if n in o else -1 for o, n in zip(options, stage.shape, strict=True)
            ]
            # Rectangles halve together until one side is 1: [4, 1] follows [8, 2] and [8, 1].
            depth = max(steps)
            ok = min(steps) >= 0 and stage.shape == tuple(
                o[min(depth, len(o) - 1)] for o in options
            )
            _require(
                ok,
                f"stage {stage} has size {stage.label}, which halving (rounding up) does not "
                f"reach from {finer_name} of size {'x'.join(map(str, finer))}: "
                f"possible heights {options[0]}, widths {options[1]}",
            )
            finer, finer_name = stage.shape, f"stage {stage}"

    @property
    def num_levels(self) -> int:
        """How many latents there are, z_0 included."""
        return 1 + sum(stage.modules for stage in self.stages)

    @property
    def level_names(self) -> tuple[str, ...]:
        """Names of the latents, sorted = top-down order: `00_top`, `01_7x7`, ..."""
        labels = ["top"] + [s.label for s in self.stages for _ in range(s.modules)]
        digits = max(2, len(str(len(labels) - 1)))
        return tuple(f"{i:0{digits}d}_{label}" for i, label in enumerate(labels))


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which images, from where, and how they are made into the model's input."""

    name: str = _field(
        "digits",
        "mnist, binarized_mnist, omniglot28, fashion_mnist, digits, image_folder, or any TFDS "
        "name with an `image` feature",
    )
    dir: str = _field("", "TFDS data directory; empty is TFDS's own default")
    binarization: str = _field(
        "auto",
        "dynamic: a fresh Bernoulli draw each time an image is seen in training, one fixed draw "
        "for evaluation; threshold: above one half; none: already in [0, 1]; auto: the data "
        "set's own",
        ("auto", "dynamic", "threshold", "none"),
    )
    binarization_seed: int = _field(0, "of the fixed draw for validation and test images")
    validation_images: int = _field(
        0, "images cut from the end of the training split for validation; 0 is no validation"
    )
    train_split: str = _field("train", "TFDS split to train on")
    test_split: str = _field("test", "TFDS split that bin/evaluate touches, and nothing else")

    def __post_init__(self):
        _check_types(self)
        _require(bool(self.name), "DataConfig.name must name a data set; got ''")
        _check_at_least(self, 0, "validation_images", "binarization_seed")
        _require(
            self.train_split != self.test_split,
            f"DataConfig.train_split and test_split must differ; both are {self.train_split!r}",
        )


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How the model is trained. Schedules are functions of progress in [0, 1].

    Progress is `step / steps`; with `max_seconds` it is that or `seconds / max_seconds`,
    whichever is further, so a run under a wall-clock budget finishes its schedule on a machine of
    any speed.
    """

    steps: int = _field(10000, "optimizer steps")
    batch_size: int = _field(100, "images per step, over all replicas")
    max_seconds: float = _field(
        0.0, "end the run cleanly after this much wall-clock time, start-up counted; 0 is no limit"
    )
    learning_rate: float = _field(1e-3, "Adam's, after warm-up and before any decay")
    warmup_steps: int = _field(0, "steps over which the learning rate rises linearly from 0")
    schedule: str = _field(
        "constant",
        "of the learning rate between warm-up and the final decay",
        ("constant", "halving", "cosine"),
    )
    halvings: tuple[float, ...] = _field(
        (), "progress values in (0, 1) at which the learning rate halves (schedule=halving)"
    )
    decay_from: float = _field(
        1.0, "progress from which the learning rate falls linearly to 0; 1 is no final decay"
    )
    beta_1: float = _field(0.9, "Adam's; the reference starts at 0.8")
    beta_1_halving: bool = _field(
        False, "at each halving also move beta_1 half-way to 0.95, as the reference did"
    )
    beta_2: float = _field(0.999, "Adam's; the reference has 0.98")
    epsilon: float = _field(1e-7, "Adam's; the reference has 1e-4")
    weight_decay: float = _field(0.0, "decoupled: weights shrink by learning rate times this")
    clip_norm: float = _field(1000.0, "global norm to which gradients are clipped; 0 is no clip")
    skip_norm: float = _field(
        1e6, "a step whose gradient is not finite or has a larger global norm is skipped"
    )
    max_skipped: int = _field(50, "skipped steps in a row after which training stops")
    average_decay: float = _field(
        0.0, "of the exponential moving average of the weights; 0 keeps none"
    )
    kl_schedule: str = _field(
        "constant",
        "constant: 1; linear: weight rises over kl_warmup; squared: the reference's blend "
        "w * KL + (1 - w) * sum of squared KL per latent unit",
        ("constant", "linear", "squared"),
    )
    kl_warmup: float = _field(0.0, "progress at which the KL weight reaches 1")
    kl_start: float = _field(0.0, "KL weight at the start of the warm-up")
    jit_compile: bool = _field(False, "compile the training step with XLA")
    steps_per_execution: int = _field(1, "steps run between two looks by Python")
    checkpoint_every: int = _field(1000, "steps between checkpoints, metrics rows and summaries")
    keep_checkpoints: int = _field(2, "checkpoints to keep")
    summary_images: int = _field(
        8, "images a side in the pictures written to TensorBoard; 0 writes none"
    )
    pictures_every: int = _field(5, "checkpoints between two sets of pictures")

    def __post_init__(self):
        _make_tuple(self, "halvings")
        object.__setattr__(self, "halvings", tuple(float(h) for h in self.halvings))
        _check_types(self)
        at_least = ("steps", "batch_size", "steps_per_execution", "checkpoint_every")
        _check_at_least(self, 1, *at_least, "keep_checkpoints", "max_skipped", "pictures_every")
        _check_at_least(self, 0, "max_seconds", "warmup_steps", "clip_norm", "weight_decay")
        _check_at_least(self, 0, "kl_warmup", "summary_images")
        for name in ("learning_rate", "epsilon", "skip_norm"):
            value = getattr(self, name)
            _require(value > 0, f"TrainConfig.{name} must be positive; got {value!r}")
        _check_between(self, 0, 1, "decay_from", "kl_warmup", "kl_start")
        for name in ("beta_1", "beta_2", "average_decay"):
            value = getattr(self, name)
            _require(0 <= value < 1, f"TrainConfig.{name} must lie in [0, 1); got {value!r}")
        ok = all(0 < h < 1 for h in self.halvings) and list(self.halvings) == sorted(self.halvings)
        _require(ok, f"TrainConfig.halvings must rise within (0, 1); got {self.halvings}")
        _require(
            bool(self.halvings) == (self.schedule == "halving"),
            f"TrainConfig.halvings goes with schedule 'halving'; got {self.halvings} with "
            f"{self.schedule!r}",
        )
        _require(
            self.checkpoint_every % self.steps_per_execution == 0,
            f"TrainConfig.checkpoint_every must be a multiple of steps_per_execution; got "
            f"{self.checkpoint_every} and {self.steps_per_execution}",
        )
        _require(
            self.steps % self.steps_per_execution == 0,
            f"TrainConfig.steps must be a multiple of steps_per_execution; got {self.steps} and "
            f"{self.steps_per_execution}",
        )


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """What `bin/evaluate` measures, and on which images."""

    split: str = _field("test", "which images", ("test", "validation", "train"))
    num_samples: int = _field(2500, "K, the samples in the importance-weighted bound")
    images: int = _field(0, "size of a random subset of the split, without replacement; 0 is all")
    seed: int = _field(0, "of the subset and of the samples")
    weights: str = _field(
        "auto",
        "raw: as trained; averaged: their moving average; auto: averaged where there is one",
        ("auto", "raw", "averaged"),
    )
    batch_size: int = _field(100, "images per bottom-up pass")
    chunk: int = _field(5000, "image-samples per top-down pass, which bounds the memory")

    def __post_init__(self):
        _check_types(self)
        _check_at_least(self, 1, "num_samples", "batch_size", "chunk")
        _check_at_least(self, 0, "images", "seed")


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A model, its data and its training: what `config.json` of a work directory records."""

    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    seed: int = _field(0, "of the weights, the order of the images and all noise")

    def __post_init__(self):
        for name, section in (("model", ModelConfig), ("data", DataConfig), ("train", TrainConfig)):
            value = getattr(self, name)
            ok = isinstance(value, section)
            _require(ok, f"Experiment.{name} must be a {section.__name__}; got {value!r}")
        _check_types(self)
        _check_at_least(self, 0, "seed")
