"""The matrix products and attentions of one forward, counted and by themselves: the roofline of a step.

N image tokens, L valid rows of text, S = N + L, R rows of text that enter the refiner. Part "request": what is computed
once for all steps (`pipeline/prepared.py`). Every product is that of a layer
of the model, with its own weights and in the order of the forward. What is left of a step's time beside them is memory
traffic and launches.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.attention.function import AttentionFunction, sdpa

Part: TypeAlias = Literal["request", "embedding", "first block", "block", "last block", "output"]


@dataclass(frozen=True, slots=True)
class MatMul:
    """[rows, inputs] x [inputs, outputs]; `layer` computes it."""

    part: Part
    rows: int
    inputs: int
    outputs: int
    layer: Callable[[Tensor], Tensor]

    @property
    def flops(self) -> int:
        return 2 * self.rows * self.inputs * self.outputs


@dataclass(frozen=True, slots=True)
class Attention:
    """Of `rows` tokens with each other."""

    part: Part
    rows: int
    heads: int
    head_dim: int

    @property
    def flops(self) -> int:
        return 4 * self.rows**2 * self.heads * self.head_dim


Operation: TypeAlias = MatMul | Attention


def operations(transformer: Any, *, image: int, valid: int, rows: int) -> list[Operation]:
    """Of one branch: `image` tokens (N), `valid` rows of text (L), `rows` of text in the refiner (R)."""
    model, config = transformer, transformer.config
    heads, head_dim = config.num_attention_heads, config.attention_head_dim
    joint = image + valid
    found: list[Operation] = []

    def linear(part: Part, count: int, *layers: Any) -> None:
        for layer in layers:
            outputs = layer.weight.shape[0]
            inputs = layer.weight[0].numel()
            call = layer if layer.weight.ndim == 2 else _as_linear(layer)
            found.append(MatMul(part, count, inputs, outputs, call))

    def attend(part: Part, count: int) -> None:
        found.append(Attention(part, count, heads, head_dim))

    embed, refiner = model.time_text_embed, model.context_embedder
    linear("request", 1, embed.timestep_embedder.linear_1, embed.timestep_embedder.linear_2)
    linear("request", 1, embed.text_embedder.linear_1, embed.text_embedder.linear_2)
    linear("embedding", image, model.x_embedder.proj)
    own = refiner.time_text_embed
    linear("embedding", 1, own.timestep_embedder.linear_1, own.timestep_embedder.linear_2)
    linear("embedding", 1, own.text_embedder.linear_1, own.text_embedder.linear_2)
    linear("request", rows, refiner.proj_in)
    for block in refiner.token_refiner.refiner_blocks:
        linear("embedding", rows, block.attn.to_q, block.attn.to_k, block.attn.to_v)
        attend("embedding", rows)
        linear("embedding", rows, block.attn.to_out[0], block.ff.net[0].proj, block.ff.net[2])
        linear("embedding", 1, block.norm_out.linear)
    for index, block in enumerate(model.transformer_blocks):
        part: Part = "block" if index else "first block"
        attn = block.attn
        linear("request", 1, block.norm1.linear, block.norm1_context.linear)
        linear(part, image, attn.to_q, attn.to_k, attn.to_v)
        linear(part, valid, attn.add_q_proj, attn.add_k_proj, attn.add_v_proj)
        attend(part, joint)
        linear(part, image, attn.to_out[0], block.ff.net[0].proj, block.ff.net[2])
        linear(part, valid, attn.to_add_out, block.ff_context.net[0].proj, block.ff_context.net[2])
    for index, block in enumerate(model.single_transformer_blocks):
        part = "last block" if index == len(model.single_transformer_blocks) - 1 else "block"
        linear("request", 1, block.norm.linear)
        linear(part, joint, block.attn.to_q, block.attn.to_k, block.attn.to_v)
        attend(part, joint)
        linear(part, joint, block.proj_mlp, block.proj_out)
    linear("request", 1, model.norm_out.linear)
    linear("output", image, model.proj_out)
    return found


def of_step(transformer: Any, branches: Sequence[Any], image: int) -> list[Operation]:
    """Of all branches of a step, one after the other, without what was computed before it."""
    return [operation for operation in of_branches(transformer, branches, image) if operation.part != "request"]


def of_branches(transformer: Any, branches: Sequence[Any], image: int) -> list[Operation]:
    """Of all branches of a request with one step."""
    return [
        operation
        for branch in branches
        for operation in operations(transformer, image=image, valid=branch.valid, rows=branch.mask.shape[1])
    ]


def flops(found: Sequence[Operation], without: Sequence[Part] = ()) -> int:
    """Floating-point operations, two for each multiplication and addition."""
    return sum(operation.flops for operation in found if operation.part not in without)


class Inputs:
    """Random tensors for operations, made when first asked for: one set for each shape."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self._made: dict[tuple[int, ...], list[Tensor]] = {}
        self._device, self._dtype = device, dtype

    def of(self, operation: Operation) -> list[Tensor]:
        """[1,rows,inputs] of a product; query, key and value [1,rows,H,D] of an attention."""
        if isinstance(operation, MatMul):
            return self._like(1, (1, operation.rows, operation.inputs))
        return self._like(3, (1, operation.rows, operation.heads, operation.head_dim))

    def _like(self, count: int, shape: tuple[int, ...]) -> list[Tensor]:
        if shape not in self._made:
            drawn = [torch.randn(shape, device=self._device, dtype=self._dtype) for _ in range(count)]
            self._made[shape] = drawn
        return self._made[shape]


@dataclass(frozen=True, slots=True)
class Bare:
    """Operations with nothing around them; attention by the function of the pipeline."""

    found: Sequence[Operation]
    inputs: Inputs
    attention: AttentionFunction = sdpa

    @torch.no_grad()
    def __call__(self) -> None:
        for operation in self.found:
            run = operation.layer if isinstance(operation, MatMul) else self.attention
            run(*self.inputs.of(operation))


def _as_linear(convolution: Any) -> Callable[[Tensor], Tensor]:
    """A convolution whose stride is its size, on patches."""
    return lambda patches: F.linear(patches, convolution.weight.flatten(1), convolution.bias)
