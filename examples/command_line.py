# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The command line of both clients: options, a signature, and inputs as `name=value`."""

import argparse
import json


def parsed(description, where, default, read, arguments):
    """Parses a client's command line; exits with status 2 if it is wrong.

    Args:
      description: What the client does, in one line.
      where: Name of the option for the server's address, such as `--url`.
      default: Its default.
      read: Function that reads a file given as `name=@path` and returns `(value, several)`:
        `several` is whether the value is one element of a list, such as one of several pictures.
      arguments: Command line without the program's name, or None for this process's own.

    Returns:
      A namespace with `where`, `model`, `version`, `signature`, and `inputs` (a dictionary).
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(where, dest="where", default=default)
    parser.add_argument("--model", default="matnet")
    parser.add_argument("--version", type=int)
    parser.add_argument("signature", help="name of the signature, or `status`")
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
