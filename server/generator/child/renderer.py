"""The real renderer: drives the pipeline in the generator process. Imported there alone."""

import time
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import logging as diffusers_logging
from PIL import Image
from transformers.utils import logging as transformers_logging

from pipeline.checkpoint import weights_fingerprint
from pipeline.demo.model import build_demo_model, demo_facts, render_size
from pipeline.language.chat import ChatModel
from pipeline.language.writer import Words
from pipeline.load import load_pipeline
from pipeline.memory.decide import decide_plan
from pipeline.mp4 import write_mp4
from pipeline.parallel.tiles import send_tiles, tiles_of_ranks
from pipeline.preview import ColourMap, LatentPreviews, fit_colour_map
from pipeline.progress import Progress, ProgressCallback, Stage, StageProgress
from pipeline.shapes import LatentShape, PixelShape, Strides
from pipeline.thumbnail import Thumbnail
from pipeline.vae.codec import decode_stream, decode_tiling
from server.generator.child.checkpoints import Checkpoints
from server.generator.child.contract import DeviceLost, OnLoading, OutOfMemory, Report
from server.generator.child.eta import Eta
from server.generator.child.previews import JobPreviews
from server.generator.child.rendezvous import connected_ranks, own_device
from server.generator.child.screening import Screening
from server.generator.child.stop_together import StopTogether
from server.generator.child.words import JobWords, prompt_writer
from server.generator.messages import Generate, Load, Log, Working

_DEMO = "demo"


