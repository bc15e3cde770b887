"""Servers that many files of tests share, running only while they are needed.

A server that waits costs memory and a little time, and there is one of each kind in every process of pytest-xdist.
Therefore files that use the same ones follow each other, and a server is stopped before the first file that does not
use it. Files without any are last: many are short, and so are the waits of a process that has no file left.
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from tests.harness.live_server import FAST, SHORT_LIMITS, Server, launch

SHARED: Final[dict[str, dict[str, Any]]] = {
    "server": FAST,
    "impatient": FAST | SHORT_LIMITS,
    "tls_server": {"options": ["--tls-self-signed"], **FAST},
}
_ORDER: Final[list[set[str]]] = [
    {"impatient"},
    {"server", "impatient"},
    {"server"},
    {"server", "tls_server"},
    {"tls_server"},
    set(),
]
# Folders whose files take long: no processor waits for the last one.
_LONG: Final = {"browser", "contract", "system", "weights"}


def by_shared_server(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """Tests in an order in which files that use the same servers follow each other, and short files come last."""
    used: dict[Path, set[str]] = {}
    for item in items:
        used.setdefault(item.path, set()).update(_used(item))
    return sorted(items, key=lambda item: (_ORDER.index(used[item.path]), _LONG.isdisjoint(item.path.parts)))


def used_in(path: Path, items: Sequence[pytest.Item]) -> set[str]:
    """The servers that the tests of one file share with others."""
    return {name for item in items if item.path == path for name in _used(item)}


def _used(item: pytest.Item) -> set[str]:
    return SHARED.keys() & set(getattr(item, "fixturenames", ()))


class SharedServers:
    """Starts a server when it is asked for."""

    def __init__(self, folders: pytest.TempPathFactory) -> None:
        self._folders = folders
        self._running: dict[str, Server] = {}

    def get(self, name: str) -> Server:
        if name not in self._running:
            self._running[name] = launch(self._folders.mktemp(name), **SHARED[name])
        return self._running[name]

    def stop_all_but(self, names: Collection[str]) -> None:
        for name in self._running.keys() - set(names):
            self._running.pop(name).stop()
