# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Makes a folder with a trained model and its measured bound, in the form of `presets`."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
import pathlib
import shutil
import tempfile
from typing import Any

import h5py
import numpy as np

from matnet_tf import presets
from matnet_tf.config import EvaluateConfig, Experiment
from matnet_tf.config.serialization import to_dict
from matnet_tf.data import loading
from matnet_tf.evaluation.evaluate import evaluate, importance_weighted_bound
from matnet_tf.evaluation.protocol import chosen_images
from matnet_tf.files import read_json, write_whole
from matnet_tf.model.elbo_model import ElboModel
from matnet_tf.runs.models import LoadedRun, build_model, load_run
from matnet_tf.runs.workdir import read_metrics
from matnet_tf.serving.model_card import model_card

__all__ = ["bounds_of_images", "publish", "stored_bounds"]

_LARGEST_MOVE = 0.01  # Nats by which float16 weights may move the bound.
_IMAGES, _BATCH, _SAMPLES = 100, 10, 10  # Single images in the record, and K of their bounds.
_LICENCES = {
    "digits": "Optical Recognition of Handwritten Digits (Alpaydin and Kaynak, UCI; CC BY 4.0), as "
    "scikit-learn ships it.",
    "mnist": "MNIST (LeCun, Cortes and Burges; CC BY-SA 3.0).",
    "binarized_mnist": "MNIST (LeCun, Cortes and Burges; CC BY-SA 3.0), binarized once by "
    "Larochelle.",
    "omniglot28": "Omniglot (Lake, Salakhutdinov and Tenenbaum; MIT), as resized by Burda et al.",
    "cifar10": "CIFAR-10 (Krizhevsky 2009), photos from the web; no licence is stated.",
}


def publish(
    workdir: str | os.PathLike,
    output: str | os.PathLike,
    config: EvaluateConfig,
    command: str,
    hardware: str,
    data_dir: str = "",
) -> dict[str, Any]:
    """Copies a trained model to a new folder and measures it there on a whole split.

    An interrupted call is resumed.

    Args:
      workdir: A work directory of `matnet train`.
      output: The folder; its name is that of the model.
      config: How the bound is measured; `images` must be 0, all.
      command: The command that trained the model, for the record.
      hardware: What it was trained on, for the record.
      data_dir: Directory of the data, if it is not the one in the work directory's config.

    Returns:
      The record, see `presets.read_record`.

    Raises:
      ValueError: If the work directory or the data cannot be used, the folder is complete already,
        or a subset is asked for.
      OSError: If a file cannot be written.
    """
    folder, loaded = pathlib.Path(output), load_run(workdir, config.weights)
    if config.images:
        raise ValueError(f"EvaluateConfig.images must be 0: all are measured; got {config.images}")
    if presets.is_published(folder) and "evaluation" in presets.read_record(folder):
        raise ValueError(f"{folder} holds a trained model already")
    if data_dir:
        loaded = loaded._replace(experiment=_in(data_dir, loaded.experiment))
    rows = read_metrics(workdir)
    minutes = round(rows[-1]["seconds"] / 60, 1) if rows and "seconds" in rows[-1] else None
    training = {"command": command, "hardware": hardware, "minutes": minutes}
    record = _write_model(pathlib.Path(workdir), folder, loaded, config.split, training)
    record["evaluation"] = evaluate(folder, config, loaded.experiment.data.dir)
    return _finish(folder, record)


