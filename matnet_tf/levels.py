# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""What users do with the levels of latents: encode, decode, keep some, draw or mix the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from matnet_tf import noise
from matnet_tf.descent import Trace
from matnet_tf.distributions import tempered
from matnet_tf.hierarchy import Hierarchy, check_count, rows_of
from matnet_tf.noise import seed_tensor

__all__ = ["Levels"]


class Levels(Hierarchy):
    """A model whose levels of latents can be worked with; see `MatNet` for a whole one.

    A subclass defines `top_down`, `watch` and `walk`.
    """

    def infer(self, x: Any, num_samples: int = 1, seed: int = 0) -> Trace:
        """Every level's latents, prior and posterior.

        Args:
          x: images `[B, H, W, C]`.
          num_samples: K draws per image.
          seed: of the draws; a sequence has one for each image, see `noise`.

        Returns:
          A `Trace` whose tensors have K * B rows, sample first: row `k * B + b` is draw k of
          image b.

        Raises:
          ValueError: if the images are not as the config says, or K < 1.
        """
        check_count("num_samples", num_samples)
        x = self.checked(x)
        seed = noise.of_walk(seed_tensor(seed, x.shape[0]), num_samples)
        return self.walk(self.watch(x), num_samples * x.shape[0], seed)

    def reconstruct(
        self, x: Any, num_inferred: int | None = None, temperature: Any = 1.0, seed: int = 0
    ) -> tf.Tensor:
        """Images from the top `num_inferred` levels of x; the levels below come from the prior.

        Args:
          x: images `[B, H, W, C]`.
          num_inferred: how many levels to keep from the posterior, 0 (a sample) to all (the
            default).
          temperature: multiplies the priors' scales; a sequence has one value per level.
          seed: of the draws; a sequence has one for each image, see `noise`.

        Returns:
          images: means of p(x | z), or draws (see `sample`), `[B, H, W, C]`.

        Raises:
          ValueError: if an argument is out of range.
        """
        num_inferred = self.checked_inferred(num_inferred)
        x = self.checked(x)
        return self._graphs.of(self._reconstruct)(
            x, num_inferred, self._temperatures(temperature), seed_tensor(seed, x.shape[0])
        )

    def _reconstruct(self, x, num_inferred, temperatures, seed):
        trace = self.walk(
            self.watch(x),
            rows_of(x),
            seed,
            num_inferred=num_inferred,
            temperature=tf.unstack(temperatures),
        )
        return self.images(trace, seed)

    def sample(
        self,
        num: int,
        temperature: Any = 1.0,
        seed: int = 0,
        latents: Sequence[Any] = (),
        draw: bool = False,
        component: Any = None,
    ) -> tf.Tensor:
        """Images from the prior, or from given levels of latents.

        Args:
          num: how many; at most `samples_per_pass` at a time, which bounds the memory.
          temperature: multiplies the priors' scales; a sequence has one value per level.
          seed: of the draws; a sequence has one for each image, see `noise`.
          latents: values for the levels, top first, each `[num, ...]`: what `infer` gives as
            `trace.z`, whole or in part. Levels that are None or left out are drawn.
          draw: draw the pixels from p(x | z) too, instead of giving its mean. The local
            autoregressive model has no mean in closed form: it always draws.
          component: index of the mixture's component that z_0 is drawn from, or `num` of them.

        Returns:
          images: `[num, H, W, C]` float32.

        Raises:
          ValueError: if an argument is out of range or of another shape.
        """
        check_count("num", num)
        latents, component = self._checked_latents(latents, num), self._component(component, num)
        if component is not None and latents and latents[0] is not None:
            raise ValueError("sample takes a component or a value for the top level, not both")
        temperatures, seed = self._temperatures(temperature), seed_tensor(seed, num)
        parts = []
        for first in range(0, num, self.samples_per_pass):
            rows = slice(first, min(first + self.samples_per_pass, num))
            *own, own_component = (t if t is None else t[rows] for t in (*latents, component))
            own_seed = noise.of_pass(seed, first, rows.stop - first)
            arguments = rows.stop - first, temperatures, own_seed, tuple(own), draw, own_component
            parts.append(self._graphs.of(self._sample)(*arguments))
        return parts[0] if len(parts) == 1 else tf.concat(parts, axis=0)

    def _sample(self, num, temperatures, seed, latents, draw, component):
        temperatures = tf.unstack(temperatures)
        if component is not None:
            latents = (self.top_of_component(component, seed, temperatures[0]), *latents[1:])
        trace = self.walk(None, num, seed, latents=latents, temperature=temperatures)
        return self.images(trace, seed, draw)

    def top_of_component(
        self, component: tf.Tensor, seed: tf.Tensor, temperature: tf.Tensor
    ) -> tf.Tensor:
        """z_0 `[N, ...]` from components `[N]` of the mixture, with the seed of a walk."""
        prior = tempered(self.top_down.top_prior().component(component), temperature)
        return noise.draw(prior, noise.split(seed, self.config.num_levels)[0])

    def decode(self, latents: Sequence[Any], temperature: Any = 1.0, seed: int = 0) -> tf.Tensor:
        """Images from the levels given, as `sample` gives them: `[N, H, W, C]`.

        Args:
          latents: of the levels, top first; those that are None or left out are drawn. At least
            one is given.
          temperature: multiplies the scales of the priors of the levels that are drawn.
          seed: of the draws; a sequence has one for each image, see `noise`.

        Raises:
          ValueError: if no level is given, or one has another shape.
        """
        given = [z for z in latents if z is not None]
        if not given:
            raise ValueError("decode needs the latents of at least one level; got none")
        return self.sample(int(tf.shape(given[0])[0]), temperature, seed, latents)

    def interpolate(
        self,
        a: Any,
        b: Any,
        num: int = 8,
        levels: Sequence[int] | None = None,
        temperature: Any = 1.0,
        seed: int = 0,
    ) -> tf.Tensor:
        """Images on the way from a to b, whose latents are mixed at the chosen levels.

        The latents of a and b are one draw each from the posterior, and mixed linearly. The other
        levels are drawn from the prior, with the same noise at every step of the way.

        Args:
          a: images `[B, H, W, C]`.
          b: as many others.
          num: steps of the way, both ends counted, at least 2.
          levels: which, 0 the top; None is all of them.
          temperature: of the levels that are drawn.
          seed: of the draws; a sequence has one for each image, see `noise`.

        Returns:
          images: `[num, B, H, W, C]`.

        Raises:
          ValueError: if the images are not as the config says, their numbers differ, or another
            argument is out of range.
        """
        check_count("num", num)
        if num < 2:
            raise ValueError("interpolate needs num of at least 2, for both ends; got 1")
        chosen = self._checked_levels(levels)
        a, b = self.checked(a), self.checked(b)
        if a.shape[0] != b.shape[0]:
            raise ValueError(f"a and b must be as many images; got {a.shape[0]} and {b.shape[0]}")
        ends = zip(self.infer(a, seed=seed).z, self.infer(b, seed=seed).z, strict=True)
        ends = [pair if level in chosen else None for level, pair in enumerate(ends)]
        way = (
            [pair and (1 - t) * pair[0] + t * pair[1] for pair in ends]
            for t in np.linspace(0, 1, num, dtype=np.float32)
        )
        return tf.stack([self.decode(latents, temperature, seed) for latents in way])

    def assign(self, x: Any, num_samples: int = 16, seed: int = 0) -> tf.Tensor:
        """Probabilities `[B, K]` of the mixture's components given images: q(component | x).

        The mean of p(component | z_0) over draws of z_0 from the posterior.

        Args:
          x: images `[B, H, W, C]`.
          num_samples: draws per image.
          seed: of the draws; a sequence has one for each image, see `noise`.

        Raises:
          ValueError: if the model has no mixture, or the images are not as the config says.
        """
        self._require_mixture("assign")
        check_count("num_samples", num_samples)
        x = self.checked(x)
        return self._graphs.of(self._assign)(x, num_samples, seed_tensor(seed, x.shape[0]))

    def _assign(self, x, num_samples, seed):
        top = self.watch(x).top
        if noise.by_row(seed):
            rows = self.top_down.gaussian(tf.tile(top, [num_samples, 1]))
            z_0 = noise.draw(rows, noise.of_walk(seed, num_samples))
            z_0 = tf.reshape(z_0, [num_samples, rows_of(x), -1])
        else:
            z_0 = self.top_down.gaussian(top).sample(num_samples, seed=seed)
        return tf.reduce_mean(tf.exp(self.top_down.top_prior().assign(z_0)), axis=0)

    # Checks.

    def checked(self, x: Any) -> tf.Tensor:
        """x as a float32 tensor, or a ValueError that names what is wrong with it."""
        return self.likelihood.pixels.checked(x)

    def _checked_latents(self, latents, num) -> tuple[tf.Tensor | None, ...]:
        shapes = [(num, *shape) for shape in self.latent_shapes]
        if len(latents) > len(shapes):
            raise ValueError(f"the model has {len(shapes)} levels; got {len(latents)} latents")
        latents = tuple(z if z is None else tf.convert_to_tensor(z, tf.float32) for z in latents)
        for name, z, shape in zip(self.config.level_names, latents, shapes, strict=False):
            if z is not None and tuple(z.shape) != shape:
                raise ValueError(
                    f"latents of level {name} must have shape {shape}; got {tuple(z.shape)}"
                )
        return latents

    def _checked_levels(self, levels) -> set[int]:
        total = self.config.num_levels
        chosen = list(range(total) if levels is None else levels)
        whole = all(isinstance(level, (int, np.integer)) for level in chosen)
        if not chosen or not whole or not all(0 <= level < total for level in chosen):
            raise ValueError(
                f"levels must be one or more whole numbers in [0, {total - 1}], 0 the top; "
                f"got {levels!r}"
            )
        return set(map(int, chosen))

    def _component(self, component, num) -> tf.Tensor | None:
        if component is None:
            return None
        self._require_mixture("a component")
        count, indices = self.config.mixture_components, np.asarray(component)
        whole = indices.dtype.kind in "iu" and indices.shape in ((), (num,))
        if not whole or indices.min() < 0 or indices.max() >= count:
            raise ValueError(
                f"component must be a whole number in [0, {count - 1}], or {num} of them; "
                f"got {component!r}"
            )
        return tf.broadcast_to(tf.constant(indices, tf.int32), [num])

    def _require_mixture(self, what):
        if not self.config.mixture_components:
            raise ValueError(
                f"{what} needs a mixture prior, ModelConfig.mixture_components of at least 1; "
                f"this model has none"
            )
