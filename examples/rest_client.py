#!/usr/bin/env python3
# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Sends requests to a served MatNet over REST; needs the package `requests` only.

    python examples/rest_client.py status
    python examples/rest_client.py log_likelihood_serialized images=@a.png images=@b.png
    python examples/rest_client.py sample num=4 temperature=0.9 seed=7
    python examples/rest_client.py encode images=@images.json
    python examples/rest_client.py --version=1 serving_default_uint8 'images=[[[[0], [255]]]]'

Inputs are `name=value`. A value is JSON, or `@` and the path of a JSON file or of a PNG or JPEG
image; several images make a batch. Missing inputs have the defaults that the server reports. Prints
the outputs as JSON. Exit status: 0, 1 if the server refuses or cannot be reached, 2 for a wrong
command line.
"""

import base64
import json
import pathlib
import sys

import command_line
import requests

TIMEOUT = 600  # seconds per request


class Refused(Exception):
    """A request that the server refused, with its message and the HTTP status."""

    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


class RestClient:
    """A model on a server.

    Args:
      url: URL of the server, such as http://localhost:8501.
      model: Name of the model on the server.
      version: Version number; the newest by default.
    """

    def __init__(self, url="http://localhost:8501", model="matnet", version=None):
        self._session = requests.Session()
        self._model = f"{url.rstrip('/')}/v1/models/{model}"
        self._url = self._model if version is None else f"{self._model}/versions/{version}"
        self._signatures = None

    def status(self):
        """Returns the states of the model's versions, as the server reports them."""
        return self._answer(self._session.get(self._model, timeout=TIMEOUT))

    def signatures(self):
        """Returns the server's metadata on the signatures, by name."""
        if self._signatures is None:
            answer = self._answer(self._session.get(f"{self._url}/metadata", timeout=TIMEOUT))
            self._signatures = answer["metadata"]["signature_def"]["signature_def"]
        return self._signatures

    def defaults(self, signature):
        """Returns the default values of a signature's inputs."""
        found = self.signatures().get(signature, {}).get("defaults", {})
        return {name: _number(tensor) for name, tensor in found.items()}

    def predict(self, signature="serving_default", **inputs):
        """Returns the outputs of a signature by name, as nested lists.

        Args:
          signature: Name of the signature.
          **inputs: Numbers, nested lists of numbers, or lists of what `file` returns.

        Raises:
          Refused: If the server refuses the request.
          requests.RequestException: If the server cannot be reached.
        """
        # Over REST the server asks for every input, even one with a default.
        body = {"signature_name": signature, "inputs": self.defaults(signature) | inputs}
        # `json=` refuses NaN, which hidden pixels may be and servers accept.
        text = json.dumps(body)
        answer = self._session.post(f"{self._url}:predict", data=text, timeout=TIMEOUT)
        outputs = self._answer(answer)["outputs"]
        names = self.signatures()[signature]["outputs"]
        # The server returns a single output without its name.
        return outputs if len(names) > 1 else {next(iter(names)): outputs}

    @staticmethod
    def _answer(answer):
        try:
            content = answer.json()
        except ValueError:
            content = {"error": answer.text}
        if not answer.ok:
            raise Refused(answer.status_code, content.get("error", answer.reason))
        return content


def file(path):
    """Returns the bytes of an image file, for a `..._serialized` signature."""
    return {"b64": base64.b64encode(pathlib.Path(path).read_bytes()).decode()}


def _number(tensor):
    """Returns the value of a scalar tensor in the server's JSON."""
    return next(value for key, value in tensor.items() if key.endswith("_val"))[0]


def read(path):
    """Returns a file's JSON, or an image; and whether it is one of several."""
    if path.endswith(".json"):
        return json.loads(pathlib.Path(path).read_text("utf-8")), False
    return file(path), True


def main(arguments=None):
    """Prints the server's answer and returns the exit status."""
    line, default = __doc__.splitlines()[0], "http://localhost:8501"
    given = command_line.parsed(line, "--url", default, read, arguments)
    client = RestClient(given.where, given.model, given.version)
    try:
        if given.signature == "status":
            print(json.dumps(client.status()))
        else:
            print(json.dumps(client.predict(given.signature, **given.inputs)))
    except (Refused, requests.RequestException) as error:
        print(f"rest_client: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
