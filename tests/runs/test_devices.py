# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Devices and workers, and that training on two devices equals training on one."""

import dataclasses
import json
import types

import numpy as np
import pytest
import tensorflow as tf
from work_directories import interrupt_at

from matnet_tf.config import DataConfig, Experiment, ModelConfig, Scale, TrainConfig
from matnet_tf.data import loading
from matnet_tf.distributions import stateless_random
from matnet_tf.runs import devices
from matnet_tf.runs.models import build_model, load_run
from matnet_tf.runs.workdir import read_metrics
from matnet_tf.training import train

BATCH = 10


def settings(**train) -> Experiment:
    defaults = {"steps": 12, "batch_size": BATCH, "checkpoint_every": 6, "summary_images": 0}
    scales = (Scale(1, 12, 2, 1), Scale(4, 6, 2, 1))
    return Experiment(
        model=ModelConfig((8, 8, 1), scales, top_latents=2, top_units=6, image_filters=4),
        data=DataConfig(binarization="threshold"),
        train=TrainConfig(**defaults | {"average_decay": 0.9, "epsilon": 1e-3} | train),
    )


def cluster(monkeypatch, kinds, kind="worker", index=0):
    addresses = {k: [f"127.0.0.1:{2000 + i}" for i in range(n)] for k, n in kinds.items()}
    text = json.dumps({"cluster": addresses, "task": {"type": kind, "index": index}})
    monkeypatch.setenv("TF_CONFIG", text)


def test_workers_are_counted_from_the_chief(monkeypatch):
    for text in ("", " ", "{}"):
        monkeypatch.setenv("TF_CONFIG", text)
        assert devices.this_worker() == devices.Worker(0, 1)
        assert devices.this_worker().is_chief
    cluster(monkeypatch, {"worker": 3}, index=2)
    assert devices.this_worker() == devices.Worker(2, 3)
    cluster(monkeypatch, {"chief": 1, "worker": 2}, index=1)
    assert devices.this_worker() == devices.Worker(2, 3)
    cluster(monkeypatch, {"chief": 1, "worker": 2}, kind="chief")
    assert devices.this_worker().is_chief


def test_a_wrong_tf_config_is_one_line(monkeypatch):
    for text in ("{", "[]", "3", '{"cluster": {"worker": 3}}', '{"task": 1}'):
        monkeypatch.setenv("TF_CONFIG", text)
        with pytest.raises(ValueError, match="TF_CONFIG must read like"):
            devices.this_worker()
    cluster(monkeypatch, {"worker": 2}, index=2)
    with pytest.raises(ValueError, match="worker 2, is not in its cluster"):
        devices.this_worker()
    cluster(monkeypatch, {"worker": 2, "ps": 1})
    with pytest.raises(ValueError, match="may have a chief and workers; it has worker, ps"):
        devices.this_worker()
    cluster(monkeypatch, {"worker": 2})
    with pytest.raises(ValueError, match="each uses all its devices; got devices 2"):
        devices.strategy_for(2)


def test_one_device_needs_no_strategy_and_too_many_are_refused(two_devices):
    assert devices.strategy_for(1).num_replicas_in_sync == 1
    assert devices.strategy_for(2) is two_devices
    with pytest.raises(ValueError, match="cannot become 3 devices: TensorFlow runs already"):
        devices.strategy_for(3)
    with pytest.raises(ValueError, match="devices must be at least 0; got -1"):
        devices.local_strategy(-1)
    with pytest.raises(ValueError, match="a CPU makes at most 64 devices; got 2147483647"):
        devices.local_strategy(2**31 - 1)


def test_an_error_about_memory_becomes_advice():
    with (
        pytest.raises(MemoryError, match="^try less$"),
        devices.translate_out_of_memory("try less"),
    ):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")


def test_a_batch_of_one_image_is_refused_on_two_devices(tmp_path, two_devices):
    with pytest.raises(ValueError, match="batch_size must leave an image to each of 2 .* got 1"):
        train.train(settings(devices=2, batch_size=1), tmp_path)
    assert not list(tmp_path.iterdir())


def test_devices_are_described_with_or_without_gpus(monkeypatch):
    assert devices.described()[1].startswith("no GPU; one CPU device on ")
    gpu = tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")
    details = {"device_name": "NVIDIA H200", "compute_capability": (9, 0)}
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [gpu])
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: details)
    assert devices.described() == [
        f"TensorFlow {tf.__version__}, built for CUDA 12.5.1",
        "GPU 0: NVIDIA H200, compute capability 9.0",
    ]


