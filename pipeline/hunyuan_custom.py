"""`HunyuanCustomPipeline`: an identity image and a prompt in, a video out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import torch
from diffusers import AutoencoderKLHunyuanVideo, FlowMatchEulerDiscreteScheduler, HunyuanVideoTransformer3DModel
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.utils import BaseOutput
from PIL import Image
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer, LlavaForConditionalGeneration, PreTrainedTokenizerFast

from pipeline.blocks import Rope
from pipeline.conditioning import ConditionEncoder, Subject
from pipeline.denoise import Interrupted, block_count, denoise, sigma_schedule
from pipeline.identity_image import rgb_pixels
from pipeline.pacing import Pacer
from pipeline.progress import ProgressCallback, StageProgress
from pipeline.rope import rotary_tables
from pipeline.shapes import LatentShape, PixelShape, Strides, TokenGrid
from pipeline.step_cache import StepCache, StepCacheName
from pipeline.transformer import Branch
from pipeline.vae import decode_chunks, decode_stream, decode_tile_count

OutputType: TypeAlias = Literal["latent", "pt", "np", "pil"]
Frames: TypeAlias = Tensor | np.ndarray | list[list[Image.Image]]
StepEndCallback: TypeAlias = Callable[[Any, int, Tensor, dict[str, Tensor]], dict[str, Tensor]]


@dataclass
class HunyuanCustomPipelineOutput(BaseOutput):
    """`frames`: latents [1,16,T,h,w], pt [1,F,3,H,W] or np [1,F,H,W,3] in 0..1, or one list of PIL images in a list."""

    frames: Frames


class HunyuanCustomPipeline(DiffusionPipeline):
    """HunyuanCustom's single-subject video generation over diffusers' and transformers' own model classes.

    Config: `alpha` is what becomes of transparency ("white": composited on white, "drop": ignored, as the reference
    does); `negative_subject_name` the subject in the negative prompt's template; `reference_posterior` how the VAE's
    posterior of the identity image is read ("mode", or "sample", as the reference does, with the request's generator).
    """

    model_cpu_offload_seq = "text_encoder->text_encoder_2->transformer->vae"
    _callback_tensor_inputs = ("latents",)

    def __init__(
        self,
        *,
        transformer: HunyuanVideoTransformer3DModel,
        vae: AutoencoderKLHunyuanVideo,
        scheduler: FlowMatchEulerDiscreteScheduler,
        text_encoder: LlavaForConditionalGeneration,
        tokenizer: PreTrainedTokenizerFast,
        text_encoder_2: CLIPTextModel,
        tokenizer_2: CLIPTokenizer,
        alpha: str = "white",
        negative_subject_name: str = "person",
        reference_posterior: str = "mode",
    ) -> None:
        super().__init__()
        self.register_modules(
            transformer=transformer,
            vae=vae,
            scheduler=scheduler,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            text_encoder_2=text_encoder_2,
            tokenizer_2=tokenizer_2,
        )
        self.register_to_config(
            alpha=alpha, negative_subject_name=negative_subject_name, reference_posterior=reference_posterior
        )
        self._interrupt = False

    @property
    def interrupt(self) -> bool:
        """Set `_interrupt` to stop denoising at the next block; the latents of the last whole step are the result."""
        return self._interrupt

    @torch.no_grad()
    def __call__(
        self,
        prompt: str,
        image: Image.Image,
        *,
        negative_prompt: str | None = None,
        height: int = 512,
        width: int = 896,
        num_frames: int = 129,
        num_inference_steps: int = 30,
        guidance_scale: float = 7.5,
        subject_name: str = "object",
        generator: torch.Generator | None = None,
        latents: Tensor | None = None,
        ref_latents: Tensor | None = None,
        step_cache: StepCacheName | None = None,
        output_type: OutputType = "pil",
        callback_on_step_end: StepEndCallback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        callback_on_progress: ProgressCallback | None = None,
        ip_cfg_scale: float = 0.0,
        return_dict: bool = True,
    ) -> HunyuanCustomPipelineOutput | tuple[Any]:
        """Generates one video of `image`'s subject.

        height, width: multiples of 16; num_frames: 4n+1. guidance_scale: no guidance up to 1. ip_cfg_scale: guidance
        by the identity, off at 0. latents: the initial noise [1,16,T,h,w]; ref_latents: the encoded identity image
        [1,16,1,h,w], already scaled. step_cache: "reference" spares the blocks of 8 steps in 30.
        callback_on_step_end: diffusers' protocol, over "latents". callback_on_progress: called after every encoder
        pass, block and tile; what it raises ends the call and leaves the pipeline ready for the next.
        """
        self._interrupt = False
        _check_prompts(prompt, negative_prompt, image)
        _check_options(
            num_inference_steps, guidance_scale, ip_cfg_scale, output_type, callback_on_step_end_tensor_inputs
        )
        size = PixelShape(frames=num_frames, height=height, width=width)
        strides = Strides.of(self.vae.config, self.transformer.config)
        shape = LatentShape.from_pixels(size, strides)
        channels = self.transformer.config.in_channels
        _check_shape("latents", latents, (1, channels, shape.frames, shape.height, shape.width))
        _check_shape("ref_latents", ref_latents, (1, channels, 1, shape.height, shape.width))
        cache = StepCache.named(step_cache, num_inference_steps)
        device = self._execution_device
        subject = Subject(
            pixels=rgb_pixels(image, alpha=self.config.alpha),
            prompt=prompt,
            subject_name=subject_name,
            negative_prompt=(negative_prompt or "") if guidance_scale > 1 else None,
            negative_subject_name=self.config.negative_subject_name,
            reference=ref_latents,
            identity_guidance=ip_cfg_scale > 0,
        )
        try:
            noise = self.prepare_latents(shape, generator, latents).to(device)
            branches = ConditionEncoder(
                self,
                device=device,
                posterior=self.config.reference_posterior,
                generator=generator,
                callback=callback_on_progress,
            ).branches(subject, size)
            progress = StageProgress(
                "denoise", block_count(self.transformer, len(branches), cache), callback_on_progress
            )
            pacer = Pacer(device)
            result = denoise(
                self.transformer,
                noise,
                branches,
                self.rotary_tables(TokenGrid.from_latents(shape, strides), branches, device),
                sigma_schedule(self.scheduler, num_inference_steps),
                guidance_scale=guidance_scale,
                ip_cfg_scale=ip_cfg_scale,
                cache=cache,
                on_block=lambda: self._finish_block(pacer, progress),
                on_step=lambda *finished: self._finish_step(callback_on_step_end, *finished),
            )
            frames = self.decode(result, output_type, callback_on_progress)
        finally:
            self.maybe_free_model_hooks()
        return HunyuanCustomPipelineOutput(frames=frames) if return_dict else (frames,)

    def prepare_latents(self, shape: LatentShape, generator: torch.Generator | None, latents: Tensor | None) -> Tensor:
        """The initial noise, fp32: `latents` or a draw. A CPU generator's draw means the same on every device."""
        if latents is not None:
            return latents.float()
        device = "cpu" if generator is None else generator.device
        size = (1, self.transformer.config.in_channels, shape.frames, shape.height, shape.width)
        return torch.randn(size, generator=generator, device=device, dtype=torch.float32)

    def rotary_tables(self, grid: TokenGrid, branches: Sequence[Branch], device: torch.device) -> Rope:
        """One pair of tables for all branches, long enough for the longest text."""
        config = self.transformer.config
        text_rows = max(branch.valid for branch in branches)
        cos, sin = rotary_tables(grid, config.rope_axes_dim, config.rope_theta, text_rows=text_rows)
        return cos.to(device), sin.to(device)

    def decode(self, latents: Tensor, output_type: OutputType, callback: ProgressCallback | None) -> Frames:
        """Denoised latents [1,16,T,h,w] -> frames as `output_type` says."""
        if output_type == "latent":
            return latents
        progress = StageProgress("decode", decode_tile_count(self.vae, latents), callback)
        if output_type == "pil":
            stream = decode_stream(self.vae, latents, on_tile=progress.advance)
            return [[Image.fromarray(frame) for frames in stream for frame in frames]]
        chunks = decode_chunks(self.vae, latents, on_tile=progress.advance)
        video = torch.cat([chunk.cpu() for chunk in chunks], dim=2).transpose(1, 2)  # [1,F,3,H,W]
        return video if output_type == "pt" else video.permute(0, 1, 3, 4, 2).numpy()

    def _finish_block(self, pacer: Pacer, progress: StageProgress) -> None:
        pacer()
        progress.advance()
        if self._interrupt:
            raise Interrupted

    def _finish_step(self, callback: StepEndCallback | None, step: int, timestep: Tensor, latents: Tensor) -> Tensor:
        """diffusers' protocol: the callback may hand back other latents to go on from."""
        if callback is None:
            return latents
        return callback(self, step, timestep, {"latents": latents}).get("latents", latents)


def _check_prompts(prompt: str, negative_prompt: str | None, image: Image.Image) -> None:
    for name, value in (("prompt", prompt), ("negative_prompt", negative_prompt or "")):
        if not isinstance(value, str):
            raise TypeError(f"`{name}` must be one string, got {type(value).__name__}")
    if not isinstance(image, Image.Image):
        raise TypeError(f"`image` must be a PIL image, got {type(image).__name__}")


def _check_shape(name: str, tensor: Tensor | None, expected: tuple[int, ...]) -> None:
    if tensor is not None and tensor.shape != expected:
        raise ValueError(f"`{name}` must have shape {expected}, got {tuple(tensor.shape)}")


def _check_options(
    steps: int, guidance_scale: float, ip_cfg_scale: float, output_type: str, tensor_inputs: Sequence[str]
) -> None:
    if steps < 1:
        raise ValueError(f"`num_inference_steps` must be at least 1, got {steps}")
    if ip_cfg_scale < 0:
        raise ValueError(f"`ip_cfg_scale` must not be negative, got {ip_cfg_scale}")
    if ip_cfg_scale > 0 and guidance_scale <= 1:
        raise ValueError("`ip_cfg_scale` needs a `guidance_scale` above 1: it refines that guidance")
    if output_type not in get_args(OutputType):
        raise ValueError(f"`output_type` must be one of {get_args(OutputType)}, got {output_type!r}")
    if unknown := set(tensor_inputs) - {"latents"}:
        raise ValueError(f"`callback_on_step_end_tensor_inputs` may name 'latents' only, got {sorted(unknown)}")
