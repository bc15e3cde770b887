"""Bytes of bodies that may be in memory at once; a request that finds too little memory waits."""

import asyncio
from collections import Counter
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, eq=False)
class _Claim:
    owner: str
    amount: int
    granted: asyncio.Future[None]


class BodyMemory:
    """`total` bytes for all owners, of which no owner holds more than `share`.

    An owner who sends slowly delays only his own requests: those that wait for their own owner's share are passed
    over.
    """

    def __init__(self, total: int, share: int) -> None:
        self._free = total
        self._share = min(share, total)
        self._held: Counter[str] = Counter()
        self._waiting: list[_Claim] = []

    async def take(self, owner: str, amount: int, *, timeout_s: float) -> int:
        """Wait for that many bytes, or for a whole share if that is less; returns how many are to be given back.

        Raises:
            TimeoutError: they did not become free in time.
        """
        amount = min(amount, self._share)
        if amount == 0:
            return 0
        claim = _Claim(owner, amount, asyncio.get_running_loop().create_future())
        self._waiting.append(claim)
        self._grant()
        try:
            async with asyncio.timeout(timeout_s):
                await claim.granted
        except BaseException:
            if claim in self._waiting:
                self._waiting.remove(claim)
                self._grant()  # those that waited behind it
            else:  # granted in the same moment
                self.give_back(owner, amount)
            raise
        return amount

    def give_back(self, owner: str, amount: int) -> None:
        """Bytes are free again; the claims that waited for them are granted."""
        self._free += amount
        self._held[owner] -= amount
        if not self._held[owner]:
            del self._held[owner]
        self._grant()

    def _grant(self) -> None:
        """In order of arrival; a claim that waits for other owners' bytes is not overtaken."""
        for claim in list(self._waiting):
            if claim.granted.done() or self._held[claim.owner] + claim.amount > self._share:
                continue
            if claim.amount > self._free:
                return
            self._waiting.remove(claim)
            self._free -= claim.amount
            self._held[claim.owner] += claim.amount
            claim.granted.set_result(None)
