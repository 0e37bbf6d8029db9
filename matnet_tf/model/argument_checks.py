# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks of the arguments of the models' methods: counts, levels, temperatures, latents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from matnet_tf.config import ModelConfig
from matnet_tf.config.serialization import from_dict

__all__ = [
    "check_count",
    "check_mixture",
    "checked_component",
    "checked_config",
    "checked_latents",
    "checked_levels",
    "checked_num_inferred",
    "checked_temperatures",
]


def checked_config(name: str, config: ModelConfig | dict | None, conditional: bool) -> ModelConfig:
    """The config of a model, from itself, its dictionary, or the default.

    Args:
      name: Name of the model's class.
      config: The config; Keras gives a dictionary when it loads a model.
      conditional: Whether the model is conditional.

    Raises:
      ValueError: If it is no `ModelConfig`, or one of the other kind of model.
    """
    if isinstance(config, dict):
        config = from_dict(ModelConfig, config)
    config = ModelConfig() if config is None else config
    if not isinstance(config, ModelConfig):
        raise ValueError(f"{name} takes a ModelConfig; got {type(config).__name__}")
    if conditional and not config.conditional_stages:
        raise ValueError(
            f"{name} takes a ModelConfig with conditional_stages of at least 1; got 0, which "
            f"MatNet takes"
        )
    if not conditional and config.conditional_stages:
        raise ValueError(
            f"{name} is a model of whole images: it takes conditional_stages 0; got "
            f"{config.conditional_stages}, which ConditionalMatNet takes"
        )
    return config


def check_count(name: str, value: int) -> None:
    """Raises a ValueError that names the argument unless its value is an integer of at least 1."""
    if not _is_integer(value) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1; got {value!r}")


def checked_num_inferred(config: ModelConfig, num_inferred: int | None) -> int:
    """Number of levels from the posterior; None stands for all, others raise a ValueError."""
    levels = config.num_levels
    num_inferred = levels if num_inferred is None else num_inferred
    if not _is_integer(num_inferred) or not 0 <= num_inferred <= levels:
        raise ValueError(
            f"num_inferred must be a whole number in [0, {levels}], the model's levels; got "
            f"{num_inferred!r}"
        )
    return int(num_inferred)


def checked_temperatures(config: ModelConfig, temperature: Any) -> tf.Tensor:
    """One temperature per level, `[levels]`, from one number or one per level."""
    levels = config.num_levels
    try:
        values = np.asarray(temperature, np.float32)
    except (TypeError, ValueError):
        values = np.asarray(np.nan)
    if values.shape not in ((), (levels,)) or not np.all(np.isfinite(values) & (values >= 0)):
        raise ValueError(
            f"temperature must be one number >= 0 or one per level ({levels}); got {temperature!r}"
        )
    return tf.broadcast_to(tf.constant(values), [levels])


def checked_latents(
    config: ModelConfig, latents: Sequence[Any], shapes: Sequence[tuple[int, ...]], num: int
) -> tuple[tf.Tensor | None, ...]:
    """Latents as float32 tensors; None entries stay.

    Args:
      config: The model's config.
      latents: Values of the top levels, top first.
      shapes: Shape of every level's latent without the batch.
      num: Size of the batch.

    Raises:
      ValueError: If there are more latents than levels, or one has another shape.
    """
    if len(latents) > len(shapes):
        raise ValueError(f"the model has {len(shapes)} levels; got {len(latents)} latents")
    latents = tuple(z if z is None else tf.convert_to_tensor(z, tf.float32) for z in latents)
    for name, z, shape in zip(config.level_names, latents, shapes, strict=False):
        if z is not None and tuple(z.shape) != (num, *shape):
            raise ValueError(
                f"latents of level {name} must have shape {(num, *shape)}; got {tuple(z.shape)}"
            )
    return latents


def checked_levels(config: ModelConfig, levels: Sequence[int] | None) -> set[int]:
    """Indices of levels, 0 the top; None stands for all, others raise a ValueError."""
    total = config.num_levels
    chosen = list(range(total) if levels is None else levels)
    if not chosen or not all(_is_integer(n) and 0 <= n < total for n in chosen):
        raise ValueError(
            f"levels must be one or more whole numbers in [0, {total - 1}], 0 the top; got "
            f"{levels!r}"
        )
    return set(map(int, chosen))


def checked_component(config: ModelConfig, component: Any, num: int) -> tf.Tensor | None:
    """Components `[num]` of the mixture prior, from one index or `num` of them, or None."""
    if component is None:
        return None
    check_mixture(config, "a component")
    count, indices = config.mixture_components, np.asarray(component)
    whole = indices.dtype.kind in "iu" and indices.shape in ((), (num,))
    if not whole or indices.min() < 0 or indices.max() >= count:
        raise ValueError(
            f"component must be a whole number in [0, {count - 1}], or {num} of them; got "
            f"{component!r}"
        )
    return tf.broadcast_to(tf.constant(indices, tf.int32), [num])


def check_mixture(config: ModelConfig, what: str) -> None:
    """Raises a ValueError unless the model has a mixture prior."""
    if not config.mixture_components:
        raise ValueError(
            f"{what} needs a mixture prior, ModelConfig.mixture_components of at least 1; this "
            f"model has none"
        )


def _is_integer(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)
