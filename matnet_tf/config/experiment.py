# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The training loss, the training, and a whole experiment: a model, its data and its training."""

from __future__ import annotations

import dataclasses
import math

from matnet_tf.config.data import DataConfig
from matnet_tf.config.model import ModelConfig
from matnet_tf.config.validation import check_fields, field, make_tuple, require

__all__ = ["ElboLoss", "Experiment", "TrainConfig"]


@dataclasses.dataclass(frozen=True)
class ElboLoss:
    """Settings of the loss, the negative ELBO, and of the guard against bad steps.

    Metrics and reported bounds do not depend on these settings: they have the plain ELBO, with a
    mixture prior's KL as the log-ratio at the sample.

    Attributes:
      clip_norm: Global norm to which gradients are clipped; 0 does not clip.
      skip_norm: A step is skipped if its gradient is not finite, or its global norm exceeds this
        many times the median of the last 100 steps.
      max_skipped: Number of steps skipped in a row after which `fit` raises `TrainingDiverged`.
      kl_schedule: How the KL enters the loss, given the model's variable `kl_weight`, w: as w * KL,
        to which `squared` adds (1 - w) times the sum of the squared KL per latent unit.
      free_bits: Nats that every level may carry at no cost: where the mean of its KL over the batch
        is less, the level costs this much. In the loss alone.
      kl_balancing: Progress until which the KL of a level counts in proportion to what a unit of
        the level carries, less and less so; see `losses`. Without a schedule, any value above 0
        balances to the end, unless the model's variable `kl_balance` is lowered.
      mixture_kl: KL from a mixture prior: `approximate` (Eq. 12) or `monte_carlo`.
      entropy_penalty: Weight of the entropy of the mixture's component given z_0, in nats, which
        is added to the KL (Sec. 3).
      l2_penalty: Weight of the sum of all squared weights, whose gradient is added to that of the
        loss. No reported number has it in it.
      num_samples: K, the samples of the latents per image. With more than one the loss is minus the
        importance-weighted bound. It does not concern the regularizer.
      gradient: How the gradient passes the samples: `reparametrized`, or `doubly_reparametrized`
        (Tucker et al., 2019), which with one sample takes the KL as the log-ratio at the sample.
      regularizer: Updates of the guide alone on images drawn from the model: `free_energy`
        maximizes their bound (Eq. 13), `sleep` the log-probability of the latents they came from.
      regularizer_start: Number of steps before the first such update.
      regularizer_every: Number of steps from one such update to the next.
      micro_batches: Number of parts into which a replica splits its images; the gradients of the
        parts are summed.
      recompute: Labels of the scales, such as `14x14`, whose modules compute their activations
        again for the gradient, in place of keeping them; `all` is every scale.

    Raises:
      ValueError: If a setting is out of range.
    """

    clip_norm: float = field(
        1000.0, "global norm to which gradients are clipped; 0 does not clip", at_least=0
    )
    skip_norm: float = field(
        20.0,
        "steps are skipped if their gradient is not finite, or its global norm exceeds this many "
        "times the median of the last 100 steps",
        above=0,
    )
    max_skipped: int = field(
        50,
        "number of steps skipped in a row after which training returns to the checkpoint before",
        at_least=1,
    )
    kl_schedule: str = field(
        "constant",
        "weight w of the KL; constant: 1; linear: rises from kl_start to 1 until kl_warmup; "
        "squared: rises likewise, and (1 - w) times the sum of the squared KL per latent unit is "
        "added, as in the reference",
        ("constant", "linear", "squared"),
    )
    free_bits: float = field(
        0.0,
        "nats that each level of latents may carry at no cost, in the mean over the batch, so that "
        "no level dies; in the loss alone",
        at_least=0,
    )
    kl_balancing: float = field(
        0.0,
        "progress until which levels that carry less per unit cost less, at first in proportion; "
        "0 never does so",
        at_least=0,
        at_most=1,
    )
    mixture_kl: str = field(
        "approximate",
        "KL from a mixture prior in the loss; approximate: Eq. 12, an upper bound; monte_carlo: "
        "the log-ratio at the sample, which is unbiased and used in every reported bound",
        ("approximate", "monte_carlo"),
    )
    entropy_penalty: float = field(
        0.0,
        "weight of the entropy of the mixture's component given z_0, which is added to the KL; "
        "the reference has 0.4",
        at_least=0,
    )
    l2_penalty: float = field(
        1e-5,
        "weight of the sum of all squared weights in the loss; the reference has 1e-5 to 4e-5",
        at_least=0,
    )
    num_samples: int = field(
        1,
        "samples of the latents per image; more than 1 train on the importance-weighted bound "
        "(Burda et al., 2016), at up to as many times the time and memory",
        at_least=1,
    )
    gradient: str = field(
        "reparametrized",
        "how the gradient passes the samples; doubly_reparametrized: the same in expectation, with "
        "less noise where the guide is good (Tucker et al., 2019), by a second top-down pass",
        ("reparametrized", "doubly_reparametrized"),
    )
    regularizer: str = field(
        "none",
        "updates of the guide alone on images drawn from the model; free_energy: maximize their "
        "bound (Eq. 13); sleep: maximize the log-probability of the latents they came from",
        ("none", "free_energy", "sleep"),
    )
    regularizer_start: int = field(
        0, "number of steps before the regularizer's first update", at_least=0
    )
    regularizer_every: int = field(
        1, "number of steps from one regularizer update to the next", at_least=1
    )
    micro_batches: int = field(
        1,
        "number of parts into which a device splits its images of a batch, to save memory; the "
        "gradients of the parts are summed before the update",
        at_least=1,
    )
    recompute: tuple[str, ...] = field(
        (),
        "scales, such as 14x14,28x28 or fc, or all, whose modules keep only their inputs for the "
        "gradient and compute the rest again, to save memory; a step takes about a third longer",
    )

    def __post_init__(self):
        make_tuple(self, "recompute")
        check_fields(self)
        others = ("entropy_penalty", "free_bits", "kl_balancing")
        given = [name for name in others if getattr(self, name)]
        given += ["kl_schedule 'squared'"] if self.kl_schedule == "squared" else []
        require(
            not given or not self.importance_weighted,
            f"{type(self).__name__}.num_samples above 1 and gradient 'doubly_reparametrized' weigh "
            f"samples by the plain log-ratio: they do not go with {' or '.join(given)}",
        )

    @property
    def importance_weighted(self) -> bool:
        """Whether the loss is made from importance weights rather than from the KL."""
        return self.num_samples > 1 or self.gradient != "reparametrized"

    def check_model(self, model: ModelConfig) -> None:
        """Raises a ValueError if the loss does not go with the model."""
        require(
            not self.importance_weighted
            or not model.mixture_components
            or self.mixture_kl == "monte_carlo",
            f"{type(self).__name__}.num_samples above 1 and gradient 'doubly_reparametrized' need "
            f"mixture_kl 'monte_carlo' with a mixture prior; got {self.mixture_kl!r}",
        )
        known = [*dict.fromkeys(scale.label for scale in model.scales), "all"]
        require(
            set(self.recompute) <= set(known),
            f"{type(self).__name__}.recompute must name scales of the model, of "
            f"{', '.join(known)}; got {', '.join(map(str, self.recompute))}",
        )


