# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The parts of the page, as HTML computed from a model and what a person has chosen.

Each figure has a line below that says what it shows. What cannot be answered is one line, too, so
that the page goes on.
"""

from __future__ import annotations

import functools
import html
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from matnet_tf import flags
from matnet_tf.explore.answers import Answers
from matnet_tf.explore.examples import Examples
from matnet_tf.explore.pictures import Canvas, canvas_of, figure, of_canvas, of_upload, stored
from matnet_tf.imputation.tiling import impute_picture, model_values
from matnet_tf.model.elbo_model import ElboModel
from matnet_tf.tracing import without_autograph

__all__ = ["Views", "note"]

_STEPS, _DRAWS, _COMPLETIONS, _KEPT = 8, 16, 6, 8


def note(text: str, kind: str = "note") -> str:
    """HTML of one line of text, of kind `note` or `error`."""
    return f'<p class="{kind}" role="status">{html.escape(text)}</p>'


def _answered(method: Callable[..., str]) -> Callable[..., str]:
    """Returns a method that gives the line of an error in place of raising it."""

    @functools.wraps(method)
    @without_autograph
    def answer(*arguments: Any) -> str:
        try:
            return method(*arguments)
        except Exception as error:
            if (line := flags.one_line(error)) is None:
                raise
            return note(line, "error")

    return answer


class Views:
    """The answers to what a person asks about one model, in HTML.

    Args:
      model: The model.
      examples: Its test images.
      num_samples: K of scores.
    """

    def __init__(self, model: ElboModel, examples: Examples, num_samples: int = 10):
        self.model, self.examples, self.num_samples = model, examples, num_samples
        self.conditional = bool(model.config.conditional_stages)
        self._answers = None if self.conditional else Answers(model)
        self._rows: list[dict[str, float]] = []  # Scores of the test images.
        self._measuring = threading.Lock()
        # The slider of kept levels asks for one picture after another of the same image.
        self._cached = functools.lru_cache(_KEPT)(self._reconstructions)

    def first_questions(self) -> list[Callable[[], str]]:
        """One question of every kind: only the first answers take long, as they make the graphs."""
        if self.conditional:
            picture = np.zeros(self.model.config.image_shape, np.uint8)
            hidden = canvas_of(picture, np.zeros(picture.shape[:2], bool))
            return [functools.partial(self.complete, hidden, 1.0, 0)]
        image, temperatures = self.example(0), [1.0] * (len(self.model.config.scales) + 1)
        return [
            functools.partial(self.levels, image, 0, 0),
            functools.partial(self.between, image, image, [], 0),
            functools.partial(self.sample, 0, *temperatures),
            functools.partial(self.score, image),
        ]

    # Images.

    def example(self, index: int) -> Canvas:
        """The canvas with a test image, whose masked pixels are hidden."""
        known = self.examples.known
        picture = stored(self.model, self.examples.x[index])
        return canvas_of(picture, None if known is None else known[index])

    def chosen(self, index: Any) -> tuple[Canvas | None, str]:
        """The canvas with a test image, or None and the line of an error."""
        try:
            index = _whole("the test image", index, len(self.examples.x) - 1)
        except ValueError as error:
            return None, note(str(error), "error")
        return self.example(index), ""

    def uploaded(self, path: str) -> tuple[Canvas | None, str]:
        """The canvas with a file, or None, and a line that says what became of it."""
        try:
            picture = of_upload(self.model, path)
        except ValueError as error:
            return None, note(f"This file is not taken: {flags.one_line(error)}.", "error")
        height, width, channels = picture.shape
        kind = "grey" if channels == 1 else "colour"
        binary = self.model.config.likelihood == "bernoulli"
        kind = "black and white, cut at half" if binary else kind
        return canvas_of(picture), note(f"Resized to {height}x{width} pixels, {kind}.")

    # Levels, images between two, samples: of unconditional models.

    @_answered
    def levels(self, canvas: Canvas, kept: int, seed: int) -> str:
        """The image beside what its top levels keep, above a row with every number of levels."""
        picture, _ = of_canvas(self.model, canvas)
        found = self._cached(picture.tobytes(), _whole("the seed", seed))
        kept, most = _whole("the number of levels", kept, len(found) - 1), len(found) - 1
        what = f"The image, and what is left of it with the top {kept} of {most} levels"
        if kept < most:
            what += f": they are drawn given the image, the {most - kept} below from the prior"
        pair = figure(
            np.stack([picture, found[kept]]), ["the image", f"top {kept} levels kept"], what + "."
        )
        names = [f"top {k} levels kept" for k in range(most + 1)]
        row = figure(
            found,
            names,
            "The number of levels kept. Each picture is the mean of p(x | z), and the noise is the "
            "same in all of them.",
            [str(k) for k in range(most + 1)],
        )
        return pair + row

    def _reconstructions(self, content: bytes, seed: int) -> np.ndarray:
        picture = np.frombuffer(content, np.uint8).reshape(self.model.config.image_shape)
        return stored(self.model, self._answers.reconstructions(self._values(picture), seed))

    @_answered
    def between(self, first: Canvas, last: Canvas, levels: Sequence[str], seed: int) -> str:
        """A row of images from one to another."""
        a, b = (self._values(of_canvas(self.model, canvas)[0]) for canvas in (first, last))
        names = self.model.config.level_names
        chosen = [index for index, name in enumerate(names) if name in levels]
        found = self._answers.between(a, b, chosen, _STEPS, _whole("the seed", seed))
        drawn = len(names) - len(chosen)
        what = f"From the first image to the second: the latents of {len(chosen)} levels are mixed"
        what += " linearly"
        if drawn:
            what += f", those of the other {drawn} drawn from the prior, with the same noise"
        shares = [f"{share:.0%}" for share in np.linspace(0, 1, _STEPS)]
        names = [f"{share} of the second image" for share in shares]
        return figure(stored(self.model, found), names, f"{what}. Means of p(x | z).", shares)

    @_answered
    def sample(self, seed: int, *temperatures: float) -> str:
        """Images from the prior."""
        temperatures = [_temperature(value) for value in temperatures]
        found = self._answers.samples(_DRAWS, temperatures, _whole("the seed", seed))
        what = "Images from the prior, means of p(x | z). A temperature is a factor on the scales "
        what += "of the priors of its levels: below 1, images vary less."
        names = [f"sample {number}" for number in range(1, _DRAWS + 1)]
        return figure(stored(self.model, found), names, what)

    # Scores.

    @_answered
    def score(self, canvas: Canvas) -> str:
        """A table of the image's scores, and where they lie among those of the test images."""
        picture, _ = of_canvas(self.model, canvas)
        found = self._answers.scores(self._values(picture), self.num_samples)
        rows = self._rows if len(self._rows) == len(self.examples.x) else []
        others = {name: np.array([row[name] for row in rows]) for name in found if rows}
        return _table(found, others, self.num_samples, self.examples.source)

    def compare(self) -> Iterator[str]:
        """Scores the test images, once for all pages; yields the progress, in the end nothing."""
        total = len(self.examples.x)
        while (done := len(self._rows)) < total:
            yield _progress(done, total)
            with self._measuring:
                # Another page may have scored this image meanwhile.
                if len(self._rows) == done:
                    self._rows.append(self._answers.scores(self.examples.x[done], self.num_samples))
        yield ""

    # Completions: of conditional models.

    @_answered
    def complete(self, canvas: Canvas, temperature: float, seed: int) -> str:
        """Completions of the hidden pixels, and their mean."""
        picture, known = of_canvas(self.model, canvas)
        if known.all():
            return note("Paint over what is to be filled in, with Hide.")
        found = impute_picture(
            self.model,
            picture,
            known,
            _COMPLETIONS,
            _temperature(temperature),
            _whole("the seed", seed),
        )
        mean = np.rint(found.mean(axis=0)).astype(np.uint8)
        labels = [*map(str, range(1, _COMPLETIONS + 1)), "mean"]
        what = f"{_COMPLETIONS} completions of the {np.count_nonzero(~known):,} hidden pixels, "
        what += "means of p(hidden | z, known), with z from the prior given the known pixels; and "
        what += "the mean of the completions. Known pixels are the picture's."
        names = [f"completion {label}" for label in labels]
        return figure(np.concatenate([found, mean[None]]), names, what, labels)

    def _values(self, picture: np.ndarray) -> np.ndarray:
        return model_values(self.model, picture)


