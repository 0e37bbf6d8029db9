# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""A work directory whose file system has become read-only: one line each, and then it goes on."""

import pathlib
import shutil
import subprocess
import sys

import pytest
from work_directories import write_run

from matnet_tf import experiment
from matnet_tf.config import Experiment, ModelConfig, Stage, TrainConfig

ROOT = pathlib.Path(__file__).resolve().parent.parent
FLAGS = (
    *("--model.image_shape=8,8,1", "--model.stages=1:4:2:1", "--model.top_latents=2"),
    *("--model.top_units=4", "--train.steps=9", "--train.summary_images=0"),
)
SETTINGS = Experiment(
    ModelConfig((8, 8, 1), (Stage(1, 4, 2, 1),), top_latents=2, top_units=4),
    train=TrainConfig(steps=9, summary_images=0),
)

# In a name space of its own, where a mount is seen by nobody else and goes with the last process.
SCRIPT = """
set -eu
mount -t tmpfs tmpfs "$MOUNT"
cp -r "$RUN" "$MOUNT/run"
mount -o remount,ro "$MOUNT"
for program in train evaluate score export; do
    flags=
    if [ $program = train ]; then flags=$FLAGS; fi
    status=0
    "$PYTHON" "bin/$program" --workdir="$MOUNT/run" $flags 2>"$RUN/$program.err" || status=$?
    echo "$program $status"
done
mount -o remount,rw "$MOUNT"
"$PYTHON" bin/train --workdir="$MOUNT/run" $FLAGS >"$RUN/again.out" 2>"$RUN/again.err"
cp -r "$MOUNT/run" "$RUN/after"
"""


def can_mount() -> bool:
    if not shutil.which("unshare"):
        return False
    command = ["unshare", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not can_mount(), reason="needs Linux's name spaces")
def test_a_read_only_work_directory_gets_one_line_and_loses_nothing(tmp_path):
    run = write_run(tmp_path / "run", SETTINGS)
    (tmp_path / "mount").mkdir()
    environment = {
        **{"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHON": sys.executable},
        **{"MOUNT": str(tmp_path / "mount"), "RUN": str(run), "FLAGS": " ".join(FLAGS)},
        **{"TF_CPP_MIN_LOG_LEVEL": "3", "HOME": str(tmp_path)},
    }
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", SCRIPT]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["train 2", "evaluate 2", "score 2", "export 2"]
    for program in ("train", "evaluate", "score", "export"):
        text = (run / f"{program}.err").read_text()
        (line,) = [s for s in text.splitlines() if s.startswith(f"bin/{program}: error: ")]
        assert "Read-only file system" in line and "Traceback" not in text
    assert "at step 7" in (run / "again.out").read_text()
    assert [row["step"] for row in experiment.metrics_rows(run / "after")] == [9]
