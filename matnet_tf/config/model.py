# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The architecture: a table of stages, and the choices of the paper."""

from __future__ import annotations

import dataclasses

from matnet_tf.config.fields import (
    check_at_least,
    check_positive,
    check_types,
    field,
    is_size,
    make_tuple,
    require,
)

__all__ = ["ModelConfig", "Stage", "halvings"]


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
        ok = len(pair) == 2 and all(is_size(n) for n in pair)
        require(ok, f"Stage.size must be a positive int or a pair of them; got {size!r}")
        object.__setattr__(self, "size", pair[0] if pair[0] == pair[1] else pair)
        for name in ("filters", "latents", "modules"):
            value = getattr(self, name)
            ok = is_size(value)
            require(ok, f"Stage.{name} must be a whole number of at least 1; got {value!r}")

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

    image_shape: tuple[int, int, int] = field((28, 28, 1), "height, width and channels")
    stages: tuple[Stage, ...] = field(
        (Stage(7, 64, 4, 5), Stage(14, 64, 4, 5)),
        "size:filters:latents:modules of each scale, top first, separated by commas; "
        "size 1 is fully connected, 7x14 is a rectangle",
    )
    top_latents: int = field(32, "units of z_0, the top latent")
    top_units: int = field(128, "units of the dense layers between z_0 and the first state")
    image_filters: int = field(
        32,
        "filters of the convolutions next to the image; in a fully connected model, of the map "
        "that the local autoregressive model reads",
    )
    kernel_size: int = field(3, "side of the convolution kernels")
    activation: str = field(
        "leaky_relu",
        "of every module; leaky_relu has slope 0.1, as the reference had it",
        ("leaky_relu", "tanh", "elu", "gelu", "silu"),
    )
    update: str = field("residual", "state update, Eq. 7 or GRU gates", ("residual", "gru"))
    shared: bool = field(False, "one set of parameters per stage, reused over its depth")
    prior: str = field("learned", "of z_1 on: Eq. 8, or N(0, I)", ("learned", "standard"))
    mixture_components: int = field(
        0, "Gaussians in a mixture prior over z_0 (Sec. 2.3), trained with the rest; 0 is N(0, I)"
    )
    mixture_weights: str = field(
        "uniform", "of the mixture's components: equal, or trained too", ("uniform", "trained")
    )
    mixture_spread: float = field(
        0.1, "standard deviation of the initial means and log-variances of the components"
    )
    top_everywhere: bool = field(
        False,
        "give z_0 to every top-down module, beside its own latent, as the reference did for Fig. 3",
    )
    conditional_stages: int = field(
        0,
        "0: a model of whole images; 1: a conditional MatNet, which predicts hidden pixels from "
        "known ones (Eq. 3); 2 and more: one whose later stages refine the guess of those before",
    )
    known_everywhere: bool = field(
        True,
        "in a conditional model, give the state of the merge modules that watch the known pixels "
        "to every top-down module, beside its latent: p(x_u | z, x_k) of Eq. 3",
    )
    latent_scale: float = field(
        0.2, "initial value of the trained scalar on every Gaussian's mean and log-variance"
    )
    log_var_bound: float = field(
        8.0, "log-variances are squashed smoothly into (-bound, bound), so no input gives inf"
    )
    normalization: str = field(
        "none", "of hidden units and states; never over the batch", ("none", "layer")
    )
    deterministic_paths: bool = field(
        True, "carry the top-down state from module to module; false is the ladder special case"
    )
    merge_state: bool = field(
        True, "carry the merge state from module to module; false is the ladder special case"
    )
    likelihood: str = field(
        "bernoulli",
        "of the image given the latents; bernoulli: binary pixels; normal: a diagonal Gaussian, "
        "for real values such as dequantized ones; logistic: a Logistic integrated over each of "
        "the 256 levels of 8-bit images",
        ("bernoulli", "normal", "logistic"),
    )
    likelihood_scale: str = field(
        "pixel",
        "what has a scale of its own in the normal and the logistic likelihood; pixel: every "
        "channel of every pixel, a function of the latents; channel, scalar: learned constants",
        ("pixel", "channel", "scalar"),
    )
    whitening: bool = field(
        False, "ZCA-whiten the images of a normal likelihood, by the training split's covariance"
    )
    autoregressive: bool = field(
        False,
        "add the local autoregressive model of Sec. 2.3 (bernoulli and logistic likelihoods)",
    )
    autoregressive_layers: int = field(5, "masked convolutions of the local model, at least 2")
    autoregressive_filters: int = field(32, "filters of the local model's hidden layers")
    autoregressive_kernel_size: int = field(3, "side of its kernels, an odd number")

    def __post_init__(self):
        if isinstance(self.stages, Stage):
            object.__setattr__(self, "stages", (self.stages,))
        make_tuple(self, "image_shape", "stages")
        stages = tuple(Stage(*s) if isinstance(s, (list, tuple)) else s for s in self.stages)
        object.__setattr__(self, "stages", stages)
        check_types(self)
        shape = self.image_shape
        ok = len(shape) == 3 and all(is_size(n) for n in shape)
        require(
            ok, f"ModelConfig.image_shape must be (height, width, channels), each >= 1; got {shape}"
        )
        check_at_least(self, 1, "top_latents", "top_units", "image_filters", "kernel_size")
        check_positive(self, "latent_scale", "log_var_bound", "mixture_spread")
        check_at_least(self, 0, "mixture_components")
        ok = len(stages) >= 1 and all(isinstance(s, Stage) for s in stages)
        require(ok, f"ModelConfig.stages must be one or more of Stage; got {self.stages!r}")
        require(
            self.deterministic_paths or self.prior == "learned",
            "ModelConfig.deterministic_paths=False needs prior='learned': with neither, no latent "
            "above the last one reaches the image",
        )
        require(
            self.mixture_weights == "uniform" or self.mixture_components > 0,
            "ModelConfig.mixture_weights='trained' needs mixture_components of at least 1; got 0",
        )
        self._check_likelihood()
        self._check_conditional()
        self._check_sizes()

    def _check_likelihood(self):
        require(
            not self.whitening or self.likelihood == "normal",
            f"ModelConfig.whitening goes with likelihood 'normal'; got {self.likelihood!r}",
        )
        if not self.autoregressive:
            return
        require(
            self.likelihood in ("bernoulli", "logistic"),
            f"ModelConfig.autoregressive goes with likelihood 'bernoulli' or 'logistic'; got "
            f"{self.likelihood!r}",
        )
        check_at_least(self, 2, "autoregressive_layers")
        size, channels = self.autoregressive_kernel_size, self.image_shape[-1]
        require(
            size >= 3 and size % 2 == 1,
            f"ModelConfig.autoregressive_kernel_size must be odd and at least 3; got {size}",
        )
        require(
            self.autoregressive_filters >= channels,
            f"ModelConfig.autoregressive_filters must be at least {channels}, one for each channel "
            f"of the image; got {self.autoregressive_filters}",
        )

    def _check_conditional(self):
        check_at_least(self, 0, "conditional_stages")
        if not self.conditional_stages:
            return
        require(
            self.prior == "learned" and not self.mixture_components and self.merge_state,
            "ModelConfig.conditional_stages takes every prior from merge modules that watch the "
            "known pixels: it goes with prior='learned', merge_state=True and no mixture; got "
            f"{self.prior!r}, {self.merge_state} and {self.mixture_components} components",
        )
        require(
            not self.whitening,
            "ModelConfig.whitening mixes known pixels with hidden ones: it does not go with "
            f"conditional_stages; got {self.conditional_stages}",
        )

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
            require(
                ok,
                f"stage {stage} has size {stage.label}, which halving (rounding up) does not "
                f"reach from {finer_name} of size {'x'.join(map(str, finer))}: "
                f"possible heights {options[0]}, widths {options[1]}",
            )
            finer, finer_name = stage.shape, f"stage {stage}"

    @property
    def levels_per_stage(self) -> int:
        """How many latents a conditional stage has, its z_0 included."""
        return 1 + sum(stage.modules for stage in self.stages)

    @property
    def num_levels(self) -> int:
        """How many latents there are, every z_0 included."""
        return self.levels_per_stage * max(1, self.conditional_stages)

    @property
    def level_names(self) -> tuple[str, ...]:
        """Names of the latents, sorted = top-down order: `00_top`, `01_7x7`, ...

        Those of the second stage of a conditional model go on with `03_s2_top`, and so on.
        """
        labels = ["top"] + [s.label for s in self.stages for _ in range(s.modules)]
        later = range(2, self.conditional_stages + 1)
        labels += [f"s{number}_{label}" for number in later for label in labels]
        digits = max(2, len(str(len(labels) - 1)))
        return tuple(f"{i:0{digits}d}_{label}" for i, label in enumerate(labels))
