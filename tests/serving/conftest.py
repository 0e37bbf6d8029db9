# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The two exported models that all tests of serving share."""

import pytest
import served_models


@pytest.fixture(scope="session")
def served_mixture(tmp_path_factory):
    """The export of an unconditional model with a mixture prior."""
    return served_models.exported("mixture", tmp_path_factory)


@pytest.fixture(scope="session")
def served_conditional(tmp_path_factory):
    """The export of a conditional model."""
    return served_models.exported("conditional", tmp_path_factory)


@pytest.fixture(params=["mixture", "conditional"])
def served(request):
    """Each of the two exports."""
    return request.getfixturevalue(f"served_{request.param}")
