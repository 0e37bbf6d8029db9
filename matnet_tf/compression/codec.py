# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Bits-back coding with asymmetric numeral systems over a hierarchy (BB-ANS, HiLLoC).

To encode images, their latents are decoded from the stack with the posterior, level by level; then
the images are encoded with p(x | z) and the latents with the prior. What stays on the stack is
log q(z | x) - log p(x, z): the bound of one sample. Decoding does the inverse of each step in the
opposite order, and gives back the bits that the latents were decoded from.
"""

from __future__ import annotations

import dataclasses
import math
import struct
import zlib
from collections.abc import Callable

import numpy as np
from constriction import stream

from matnet_tf.compression.first_images import last_images, unpack
from matnet_tf.compression.latents import LatentCoder, MixtureCoder, suitable_steps
from matnet_tf.compression.masked import MaskedImages
from matnet_tf.compression.networks import Gaussians, Networks
from matnet_tf.compression.pixels import make_pixels
from matnet_tf.config import ModelConfig
from matnet_tf.model.hierarchy import Hierarchy

__all__ = ["TYPICAL", "Codec", "check_codable", "first_images"]

TYPICAL = 128  # Images that are enough to choose the steps of the latents.

# First images, bytes of their code, and bytes of the packed sizes of the batches.
_HEAD = struct.Struct("<III")
_PLENTY = 2**22  # Words: 16 MB.
_EMPTY = 3  # Words of a stack that may have run out.
_SPARE = 1.1  # Bits that a batch must find on the stack, in those that the batches before took.


def check_codable(config: ModelConfig) -> None:
    """Refuses models whose images cannot be coded.

    Raises:
      ValueError: If p(x | z) is a density.
    """
    make_pixels(config)


def first_images(block: bytes) -> tuple[int, int]:
    """How many first images a block of `Codec.encode` has, and the bytes of their code."""
    return _HEAD.unpack_from(block)[:2]


class Codec:
    """Codes blocks of images with a trained hierarchy, without loss; several threads may at once.

    Args:
      hierarchy: The trained model's `hierarchy`.
      batch_size: Images that the networks see at once.

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
        # A latent takes less than a word.
        self._most_words = batch_size * sum(map(math.prod, hierarchy.latent_shapes))

    def suitable_steps(self, masked: MaskedImages, bins: float = 2.0, seed: int = 0) -> list:
        """Chooses the steps of the latents, see `latents.suitable_steps`.

        Args:
          masked: Typical images.
          bins: Steps in a posterior's deviation.
          seed: Seed of the draws from the posteriors.
        """
        random, visited = np.random.RandomState(seed), [[] for _ in self._channels]

        def visit(index, gaussians):
            visited[index].append(gaussians)
            noise = random.standard_normal(gaussians.prior_loc.shape).astype(np.float32)
            return gaussians.posterior_loc + gaussians.posterior_scale * noise

        for part in masked.batches(self._batch_size):
            self.networks.descend(self._encoding(part), visit)
        merged = [Gaussians(*map(np.concatenate, zip(*each, strict=True))) for each in visited]
        return suitable_steps(merged, self._channels, bins)

    def encode(
        self, masked: MaskedImages, steps: list, done: Callable[[int], None] = lambda count: None
    ) -> bytes:
        """Codes a block of images.

        Args:
          masked: The images.
          steps: Of `suitable_steps`.
          done: Told the number of images of each finished batch.

        Raises:
          ValueError: If the networks compute something that is not finite.
        """
        needed = self._bytes_to_begin(masked[-1:], steps)
        while True:
            count, first = last_images(masked.hidden_values(), self.pixels.largest, needed)
            coded = self._push_all(masked[: len(masked) - count], first, steps, done)
            if coded is not None:
                stack, sizes = coded
                done(count)
                packed = zlib.compress(np.array(sizes, "<u4").tobytes(), 9)
                words = stack.get_compressed().astype("<u4").tobytes()
                return _HEAD.pack(count, len(first), len(packed)) + packed + words
            needed = int(1.05 * len(first)) + 4

    def bits(self, masked: MaskedImages, steps: list) -> float:
        """Bits that images take on a stack that has enough of them, so without first images."""
        words = np.random.RandomState(0).randint(0, 2**32, _PLENTY, np.uint32)
        stack = stream.stack.AnsCoder(words, seal=True)
        before = stack.num_valid_bits()
        for number, part in enumerate(masked.batches(self._batch_size)):
            stack = self.scrambled(stack, number)
            self.push(stack, part, steps)
        return stack.num_valid_bits() - before

    def decode(
        self,
        data: bytes,
        known: MaskedImages,
        steps: list,
        done: Callable[[int], None] = lambda count: None,
    ) -> np.ndarray:
        """Returns the images of a block, uint8 [N, H, W, C].

        Args:
          data: The block.
          known: What the decoder has of the N images: `MaskedImages.known` of the encoder's.
          steps: Of the encoder.
          done: Told the number of images of each finished batch.

        Raises:
          ValueError: If the block is damaged, the steps are not for this model, or the networks
            compute something that is not finite.
        """
        if [len(level) for level in steps] != self._channels:
            raise ValueError("its steps are those of another model")
        first, length, sizes, stack = self._opened(data, len(known))
        images, stop = known.images.copy(), 0
        for number in reversed(range(len(sizes))):
            start, stop = stop, stop + sizes[number]
            images[start:stop] = self._pop(stack, known[start:stop], steps)
            stack = self.scrambled(stack, number)
            done(stop - start)
        try:
            rest = stack.get_compressed(unseal=True).astype("<u4").tobytes()[:length]
        except AssertionError:
            raise ValueError("what is left of it is not what it began with") from None
        images[stop:] |= unpack(rest, first, self.shape, self.pixels.largest)
        done(first)
        return images

    def _opened(self, data, count):
        """Number and bytes of the first images, sizes of the batches, and the stack of a block."""
        if len(data) < _HEAD.size:
            raise ValueError(f"it has {len(data)} bytes, which are no block")
        first, length, packed = _HEAD.unpack_from(data)
        words = data[_HEAD.size + packed :]
        if first > count or length > len(words) or len(words) % 4:
            raise ValueError(f"it promises {first} first images in {length} bytes")
        sizes = _unpacked_sizes(data[_HEAD.size : _HEAD.size + packed], count - first)
        if any(size not in range(1, self._batch_size + 1) for size in sizes):
            raise ValueError(f"its batches do not have 1 to {self._batch_size} images")
        return first, length, sizes, _stack(words)

    def _push_all(self, masked, first, steps, done) -> tuple | None:
        """The stack, and the sizes of the batches from the last one; None if it ran out.

        A batch has as many images as the stack has bits for: first one, and more as images leave
        theirs.
        """
        stack, sizes = _stack(first + bytes(-len(first) % 4), seal=True), []
        size, most, left = 1, 1.0, len(masked)
        while left:
            size, before = min(size, left), stack
            stack = self.scrambled(stack, len(sizes))
            taken = self.push(stack, masked[left - size : left], steps)
            if taken is None and size == 1:
                done(-sum(sizes))
                return None
            if taken is None:
                stack, size = before, size // 2
                continue
            sizes.append(size)
            left -= size
            done(size)
            most = max(most, taken / size)
            enough = (stack.num_valid_bits() - 32 * _EMPTY) / (_SPARE * most)
            size = min(max(size, int(enough)), self._batch_size)
        return stack, sizes

    def scrambled(self, stack: stream.stack.AnsCoder, number: int) -> stream.stack.AnsCoder:
        """The stack with its top made to look random; done twice, it is the stack again.

        The latents of a batch are drawn by the bits on the stack, which the batch before left. A
        latent whose posterior is its prior gives back the very bits that it was drawn by, so
        without this the next batch would have it again.

        Args:
          stack: The stack before a batch, or after it was taken away.
          number: Number of the batch.
        """
        words = stack.get_compressed()
        top = words[:-1][-self._most_words :]  # The last word must not become 0.
        # NumPy promises that RandomState gives the same numbers in every later version.
        top ^= np.random.RandomState(number).randint(0, 2**32, len(top), np.uint32)
        return stream.stack.AnsCoder(words)

    def push(self, stack: stream.stack.AnsCoder, masked: MaskedImages, steps: list) -> int | None:
        """Puts a batch on a scrambled stack.

        Returns:
          The bits that its latents took, or None if the stack ran out.
        """
        levels, ran_out, before = [], False, stack.num_valid_bits()

        def visit(index, gaussians):
            nonlocal ran_out
            coder = self._coder(steps, index, gaussians, len(masked))
            numbers = coder.pop_posterior(stack)
            ran_out = ran_out or stack.num_words() <= _EMPTY
            levels.append((coder, numbers))
            return coder.latents(numbers)

        context = self.networks.descend(self._encoding(masked), visit)
        if ran_out:
            return None
        taken = before - stack.num_valid_bits()
        for parameters, values in reversed(self._found(context, masked)):
            self.pixels.push(stack, parameters, values)
        for coder, numbers in reversed(levels):
            coder.push_prior(stack, numbers)
        return taken

    def _found(self, context, masked) -> list:
        """Parameters and values of every place of images, in order."""
        images, hidden = self._padded(masked)
        found = []

        def choose(parameters, place, seen):
            found.append((parameters, images[place][seen]))

        self._walk(context, images, hidden, choose)
        return found

    def _pop(self, stack, known, steps) -> np.ndarray:
        """Takes a batch from the stack."""
        latents, levels = [], []

        def from_prior(index, gaussians):
            coder = self._coder(steps, index, gaussians, len(known))
            latents.append(coder.pop_prior(stack))
            return coder.latents(latents[-1])

        def given(index, gaussians):
            coder = self._coder(steps, index, gaussians, len(known))
            levels.append((coder, latents[index]))
            return coder.latents(latents[index])

        images, hidden = self._padded(known)

        def choose(parameters, place, seen):
            images[place][seen] = self.pixels.pop(stack, parameters)

        encoding = self.networks.encode_known(self._scaled(images), hidden)
        self._walk(self.networks.descend(encoding, from_prior), images, hidden, choose)
        decoded = dataclasses.replace(known, images=images[: len(known)])
        self.networks.descend(self._encoding(decoded), given)
        for coder, numbers in reversed(levels):
            coder.push_posterior(stack, numbers)
        return decoded.images

    def _walk(self, context, images, hidden, choose) -> None:
        """Goes through the hidden values of a batch in order.

        Args:
          context: Of `Networks.descend`.
          images: uint8 [B, H, W, C], to which `choose` may write.
          hidden: bool [B, H, W].
          choose: Called with the parameters of the hidden values of a place, [n, c, ...] each; an
            index of `images`, which gives the place; and an index of what is hidden there.
        """
        places = iter(self._places)

        def visit(parameters):
            rows, columns, channels = next(places)
            seen = hidden[:, rows, columns]
            parameters = [part[seen][:, channels] for part in parameters]
            if not all(np.isfinite(part).all() for part in parameters):
                raise ValueError("the networks compute values that are not finite")
            if len(parameters[0]):
                choose(parameters, np.s_[:, rows, columns, channels], seen)
            return self._scaled(images[:, rows, columns])

        self.networks.values(context, visit)

    def _coder(self, steps, index, gaussians, count) -> LatentCoder:
        """The coder of a level for the first images of a batch."""
        if index == 0 and self.networks.mixture is not None:
            return MixtureCoder(steps[index], gaussians, count, self.networks.mixture)
        return LatentCoder(steps[index], gaussians, count)

    def _bytes_to_begin(self, masked, steps) -> int:
        """About how many bytes the latents of a batch take from the stack."""
        bits = [32.0 * _EMPTY]

        def visit(index, gaussians):
            bits.append(self._coder(steps, index, gaussians, len(masked)).entropy_bits())
            return gaussians.posterior_loc

        self.networks.descend(self._encoding(masked), visit)
        return int(sum(bits) / 8)

    def _encoding(self, masked):
        images, hidden = self._padded(masked)
        return self.networks.encode(self._scaled(images), hidden)

    def _scaled(self, images):
        return images / np.float32(self.pixels.largest)

    def _padded(self, masked) -> tuple[np.ndarray, np.ndarray]:
        """The images with empty ones that fill the batch, in which nothing is hidden."""
        images = np.zeros((self._batch_size, *self.shape), np.uint8)
        hidden = np.zeros((self._batch_size, *self.shape[:2]), bool)
        images[: len(masked)] = masked.images
        hidden[: len(masked)] = masked.hidden
        return images, hidden


def _unpacked_sizes(packed: bytes, count: int) -> list[int]:
    """The sizes of the batches of so many images."""
    try:
        unpacked = zlib.decompressobj().decompress(packed, 4 * count + 1)
        sizes = np.frombuffer(unpacked, "<u4").tolist()
    except (zlib.error, ValueError) as error:
        raise ValueError(f"the sizes of its batches cannot be read: {error}") from None
    if sum(sizes) != count:
        raise ValueError(f"its batches have {sum(sizes)} images; expected {count}")
    return sizes


def _stack(data: bytes, seal: bool = False) -> stream.stack.AnsCoder:
    words = np.frombuffer(data, "<u4").astype(np.uint32)
    return stream.stack.AnsCoder(words, seal=seal)