def _write_model(
    workdir: pathlib.Path,
    folder: pathlib.Path,
    loaded: LoadedRun,
    split: str,
    training: dict[str, Any],
) -> dict[str, Any]:
    """Writes config, weights and images of a published folder, and its record as far as it goes."""
    config = read_json(workdir / presets.CONFIG)
    images = loading.load(loaded.experiment.data, split)
    experiment = _in("", loaded.experiment)
    config["experiment"] = to_dict(experiment)
    model = build_model(experiment, "float32")
    for weight, trained in zip(model.bound_weights, loaded.model.bound_weights, strict=True):
        weight.assign(trained.numpy())
    model.step.assign(loaded.step)
    chosen = chosen_images(
        EvaluateConfig(images=min(_IMAGES, images.num_images), split=split), images.num_images
    )
    half, bounds = _rounded(model, images, chosen)
    weights, first = _weights_file(model, half), next(_batches(images, chosen))
    parameters = sum(math.prod(weight.shape) for weight in model.bound_weights)
    kind = {"kind": loaded.weights, "step": loaded.step, "parameters": parameters}
    record = {
        "format_version": presets.FORMAT_VERSION,
        "weights": kind | _file_record(weights, "float16" if half else "float32"),
        "training": training | {"commit": config["commit"]},
        "per_image": {"split": split} | _per_image_record(chosen, bounds),
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(
        {
            folder / presets.WEIGHTS: weights,
            folder / presets.IMAGES: _npz(first),
            folder / presets.RECORD: _json(record),
            folder / presets.CONFIG: _json(config),
        }
    )
    return record


def _file_record(content: bytes, dtype: str) -> dict[str, Any]:
    return {"dtype": dtype, "bytes": len(content), "sha256": presets.sha256(content)}


def _per_image_record(chosen: np.ndarray, bounds: np.ndarray) -> dict[str, Any]:
    return {
        "images": chosen.tolist(),
        "num_samples": _SAMPLES,
        "batch_size": _BATCH,
        "log_likelihood": [round(float(bound), 4) for bound in bounds],
    }


def _finish(folder: pathlib.Path, record: dict[str, Any]) -> dict[str, Any]:
    """Writes the card and the whole record, and removes what the evaluation left."""
    card = _card(folder, record)
    record["evaluation"].pop("key", None)
    write_whole({folder / presets.CARD: card.encode(), folder / presets.RECORD: _json(record)})
    shutil.rmtree(folder / "evaluation", ignore_errors=True)
    (folder / "evaluation.json").unlink(missing_ok=True)
    return record


def _in(data_dir: str, experiment: Experiment) -> Experiment:
    """The experiment with its data set in another directory; "" is TFDS's own."""
    return dataclasses.replace(experiment, data=dataclasses.replace(experiment.data, dir=data_dir))


# Bounds of single images.


def bounds_of_images(model: ElboModel, batches: Any) -> np.ndarray:
    """Computes the bounds of single images as records have them, `[N]`, in nats.

    Args:
      model: The trained model.
      batches: Batches of ten images, as arrays or with masks.
    """
    return importance_weighted_bound(model, batches, _SAMPLES).log_likelihood[_SAMPLES]


def stored_bounds(folder: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Computes the bounds of the images in a published folder, which need no data set.

    Returns:
      The bounds, and those of the record, each `[10]`, in nats.
    """
    folder = pathlib.Path(folder)
    with np.load(folder / presets.IMAGES) as file:
        arrays = {name: file[name].astype(np.float32) for name in file.files}
    arrays["image"] /= 255
    found = bounds_of_images(load_run(folder).model, [arrays])
    recorded = presets.read_record(folder)["per_image"]["log_likelihood"]
    return found, np.array(recorded[: len(found)])


def _batches(split: loading.Split, chosen: np.ndarray) -> Any:
    return split.evaluation_dataset(_BATCH, chosen).as_numpy_iterator()


def _rounded(model: ElboModel, split: loading.Split, chosen: np.ndarray) -> tuple[bool, np.ndarray]:
    """Rounds the weights to float16, unless the bound moves too far; returns the images' bounds."""
    exact = [weight.numpy() for weight in model.bound_weights]
    before = bounds_of_images(model, _batches(split, chosen))
    for weight, value in zip(model.bound_weights, exact, strict=True):
        weight.assign(_half(value) if value.ndim else value)
    if np.isfinite([np.abs(w.numpy()).max() for w in model.bound_weights]).all():
        after = bounds_of_images(model, _batches(split, chosen))
        if abs(after.mean() - before.mean()) < _LARGEST_MOVE:
            return True, after
    for weight, value in zip(model.bound_weights, exact, strict=True):
        weight.assign(value)
    return False, before


def _half(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # Infinity says that float16 does not do.
        return values.astype(np.float16).astype(values.dtype)


# Files.


def _weights_file(model: ElboModel, half: bool) -> bytes:
    """Returns the model's weights as an HDF5 file in Keras's format, without the optimizer's."""
    bare = type(model)(model.config, seed=0)
    for weight, other in zip(bare.weights, model.weights, strict=True):
        weight.assign(other.numpy())
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / presets.WEIGHTS
        bare.save_weights(path)
        if half:
            _store_half(path)
        return path.read_bytes()


def _store_half(path: pathlib.Path) -> None:
    """Rewrites an HDF5 file with its float32 arrays as float16; scalars stay."""
    target = path.with_suffix(".half")

    def copy(name, item):
        if isinstance(item, h5py.Dataset):
            halve = item.ndim and item.dtype == np.float32
            halved.create_dataset(name, data=item[()].astype(np.float16) if halve else item[()])
        else:
            halved.require_group(name).attrs.update(item.attrs)

    with h5py.File(path) as whole, h5py.File(target, "w") as halved:
        halved.attrs.update(whole.attrs)
        whole.visititems(copy)
    target.replace(path)


def _npz(batch: Any) -> bytes:
    """Returns the file of ten images: uint8, with their masks if there are any."""
    arrays = dict(batch) if isinstance(batch, dict) else {"image": batch}
    buffer = io.BytesIO()
    scales = {"image": 255}
    np.savez_compressed(
        buffer, **{n: np.rint(v * scales.get(n, 1)).astype(np.uint8) for n, v in arrays.items()}
    )
    return buffer.getvalue()


def _json(record: dict[str, Any]) -> bytes:
    return (json.dumps(record, indent=1, allow_nan=False) + "\n").encode()


def _card(folder: pathlib.Path, record: dict[str, Any]) -> str:
    """Returns the model card: that of an export, with uses, licence of the data, and limits."""
    loaded, name = load_run(folder), folder.resolve().name
    data, training = loaded.experiment.data.name, record["training"]
    height, width, channels = loaded.model.config.image_shape
    licence = _LICENCES.get(data, f"{data}; see its page in the catalogue of TFDS.")
    minutes = "" if training["minutes"] is None else f", {training['minutes']:g} minutes"
    parts = [
        model_card(folder, loaded).rstrip(),
        f"## Use\n\n`matnet.from_preset({name!r})` in Python, `--preset={name}` for programs. It "
        "is for trying out levels of latents, bounds and samples, and as a start for fine-tuning.",
        f"## Licence of the data\n\n{licence}",
        f"## Limits\n\nIt knows images of {height}x{width}x{channels} like those of {data} and no "
        "others. One seed. Likelihoods are lower bounds, and comparable only under the same "
        "protocol.",
        f"## Origin\n\n`{training['command']}`, commit {training['commit']}; "
        f"{training['hardware']}{minutes}.",
    ]
    return "\n\n".join(parts) + "\n"
