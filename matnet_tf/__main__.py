# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Makes `python -m matnet_tf` the command `matnet`."""

import sys

from matnet_tf import cli

sys.exit(cli.main())
