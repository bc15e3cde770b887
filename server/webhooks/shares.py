"""How many deliveries of one owner, and of one owner to one origin, are under way.

A receiver that keeps a sender waiting until the timeout delays its own deliveries only: neither those of other owners
nor its owner's to other origins.
"""

import threading
from collections import Counter
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Busy:
    """What has no share left: owners, and pairs of an owner and an origin (`https://host:port`)."""

    owners: tuple[str, ...] = ()
    origins: tuple[tuple[str, str], ...] = ()


NOT_BUSY: Final = Busy()


class Shares:
    """Counts of one sender; its threads begin and end deliveries."""

    def __init__(self, *, per_owner: int, per_host: int) -> None:
        self._per_owner = per_owner
        self._per_host = per_host
        self._lock = threading.Lock()
        self._owners: Counter[str] = Counter()
        self._origins: Counter[tuple[str, str]] = Counter()

    def begin(self, owner: str, url: str) -> None:
        """A delivery is under way."""
        with self._lock:
            self._owners[owner] += 1
            self._origins[owner, _origin(url)] += 1

    def end(self, owner: str, url: str) -> None:
        """It is over."""
        with self._lock:
            self._owners[owner] -= 1
            self._origins[owner, _origin(url)] -= 1
            self._owners, self._origins = +self._owners, +self._origins  # without the zeros

    def busy(self) -> Busy:
        """What may begin no delivery now."""
        with self._lock:
            return Busy(
                tuple(owner for owner, count in self._owners.items() if count >= self._per_owner),
                tuple(origin for origin, count in self._origins.items() if count >= self._per_host),
            )


def _origin(url: str) -> str:
    """`https://host:port`, as it stands in the URL."""
    parts = urlsplit(url)
    return url[: len(parts.scheme) + len("://") + len(parts.netloc)]
