"""From a validated input to the message that has its video made, for a job of the queue and for one without."""

from dataclasses import dataclass
from pathlib import Path

from server.fal.schemas import HunyuanCustomInput
from server.fal.video_size import video_size
from server.generator.messages import Generate
from server.settings import Settings
from server.tracing.spans import current_span


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalFiles:
    """Paths on the generator's machine; see `Generate`."""

    image: Path
    output: Path
    checkpoint: Path
    cut_out: Path
    thumbnail: Path | None = None


def generate_message(
    request_id: str,
    wanted: HunyuanCustomInput,
    *,
    seed: int,
    files: LocalFiles,
    settings: Settings,
    log_prompt: bool = True,
) -> Generate:
    """What the generator is sent."""
    width, height = video_size(wanted)
    return Generate(
        request_id=request_id,
        prompt=wanted.prompt,
        expand_prompt=wanted.enable_prompt_expansion and settings.prompt.expansion,
        log_prompt=log_prompt,
        negative_prompt=wanted.negative_prompt,
        image=str(files.image),
        output=str(files.output),
        checkpoint=str(files.checkpoint),
        cut_out=str(files.cut_out),
        thumbnail=None if files.thumbnail is None else str(files.thumbnail),
        trace_id=current_span().trace_id,
        check_safety=wanted.enable_safety_checker or settings.safety.required,
        width=width,
        height=height,
        num_frames=wanted.num_frames,
        fps=wanted.fps,
        num_inference_steps=wanted.num_inference_steps,
        guidance_scale=wanted.cfg_scale,
        seed=seed,
    )
