# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Bits-back coding with asymmetric numeral systems over a hierarchy (BB-ANS, HiLLoC).

To encode images, their latents are decoded from the stack with the posterior, level by level; then
the images are encoded with p(x | z) and the latents with the prior. What stays on the stack is
log q(z | x) - log p(x, z): the bound of one sample. Decoding does the inverse of each step in the
opposite order, and gives back the bits that the latents were decoded from.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np
from constriction import stream

from matnet_tf.compression.first_images import pack, unpack
from matnet_tf.compression.latents import LatentCoder, suitable_steps
from matnet_tf.compression.networks import Gaussians, Networks
from matnet_tf.compression.pixels import make_pixels
from matnet_tf.config import ModelConfig
from matnet_tf.model.hierarchy import Hierarchy

__all__ = ["TYPICAL", "Codec", "check_codable", "first_images"]

TYPICAL = 128  # Images that are enough to choose the steps of the latents.

_HEAD = struct.Struct("<II")  # First images, and bytes of their code.
_PLENTY = 2**22  # Words: 16 MB.
_EMPTY = 3  # Words of a stack that may have run out.


def check_codable(config: ModelConfig) -> None:
    """Refuses models whose images cannot be coded.

    Raises:
      ValueError: If the model is conditional or has a mixture prior, or its p(x | z) is a density.
    """
    if config.conditional_stages:
        raise ValueError(
            f"compression needs a model of whole images; got a conditional one "
            f"(conditional_stages {config.conditional_stages})"
        )
    if config.mixture_components:
        raise ValueError(
            f"compression takes models with Gaussian priors; got a mixture prior "
            f"(mixture_components {config.mixture_components})"
        )
    make_pixels(config)


def first_images(block: bytes) -> tuple[int, int]:
    """How many first images a block of `Codec.encode` has, and the bytes of their code."""
    return _HEAD.unpack_from(block)


