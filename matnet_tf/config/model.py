# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The architecture of a model: a table of scales, and the paper's choices."""

from __future__ import annotations

import dataclasses
import itertools

from matnet_tf.config.validation import check_fields, field, is_size, make_tuple, require

__all__ = ["ModelConfig", "Scale", "halvings"]


@dataclasses.dataclass(frozen=True)
class Scale:
    """One scale of a model, the paper's "meta module" (Sec. 2.2).

    Attributes:
      size: Height and width of the states; an int stands for a square. A scale of size 1 is fully
        connected, with states `[B, filters]`.
      filters: Number of channels (or units) of the bottom-up, top-down and merge states.
      latents: Number of channels (or units) of each latent z_i.
      modules: Number of top-down modules, hence of latents.

    Raises:
      ValueError: If a value is not a whole number of at least 1.
    """

    size: int | tuple[int, int]
    filters: int
    latents: int
    modules: int

    def __post_init__(self):
        size = self.size
        pair = tuple(size) if isinstance(size, (list, tuple)) else (size, size)
        ok = len(pair) == 2 and all(is_size(n) for n in pair)
        require(ok, f"Scale.size must be a positive int or a pair of them; got {size!r}")
        object.__setattr__(self, "size", pair[0] if pair[0] == pair[1] else pair)
        for name in ("filters", "latents", "modules"):
            value = getattr(self, name)
            ok = is_size(value)
            require(ok, f"Scale.{name} must be a whole number of at least 1; got {value!r}")

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the states."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    @property
    def dense(self) -> bool:
        """Whether the scale is fully connected."""
        return self.shape == (1, 1)

    @property
    def label(self) -> str:
        """The scale in names of modules, tags and figures, such as `7x7` or `fc`."""
        return "fc" if self.dense else "x".join(map(str, self.shape))

    @classmethod
    def parse(cls, text: str) -> Scale:
        """Reads `size:filters:latents:modules`, such as `7:64:4:5` or `7x14:64:4:5`.

        Raises:
          ValueError: If the text has another form.
        """
        try:
            size, *rest = text.strip().split(":")
            sides = tuple(int(n) for n in size.split("x"))
            filters, latents, modules = (int(n) for n in rest)
        except ValueError:
            raise ValueError(
                f"a scale must read size:filters:latents:modules, such as 7:64:4:5 or "
                f"7x14:64:4:5; got {text!r}"
            ) from None
        return cls(sides[0] if len(sides) == 1 else sides, filters, latents, modules)

    def __str__(self) -> str:
        size = self.size if isinstance(self.size, int) else self.label
        return f"{size}:{self.filters}:{self.latents}:{self.modules}"


