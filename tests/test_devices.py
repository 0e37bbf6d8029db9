# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Which devices and workers there are, and what training on two devices amounts to."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

from matnet_tf import descent, devices, experiment, training
from matnet_tf.config import DataConfig, Experiment, ModelConfig, Stage, TrainConfig

BATCH = 10


SMALL = (Stage(1, 12, 2, 1),)  # Of steps on two devices most of the time is their tracing.
BOTH_KINDS = (*SMALL, Stage(4, 6, 2, 1))


def settings(stages=BOTH_KINDS, **train) -> Experiment:
    defaults = {"steps": 20, "batch_size": BATCH, "checkpoint_every": 10, "summary_images": 0}
    return Experiment(
        model=ModelConfig((8, 8, 1), stages, top_latents=2, top_units=6, image_filters=4),
        data=DataConfig(binarization="threshold"),
        train=TrainConfig(**defaults | {"average_decay": 0.9, "epsilon": 1e-3} | train),
    )


def cluster(monkeypatch, kinds, kind="worker", index=0):
    addresses = {k: [f"127.0.0.1:{2000 + i}" for i in range(n)] for k, n in kinds.items()}
    text = json.dumps({"cluster": addresses, "task": {"type": kind, "index": index}})
    monkeypatch.setenv("TF_CONFIG", text)


def test_without_tf_config_a_process_is_alone_and_writes(monkeypatch):
    for text in ("", " ", "{}"):
        monkeypatch.setenv("TF_CONFIG", text)
        assert devices.this_worker() == devices.Worker(0, 1)
        assert devices.this_worker().is_chief


def test_workers_are_counted_from_the_chief(monkeypatch):
    cluster(monkeypatch, {"worker": 3}, index=2)
    assert devices.this_worker() == devices.Worker(2, 3)
    cluster(monkeypatch, {"chief": 1, "worker": 2}, index=1)
    assert devices.this_worker() == devices.Worker(2, 3)
    cluster(monkeypatch, {"chief": 1, "worker": 2}, kind="chief")
    assert devices.this_worker().is_chief


@pytest.mark.parametrize("text", ["{", "[]", "3", '{"cluster": {"worker": 3}}', '{"task": 1}'])
def test_a_tf_config_that_cannot_be_read_is_one_line(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ValueError, match="TF_CONFIG must read like"):
        devices.this_worker()


def test_a_task_outside_its_cluster_and_a_parameter_server_are_named(monkeypatch):
    cluster(monkeypatch, {"worker": 2}, index=2)
    with pytest.raises(ValueError, match="worker 2, is not in its cluster"):
        devices.this_worker()
    cluster(monkeypatch, {"worker": 2, "ps": 1})
    with pytest.raises(ValueError, match="may have a chief and workers; it has worker, ps"):
        devices.this_worker()


def test_one_device_needs_no_strategy_and_too_many_are_refused(two_devices):
    assert devices.strategy_for(1).num_replicas_in_sync == 1
    assert devices.strategy_for(2) is two_devices
    with pytest.raises(ValueError, match="cannot become 3 devices: TensorFlow runs already"):
        devices.strategy_for(3)
    with pytest.raises(ValueError, match="devices must be at least 0; got -1"):
        devices.local_strategy(-1)
    with pytest.raises(ValueError, match="a CPU makes at most 64 devices; got 2147483647"):
        devices.local_strategy(2**31 - 1)


def test_devices_are_not_counted_among_several_workers(monkeypatch):
    cluster(monkeypatch, {"worker": 2})
    with pytest.raises(ValueError, match="each uses all its devices; got devices 2"):
        devices.strategy_for(2)


