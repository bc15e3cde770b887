"""What each rank does for `tests/pipeline/parallel/`: the same requests, its latents and frames into a file."""

import contextlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from diffusers import FlowMatchEulerDiscreteScheduler, HunyuanVideoTransformer3DModel
from safetensors.torch import save_file
from torch import Tensor

from pipeline.attention.function import sdpa
from pipeline.denoise import Sampling
from pipeline.fused.kernels import Kernels
from pipeline.hunyuan_custom import HunyuanCustomPipeline
from pipeline.memory.device_copies import HostCopies
from pipeline.memory.streaming import stream_blocks
from pipeline.parallel.ranks import Ranks
from pipeline.parallel.tiles import send_tiles, tiles_of_ranks
from pipeline.transformer import Branch, compute_dtype
from pipeline.vae.codec import decode_chunks, decode_tile_count
from tests.harness.tiny_model import DIT_CONFIG
from tests.harness.tiny_pipeline import golden, tiny_transformer, tiny_vae

# name -> size of the latents (odd numbers of tokens: 45 and 5 with the reference), heads, sampling
REQUESTS: dict[str, tuple[tuple[int, int, int], int, dict[str, Any]]] = {
    "guided": ((2, 6, 10), 2, {"guidance_scale": 7.5}),
    "guided, more heads": ((2, 6, 10), 4, {"guidance_scale": 7.5}),
    "unguided": ((2, 6, 10), 4, {"guidance_scale": 1.0}),
    "guided by the identity as well": ((2, 6, 10), 4, {"guidance_scale": 5.0, "ip_cfg_scale": 3.0}),
    "guided, step cache": ((2, 6, 10), 2, {"guidance_scale": 7.5, "step_cache": "reference", "steps": 8}),
    "unguided, step cache": ((2, 6, 10), 4, {"guidance_scale": 1.0, "step_cache": "reference", "steps": 8}),
    "guided, first block": (
        (2, 6, 10),
        2,
        {"guidance_scale": 7.5, "step_cache": "first_block", "step_cache_threshold": 0.7, "steps": 8},
    ),
    "unguided, first block": (
        (2, 6, 10),
        4,
        {"guidance_scale": 1.0, "step_cache": "first_block", "step_cache_threshold": 0.4, "steps": 8},
    ),
    "from the middle": ((2, 6, 10), 2, {"guidance_scale": 7.5, "start_step": 2}),
    "five tokens": ((4, 2, 2), 4, {"guidance_scale": 1.0}),
}
INTERRUPTED = "interrupted"
STREAMED = "unguided, streamed, another attention function"
HEADS = "heads that function was called with"
ROWS = ": rows"

# name -> size of the latents, dtype of the VAE; tiles are 4 latents long on each side
DECODES: dict[str, tuple[tuple[int, int, int], torch.dtype]] = {
    "twelve tiles": ((6, 5, 7), torch.float32),
    "nine tiles": ((2, 7, 7), torch.float32),
    "three tiles": ((10, 4, 4), torch.float32),
    "one tile": ((2, 4, 4), torch.float32),
    "two of four tiles overflow": ((2, 4, 5), torch.float16),
}
AFTER_A_CANCEL = "twelve tiles after a cancel"
TILES = ": tiles"


def decodes(ranks: Ranks | None) -> dict[str, Tensor]:
    """Frames of every clip (on rank 0), sizes of the tiles computed here, and frames made after a cancelled decode."""
    frames = {}
    for name, (size, dtype) in DECODES.items():
        vae = tiny_vae()
        torch.nn.Module.to(vae, dtype)
        latents = torch.randn(1, 16, *size, generator=torch.Generator().manual_seed(0))
        if dtype == torch.float16:
            latents[..., 4:] = 1e5
        tiles: list[int] = []
        vae.post_quant_conv.register_forward_pre_hook(lambda _module, inputs, t=tiles: t.append(inputs[0].numel()))
        frames[name] = _decode(vae, latents, ranks)
        frames[f"{name}{TILES}"] = torch.tensor(tiles)
    vae, latents = tiny_vae(), torch.randn(1, 16, 6, 5, 7, generator=torch.Generator().manual_seed(0))
    with contextlib.suppress(InterruptedError):
        _decode(vae, latents, ranks, cancel_at=5)
    frames[AFTER_A_CANCEL] = _decode(vae, latents, ranks)
    return frames


