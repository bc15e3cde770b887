"""`hunyuan-custom bench words`: what LLaVA makes of a prompt and a picture, how long it takes and what memory."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.options import ALPHA, MemoryPlan
from weights.process_memory import in_a_process

if TYPE_CHECKING:
    from pipeline.language.writer import Words


@dataclass(frozen=True, kw_only=True)
class WordsBench:
    """One measurement, after one that does not count. `growth`: bytes beyond what the loaded model takes, at most."""

    words: "Words"
    tokens: int
    seconds: float
    first_token_s: float
    weights: int
    growth: int

    def lines(self) -> list[str]:
        """For the terminal."""
        each_ms = (self.seconds - self.first_token_s) / max(self.tokens - 1, 1) * 1e3
        return [
            f"subject        {self.words.subject_name}",
            f"prompt         {self.words.prompt}",
            *([f"not expanded   {self.words.problem}"] if self.words.problem else []),
            f"written in     {self.seconds:.2f} s: {self.tokens} tokens, {each_ms:.1f} ms each, "
            f"the first after {self.first_token_s:.2f} s",
            f"memory         {self.growth / 1e6:.1f} MB more than before; "
            f"LLaVA's weights are {self.weights / 1e6:.1f} MB",
        ]


def bench_words(folder: Path, image: Path, prompt: str, *, device: str, memory_plan: MemoryPlan) -> WordsBench:
    """The model in `folder`, loaded in bf16 in a process of its own. Raises `WeightsError`."""
    return in_a_process(_write, folder, image, prompt, device, memory_plan)[0]


def _write(folder: Path, image: Path, prompt: str, device: str, memory_plan: MemoryPlan) -> WordsBench:
    import torch
    from PIL import Image

    from pipeline.language.writer import LlavaWriter
    from pipeline.load import load_pipeline

    pipe = load_pipeline(folder, device=device, dtype="bfloat16", memory_plan=memory_plan)
    on_gpu = torch.device(device).type == "cuda"
    times: list[float] = []

    def write() -> "Words":
        writer = LlavaWriter(
            pipe.text_encoder, pipe.tokenizer, device=torch.device(device), alpha=ALPHA, limit_s=float("inf")
        )
        with Image.open(image) as picture:
            return writer.write(prompt, picture, expand=True, callback=lambda _: times.append(time.perf_counter()))

    write()
    times.clear()
    before = _held(on_gpu, peak=False)
    started = time.perf_counter()
    words = write()
    seconds = time.perf_counter() - started
    return WordsBench(
        words=words,
        tokens=len(times),
        seconds=seconds,
        first_token_s=times[0] - started,
        weights=sum(weight.nbytes for weight in pipe.text_encoder.parameters()),
        growth=_held(on_gpu, peak=True) - before,
    )


def _held(on_gpu: bool, *, peak: bool) -> int:
    """Bytes of tensors on the GPU, now or since this was last asked; without one, this process's most so far."""
    if on_gpu:
        import torch

        if peak:
            return torch.cuda.max_memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
