# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The command line that both clients have: options, a signature, and `name=value` inputs."""

import argparse
import json


def parsed(description, where, default, read, arguments):
    """What a client was asked for, or the end of the program with status 2.

    Args:
      description: of the client, in one line.
      where: the option that says where the server is, such as `--url`, and its default.
      default: its value when it is not given.
      read: makes a value of a file's path, given as `name=@path`, and says whether it is one of
        several: `(value, several)`.
      arguments: without the program's name; None for those of this process.

    Returns:
      `where`, `model`, `version`, `signature`, and `inputs` by name.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(where, dest="where", default=default)
    parser.add_argument("--model", default="matnet")
    parser.add_argument("--version", type=int)
    parser.add_argument("signature", help="its name, or `status`")
    parser.add_argument("inputs", nargs="*", metavar="name=value")
    given = parser.parse_args(arguments)
    try:
        given.inputs = _inputs(given.inputs, read)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    return given


def _inputs(arguments, read):
    inputs = {}
    for argument in arguments:
        name, separator, text = argument.partition("=")
        if not separator or not name:
            raise ValueError(f"inputs are name=value; got {argument!r}")
        try:
            value, several = read(text[1:]) if text.startswith("@") else (json.loads(text), False)
        except ValueError as error:
            raise ValueError(f"{name} is neither JSON nor @ and a file: {error}") from None
        if several:
            inputs.setdefault(name, []).append(value)
        else:
            inputs[name] = value
    return inputs