def _decode(vae: Any, latents: Tensor, ranks: Ranks | None, *, cancel_at: int | None = None) -> Tensor:
    if ranks is not None and ranks.rank > 0:
        send_tiles(vae, latents, ranks)
        return torch.empty(0)
    progress: list[None] = []

    def on_tile() -> None:
        progress.append(None)
        if len(progress) == cancel_at:
            raise InterruptedError

    with tiles_of_ranks(vae, latents, ranks) as elsewhere:
        chunks = list(decode_chunks(vae, latents, on_tile=on_tile, elsewhere=elsewhere))
    assert len(progress) == decode_tile_count(vae, latents)
    return torch.cat(chunks, dim=2)


def requests(ranks: Ranks | None) -> dict[str, Tensor]:
    """The latents of every request, of one that is interrupted in its second step, and of one with streamed blocks
    and an attention function of its own.

    Beside them, how many rows of image tokens each forward had here, one forward after the other, in a block that
    cached steps leave out.
    """
    pipes = {heads: tiny_request_pipeline(heads) for heads in (2, 4)}
    for pipe in pipes.values():
        if ranks is not None:
            pipe.enable_ranks(ranks)
    latents = {}
    for name, (size, heads, options) in REQUESTS.items():
        rows: list[int] = []
        hook = (
            pipes[heads]
            .transformer.transformer_blocks[1]
            .attn.to_q.register_forward_pre_hook(lambda _module, inputs, rows=rows: rows.append(len(inputs[0])))
        )
        latents[name] = denoised(pipes[heads], size, options)
        latents[f"{name}{ROWS}"] = torch.tensor(rows)
        hook.remove()
    pipe = pipes[2]

    def interrupt(progress: Any) -> None:
        pipe._interrupt = progress.done > progress.total / 3

    latents[INTERRUPTED] = denoised(pipe, (2, 6, 10), {"guidance_scale": 7.5}, interrupt)
    size, heads, options = REQUESTS["unguided"]
    attended: list[int] = []

    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        attended.append(q.shape[2])
        return sdpa(q, k, v)

    pipes[heads].enable_kernels(Kernels(attention=attention))
    stream_blocks(pipes[heads].transformer, HostCopies())
    latents[STREAMED] = denoised(pipes[heads], size, options)
    latents[HEADS] = torch.tensor(attended)
    return latents


def tiny_request_pipeline(heads: int) -> HunyuanCustomPipeline:
    """Without encoders: the text states come from the golden data."""
    if heads == DIT_CONFIG["num_attention_heads"]:
        transformer = tiny_transformer()
    else:
        torch.manual_seed(0)
        transformer = HunyuanVideoTransformer3DModel(**(DIT_CONFIG | {"num_attention_heads": heads})).eval()
    return HunyuanCustomPipeline(
        transformer=transformer,
        vae=tiny_vae(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=5.0),
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
    )


@torch.no_grad()
def denoised(
    pipe: HunyuanCustomPipeline,
    size: tuple[int, int, int],
    options: dict[str, Any],
    callback: Callable[[Any], None] | None = None,
) -> Tensor:
    """The latents of one of `REQUESTS`."""
    pipe._interrupt = False
    sampling = Sampling(**({"steps": 3, "ip_cfg_scale": 0.0, "step_cache": None} | options))
    generator = torch.Generator().manual_seed(0)
    noise, identity, white = (torch.randn(1, 16, frames, *size[1:], generator=generator) for frames in (size[0], 1, 1))
    dtype = compute_dtype(pipe.transformer)
    io = {key: tensor.to(dtype) if key in _STATES else tensor for key, tensor in golden("dit_tiny_io").items()}
    negative, positive = ({key: io[f"in.{key}"][row : row + 1] for key in _TEXT} for row in (0, 1))
    if not sampling.guided:
        branches = [_branch(positive, identity)]
    elif sampling.ip_cfg_scale == 0:
        branches = [_branch(negative, identity), _branch(positive, identity)]
    else:
        branches = [_branch(negative, white), _branch(positive, white), _branch(positive, identity)]
    return pipe.denoise(noise, branches, sampling, callback=callback)


_TEXT = ("text_states", "text_mask", "text_states_2")
_STATES = ("in.text_states", "in.text_states_2")


def _branch(text: dict[str, Tensor], reference: Tensor) -> Branch:
    mask = text["text_mask"]
    return Branch(
        text=text["text_states"], mask=mask, pooled=text["text_states_2"], reference=reference, valid=int(mask.sum())
    )


def run_rank(rank: int, count: int, folder: Path) -> None:
    """In a process of its own: all requests, and the answers as `rank`.safetensors in `folder`."""
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), count)
    ranks = Ranks(rank=rank, count=count, store=store, device=torch.device("cpu"), timeout_s=60)
    with torch.no_grad():
        made = requests(ranks) | decodes(ranks)
    save_file({name: tensor.contiguous() for name, tensor in made.items()}, folder / f"{rank}.safetensors")
    dist.destroy_process_group()
