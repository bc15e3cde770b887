"""`HunyuanCustomPipeline`: an identity image and a prompt in, a video out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import torch
from diffusers import AutoencoderKLHunyuanVideo, FlowMatchEulerDiscreteScheduler, HunyuanVideoTransformer3DModel
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.utils import BaseOutput
from PIL import Image
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer, LlavaForConditionalGeneration, PreTrainedTokenizerFast

from pipeline import guidance
from pipeline.blocks import Rope
from pipeline.conditioning.encode import ConditionEncoder, Subject
from pipeline.conditioning.encoders import image_token_count
from pipeline.conditioning.identity_image import rgb_pixels
from pipeline.denoise import Interrupted, Sampling, block_count, denoise, sigma_schedule
from pipeline.fused.kernels import EAGER, Kernels
from pipeline.memory.dtypes import exact_float32
from pipeline.memory.stored_model import has_fp8_layers, load_stored
from pipeline.options import ALPHA, POSTERIOR, STEP_CACHE_THRESHOLD, StepCacheName
from pipeline.pacing import Pacer
from pipeline.parallel.plan import check_heads, sharing
from pipeline.parallel.ranks import Ranks
from pipeline.progress import ProgressCallback, StageProgress
from pipeline.rope import rotary_tables
from pipeline.shapes import LatentShape, PixelShape, Strides, TokenGrid
from pipeline.transformer import Branch
from pipeline.vae.codec import decode_chunks, decode_stream, decode_tile_count

OutputType: TypeAlias = Literal["latent", "pt", "np", "pil"]
Frames: TypeAlias = Tensor | np.ndarray | list[list[Image.Image]]
StepEndCallback: TypeAlias = Callable[["HunyuanCustomPipeline", int, Tensor, dict[str, Tensor]], dict[str, Tensor]]


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
    _callback_tensor_inputs = ("latents", "velocity")

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
        alpha: str = ALPHA,
        negative_subject_name: str = "person",
        reference_posterior: str = POSTERIOR,
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
        self._ranks: Ranks | None = None
        self._kernels = EAGER

    def enable_ranks(self, ranks: Ranks) -> None:
        """From now on denoise together with the other processes of `ranks`, which must make the same calls.

        Every rank gets the same latents. A callback that ends a call early must do so on all ranks at the same block.

        Raises:
            ValueError: the attention heads cannot be shared by so many ranks, not even with guidance.
        """
        check_heads(self.transformer, ranks.count, branches=2)
        self._ranks = ranks

    def enable_kernels(self, kernels: Kernels) -> None:
        """From now on denoise with them."""
        self._kernels = kernels

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> "HunyuanCustomPipeline":
        """As in diffusers, except for a transformer with fp8 layers, whose scales diffusers would not read."""
        stored = Path(pretrained_model_name_or_path) / "transformer"
        if "transformer" not in kwargs and has_fp8_layers(stored):
            dtype = kwargs.get("torch_dtype")
            dtype = dtype.get("transformer", dtype.get("default")) if isinstance(dtype, dict) else dtype
            kwargs["transformer"] = load_stored(HunyuanVideoTransformer3DModel, stored, dtype)
        return super().from_pretrained(pretrained_model_name_or_path, **kwargs)

    @property
    def interrupt(self) -> bool:
        """Set `_interrupt` to stop denoising at the next block; the latents of the last whole step are the result."""
        return self._interrupt

    @torch.no_grad()
    @exact_float32()
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
        start_step: int = 0,
        ref_latents: Tensor | None = None,
        step_cache: StepCacheName | None = None,
        step_cache_threshold: float = STEP_CACHE_THRESHOLD,
        output_type: OutputType = "pil",
        callback_on_step_end: StepEndCallback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        callback_on_progress: ProgressCallback | None = None,
        ip_cfg_scale: float = 0.0,
        return_dict: bool = True,
    ) -> HunyuanCustomPipelineOutput | tuple[Frames]:
        """Generates one video of `image`'s subject.

        height, width: multiples of 16; num_frames: 4n+1. guidance_scale: no guidance up to 1. ip_cfg_scale: guidance
        by the identity, off at 0. latents: the initial noise [1,16,T,h,w], or with a `start_step` what an interrupted
        run had before that step; ref_latents: the encoded identity image [1,16,1,h,w], already scaled. step_cache:
        "reference" reuses the blocks in 8 steps of 30; "first_block" decides by how the first one changes, against
        `step_cache_threshold`. callback_on_step_end: diffusers' protocol, over "latents" and "velocity", what the step
        predicted; `pipeline.preview.LatentPreviews` is one.
        callback_on_progress: called after every encoder pass, block and tile; an exception it raises
        ends the call and leaves the pipeline usable.
        """
        self._interrupt = False
        _check_types(prompt, negative_prompt, image)
        _check_names(output_type, callback_on_step_end_tensor_inputs)
        size = PixelShape(frames=num_frames, height=height, width=width)
        sampling = Sampling(
            steps=num_inference_steps,
            guidance_scale=guidance_scale,
            ip_cfg_scale=ip_cfg_scale,
            step_cache=step_cache,
            step_cache_threshold=step_cache_threshold,
            start_step=start_step,
        )
        if start_step > 0 and latents is None:
            raise ValueError("`start_step` needs the `latents` of the run to resume")
        subject = Subject(
            pixels=rgb_pixels(image, alpha=self.config.alpha),
            prompt=prompt,
            subject_name=subject_name,
            negative_prompt=(negative_prompt or "") if sampling.guided else None,
            negative_subject_name=self.config.negative_subject_name,
            reference=ref_latents,
            identity_guidance=ip_cfg_scale > 0,
        )
        try:
            noise = self.prepare_latents(size, generator, latents, ref_latents)
            branches = self.encode(subject, size, generator, callback_on_progress)
            denoised = self.denoise(
                noise,
                branches,
                sampling,
                callback_on_step_end,
                callback_on_progress,
                tensor_inputs=callback_on_step_end_tensor_inputs,
            )
            frames = self.decode(denoised, output_type, callback_on_progress)
        finally:
            self.maybe_free_model_hooks()
        return HunyuanCustomPipelineOutput(frames=frames) if return_dict else (frames,)

    def prepare_latents(
        self, size: PixelShape, generator: torch.Generator | None, latents: Tensor | None, ref_latents: Tensor | None
    ) -> Tensor:
        """The initial noise, fp32: `latents` or a draw. A CPU generator's draw means the same on every device."""
        shape = LatentShape.from_pixels(size, self._strides)
        channels = self.transformer.config.in_channels
        noise_size = (1, channels, shape.frames, shape.height, shape.width)
        _check_shape("latents", latents, noise_size)
        _check_shape("ref_latents", ref_latents, (1, channels, 1, shape.height, shape.width))
        if latents is None:
            drawn_on = "cpu" if generator is None else generator.device
            latents = torch.randn(noise_size, generator=generator, device=drawn_on, dtype=torch.float32)
        return latents.to(self._execution_device, torch.float32)

    def encode(
        self,
        subject: Subject,
        size: PixelShape,
        generator: torch.Generator | None = None,
        callback: ProgressCallback | None = None,
    ) -> list[Branch]:
        """Prompts and pictures -> the guidance branches."""
        encoder = ConditionEncoder(
            self,
            device=self._execution_device,
            posterior=self.config.reference_posterior,
            generator=generator,
            callback=callback,
        )
        conditions = encoder.encode(subject, size)
        return guidance.branches(self.transformer, conditions, image_tokens=image_token_count(self.text_encoder.config))

    def denoise(
        self,
        noise: Tensor,
        branches: Sequence[Branch],
        sampling: Sampling,
        on_step_end: StepEndCallback | None = None,
        callback: ProgressCallback | None = None,
        *,
        tensor_inputs: Sequence[str] = ("latents",),
    ) -> Tensor:
        """Noise [1,16,T,h,w] -> latents of the video; up to the last whole step if interrupted."""
        pacer = Pacer(noise.device)
        share = sharing(self.transformer, self._rotary_tables(noise, branches), branches, self._ranks)
        own_branches = len(share.rows(len(branches)))
        progress = StageProgress("denoise", block_count(self.transformer, own_branches, sampling), callback)

        def on_block() -> None:
            pacer()
            progress.advance()
            if self._interrupt:
                raise Interrupted

        def on_step(step: int, timestep: Tensor, latents: Tensor, velocity: Tensor) -> Tensor:
            if on_step_end is None:
                return latents
            tensors = {"latents": latents, "velocity": velocity}
            asked = {name: tensors[name] for name in tensor_inputs}
            return on_step_end(self, step, timestep, asked).get("latents", latents)

        return denoise(
            self.transformer,
            noise,
            branches,
            share=share,
            schedule=sigma_schedule(self.scheduler, sampling.steps),
            sampling=sampling,
            on_block=on_block,
            on_step=on_step,
            kernels=self._kernels,
        )

    def _rotary_tables(self, noise: Tensor, branches: Sequence[Branch]) -> Rope:
        """One pair of tables for all branches, long enough for the longest text."""
        config = self.transformer.config
        grid = TokenGrid.from_latents(LatentShape(*noise.shape[2:]), self._strides)
        text_rows = max(branch.valid for branch in branches)
        cos, sin = rotary_tables(grid, config.rope_axes_dim, config.rope_theta, text_rows=text_rows)
        return cos.to(noise.device), sin.to(noise.device)

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

    @property
    def _strides(self) -> Strides:
        return Strides.of(self.vae.config, self.transformer.config)


def _check_types(prompt: str, negative_prompt: str | None, image: Image.Image) -> None:
    for name, value in (("prompt", prompt), ("negative_prompt", negative_prompt or "")):
        if not isinstance(value, str):
            raise TypeError(f"`{name}` must be one string, got {type(value).__name__}")
    if not isinstance(image, Image.Image):
        raise TypeError(f"`image` must be a PIL image, got {type(image).__name__}")


def _check_shape(name: str, tensor: Tensor | None, expected: tuple[int, ...]) -> None:
    if tensor is not None and tensor.shape != expected:
        raise ValueError(f"`{name}` must have shape {expected}, got {tuple(tensor.shape)}")


def _check_names(output_type: str, tensor_inputs: Sequence[str]) -> None:
    if output_type not in get_args(OutputType):
        raise ValueError(f"`output_type` must be one of {get_args(OutputType)}, got {output_type!r}")
    known = HunyuanCustomPipeline._callback_tensor_inputs
    if unknown := set(tensor_inputs) - set(known):
        raise ValueError(f"`callback_on_step_end_tensor_inputs` must be among {known}, got {sorted(unknown)}")
