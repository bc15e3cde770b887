"""A job's words: the prompt that its video is made from and the name of its subject, decided once for all its attempts.

Rank 0 decides for all ranks: if each asked its own LLaVA, a time limit or a rounding could part them.
"""

import json
from collections.abc import Callable

import torch
from PIL import Image

from pipeline.hunyuan_custom import HunyuanCustomPipeline
from pipeline.language.rules import RuleWriter
from pipeline.language.writer import LlavaWriter, PromptWriter, Words
from pipeline.parallel.ranks import Ranks
from pipeline.progress import ProgressCallback
from server.generator.child.contract import Cancelled, Report
from server.generator.messages import Generate, Load, Log


def prompt_writer(load: Load, pipe: HunyuanCustomPipeline, device: torch.device, *, is_demo: bool) -> PromptWriter:
    """LLaVA, unless it has learned nothing."""
    if is_demo:
        return RuleWriter(pipe.tokenizer)
    return LlavaWriter(
        pipe.text_encoder,
        pipe.tokenizer,
        device=device,
        alpha=load.image.alpha,
        limit_s=load.prompt.expansion_limit_s,
    )


class JobWords:
    """What a writer makes of a job, told in the job's log and shared by all ranks."""

    def __init__(self, writer: PromptWriter, ranks: Ranks | None) -> None:
        self._writer = writer
        self._ranks = ranks

    def decide(self, job: Generate, *, kept: Words | None, report: Report, on_progress: ProgressCallback) -> Words:
        """`kept`: those of an earlier attempt, which count. On ranks beyond the first only the ranks' calls matter."""
        if self._ranks is None:
            return kept or self._write(job, report, on_progress)
        return _as_first(self._ranks, lambda: kept or self._write(job, report, on_progress))

    def _write(self, job: Generate, report: Report, on_progress: ProgressCallback) -> Words:
        with Image.open(job.image) as image:
            words = self._writer.write(job.prompt, image, expand=job.expand_prompt, callback=on_progress)
        if job.log_prompt:
            report(Log(message=f"Subject: {words.subject_name}"))
        if words.expanded:
            said = f": {words.prompt}" if job.log_prompt else ""
            report(Log(message=f"Prompt expanded {self._writer.method}{said}"))
        if words.problem is not None:
            report(Log(message=f"Prompt not expanded: {words.problem}", level="WARN"))
        return words


def _as_first(ranks: Ranks, decide: Callable[[], Words]) -> Words:
    """Rank 0's words, on all ranks.

    Raises:
        Exception: on rank 0 what it was ended by; Cancelled on the others, which would wait for it.
    """
    text = ""
    stop: Exception | None = None
    if ranks.rank == 0:
        try:
            words = decide()
            text = json.dumps([words.prompt, words.subject_name])
        except Exception as error:
            stop = error
    sent = torch.tensor(list(text.encode()), dtype=torch.uint8)
    length = int(ranks.as_first(torch.tensor(len(sent))))
    if length == 0:
        raise stop or Cancelled
    received = ranks.as_first(sent if ranks.rank == 0 else torch.empty(length, dtype=torch.uint8))
    prompt, subject_name = json.loads(bytes(received.tolist()))
    return Words(prompt=prompt, subject_name=subject_name)
