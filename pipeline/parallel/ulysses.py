"""Attention over tokens that are split over several processes ("Ulysses"): tokens are exchanged for heads.

N image tokens of which n are here, L text tokens, H heads of D channels, P processes. Everything outside
of attention works on single tokens, so that each process does it for its own. All processes hold the few text tokens.
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from pipeline.attention.function import AttentionFunction


class TokenSplit:
    """N image tokens in P consecutive parts, which differ by one token at most."""

    def __init__(self, group: dist.ProcessGroup, count: int) -> None:
        self._group = group
        self._size, self._index = group.size(), group.rank()
        if count < self._size:
            raise ValueError(f"{count} image tokens cannot be shared by {self._size} ranks")
        self._parts = [count // self._size + (index < count % self._size) for index in range(self._size)]
        self._own = self._parts[self._index]

    def tokens(self, image: Tensor) -> Tensor:
        """[1,N,C] -> [1,n,C]."""
        return image.split(self._parts, dim=1)[self._index]

    def joined(self, own: Tensor) -> Tensor:
        """[1,n,C] -> [1,N,C]."""
        longest = self._parts[0]  # every process must send as much
        padded = F.pad(own[0], (0, 0, 0, longest - self._own)).contiguous()
        received = padded.new_empty(self._size * longest, padded.shape[1])
        dist.all_gather_single(received, padded, group=self._group)
        parts = zip(received.split(longest), self._parts, strict=True)
        return torch.cat([part[:count] for part, count in parts])[None]

    def heads_here(self, x: Tensor) -> Tensor:
        """[1,n+L,H,D] -> [1,N+L,H/P,D]: all tokens, some heads."""
        by_process = x[0].unflatten(1, (self._size, -1))  # [n+L,P,H/P,D]
        sent = by_process[: self._own].transpose(0, 1).flatten(0, 1).contiguous()
        image = sent.new_empty(sum(self._parts), *sent.shape[1:])
        dist.all_to_all_single(image, sent, self._parts, [self._own] * self._size, group=self._group)
        return torch.cat([image, by_process[self._own :, self._index]])[None]

    def tokens_here(self, x: Tensor) -> Tensor:
        """[1,N+L,H/P,D] -> [1,n+L,H,D]: the inverse; text tokens receive the heads of the other processes."""
        count, per_process = sum(self._parts), x.shape[1] - sum(self._parts) + self._own
        image, text = x[0, :count], x[0, count:]
        sent = torch.cat([rows for part in image.split(self._parts) for rows in (part, text)])
        received = sent.new_empty(self._size * per_process, *sent.shape[1:])
        sizes = [part + len(text) for part in self._parts]
        dist.all_to_all_single(received, sent, [per_process] * self._size, sizes, group=self._group)
        return received.unflatten(0, (self._size, -1)).transpose(0, 1).flatten(1, 2)[None]

    def attention(self, function: AttentionFunction) -> AttentionFunction:
        """`function` over all tokens and some heads, for q, k, v [1,n+L,H,D] with all heads and the tokens here."""

        def exchanged(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return self.tokens_here(function(*(self.heads_here(x) for x in (q, k, v))))

        return exchanged
