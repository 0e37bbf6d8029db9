# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs exported signatures in OpenVINO and ONNX Runtime.

    python3 -m venv /tmp/ov
    /tmp/ov/bin/pip install openvino==2026.4.1
    python3 -m venv /tmp/onnx
    /tmp/onnx/bin/pip install tf2onnx==1.17.0 onnxruntime==1.31.1 tensorflow==2.21.0
    python benchmarks/runtimes.py --openvino /tmp/ov/bin/python --onnx /tmp/onnx/bin/python

Each runtime needs its own environment. Exports each signature of small models by itself, and makes
each runtime convert it and answer requests. Prints a JSON line per model, signature and runtime:
the largest difference from the Python model (relative to values above 1), or why it failed.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import pickle
import subprocess
import sys
import tempfile

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
ROOT = pathlib.Path(__file__).resolve().parent.parent
PATIENCE = 600

# Programs for the other environments. They read `model` and `requests` in a folder and print JSON.
COMPARE = """
import json, pathlib, pickle, sys
import numpy as np

folder = pathlib.Path(sys.argv[1])
requests = pickle.loads((folder / "requests").read_bytes())

def report(answer):
    worst = 0.0
    for inputs, expected in requests:
        found = answer(inputs)
        for name, value in expected.items():
            difference = np.abs(found[name] - value) / np.maximum(1, np.abs(value))
            worst = max(worst, float(difference.max()))
    print(json.dumps({"difference": worst}))
"""
OPENVINO = """
import openvino

model = openvino.convert_model(str(folder / "model"))
# By default OpenVINO may choose types that are less precise than float32.
compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
report(compiled)
"""
ONNX = """
import subprocess
import onnxruntime

convert = ["-m", "tf2onnx.convert", "--opset", "18", "--saved-model", folder / "model"]
done = subprocess.run(
    [sys.executable, *convert, "--output", folder / "model.onnx"], capture_output=True, text=True
)
unsupported = [line for line in done.stderr.splitlines() if "Unsupported ops" in line]
if done.returncode or unsupported:
    raise SystemExit((unsupported or done.stderr.splitlines() or ["no reason given"])[-1])
session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
names = [output.name for output in session.get_outputs()]
report(lambda inputs: dict(zip(names, session.run(names, inputs))))
"""
RUNTIMES = {"openvino": COMPARE + OPENVINO, "onnx": COMPARE + ONNX}


def write_signatures(kind: str, folder: pathlib.Path) -> list[str]:
    """Writes each signature of a model as its own SavedModel, with requests; returns the names."""
    import served_models
    import tensorflow as tf

    from matnet_tf.serving import signatures

    model = served_models.make_model(kind)
    holder = tf.Module()
    holder.weights = tuple(weight.value for weight in model.bound_weights)
    requests: dict[str, list] = {}
    for name, inputs, expected in served_models.answered(model):
        requests.setdefault(name, []).append((inputs, expected))
    found = signatures.signatures_of(model)
    for name, asked in requests.items():
        alone = {"serving_default": found[name].served()}
        tf.saved_model.save(holder, str(folder / name / "model"), signatures=alone)
        (folder / name / "requests").write_bytes(pickle.dumps(asked))
    return list(requests)


def ask(python: str, program: str, folder: pathlib.Path) -> dict:
    """Returns the difference of a runtime's answers from the model's, or why it failed."""
    try:
        done = subprocess.run(
            [python, "-c", program, folder], capture_output=True, text=True, timeout=PATIENCE
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"no answer after {PATIENCE} seconds"}
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    telling = [line for line in lines if "No conversion rule" in line or "Unsupported" in line]
    return {"failed": (telling or lines or ["no reason given"])[-1][-300:]}


def main() -> None:
    """Prints what each runtime makes of each signature."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--openvino", help="Python of an environment with OpenVINO")
    parser.add_argument("--onnx", help="Python of an environment with tf2onnx and onnxruntime")
    parser.add_argument("--kinds", default="mixture,conditional,whitened")
    args = parser.parse_args()
    sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]
    for kind in args.kinds.split(","):
        with tempfile.TemporaryDirectory() as temporary:
            folder = pathlib.Path(temporary)
            for name in write_signatures(kind, folder):
                for runtime, program in RUNTIMES.items():
                    if python := getattr(args, runtime):
                        record = {"model": kind, "signature": name, "runtime": runtime}
                        found = ask(python, program, folder / name)
                        print(json.dumps(record | found), flush=True)


if __name__ == "__main__":
    main()
