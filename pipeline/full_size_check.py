"""`hunyuan-custom doctor --full-size`: the 13B transformer on a machine without a GPU and without its weights.

Synthetic weights of the real names and shapes are written to disk, mapped (not copied) into the real model class and
run through one step of a few tokens by the very code that generates videos. Weights stay in their files: a page is read
when a layer wants it and may be dropped afterwards, so the machine needs far less memory than the model has weights.
"""

import multiprocessing
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from weights.errors import WeightsError
from weights.plan_transformer import FULL_SIZE
from weights.process_memory import rss_anon
from weights.staging import require_space

LATENT_SIZE = 8  # height and width; one latent frame and the reference frame, 16 tokens each
TEXT_ROWS = 16
POLL_SECONDS = 0.1


@dataclass(frozen=True, kw_only=True)
class _Forward:
    """What the child process measured."""

    load_seconds: float
    forward_seconds: float
    parameters: int
    tensors: int
    unread: tuple[str, ...]
    finite: bool


@dataclass(frozen=True, kw_only=True)
class FullSizeCheck:
    """One run. `peak_rss_anon` in bytes; `unread`: names of weights whose layer was never called."""

    nbytes: int
    parameters: int
    tensors: int
    tokens: int
    load_seconds: float
    forward_seconds: float
    peak_rss_anon: int
    unread: tuple[str, ...]
    finite: bool

    @property
    def passed(self) -> bool:
        """Every weight was read, the result is finite, memory stayed within 12 GB."""
        return not self.unread and self.finite and self.peak_rss_anon <= 12e9

    def lines(self) -> list[str]:
        """For people."""
        read = self.tensors - len(self.unread)
        return [
            f"transformer    {self.parameters / 1e9:.2f} B parameters, {self.nbytes / 1e9:.2f} GB bf16, on the CPU",
            f"loaded in      {self.load_seconds:.1f} s (mapped from disk)",
            f"one forward    {self.forward_seconds:.1f} s for {self.tokens} tokens, "
            f"{'finite' if self.finite else 'NOT FINITE'}",
            f"weights read   {read} of {self.tensors} tensors{', NOT: ' + self.unread[0] if self.unread else ''}",
            f"peak RssAnon   {self.peak_rss_anon / 1e9:.2f} GB (bound: 12)",
            "passed" if self.passed else "FAILED",
        ]


def full_size_check(
    directory: Path,
    *,
    config: Mapping[str, Any] = FULL_SIZE,
    say: Callable[[str], None] = lambda line: None,  # noqa: ARG005
) -> FullSizeCheck:
    """Run in `directory`, which needs 26 GB free; everything is removed again. Takes minutes.

    `config` holds diffusers' transformer keys. Raises `TargetError` without the space, `WeightsError` if the child
    process dies.
    """
    from weights.structure import transformer_shapes
    from weights.synthetic import tensor_bytes, write_converted_transformer

    require_space(directory, tensor_bytes(transformer_shapes(config)) + 1_000_000_000)
    work = directory / "full-size-check"
    work.mkdir(parents=True)
    try:
        say("writing synthetic weights")
        nbytes = write_converted_transformer(work / "transformer", config)
        say(f"one forward over {nbytes / 1e9:.1f} GB")
        forward, peak = _in_a_process(work / "transformer")
    finally:
        shutil.rmtree(work)
    tokens = 2 * (LATENT_SIZE // int(config["patch_size"])) ** 2 + TEXT_ROWS
    return FullSizeCheck(nbytes=nbytes, tokens=tokens, peak_rss_anon=peak, **vars(forward))


def _in_a_process(folder: Path) -> tuple[_Forward, int]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_forward, args=(folder, theirs))
    process.start()
    theirs.close()
    peak = 0
    while process.is_alive():
        peak = max(peak, rss_anon(process.pid or 0))
        process.join(POLL_SECONDS)
    if process.exitcode != 0 or not ours.poll():
        raise WeightsError(f"{folder}: the forward failed (exit code {process.exitcode})")
    return ours.recv(), peak


def _forward(folder: Path, answer: Connection) -> None:
    import torch
    from diffusers import HunyuanVideoTransformer3DModel

    from pipeline.stored_model import load_stored

    started = time.monotonic()
    transformer = load_stored(HunyuanVideoTransformer3DModel, folder, torch.bfloat16)
    loaded = time.monotonic()
    called: set[str] = set()
    for name, module in transformer.named_modules():
        if next(module.parameters(recurse=False), None) is not None:
            module.register_forward_pre_hook(lambda *_, name=name: called.add(name))
    with torch.inference_mode():
        finite = bool(_one_step(transformer).isfinite().all())
    parameters = dict(transformer.named_parameters())
    answer.send(
        _Forward(
            load_seconds=loaded - started,
            forward_seconds=time.monotonic() - loaded,
            parameters=sum(parameter.numel() for parameter in parameters.values()),
            tensors=len(parameters),
            unread=tuple(name for name in parameters if name.rpartition(".")[0] not in called),
            finite=finite,
        )
    )


def _one_step(transformer: Any) -> Any:
    """One unguided step from random inputs: latents [1,16,1,h,w]."""
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler

    from pipeline.denoise import Sampling, denoise, sigma_schedule
    from pipeline.rope import rotary_tables
    from pipeline.shapes import TokenGrid
    from pipeline.share import Share
    from pipeline.transformer import Branch
    from weights.convert import SHIFT

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
    side = LATENT_SIZE // config.patch_size
    grid = TokenGrid(frames=1, height=side, width=side)
    return denoise(
        transformer,
        latents,
        [branch],
        share=Share(rotary_tables(grid, config.rope_axes_dim, config.rope_theta, text_rows=TEXT_ROWS)),
        schedule=sigma_schedule(FlowMatchEulerDiscreteScheduler(shift=SHIFT), 1),
        sampling=Sampling(steps=1, guidance_scale=1.0, ip_cfg_scale=0.0, step_cache=None),
        on_block=lambda: None,
        on_step=lambda _step, _timestep, result: result,
    )