def test_steps_are_compiled_where_there_is_a_gpu_unless_a_setting_says_otherwise(monkeypatch):
    def compiled():
        choices = ("auto", True, False)
        return [build_model(settings(jit_compile=choice)).jit_compile for choice in choices]

    assert compiled() == [False, True, False]
    found = [types.SimpleNamespace(device_type="GPU")]
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind="GPU": found)
    assert compiled() == [True, True, False]
    # Keras compiles nothing then, and would say so where it was asked for.
    assert not build_model(settings(deterministic=True)).jit_compile


def test_products_are_in_float32_where_a_measurement_says_so_and_afterwards_as_before():
    enabled = tf.config.experimental.tensor_float_32_execution_enabled
    for allowed in (False, True):
        with devices.tensor_float_32(allowed):
            assert enabled() == allowed
        assert enabled()


def test_a_lost_worker_is_one_error_with_a_status_that_a_scheduler_retries():
    error = tf.errors.UnavailableError(None, None, "Connection reset by peer")
    with (
        pytest.raises(OSError, match="worker 1 of 2: another worker of the job is gone") as caught,
        devices.translate_lost_worker(devices.Worker(1, 2)),
    ):
        raise error
    assert caught.value.exit_status == 75
    with pytest.raises(tf.errors.UnavailableError), devices.translate_lost_worker(devices.Worker()):
        raise error


def test_a_single_worker_agrees_with_itself(two_devices):
    assert devices.WorkerConsensus(two_devices, devices.Worker())(2.5, True) == (2.5, True)


def tie_noise_to_images(monkeypatch):
    """Makes noise depend on the place of an image in the global batch, not on its replica."""

    def draw(distribution, seed, rows=None):
        loc, scale = distribution.distribution.loc, distribution.distribution.scale
        noise = tf.random.stateless_normal([BATCH, *loc.shape[1:]], [7, 0])
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        first = tf.cast(replica, tf.int32) * tf.shape(loc)[0]
        return loc + scale * noise[first : first + tf.shape(loc)[0]]

    monkeypatch.setattr(stateless_random, "draw", draw)


@pytest.mark.slow
def test_training_on_one_or_two_devices_in_turn_equals_training_on_one(
    tmp_path, monkeypatch, two_devices
):
    """Weights, averages and rows agree, though the second run is stopped twice on the way."""
    tie_noise_to_images(monkeypatch)
    train.train(settings(devices=1), tmp_path / "one")
    for count, end in ((2, 4), (1, 8), (2, 12)):
        with monkeypatch.context() as patch:
            interrupt_at(patch, end if end < 12 else None)
            assert train.train(settings(devices=count), tmp_path / "two")["step"] == end
        (tmp_path / "two" / "config.json").rename(tmp_path / "two" / "config.last")
    (tmp_path / "two" / "config.last").rename(tmp_path / "two" / "config.json")
    one, two = (load_run(tmp_path / name, "raw").model for name in ("one", "two"))
    for model in (one, two):
        assert len(model.optimizer.variables) > 2 * len(model.trainable_variables)
    for ours, theirs in zip(
        [*one.weights, *one.optimizer.variables],
        [*two.weights, *two.optimizer.variables],
        strict=True,
    ):
        ours, theirs = np.asarray(ours), np.asarray(theirs)
        assert np.abs(ours - theirs).max() <= 1e-5 * max(np.abs(ours).max(), 1e-3)
    rows = [read_metrics(tmp_path / name) for name in ("one", "two")]
    assert [row["step"] for row in rows[1]] == [6, 12]
    for ours, theirs in zip(*rows, strict=True):
        shared = {k: v for k, v in ours.items() if "second" not in k}
        assert shared == pytest.approx({k: theirs[k] for k in shared}, rel=1e-5)


@pytest.mark.slow
def test_two_devices_split_every_batch_and_see_no_image_twice_in_an_epoch(two_devices):
    split = loading.load(dataclasses.replace(settings().data, binarization="none"), "train")
    stored = split.images.array.astype(np.float32) / 255
    known = {image.tobytes(): index for index, image in enumerate(stored)}
    distributed = iter(
        two_devices.experimental_distribute_dataset(split.training_dataset(100, seed=0))
    )
    seen, halves = [], []
    for _ in range(15):  # 1,500 images are an epoch.
        parts = two_devices.experimental_local_results(next(distributed))
        halves.append([len(part) for part in parts])
        seen += [known[image.numpy().tobytes()] for part in parts for image in part]
    assert halves == [[50, 50]] * 15
    duplicates = len(stored) - len(known)  # Digits that are stored twice.
    assert len(set(seen)) == 1500 - duplicates
