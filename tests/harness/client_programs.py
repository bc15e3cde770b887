"""Running other programs in tests: with a clean environment, and what happens where one is not installed."""

import importlib.util
import os
from pathlib import Path
from typing import Any, NoReturn

import pytest

from server.settings import ENV_PREFIX

OLD_FAL_CLIENT = "0.10.0"


def missing(reason: str) -> NoReturn:
    """Skip, or fail where nothing may be missing."""
    if os.environ.get("CI"):
        pytest.fail(f"{reason}; CI needs it")
    pytest.skip(reason)


def clean_environment(**more: str) -> dict[str, str]:
    """An environment in which nothing points a client anywhere."""
    dropped = ("FAL_", ENV_PREFIX, "SSL_CERT", "NODE_EXTRA", "PYTHONPATH")
    plain = {key: value for key, value in os.environ.items() if not key.startswith(dropped)}
    return {key: value for key, value in plain.items() if "proxy" not in key.lower()} | more


def load_file(path: Path) -> Any:
    """A Python file that belongs to no package, as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
