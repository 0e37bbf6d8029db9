#!/usr/bin/env bash
# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
#
# Trains on all nodes of a Slurm job, with one process per node:
#   sbatch --nodes=2 examples/train_slurm.sh --preset=mnist_fc --workdir=/shared/runs/a
# Submit it from the checkout. All nodes must share the file system of the work directory.
# If the job is preempted or loses a node, it is queued again and resumes.
#SBATCH --ntasks-per-node=1
#SBATCH --requeue
#SBATCH --signal=TERM@120
set -uo pipefail

retry=75 # The exit status of a run that can be resumed.
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
