# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""A stand-in for TensorFlow Serving's `tensorflow_model_server`, for tests alone.

The real server is in no package registry. This one keeps the rules of it that an export can break:
folders of versions, of which the newest is served and each is warmed up before it is; signatures
with their defaults; batches by concatenation along the first axis; error codes; REST and gRPC with
TensorFlow Serving's own messages.

    python -m model_server --model_base_path=runs/a/export --rest_api_port=8501 --port=8500
"""
