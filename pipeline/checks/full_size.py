"""`hunyuan-custom doctor --full-size`: the 13B transformer on a machine without a GPU and without its weights.

Synthetic weights of the real names and shapes are written to disk, mapped (not copied) into the real model class and
run through one step of a few tokens by the code that generates videos, under the memory plan for small GPUs.
That plan copies a few blocks at a time from the mapping of their file, which acts as an offload to disk: a page is read
when its block is copied and may be dropped afterwards, so that the machine needs far less memory than the model has
weights.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, HunyuanVideoTransformer3DModel
from torch import Tensor

from pipeline.components import Transformer
from pipeline.denoise import Sampling, denoise, sigma_schedule
from pipeline.fused.kernels import Kernels
from pipeline.fused.passes import EAGER_PASSES
from pipeline.memory.device_copies import HostCopies
from pipeline.memory.stored_model import load_stored
from pipeline.memory.streaming import stream_blocks
from pipeline.rope import rotary_tables
from pipeline.shapes import TokenGrid
from pipeline.share import Share
from pipeline.transformer import Branch
from weights.checks.synthetic import tensor_bytes, write_converted_transformer
from weights.convert import SHIFT
from weights.disk import drop_from_cache
from weights.originals.plan_transformer import FULL_SIZE
from weights.originals.structure import transformer_shapes
from weights.process_memory import in_a_process
from weights.writing.staging import scratch_folder

SCRATCH = ".hunyuan-custom-full-size-check"
LATENT_SIZE = 8  # height and width; one latent frame and the reference frame, 16 tokens each
TEXT_ROWS = 16
MAX_RSS_ANON = 12_000_000_000


@dataclass(frozen=True, kw_only=True)
class Forward:
    """What was measured in one forward. `unread`: names of weights whose layer was never called."""

    load_seconds: float
    forward_seconds: float
    parameters: int
    tensors: int
    unread: tuple[str, ...]
    read_bytes: int
    finite: bool


@dataclass(frozen=True, kw_only=True)
class FullSizeCheck:
    """One run. `peak_rss_anon` in bytes; `counted`: whether the system counts reads of this disk at all."""

    nbytes: int
    tokens: int
    forward: Forward
    peak_rss_anon: int
    counted: bool

    @property
    def passed(self) -> bool:
        """Every weight was read, the result is finite, memory stayed within 12 GB."""
        all_read = not self.forward.unread and (self.forward.read_bytes >= self.nbytes or not self.counted)
        return all_read and self.forward.finite and self.peak_rss_anon <= MAX_RSS_ANON

    def lines(self) -> list[str]:
        """For the terminal."""
        forward = self.forward
        called = forward.tensors - len(forward.unread)
        first_unread = f", NOT: {forward.unread[0]}" if forward.unread else ""
        from_disk = (
            f"{forward.read_bytes / 1e9:.2f} of {self.nbytes / 1e9:.2f} GB" if self.counted else "not counted here"
        )
        return [
            f"transformer    {forward.parameters / 1e9:.2f} B parameters, {self.nbytes / 1e9:.2f} GB bf16, on the CPU",
            f"loaded in      {forward.load_seconds:.1f} s (mapped from disk)",
            f"one forward    {forward.forward_seconds:.1f} s for {self.tokens} tokens, "
            f"{'finite' if forward.finite else 'NOT FINITE'}",
            f"weights used   {called} of {forward.tensors} tensors{first_unread}",
            f"read from disk {from_disk}",
            f"peak RssAnon   {self.peak_rss_anon / 1e9:.2f} GB (bound: {MAX_RSS_ANON / 1e9:g})",
            "passed" if self.passed else "FAILED",
        ]


def full_size_check(
    directory: Path,
    *,
    config: Mapping[str, Any] = FULL_SIZE,
    say: Callable[[str], None] = lambda line: None,  # noqa: ARG005
) -> FullSizeCheck:
    """Run in `directory`, which needs 26 GB of free space; everything is removed afterwards. Takes minutes.

    `config` holds diffusers' transformer keys. Raises `TargetError` without the space, `WeightsError` if the child
    process dies.
    """
    needed = tensor_bytes(transformer_shapes(config)) + 1_000_000_000
    with scratch_folder(directory / SCRATCH, needed) as work:
        say("writing synthetic weights")
        nbytes = write_converted_transformer(work / "transformer", config)
        for file in (work / "transformer").iterdir():
            drop_from_cache(file)
        say(f"one forward over {nbytes / 1e9:.1f} GB")
        forward, peak = in_a_process(one_forward, work / "transformer")
        counted = _reads_are_counted(work)
    grid = _grid(config["patch_size"])
    tokens = (1 + grid.frames) * grid.per_frame + TEXT_ROWS
    return FullSizeCheck(nbytes=nbytes, tokens=tokens, forward=forward, peak_rss_anon=peak, counted=counted)


def one_forward(folder: Path) -> Forward:
    """Load the transformer in `folder` and run one step; records which layers are called and what is read from disk."""
    read_before, started = _read_bytes(), time.monotonic()
    transformer = load_stored(HunyuanVideoTransformer3DModel, folder, torch.bfloat16)
    loaded = time.monotonic()
    stream_blocks(transformer, HostCopies())
    parameters = dict(transformer.named_parameters())
    called: set[str] = set()
    owners = {id(parameter): name.rpartition(".")[0] for name, parameter in parameters.items()}

    def rotate(x: Tensor, weight: Tensor, cos: Tensor, sin: Tensor, out: Tensor) -> None:
        """The norms of queries and keys are not called: their weights go into this pass."""
        called.add(owners[id(weight)])
        EAGER_PASSES.rotate(x, weight, cos, sin, out)

    for name, module in transformer.named_modules():
        if next(module.parameters(recurse=False), None) is not None:
            module.register_forward_pre_hook(lambda *_, name=name: called.add(name))
    with torch.inference_mode():
        kernels = Kernels(passes=replace(EAGER_PASSES, rotate=rotate))
        finite = bool(_one_step(transformer, kernels).isfinite().all())
    return Forward(
        load_seconds=loaded - started,
        forward_seconds=time.monotonic() - loaded,
        parameters=sum(parameter.numel() for parameter in parameters.values()),
        tensors=len(parameters),
        unread=tuple(name for name in parameters if name.rpartition(".")[0] not in called),
        read_bytes=_read_bytes() - read_before,
        finite=finite,
    )


def _grid(patch: int) -> TokenGrid:
    return TokenGrid(frames=1, height=LATENT_SIZE // patch, width=LATENT_SIZE // patch)


def _read_bytes() -> int:
    """Bytes this process has read from disks, pages of mapped files included; 0 where the kernel does not count."""
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("read_bytes:")), 0)


def _reads_are_counted(folder: Path) -> bool:
    """False on file systems in memory and on some network file systems."""
    probe = folder / "probe"
    probe.write_bytes(bytes(2**20))
    drop_from_cache(probe)
    before = _read_bytes()
    probe.read_bytes()
    return _read_bytes() > before


def _one_step(transformer: Transformer, kernels: Kernels) -> Tensor:
    """One unguided step from random inputs: latents [1,16,1,h,w]."""
    config = transformer.config
    generator = torch.Generator().manual_seed(0)
    latents, reference = torch.randn(2, 1, config.in_channels, 1, LATENT_SIZE, LATENT_SIZE, generator=generator)
    branch = Branch(
        text=torch.randn(1, TEXT_ROWS, config.text_embed_dim, generator=generator).to(torch.bfloat16),
        mask=torch.ones(1, TEXT_ROWS, dtype=torch.int64),
        pooled=torch.randn(1, config.pooled_projection_dim, generator=generator).to(torch.bfloat16),
        reference=reference,
        valid=TEXT_ROWS,
    )
    grid = _grid(config.patch_size)
    return denoise(
        transformer,
        latents,
        [branch],
        share=Share(rotary_tables(grid, config.rope_axes_dim, config.rope_theta, text_rows=TEXT_ROWS)),
        schedule=sigma_schedule(FlowMatchEulerDiscreteScheduler(shift=SHIFT), 1),
        sampling=Sampling(steps=1, guidance_scale=1.0, ip_cfg_scale=0.0, step_cache=None),
        on_block=lambda: None,
        on_step=lambda _step, _timestep, result, _velocity: result,
        kernels=kernels,
    )