def _whole(name: str, value: Any, most: int = 2**31 - 1) -> int:
    if not isinstance(value, (int, float)) or value != int(value) or not 0 <= value <= most:
        raise ValueError(f"{name} must be a whole number from 0 to {most}; got {value!r}")
    return int(value)


def _temperature(value: Any) -> float:
    if not isinstance(value, (int, float)) or not 0 <= value < np.inf:
        raise ValueError(f"a temperature must be a number of at least 0; got {value!r}")
    return float(value)


def _progress(done: int, total: int) -> str:
    return (
        f'<label class="note">Scoring the test images, {done} of {total}: '
        f'<progress value="{done}" max="{total}"></progress></label>'
    )


def _table(
    scores: dict[str, float], others: dict[str, np.ndarray], num_samples: int, source: str
) -> str:
    """HTML of a row for every score."""
    rows = []
    for name, value in scores.items():
        place = ""
        if others:
            place = f"{np.mean(others[name] < value):.0%}"
        rows.append(f"<tr><th>{html.escape(name)}</th><td>{value:.2f}</td><td>{place}</td></tr>")
    compared = f"({source}) have lower values" if others else "are below it: not compared yet"
    what = (
        f"log p(x) is the importance-weighted bound with K = {num_samples}, in nats; in L>k the k "
        f"lowest levels are drawn from the prior. A high log p - L>k says that the model needs its "
        f"lowest levels to explain the image, as for outliers. The last column says how many of "
        f"the test images {compared}."
    )
    head = "<tr><th>score</th><th>this image</th><th>test images below</th></tr>"
    return (
        f'<figure><table class="scores">{head}{"".join(rows)}</table>'
        f"<figcaption>{html.escape(what)}</figcaption></figure>"
    )
