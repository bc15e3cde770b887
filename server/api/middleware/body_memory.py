"""Bytes that may be in memory at once; whoever finds too few left waits in line."""

import asyncio
from collections import Counter
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, eq=False)
class _Claim:
    owner: str
    amount: int
    turn: asyncio.Future[None]


class ByteBudget:
    """`total` bytes for everybody, of which no owner holds more than `share`.

    So whoever sends slowly keeps only himself waiting: in line, those who wait for their own bytes are passed by.
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
        self._serve()
        try:
            async with asyncio.timeout(timeout_s):
                await claim.turn
        except BaseException:
            if claim in self._waiting:
                self._waiting.remove(claim)
                self._serve()  # whoever stood behind
            else:  # it came in the same moment
                self.give_back(owner, amount)
            raise
        return amount

    def give_back(self, owner: str, amount: int) -> None:
        """Bytes are free again; who waits for them may go on."""
        self._free += amount
        self._held[owner] -= amount
        if not self._held[owner]:
            del self._held[owner]
        self._serve()

    def _serve(self) -> None:
        """In order of arrival; nobody overtakes one who waits for other owners' bytes."""
        for claim in list(self._waiting):
            if claim.turn.done() or self._held[claim.owner] + claim.amount > self._share:
                continue
            if claim.amount > self._free:
                return
            self._waiting.remove(claim)
            self._free -= claim.amount
            self._held[claim.owner] += claim.amount
            claim.turn.set_result(None)