def test_what_needs_one_device_is_refused_on_two(tmp_path, two_devices):
    with pytest.raises(ValueError, match=r"jit_compile is for one device; there are 2"):
        training.train(settings(devices=2, jit_compile=True), tmp_path)
    with pytest.raises(ValueError, match="batch_size must leave an image to each of 2 .* got 1"):
        training.train(settings(devices=2, batch_size=1), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_lost_worker_is_one_error_with_a_status_that_a_scheduler_retries():
    error = tf.errors.UnavailableError(None, None, "Connection reset by peer")
    with (
        pytest.raises(OSError, match="worker 1 of 2: another worker of the job is gone") as caught,
        devices.lost_workers(devices.Worker(1, 2)),
    ):
        raise error
    assert caught.value.exit_status == 75
    with pytest.raises(tf.errors.UnavailableError), devices.lost_workers(devices.Worker()):
        raise error


def test_alone_a_process_agrees_with_itself(two_devices):
    alone = devices.Agreement(tf.distribute.get_strategy(), devices.Worker())
    assert alone(2.5, True) == (2.5, True)
    # Two devices of one worker say everything twice.
    pair = devices.Agreement(two_devices, devices.Worker(0, 1))
    np.testing.assert_allclose(pair._sum(tf.constant([3.0, 1.0], tf.float64)), [3.0, 1.0])


def noise_by_index(monkeypatch):
    """Ties the noise of every level to the place of the image in the batch of all devices."""

    def level(self, index, prior, posterior):
        loc, scale = posterior.distribution.loc, posterior.distribution.scale
        noise = tf.random.stateless_normal([BATCH, *loc.shape[1:]], [7, index])
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        first = tf.cast(replica, tf.int32) * self.rows
        z = loc + scale * noise[first : first + self.rows]
        return descent.Level(self.names[index], z, prior, posterior)

    monkeypatch.setattr(descent._Draws, "level", level)


def trained(workdir, **train):
    training.train(settings(**train), workdir)
    model = experiment.load(workdir, "raw").model
    rows = experiment.metrics_rows(workdir)
    weights = [np.asarray(v) for v in [*model.weights, *model.optimizer.averages]]
    losses = [{k: v for k, v in row.items() if "second" not in k} for row in rows]
    return weights, losses


@pytest.mark.slow
def test_two_devices_train_as_one_does_if_the_noise_is_tied_to_the_image(
    tmp_path, monkeypatch, two_devices
):
    noise_by_index(monkeypatch)
    one, losses = trained(tmp_path / "one", devices=1)
    two, losses_of_two = trained(tmp_path / "two", devices=2)
    for ours, theirs in zip(one, two, strict=True):
        assert np.abs(ours - theirs).max() <= 1e-5 * max(np.abs(ours).max(), 1e-3)
    for ours, theirs in zip(losses, losses_of_two, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)


@pytest.mark.slow
def test_a_run_on_two_devices_resumes_on_one_and_the_other_way_round(tmp_path, two_devices):
    for first, second in ((2, 1), (1, 2)):
        workdir = tmp_path / str(first)
        training.train(settings(SMALL, steps=10, devices=first), workdir)
        (workdir / "config.json").unlink()
        record = training.train(settings(SMALL, devices=second), workdir)
        assert record["step"] == 20 and np.isfinite(record["elbo"])
        assert [row["step"] for row in experiment.metrics_rows(workdir)] == [10, 20]


@pytest.mark.slow
def test_a_stopped_run_on_two_devices_ends_with_the_weights_of_an_undisturbed_one(
    tmp_path, monkeypatch, two_devices
):
    training.train(settings(SMALL, devices=2), tmp_path / "whole")

    def stop(self, batch, logs=None):
        self.progress.agree()
        self.model.stop_training = int(self.model.step.numpy()) >= 7

    with monkeypatch.context() as patch:
        patch.setattr(training.Stops, "on_train_batch_end", stop)
        assert training.train(settings(SMALL, devices=2), tmp_path / "parts")["step"] == 7
    training.train(settings(SMALL, devices=2), tmp_path / "parts")
    whole, parts = (experiment.load(tmp_path / w, "raw").model for w in ("whole", "parts"))
    for ours, theirs in zip(whole.weights, parts.weights, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    rows = [experiment.metrics_rows(tmp_path / w)[-1] for w in ("whole", "parts")]
    assert rows[0]["elbo"] == pytest.approx(rows[1]["elbo"], rel=1e-6)


def test_batches_are_shared_so_that_no_image_is_seen_twice_in_an_epoch(two_devices):
    from matnet_tf import data

    split = data.load(dataclasses.replace(settings().data, binarization="none"), "train")
    stored = split.images.array.astype(np.float32) / 255
    known = {image.tobytes(): index for index, image in enumerate(stored)}
    distributed = iter(
        two_devices.experimental_distribute_dataset(split.training_dataset(100, seed=0))
    )
    seen, halves = [], []
    for _ in range(15):  # 1,500 images are an epoch
        parts = two_devices.experimental_local_results(next(distributed))
        halves.append([len(part) for part in parts])
        seen += [known[image.numpy().tobytes()] for part in parts for image in part]
    assert halves == [[50, 50]] * 15
    duplicates = len(stored) - len(known)  # digits that are stored twice
    assert len(set(seen)) == 1500 - duplicates