class Codec:
    """Codes blocks of images with a trained hierarchy, without loss.

    Args:
      hierarchy: The trained model's `hierarchy`.
      batch_size: Images that the networks see at once. More need more first bits.

    Raises:
      ValueError: See `check_codable`.
    """

    def __init__(self, hierarchy: Hierarchy, batch_size: int = 8):
        check_codable(hierarchy.config)
        self.networks = Networks(hierarchy, batch_size)
        self.pixels = make_pixels(hierarchy.config)
        self.shape = tuple(hierarchy.config.image_shape)
        self._places = list(hierarchy.likelihood.places())
        self._channels = [shape[-1] for shape in hierarchy.latent_shapes]
        self._batch_size = batch_size

    def suitable_steps(self, images: np.ndarray, bins: float = 2.0, seed: int = 0) -> list:
        """Chooses the steps of the latents, see `latents.suitable_steps`.

        Args:
          images: Typical images, uint8 [N, H, W, C].
          bins: Steps in a posterior's deviation.
          seed: Seed of the draws from the posteriors.
        """
        random, visited = np.random.RandomState(seed), [[] for _ in self._channels]

        def visit(index, gaussians):
            visited[index].append(gaussians)
            noise = random.standard_normal(gaussians.prior_loc.shape).astype(np.float32)
            return gaussians.posterior_loc + gaussians.posterior_scale * noise

        for start in range(0, len(images), self._batch_size):
            part = images[start : start + self._batch_size]
            self.networks.descend(self._encoding(part), visit)
        merged = [Gaussians(*map(np.concatenate, zip(*each, strict=True))) for each in visited]
        return suitable_steps(merged, self._channels, bins)

    def encode(
        self, images: np.ndarray, steps: list, done: Callable[[int], None] = lambda count: None
    ) -> bytes:
        """Codes a block of images.

        Args:
          images: uint8 [N, H, W, C], values 0 and 1 or 8-bit levels as the likelihood has them.
          steps: Of `suitable_steps`.
          done: Told the number of images of each finished batch.

        Raises:
          ValueError: If the networks compute something that is not finite.
        """
        needed = self._bytes_to_begin(images[-self._batch_size :], steps)
        while True:
            count, first = self._first_images(images, needed)
            coded = self._push_all(images[: len(images) - count], first, steps, done)
            if coded is not None:
                done(count)
                return _HEAD.pack(count, len(first)) + coded
            needed = int(1.05 * len(first)) + 4

    def bits(self, images: np.ndarray, steps: list) -> float:
        """Bits that images take on a stack that has enough of them, so without first images."""
        words = np.random.RandomState(0).randint(0, 2**32, _PLENTY, np.uint32)
        stack, total = stream.stack.AnsCoder(words, seal=True), 0
        for start in range(0, len(images), self._batch_size):
            before = stack.num_valid_bits()
            self._push(stack, images[start : start + self._batch_size], steps)
            total += stack.num_valid_bits() - before
        return total

    def decode(
        self,
        data: bytes,
        count: int,
        steps: list,
        done: Callable[[int], None] = lambda count: None,
    ) -> np.ndarray:
        """Returns the N images of a block that `encode` coded with the same steps.

        Args:
          data: The block.
          count: N.
          steps: Of the encoder.
          done: Told the number of images of each finished batch.

        Raises:
          ValueError: If the block is damaged, the steps are not for this model, or the networks
            compute something that is not finite.
        """
        if len(data) < _HEAD.size or len(data) % 4:
            raise ValueError(f"it has {len(data)} bytes, which are no block")
        first, length = _HEAD.unpack_from(data)
        if [len(level) for level in steps] != self._channels:
            raise ValueError("its steps are those of another model")
        if first > count or length > len(data):
            raise ValueError(f"it promises {first} first images in {length} bytes")
        stack = _stack(data[_HEAD.size :])
        images = np.empty((count, *self.shape), np.uint8)
        for start in range(0, count - first, self._batch_size):
            stop = min(start + self._batch_size, count - first)
            images[start:stop] = self._pop(stack, stop - start, steps)
            done(stop - start)
        rest = stack.get_compressed(unseal=True).astype("<u4").tobytes()[:length]
        images[count - first :] = unpack(rest, first, self.shape, self.pixels.largest)
        done(first)
        return images

    def _first_images(self, images, needed):
        """How many of the last images take at least the needed number of bytes, and their code."""
        count = 0
        while True:
            first = pack(images[len(images) - count :], self.pixels.largest)
            if len(first) >= needed or count == len(images):
                return count, first
            more = max(1, count * (needed - len(first)) // max(1, len(first)))
            count = min(len(images), count + more)

    def _push_all(self, images, first, steps, done):
        """The stack as bytes, or None if it ran out."""
        stack = _stack(first + bytes(-len(first) % 4), seal=True)
        finished = 0
        for start in reversed(range(0, len(images), self._batch_size)):
            part = images[start : start + self._batch_size]
            if not self._push(stack, part, steps):
                done(-finished)
                return None
            finished += len(part)
            done(len(part))
        return stack.get_compressed().astype("<u4").tobytes()

    def _push(self, stack, images, steps) -> bool:
        """Puts a batch on the stack; False if the stack ran out."""
        levels, ran_out = [], False

        def visit(index, gaussians):
            nonlocal ran_out
            coder = LatentCoder(steps[index], gaussians, len(images))
            numbers = coder.pop_posterior(stack)
            ran_out = ran_out or stack.num_words() <= _EMPTY
            levels.append((coder, numbers))
            return coder.latents(numbers)

        context = self.networks.descend(self._encoding(images), visit)
        if ran_out:
            return False
        for parameters, values in reversed(self._steps(context, images)):
            self.pixels.push(stack, parameters, values)
        for coder, numbers in reversed(levels):
            coder.push_prior(stack, numbers)
        return True

    def _steps(self, context, images) -> list:
        """Parameters and values of every place of known images, in order."""
        found, padded = [], self._padded(images)

        def choose(parameters, place):
            rows, columns, channels = place
            found.append((parameters, padded[: len(images), rows, columns, channels]))
            return padded[:, rows, columns]

        self._walk(context, len(images), choose)
        return found

    def _pop(self, stack, count, steps) -> np.ndarray:
        """Takes a batch from the stack."""
        latents, levels = [], []

        def from_prior(index, gaussians):
            coder = LatentCoder(steps[index], gaussians, count)
            latents.append(coder.pop_prior(stack))
            return coder.latents(latents[-1])

        def known(index, gaussians):
            coder = LatentCoder(steps[index], gaussians, count)
            levels.append((coder, latents[index]))
            return coder.latents(latents[index])

        images = self._padded(np.empty((0, *self.shape), np.uint8))

        def choose(parameters, place):
            rows, columns, channels = place
            images[:count, rows, columns, channels] = self.pixels.pop(stack, parameters)
            return images[:, rows, columns]

        self._walk(self.networks.descend(self.networks.nothing, from_prior), count, choose)
        images = images[:count]
        self.networks.descend(self._encoding(images), known)
        for coder, numbers in reversed(levels):
            coder.push_posterior(stack, numbers)
        return images

    def _walk(self, context, count, choose) -> None:
        """Calls `choose` with the parameters and the place of all values, uint8, in order."""
        places = iter(self._places)

        def visit(parameters):
            place = next(places)
            parameters = [part[:count, :, :, place[2]] for part in parameters]
            if not all(np.isfinite(part).all() for part in parameters):
                raise ValueError("the networks compute values that are not finite")
            return choose(parameters, place) / np.float32(self.pixels.largest)

        self.networks.values(context, visit)

    def _bytes_to_begin(self, images, steps) -> int:
        """About how many bytes the latents of a batch take from the stack."""
        bits = [32.0 * _EMPTY]

        def visit(index, gaussians):
            bits.append(LatentCoder(steps[index], gaussians, len(images)).entropy_bits())
            return gaussians.posterior_loc

        self.networks.descend(self._encoding(images), visit)
        return int(sum(bits) / 8)

    def _encoding(self, images):
        return self.networks.encode(self._padded(images) / np.float32(self.pixels.largest))

    def _padded(self, images):
        padded = np.zeros((self._batch_size, *self.shape), np.uint8)
        padded[: len(images)] = images
        return padded


def _stack(data: bytes, seal: bool = False) -> stream.stack.AnsCoder:
    words = np.frombuffer(data, "<u4").astype(np.uint32)
    return stream.stack.AnsCoder(words, seal=seal)