def halvings(fine: int) -> list[int]:
    """Returns the sizes that halving, rounded up, gives: `fine` first and 1 last."""
    sizes = [fine]
    while sizes[-1] > 1:
        sizes.append(-(-sizes[-1] // 2))
    return sizes


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The architecture of a model: a table of scales, top first, and the paper's choices.

    Example: the paper's convolutional model of MNIST is
    `ModelConfig((28, 28, 1), (Scale(7, 64, 4, 5), Scale(14, 64, 4, 5)))`.

    Raises:
      ValueError: If a field is out of range, if fields do not go together, or if halving the size
        of a scale (or the image) does not give the size of the scale above it.
    """

    image_shape: tuple[int, int, int] = field((28, 28, 1), "height, width and channels of images")
    scales: tuple[Scale, ...] = field(
        (Scale(7, 64, 4, 5), Scale(14, 64, 4, 5)),
        "size:filters:latents:modules of each scale, top first, separated by commas; "
        "size 1 is fully connected, 7x14 is a rectangle",
    )
    top_latents: int = field(32, "units of z_0, the top latent", at_least=1)
    top_units: int = field(
        128, "units of the dense layers between z_0 and the first state", at_least=1
    )
    image_filters: int = field(
        32,
        "filters of the convolutions next to the image; in a fully connected model, of the map "
        "that the local autoregressive model reads",
        at_least=1,
    )
    kernel_size: int = field(3, "height and width of the convolution kernels", at_least=1)
    activation: str = field(
        "leaky_relu",
        "activation of every module; leaky_relu has slope 0.1, as in the reference",
        ("leaky_relu", "tanh", "elu", "gelu", "silu"),
    )
    update: str = field(
        "residual",
        "state update; residual: Eq. 7; gru: gates; bottleneck: a residual branch of 1x1, 3x3, 3x3 "
        "and 1x1 convolutions with a quarter of the filters, for many modules",
        ("residual", "gru", "bottleneck"),
    )
    upsampling: str = field(
        "transposed",
        "from a scale to the finer one; transposed: transposed convolutions; nearest: rows and "
        "columns are repeated, and a learned bias is added",
        ("transposed", "nearest"),
    )
    initialization: str = field(
        "depth",
        "initial kernels; depth: Glorot, with the branches of N modules scaled by 1 / sqrt(N), "
        "priors at N(0, I) and posteriors near it; glorot: Glorot alone",
        ("depth", "glorot"),
    )
    shared: bool = field(False, "share one set of parameters among the modules of a scale")
    prior: str = field(
        "learned", "prior of z_1 and the latents below: Eq. 8, or N(0, I)", ("learned", "standard")
    )
    mixture_components: int = field(
        0,
        "number of Gaussians in the trained mixture prior of z_0 (Sec. 2.3); 0 is N(0, I)",
        at_least=0,
    )
    mixture_weights: str = field(
        "uniform", "weights of the mixture's components: equal, or trained", ("uniform", "trained")
    )
    mixture_spread: float = field(
        0.1,
        "standard deviation of the initial means and log-variances of the components",
        above=0,
    )
    top_everywhere: bool = field(
        False,
        "give z_0 to every top-down module beside its own latent, as the reference did for Fig. 3",
    )
    conditional_stages: int = field(
        0,
        "0: a model of whole images; 1: a conditional model, which predicts hidden pixels from "
        "known ones (Eq. 3); 2 or more: a conditional model in stages, each of which refines the "
        "image of the stage before",
        at_least=0,
    )
    known_everywhere: bool = field(
        True,
        "in a conditional model, give every top-down module, beside its latent, the state of the "
        "merge module that encodes the known pixels: p(x_u | z, x_k) of Eq. 3",
    )
    latent_scale: float = field(
        0.2,
        "initial value of the trained factor of each Gaussian's mean and log-variance",
        above=0,
    )
    log_var_bound: float = field(
        8.0, "log-variances are squashed smoothly into (-bound, bound)", above=0
    )
    normalization: str = field(
        "none", "normalization of hidden units and states", ("none", "layer")
    )
    deterministic_paths: bool = field(
        True, "carry the top-down state from module to module; false in a ladder network"
    )
    merge_state: bool = field(
        True, "carry the merge state from module to module; false in a ladder network"
    )
    likelihood: str = field(
        "bernoulli",
        "likelihood p(x | z); bernoulli: for binary pixels; normal: a diagonal Gaussian, for real "
        "values such as dequantized ones; logistic: a Logistic integrated over each of the 256 "
        "levels of 8-bit images; logistic_mixture: a mixture of such Logistics for every pixel, "
        "whose channels depend on each other linearly (PixelCNN++)",
        ("bernoulli", "normal", "logistic", "logistic_mixture"),
    )
    likelihood_scale: str = field(
        "pixel",
        "scale parameters of the normal and the logistic likelihood; pixel: a function of the "
        "latents for every channel of every pixel, the only choice with logistic_mixture; channel: "
        "a learned constant for every channel; scalar: one learned constant",
        ("pixel", "channel", "scalar"),
    )
    likelihood_components: int = field(
        10, "number of components of the logistic_mixture likelihood", at_least=1
    )
    whitening: bool = field(
        False,
        "ZCA-whiten the images of a normal likelihood, by the covariance of the training split",
    )
    autoregressive: bool = field(
        False,
        "add the local autoregressive model of Sec. 2.3, for likelihoods of discrete values",
    )
    autoregressive_layers: int = field(
        5, "number of masked convolutions of the local model, at least 2", at_least=2
    )
    autoregressive_filters: int = field(
        32, "filters of the local model's hidden layers", at_least=1
    )
    autoregressive_kernel_size: int = field(
        3, "height and width of the local model's kernels, an odd number", at_least=3
    )

    def __post_init__(self):
        if isinstance(self.scales, Scale):
            object.__setattr__(self, "scales", (self.scales,))
        make_tuple(self, "image_shape", "scales")
        scales = tuple(Scale(*s) if isinstance(s, (list, tuple)) else s for s in self.scales)
        object.__setattr__(self, "scales", scales)
        check_fields(self)
        shape = self.image_shape
        ok = len(shape) == 3 and all(is_size(n) for n in shape)
        require(
            ok, f"ModelConfig.image_shape must be (height, width, channels), each >= 1; got {shape}"
        )
        ok = len(scales) >= 1 and all(isinstance(s, Scale) for s in scales)
        require(ok, f"ModelConfig.scales must be one or more of Scale; got {self.scales!r}")
        require(
            self.deterministic_paths or self.prior == "learned",
            "ModelConfig.deterministic_paths=False needs prior='learned': with neither, no latent "
            "above the last one reaches the image",
        )
        require(
            self.update != "bottleneck" or self.normalization == "none",
            f"ModelConfig.update='bottleneck' goes with normalization 'none'; got "
            f"{self.normalization!r}",
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
        require(
            self.likelihood_scale == "pixel" or self.likelihood != "logistic_mixture",
            "ModelConfig.likelihood_scale must be 'pixel' with likelihood 'logistic_mixture'; got "
            f"{self.likelihood_scale!r}",
        )
        if not self.autoregressive:
            return
        require(
            self.likelihood != "normal",
            "ModelConfig.autoregressive goes with likelihood 'bernoulli', 'logistic' or "
            f"'logistic_mixture'; got {self.likelihood!r}",
        )
        size, channels = self.autoregressive_kernel_size, self.image_shape[-1]
        require(size % 2 == 1, f"ModelConfig.autoregressive_kernel_size must be odd; got {size}")
        require(
            self.autoregressive_filters >= channels,
            f"ModelConfig.autoregressive_filters must be at least {channels}, one for each channel "
            f"of the image; got {self.autoregressive_filters}",
        )

    def _check_conditional(self):
        if not self.conditional_stages:
            return
        require(
            self.prior == "learned" and not self.mixture_components and self.merge_state,
            "ModelConfig.conditional_stages takes every prior from merge modules that encode the "
            "known pixels: it goes with prior='learned', merge_state=True and no mixture; got "
            f"{self.prior!r}, {self.merge_state} and {self.mixture_components} components",
        )
        require(
            not self.whitening,
            "ModelConfig.whitening mixes known pixels with hidden ones: it does not go with "
            f"conditional_stages; got {self.conditional_stages}",
        )

    def _check_sizes(self):
        """Checks that halving each side, rounded up, leads from each scale to the one above it."""
        finer, finer_name = self.image_shape[:2], "the image"
        for scale in reversed(self.scales):
            heights, widths = halvings(finer[0]), halvings(finer[1])
            # A side of 1 stays while the other side halves.
            shapes = itertools.zip_longest(heights, widths, fillvalue=1)
            ok = scale.dense or scale.shape in shapes
            require(
                ok,
                f"scale {scale} has size {scale.label}, which halving (rounding up) does not "
                f"reach from {finer_name} of size {'x'.join(map(str, finer))}: "
                f"possible heights {heights}, widths {widths}",
            )
            finer, finer_name = scale.shape, f"scale {scale}"

    @property
    def levels_per_stage(self) -> int:
        """Number of latents of one conditional stage, its z_0 included."""
        return 1 + sum(scale.modules for scale in self.scales)

    @property
    def num_levels(self) -> int:
        """Number of latents, every z_0 included."""
        return self.levels_per_stage * max(1, self.conditional_stages)

    @property
    def level_names(self) -> tuple[str, ...]:
        """Names of the latents in top-down order, which is also sorted: `00_top`, `01_7x7`, ...

        Names of the second conditional stage continue with `03_s2_top`, and so on.
        """
        labels = ["top"] + [s.label for s in self.scales for _ in range(s.modules)]
        later = range(2, self.conditional_stages + 1)
        labels += [f"s{number}_{label}" for number in later for label in labels]
        digits = max(2, len(str(len(labels) - 1)))
        return tuple(f"{i:0{digits}d}_{label}" for i, label in enumerate(labels))
