# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""SavedModels for servers: their signatures, and the files beside them."""
