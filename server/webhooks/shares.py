"""How many deliveries of one owner, and of one owner to one place, are under way.

A receiver that keeps a sender waiting until the timeout delays its own deliveries only: neither those of other owners
nor its owner's to other places.
"""

import threading
from collections import Counter
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Busy:
    """Who has to wait: owners, and pairs of an owner and the beginning of a URL."""

    owners: tuple[str, ...] = ()
    places: tuple[tuple[str, str], ...] = ()


NOBODY: Final = Busy()


class Shares:
    """Counts of one sender; its threads begin and end deliveries."""

    def __init__(self, *, per_owner: int, per_host: int) -> None:
        self._per_owner = per_owner
        self._per_host = per_host
        self._lock = threading.Lock()
        self._owners: Counter[str] = Counter()
        self._places: Counter[tuple[str, str]] = Counter()

    def begin(self, owner: str, url: str) -> None:
        """A delivery is under way."""
        with self._lock:
            self._owners[owner] += 1
            self._places[owner, _place(url)] += 1

    def end(self, owner: str, url: str) -> None:
        """It is over."""
        with self._lock:
            self._owners[owner] -= 1
            self._places[owner, _place(url)] -= 1
            self._owners, self._places = +self._owners, +self._places  # without the zeros

    def busy(self) -> Busy:
        """Who may begin nothing now."""
        with self._lock:
            return Busy(
                tuple(owner for owner, count in self._owners.items() if count >= self._per_owner),
                tuple(place for place, count in self._places.items() if count >= self._per_host),
            )


def _place(url: str) -> str:
    """`https://host:port`, as it stands in the URL."""
    parts = urlsplit(url)
    return url[: len(parts.scheme) + len("://") + len(parts.netloc)]