class HunyuanCustomRenderer:
    """One loaded pipeline; renders one request at a time."""

    def __init__(self, load: Load, on_loading: OnLoading) -> None:
        settings = load.generator
        transformers_logging.disable_progress_bar()
        diffusers_logging.disable_progress_bar()
        if settings.torch_threads:
            torch.set_num_threads(settings.torch_threads)
        folder = Path(settings.model)
        if settings.model == _DEMO:
            folder = build_demo_model(Path(load.data_dir) / "models" / _DEMO)
        device = own_device(load)
        self._ranks = connected_ranks(load, device)
        self._screening = Screening(load, device, self._ranks, on_loading)
        self.plan = decide_plan(
            folder,
            device=device,
            dtype=settings.dtype,
            wanted=settings.memory_plan,
            or_smaller=load.made_room,
            step_cache=settings.step_cache_or_none,
            processes=settings.ranks * settings.replicas,
        )
        self._pipe = load_pipeline(
            folder,
            device=str(device),
            dtype=settings.dtype,
            memory_plan=self.plan,
            fused=settings.fused,
            mlp_chunk=settings.mlp_chunk,
            attention=settings.attention,
            cpu_linear=settings.cpu_linear,
            on_progress=lambda part: on_loading(f"loading {part}"),
        )
        if self._ranks is not None:
            self._pipe.enable_ranks(self._ranks)
        self._pipe.register_to_config(alpha=load.image.alpha)
        self._strides = Strides.of(self._pipe.vae.config, self._pipe.transformer.config)
        self._colour_map: ColourMap | None = None
        if load.video.preview_every_s and load.rank == 0:
            self._colour_map = fit_colour_map(self._pipe.vae, device)
            self._pipe.maybe_free_model_hooks()
        self._settings = settings
        self._video = load.video
        self._alpha = load.image.alpha
        self._seconds_per_unit: dict[Stage, float] = {}
        self._identity = weights_fingerprint(folder)
        facts = demo_facts(folder)
        self._words = JobWords(prompt_writer(load, self._pipe, device, is_demo=facts is not None), self._ranks)
        if facts is None and load.safety.ask_language_model:
            self._screening.have_prompts_read_by(ChatModel(self._pipe.text_encoder, self._pipe.tokenizer, device))
        self.model = f"{facts['name']} (untrained)" if facts else folder.name

    def render(self, job: Generate, report: Report) -> None:
        """Words -> encode -> denoise -> decode, frames streamed into the MP4 at `job.output` by rank 0.

        Raises:
            OutOfMemory, DeviceLost: what the worker can do something about.
            Flagged: by the safety checker.
        """
        try:
            self._render(job, report)
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise OutOfMemory(str(error)) from error
        except torch.AcceleratorError as error:  # an illegal access, say: the CUDA context is unusable from here on
            raise DeviceLost(str(error)) from error

    def _render(self, job: Generate, report: Report) -> None:
        job = self._screening.admit(job, report)
        size = self._render_size(job)
        eta = Eta(time.perf_counter, self._seconds_per_unit, decode_units=self._decode_tiles(size))
        checkpoints = Checkpoints(job, self._identity, self._settings, self._ranks, alpha=self._alpha)
        words = self._words.decide(job, kept=checkpoints.words, report=report, on_progress=_progress(eta, report))
        self._screening.check_expanded(job, words.prompt)
        report_all = report if self._ranks is None else StopTogether(self._ranks, report)
        previews = self._previews(job)
        latents = self._denoise(
            job, words, size, checkpoints=checkpoints, eta=eta, previews=previews, report=report_all
        )
        if self._ranks is not None and self._ranks.rank > 0:
            send_tiles(self._pipe.vae, latents, self._ranks)
            return
        with tiles_of_ranks(self._pipe.vae, latents, self._ranks) as elsewhere:
            report(Log(message=f"Decoding {eta.decode_units} tiles"))
            tiles = StageProgress("decode", eta.decode_units, _progress(eta, report, previews))
            frames = decode_stream(self._pipe.vae, latents, on_tile=tiles.advance, elsewhere=elsewhere)
            thumbnail = Thumbnail(num_frames=job.num_frames, width=job.width, height=job.height)
            written = write_mp4(
                thumbnail.taken_from(self._screening.passed(frames, job, report)),
                Path(job.output),
                fps=job.fps,
                num_frames=job.num_frames,
                width=job.width,
                height=job.height,
                threads=self._video.encoder_threads,
                crf=self._video.crf,
            )
        report(Log(message=f"Wrote {job.num_frames} frames, {written} bytes"))
        if job.thumbnail is not None:
            _write_thumbnail(thumbnail, Path(job.thumbnail), report)

    def _previews(self, job: Generate) -> JobPreviews | None:
        if self._colour_map is None:
            return None
        return JobPreviews(self._colour_map, job, every_s=self._video.preview_every_s)

    def _render_size(self, job: Generate) -> PixelShape:
        """What the pipeline makes of the delivered size: fewer pixels for the demo, and the next 4n+1 frames."""
        width, height = render_size(job.width, job.height, scale=self._settings.render_divisor)
        stride = self._strides.time
        return PixelShape(frames=-(-(job.num_frames - 1) // stride) * stride + 1, height=height, width=width)

    def _decode_tiles(self, size: PixelShape) -> int:
        latents = LatentShape.from_pixels(size, self._strides)
        return decode_tiling(self._pipe.vae).count(latents.frames, latents.height, latents.width)

    def _denoise(
        self,
        job: Generate,
        words: Words,
        size: PixelShape,
        *,
        checkpoints: Checkpoints,
        eta: Eta,
        previews: JobPreviews | None,
        report: Report,
    ) -> torch.Tensor:
        """The latents of the video, [1, 16, T, h, w]."""
        # Drawn also when a checkpoint replaces it: what else the generator is asked for must not change.
        generator = torch.Generator().manual_seed(job.seed)
        noise = self._pipe.prepare_latents(size, generator, None, None)
        start_step, latents = checkpoints.start(noise)
        if start_step:
            report(Log(message=f"Going on at step {start_step + 1} from a checkpoint"))
        step_started = time.perf_counter()

        def on_step_end(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            nonlocal step_started
            now = time.perf_counter()
            took = now - step_started
            line = f"Denoising step {step + 1}/{job.num_inference_steps}: {took:.2f} s"
            report(Log(message=", ".join(filter(None, (line, eta.describe()))), step_seconds=took))
            checkpoints.keep(step + 1, tensors["latents"], words)
            if previews is not None:
                previews.on_step_end(pipe, step, timestep, tensors)
            step_started = now
            return tensors

        with Image.open(job.image) as image:
            denoised: torch.Tensor = self._pipe(
                words.prompt,
                image,
                subject_name=words.subject_name,
                negative_prompt=job.negative_prompt,
                height=size.height,
                width=size.width,
                num_frames=size.frames,
                num_inference_steps=job.num_inference_steps,
                guidance_scale=job.guidance_scale,
                generator=generator,
                latents=latents,
                start_step=start_step,
                step_cache=self._settings.step_cache_or_none,
                step_cache_threshold=self._settings.step_cache_threshold,
                output_type="latent",
                callback_on_step_end=on_step_end,
                callback_on_step_end_tensor_inputs=LatentPreviews.tensor_inputs,
                callback_on_progress=_progress(eta, report, previews),
            ).frames
        return denoised


def _write_thumbnail(thumbnail: Thumbnail, path: Path, report: Report) -> None:
    try:
        thumbnail.write(path)
    except (OSError, ValueError) as error:  # costs the picture, not the job
        report(Log(message=f"No thumbnail: {error}", level="WARN"))


def _progress(eta: Eta, report: Report, previews: JobPreviews | None = None) -> ProgressCallback:
    def on_progress(progress: Progress) -> None:
        eta.update(progress)
        left = eta.seconds_left()
        report(Working(stage=progress.stage, done=progress.done, total=progress.total, seconds_left=left))
        if previews is not None:
            previews.send(report)

    return on_progress
