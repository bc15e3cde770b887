"""The real clients as published."""

from pathlib import Path

import pytest

from tests.harness import registries


@pytest.fixture(scope="session")
def old_fal_client(pytestconfig: pytest.Config) -> Path:
    """A folder with an old version of the Python client."""
    return registries.old_fal_client(pytestconfig)


@pytest.fixture(scope="session")
def node_packages(pytestconfig: pytest.Config) -> Path:
    """A folder with the JavaScript packages."""
    return registries.node_packages(pytestconfig)
