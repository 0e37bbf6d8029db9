# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Serves the page for the model of a work directory."""

from __future__ import annotations

import os
import socket
import threading

from tqdm import tqdm

from matnet_tf.config import ExploreConfig
from matnet_tf.explore.examples import load_examples
from matnet_tf.explore.views import Views
from matnet_tf.runs.models import load_run
from matnet_tf.runs.workdir import read_experiment

__all__ = ["serve"]

_HOST = "127.0.0.1"


def serve(workdir: str | os.PathLike, config: ExploreConfig, data_dir: str = "") -> None:
    """Serves the page until the program is interrupted, and prints its address.

    Args:
      workdir: A work directory of `matnet train`, or a published folder.
      config: The port, how many test images, how scores are measured.
      data_dir: Directory of the data, if it is not the one in the work directory's config.

    Raises:
      ValueError: If the work directory or its data cannot be used, or the port is taken.
      ImportError: If Gradio is not installed.
    """
    try:
        from matnet_tf.explore import page
    except ModuleNotFoundError as error:
        raise ImportError(
            f"the page needs the extra explore: pip install 'matnet-tf[explore]' ({error})"
        ) from None
    experiment, port = read_experiment(workdir, data_dir), _free(config.port)
    examples = load_examples(workdir, experiment, config.images)
    views = Views(load_run(workdir, config.weights).model, examples, config.num_samples)
    # In a log there is no bar: it takes seconds.
    for ask in tqdm(views.first_questions(), "explore: preparing", unit="answer", disable=None):
        ask()
    name = os.path.basename(os.path.abspath(workdir)).removeprefix("preset_")
    page.launch(views, f"matnet explore: {name}", port)
    print(f"explore: http://{_HOST}:{port} shows {name}; Ctrl-C ends it", flush=True)
    threading.Event().wait()


def _free(port: int) -> int:
    """The port, or a free one for 0."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError as error:
            raise ValueError(f"port {port} cannot be used: {error.strerror}") from None
        return probe.getsockname()[1]
