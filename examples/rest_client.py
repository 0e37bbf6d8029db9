#!/usr/bin/env python3
# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""Asks a served MatNet over REST; needs the package `requests` only.

    python examples/rest_client.py status
    python examples/rest_client.py log_likelihood_serialized images=@a.png images=@b.png
    python examples/rest_client.py sample num=4 temperature=0.9 seed=7
    python examples/rest_client.py encode images=@images.json
    python examples/rest_client.py --version=1 serving_default_uint8 'images=[[[[0], [255]]]]'

Inputs are `name=value`: the value is JSON, or `@` and a file: of JSON, or a PNG or JPEG picture, of
which there may be several. What is left out has the default that the server states. Prints the
outputs as JSON. Exit status: 0; 1 if the server refused or is not there; 2 for a wrong command
line.
"""

import base64
import json
import pathlib
import sys

import command_line
import requests

TIMEOUT = 600  # seconds, of one request


class Refused(Exception):
    """The server's own words for what was wrong with a request."""

    def __init__(self, status, message):
        super().__init__(message)
        self.status = status  # of HTTP


class RestClient:
    """A model on a server.

    Args:
      url: of the server, such as http://localhost:8501.
      model: the name that it is served under.
      version: a number; the newest by default.
    """

    def __init__(self, url="http://localhost:8501", model="matnet", version=None):
        self._session = requests.Session()
        self._model = f"{url.rstrip('/')}/v1/models/{model}"
        self._url = self._model if version is None else f"{self._model}/versions/{version}"
        self._signatures = None

    def status(self):
        """The states of the model's versions, as the server gives them."""
        return self._answer(self._session.get(self._model, timeout=TIMEOUT))

    def signatures(self):
        """What the server says of the signatures, by name."""
        if self._signatures is None:
            answer = self._answer(self._session.get(f"{self._url}/metadata", timeout=TIMEOUT))
            self._signatures = answer["metadata"]["signature_def"]["signature_def"]
        return self._signatures

    def defaults(self, signature):
        """The values of inputs that may be left out."""
        found = self.signatures().get(signature, {}).get("defaults", {})
        return {name: _number(tensor) for name, tensor in found.items()}

    def predict(self, signature="serving_default", **inputs):
        """The outputs of a signature by name, as nested lists.

        Args:
          signature: its name.
          **inputs: numbers, nested lists of them, or lists of what `file` gives.

        Raises:
          Refused: if the server finds something wrong with them.
          requests.RequestException: if it cannot be reached.
        """
        # The server wants all inputs of a signature, also those that have a default.
        body = {"signature_name": signature, "inputs": self.defaults(signature) | inputs}
        # In text, since `requests` would refuse NaN, which hidden pixels may be; servers take it.
        text = json.dumps(body)
        answer = self._session.post(f"{self._url}:predict", data=text, timeout=TIMEOUT)
        outputs = self._answer(answer)["outputs"]
        names = self.signatures()[signature]["outputs"]
        # Of one output the server gives the value alone.
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
    """A picture's bytes, as a `..._serialized` signature takes them."""
    return {"b64": base64.b64encode(pathlib.Path(path).read_bytes()).decode()}


def _number(tensor):
    """The one value of a tensor in the server's JSON."""
    return next(value for key, value in tensor.items() if key.endswith("_val"))[0]


def read(path):
    """A file's JSON, or a picture, of which there may be several."""
    if path.endswith(".json"):
        return json.loads(pathlib.Path(path).read_text("utf-8")), False
    return file(path), True


def main(arguments=None):
    """Prints what the server answers; gives the exit status."""
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
