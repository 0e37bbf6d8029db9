# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Work directories with models that were never trained, for what needs no more than a model."""

from matnet_tf import experiment


def save_checkpoint(workdir, model, step=7):
    model.step.assign(step)
    experiment.Checkpoints(model, workdir).save()


def write_run(workdir, settings, step=7):
    """What training would leave, with the model's initial weights."""
    experiment.create(workdir, settings)
    save_checkpoint(workdir, experiment.build_model(settings), step)
    return workdir
