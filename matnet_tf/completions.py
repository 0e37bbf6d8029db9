# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""What a conditional model makes of masked images, as rows of pictures (paper, Fig. 5)."""

from __future__ import annotations

from typing import Any

import numpy as np

from matnet_tf import pictures
from matnet_tf.conditional import ConditionalMatNet

__all__ = ["completion_grid"]

_HIDDEN = 0.5  # The grey of hidden pixels.


def completion_grid(
    model: ConditionalMatNet, inputs: tuple[Any, Any], shown: int, drawn: int, seed: int
) -> pictures.Figure:
    """Masked images above some completions, the mean of more of them, and the truth.

    Args:
      model: a conditional model.
      inputs: whole images `[N, H, W, C]` and masks `[N, H, W, 1]`.
      shown: completions in the picture, a row each.
      drawn: completions in the mean, at least as many.
      seed: of the draws.
    """
    x, mask = (np.asarray(part, np.float32) for part in inputs)
    samples, mean = (part.numpy() for part in model.impute(x, mask, drawn, seed=seed))
    rows = [(f"completion {i + 1}", samples[i]) for i in range(shown)]
    rows += [(f"mean of {drawn}", mean), ("truth", x)]
    given = np.where(mask > 0, x, _HIDDEN)
    return pictures.labelled_rows([("given", given), *rows], 8)
