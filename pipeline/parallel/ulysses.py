"""Attention over tokens that are split over several processes ("Ulysses"): tokens are exchanged for heads.

N image tokens of which n are here, L text tokens, H heads of D channels, P processes. Everything outside
of attention works on single tokens, so that each process does it for its own. All processes hold the few text tokens.
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from diffusers.models.attention_dispatch import AttentionBackendName, dispatch_attention_fn
from diffusers.models.embeddings import apply_rotary_emb
from torch import Tensor

from pipeline.blocks import Rope
from pipeline.components import JointAttention


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


class UlyssesProcessor:
    """diffusers' `HunyuanVideoAttnProcessor2_0` with the exchange around its attention."""

    def __init__(self, split: TokenSplit, backend: AttentionBackendName | None) -> None:
        self._split = split
        self._attention_backend = backend

    def __call__(
        self,
        attn: JointAttention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: None = None,  # noqa: ARG002 - the signature is diffusers'; there never is a mask
        image_rotary_emb: Rope | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Double blocks: [1,n,C] and [1,L,C]. Single blocks: [1,n+L,C], which is both."""
        query, key, value = (
            project(hidden_states).unflatten(2, (attn.heads, -1)) for project in (attn.to_q, attn.to_k, attn.to_v)
        )
        query, key = (
            apply_rotary_emb(norm(x), image_rotary_emb, sequence_dim=1)
            for norm, x in ((attn.norm_q, query), (attn.norm_k, key))
        )
        if encoder_hidden_states is not None:
            text_query, text_key, text_value = (
                project(encoder_hidden_states).unflatten(2, (attn.heads, -1))
                for project in (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj)
            )
            query = torch.cat([query, attn.norm_added_q(text_query)], dim=1)
            key = torch.cat([key, attn.norm_added_k(text_key)], dim=1)
            value = torch.cat([value, text_value], dim=1)
        attended = dispatch_attention_fn(
            *(self._split.heads_here(x) for x in (query, key, value)), backend=self._attention_backend
        )
        out = self._split.tokens_here(attended).flatten(2).to(query.dtype)
        if encoder_hidden_states is None:
            return out, None
        image, text = out.split([hidden_states.shape[1], encoder_hidden_states.shape[1]], dim=1)
        return attn.to_out[1](attn.to_out[0](image)), attn.to_add_out(text)
