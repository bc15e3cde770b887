"""One clip decoded by several ranks: each computes some of the tiles, rank 0 gets them all and blends them.

Every rank knows which tiles are whose, but only rank 0 learns of a cancel. So a rank begins a tile when rank 0 has
allowed it: some tiles ahead, for the rank to compute while rank 0 blends and encodes. What rank 0 has allowed it takes,
also after a cancel or an error, and all ranks are ready for the next request.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Final

import torch
from torch import Tensor

from pipeline.components import Vae
from pipeline.parallel.ranks import Ranks
from pipeline.vae.codec import Elsewhere, decode_tiles, decoded_tile_sizes
from pipeline.vae.tiling import TileFunction

_AHEAD: Final = 2
"""Tiles that a rank may have begun and rank 0 not yet taken: enough to compute one while another is waited for, and so
few that little is computed in vain after a cancel. One tile is 51 MB at most."""


def tile_owners(costs: Sequence[int], ranks: int) -> list[int]:
    """The rank of each tile: the one that has least to do until then."""
    loads, owners = [0] * ranks, []
    for cost in costs:
        owners.append(loads.index(min(loads)))
        loads[owners[-1]] += cost
    return owners


@contextmanager
def tiles_of_ranks(vae: Vae, latents: Tensor, ranks: Ranks | None) -> Iterator[Elsewhere | None]:
    """On rank 0, for one decoding: tiles come from the ranks that compute them. When it ends, early or not, so do they:
    whatever may fail or be cancelled after the denoising belongs into it. Nothing is elsewhere without ranks.
    """
    if ranks is None:
        yield None
        return
    gathering = _Gathering(vae, latents, ranks)
    try:
        yield gathering.wrap
    finally:
        gathering.end()


def send_tiles(vae: Vae, latents: Tensor, ranks: Ranks) -> None:
    """On the other ranks: compute and send what is theirs of this decoding, until all is sent or rank 0 ends it."""
    owners = tile_owners(_costs(decoded_tile_sizes(vae, latents)), ranks.count)
    own = [number for number, owner in enumerate(owners) if owner == ranks.rank]
    sending: deque[tuple[torch.distributed.Work, Tensor]] = deque()
    with closing(decode_tiles(vae, latents, own)) as tiles:
        for _ in own:
            if not ranks.allowed():
                break
            tile = next(tiles).contiguous()
            sending.append((ranks.send_to_first(tile), tile))
            if len(sending) > _AHEAD:
                sending.popleft()[0].wait()
    for work, _ in sending:
        work.wait()


class _Gathering:
    """Rank 0's side: which tiles were allowed and which were taken."""

    def __init__(self, vae: Vae, latents: Tensor, ranks: Ranks) -> None:
        self._ranks, self._device = ranks, latents.device
        sizes = decoded_tile_sizes(vae, latents)
        owners = tile_owners(_costs(sizes), ranks.count)
        self._to_come = deque(zip(owners, sizes, strict=True))
        self._not_allowed = [owners.count(rank) for rank in range(ranks.count)]
        self._answers: list[tuple[torch.distributed.Work, Tensor]] = []
        for rank in range(1, ranks.count):
            for _ in range(_AHEAD):
                self._allow(rank)

    def wrap(self, compute: TileFunction) -> TileFunction:
        def function(tile: Tensor) -> Tensor:
            owner, size = self._to_come.popleft()
            if owner == 0:
                return compute(tile)
            taken = self._take(owner, size)
            self._allow(owner)
            return taken

        return function

    def end(self) -> None:
        """No rank begins another tile; what they have begun is taken."""
        on_their_way = [0] * self._ranks.count
        for owner, _ in self._to_come:
            on_their_way[owner] += 1
        for rank in range(1, self._ranks.count):
            on_their_way[rank] -= self._not_allowed[rank]
            if self._not_allowed[rank]:
                self._answers.append(self._ranks.allow(rank, False))
        for owner, size in self._to_come:
            if owner > 0 and on_their_way[owner]:
                on_their_way[owner] -= 1
                self._take(owner, size)
        for work, _ in self._answers:
            work.wait()

    def _allow(self, rank: int) -> None:
        if self._not_allowed[rank]:
            self._not_allowed[rank] -= 1
            self._answers.append(self._ranks.allow(rank, True))

    def _take(self, owner: int, size: torch.Size) -> Tensor:
        return self._ranks.receive(torch.empty(size, device=self._device), owner)


def _costs(sizes: Sequence[torch.Size]) -> list[int]:
    return [size.numel() for size in sizes]
