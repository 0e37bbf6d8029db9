# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The command `matnet`, also as `python -m matnet_tf`."""

import sys
import warnings
from collections.abc import Sequence

from matnet_tf import interrupts

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command `matnet`, see `cli.main`; it can be interrupted while it imports that."""
    arguments = sys.argv[1:] if arguments is None else arguments
    interrupts.end_at_once(" ".join(["matnet", *arguments[:1]]))
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # They are about the code of libraries.
    from matnet_tf import cli

    return cli.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