@dataclasses.dataclass(frozen=True)
class TrainConfig(ElboLoss):
    """How a model is trained: the loss, the optimizer, its schedules and the checkpoints.

    Schedules are functions of progress in [0, 1], which is `step / steps`. With `max_seconds`, it
    is the larger of that and `seconds / max_seconds`, so that a run with a time limit completes its
    schedules on a machine of any speed.
    """

    steps: int = field(10000, "number of optimizer steps", at_least=1)
    batch_size: int = field(100, "images per step, over all devices", at_least=1)
    max_seconds: float = field(
        0.0, "time limit of the run in seconds, start-up included; 0 sets no limit", at_least=0
    )
    learning_rate: float = field(
        1e-3, "Adam's learning rate after warm-up and before any decay", above=0
    )
    warmup_steps: int = field(
        0, "number of steps over which the learning rate rises linearly from 0", at_least=0
    )
    schedule: str = field(
        "constant",
        "shape of the learning rate between warm-up and final decay",
        ("constant", "halving", "cosine"),
    )
    halvings: tuple[float, ...] = field(
        (),
        "progress values in (0, 1), separated by commas, at which the learning rate halves, for "
        "schedule halving",
    )
    decay_from: float = field(
        1.0,
        "progress from which the learning rate falls linearly to 0; 1 is no final decay",
        at_least=0,
        at_most=1,
    )
    beta_1: float = field(0.9, "Adam's beta_1; the reference starts at 0.8", at_least=0, below=1)
    beta_1_halving: bool = field(
        False, "move beta_1 half-way to 0.95 at each halving, as the reference does"
    )
    beta_2: float = field(0.98, "Adam's beta_2; the reference: 0.98 or 0.99", at_least=0, below=1)
    epsilon: float = field(1e-7, "Adam's epsilon; the reference has 1e-4", above=0)
    weight_decay: float = field(
        0.0,
        "decoupled weight decay, as in AdamW, per step and unit of the learning rate",
        at_least=0,
    )
    rollbacks: int = field(
        4,
        "how often a run that skipped max_skipped steps in a row returns to the checkpoint before "
        "them and goes on at half the learning rate, before it ends with an error",
        at_least=0,
    )
    average_decay: float = field(
        0.0,
        "decay of the exponential moving average of the weights; 0 keeps no average",
        at_least=0,
        below=1,
    )
    kl_warmup: float = field(
        0.0, "progress at which the KL weight reaches 1", at_least=0, at_most=1
    )
    kl_start: float = field(0.0, "KL weight at the start of its warm-up", at_least=0, at_most=1)
    free_bits_until: float = field(
        0.0,
        "progress until which the free bits fall linearly to 0; 0 keeps them to the end",
        at_least=0,
        at_most=1,
    )
    stage_by_stage: float = field(
        0.0,
        "progress until which the stages of a conditional model are trained one after another, for "
        "equal times and with earlier stages fixed; then all are trained together. 0 trains them "
        "together from the start",
        at_least=0,
        at_most=1,
    )
    devices: int = field(
        0,
        "number of devices of this machine that share each batch; 0 is all GPUs, or one CPU. "
        "Without GPUs, more than 1 splits the CPU. docs/distributed.md describes several machines",
        at_least=0,
    )
    precision: str = field(
        "float32",
        "precision of the networks' computations; weights and distributions are always float32",
        ("float32", "mixed_bfloat16"),
    )
    jit_compile: bool | str = field(
        "auto",
        "compile the training step with XLA, auto where there is a GPU; on several devices or with "
        "micro-batches, what leads to the gradients",
        choices=("auto", True, False),
    )
    deterministic: bool = field(
        False,
        "use only operations whose results are equal bit for bit in every run, at a price on a "
        "GPU; a run on one CPU device needs no such choice",
    )
    steps_per_execution: int = field(
        1,
        "number of steps that run in one call from Python; fewer do where steps or "
        "checkpoint_every is not a multiple of it",
        at_least=1,
    )
    checkpoint_every: int = field(
        1000,
        "checkpoint interval in steps; metrics and summaries are written then, too",
        at_least=1,
    )
    keep_checkpoints: int = field(
        2, "number of checkpoints to keep; one more while steps are being skipped", at_least=1
    )
    summary_images: int = field(
        8, "images per side of the pictures written to TensorBoard; 0 writes none", at_least=0
    )
    pictures_every: int = field(5, "interval between pictures, in checkpoints", at_least=1)

    def __post_init__(self):
        make_tuple(self, "halvings")
        super().__post_init__()
        self._check_halvings()
        require(
            self.free_bits > 0 or not self.free_bits_until,
            f"TrainConfig.free_bits_until needs free_bits above 0; got {self.free_bits_until} "
            f"without any",
        )
        require(
            self.micro_batches <= self.batch_size,
            f"TrainConfig.micro_batches must be at most batch_size; got {self.micro_batches} and "
            f"{self.batch_size}",
        )

    @property
    def execution_steps(self) -> int:
        """The largest divisor of `steps_per_execution` with which every interval ends in time."""
        return math.gcd(self.steps_per_execution, self.checkpoint_every, self.steps)

    def _check_halvings(self):
        object.__setattr__(self, "halvings", tuple(float(h) for h in self.halvings))
        ok = all(0 < h < 1 for h in self.halvings) and list(self.halvings) == sorted(self.halvings)
        require(ok, f"TrainConfig.halvings must rise within (0, 1); got {self.halvings}")
        require(
            bool(self.halvings) == (self.schedule == "halving"),
            f"TrainConfig.halvings goes with schedule 'halving'; got {self.halvings} with "
            f"{self.schedule!r}",
        )


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A model, its data and its training, as `config.json` of a work directory records them.

    Raises:
      ValueError: If the settings of different sections do not go together.
    """

    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    seed: int = field(0, "seed of the weights, the order of the images and all noise", at_least=0)
    init: str = field(
        "",
        "trained model to start from, where names and shapes of weights fit: preset:NAME, a work "
        "directory, a checkpoint or a .keras file; empty starts with drawn weights",
    )

    def __post_init__(self):
        for name, section in (("model", ModelConfig), ("data", DataConfig), ("train", TrainConfig)):
            value = getattr(self, name)
            ok = isinstance(value, section)
            require(ok, f"Experiment.{name} must be a {section.__name__}; got {value!r}")
        check_fields(self)
        require(
            not self.train.entropy_penalty or self.model.mixture_components > 0,
            f"TrainConfig.entropy_penalty needs a mixture prior, ModelConfig.mixture_components "
            f"of at least 1; got {self.train.entropy_penalty} with 0 components",
        )
        self.train.check_model(self.model)
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
            f"ModelConfig.conditional_stages of at least 1 needs DataConfig.mask, and a mask needs "
            f"a conditional model; got {stages} with mask {self.data.mask!r}",
        )
        require(
            not self.train.stage_by_stage or stages > 1,
            f"TrainConfig.stage_by_stage needs ModelConfig.conditional_stages of at least 2; got "
            f"{self.train.stage_by_stage} with {stages}",
        )
