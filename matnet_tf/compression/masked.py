# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Images of which only a part is coded: what a conditional model knows is given on both sides."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np

__all__ = ["MaskedImages"]


@dataclasses.dataclass(frozen=True)
class MaskedImages:
    """Images and what is hidden of them, which is what a file has; a decoder is given the rest.

    Attributes:
      images: uint8 [N, H, W, C]: values 0 and 1, or 8-bit levels.
      hidden: bool [N, H, W].
    """

    images: np.ndarray
    hidden: np.ndarray

    @classmethod
    def all_hidden(cls, images: np.ndarray) -> MaskedImages:
        """Images of an unconditional model, of which a decoder is given nothing."""
        return cls(images, np.broadcast_to(True, images.shape[:3]))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: slice | np.ndarray) -> MaskedImages:
        return MaskedImages(self.images[index], self.hidden[index])

    def batches(self, size: int) -> list[MaskedImages]:
        """The images in parts of the same size; the last may be smaller."""
        return [self[start : start + size] for start in range(0, len(self), size)]

    def parts(self, count: int) -> list[MaskedImages]:
        """The images in so many parts of nearly the same size."""
        ends = [len(self) * i // count for i in range(count + 1)]
        return [self[start:end] for start, end in zip(ends, ends[1:], strict=False)]

    def known(self) -> MaskedImages:
        """The images with 0 where they are hidden."""
        return MaskedImages(np.where(self._where, 0, self.images), self.hidden)

    def hidden_values(self) -> np.ndarray:
        """The images with 0 where they are known."""
        return np.where(self._where, self.images, 0)

    @property
    def _where(self):
        return self.hidden[..., np.newaxis]

    @property
    def dims(self) -> int:
        """Number of the values that are coded."""
        return int(self.hidden.sum()) * self.images.shape[-1]

    def digest(self) -> str:
        """Digests masks and known pixels; "" if nothing is known."""
        if self.hidden.all():
            return ""
        digest = hashlib.sha256(np.packbits(self.hidden))
        digest.update(np.ascontiguousarray(self.known().images))
        return digest.hexdigest()[:16]
