# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The lines on stderr that say how far a program is."""

from matnet_tf import progress


def test_progress_says_images_done_and_time_left(monkeypatch, capsys):
    now = iter([100.0, 104.0, 116.0, 120.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    shown = progress.ImageProgress("evaluate", 10, 30)
    for done in (15, 25, 30):
        shown.show(done)
    assert capsys.readouterr().err.splitlines() == [
        "evaluate: 10 of 30 images were done already",
        "evaluate: 25/30 images, 0m05s left",
        "evaluate: 30/30 images, 0m00s left",
    ]
    assert progress._duration(59) == "0m59s"
    assert progress._duration(3725) == "1h02m"
