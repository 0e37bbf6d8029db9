#!/usr/bin/env bash
# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
#
# Trains on all nodes of a Slurm job, one process a node:
#   sbatch --nodes=2 examples/train_slurm.sh --flagfile=configs/mnist_fc.flags --workdir=/shared/runs/a
# Submit it from the checkout; the work directory must be on a file system that all nodes share.
# Preempted, or when a node is lost, the job is queued again and resumes.
#SBATCH --ntasks-per-node=1
#SBATCH --requeue
#SBATCH --signal=TERM@120
set -uo pipefail

retry=75
export PYTHON=${PYTHON:-.venv/bin/python}
port=${PORT:-12355}
CLUSTER=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed "s/.*/\"&:$port\"/" | paste -sd, -)
export CLUSTER

# shellcheck disable=SC2016 # Each task expands its own number.
srun --kill-on-bad-exit=1 bash -c '
  TF_CONFIG="{\"cluster\": {\"worker\": [$CLUSTER]}, \"task\": {\"type\": \"worker\", \"index\": $SLURM_PROCID}}"
  export TF_CONFIG
  exec "$PYTHON" bin/train "$@"
' train "$@"
status=$?
if [ "$status" -eq "$retry" ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
