"""The encode stage: prompts and pictures through LLaVA, CLIP and the VAE."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.components import ConditioningModels
from pipeline.conditioning.encoders import TextStates, encode_pooled, encode_prompt
from pipeline.conditioning.identity_image import llava_view, vae_view, white_pixels
from pipeline.conditioning.prompt import tokenize
from pipeline.memory.placement import onloaded
from pipeline.options import Posterior
from pipeline.progress import ProgressCallback, StageProgress
from pipeline.shapes import PixelShape
from pipeline.vae import codec as vae


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What the video shall show.

    `negative_prompt` None: no guidance. `reference` [1,16,1,h,w], already scaled, replaces encoding `pixels`.
    """

    pixels: NDArray[np.uint8]
    prompt: str
    subject_name: str
    negative_prompt: str | None
    negative_subject_name: str
    reference: Tensor | None
    identity_guidance: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """A subject, encoded. Latents fp32 [1,16,1,h,w] in the transformer's scale.

    `negative` None: no guidance; `white`, the latent of a white image, None: no guidance by the identity.
    """

    positive: TextStates
    negative: TextStates | None
    identity: Tensor
    white: Tensor | None


class ConditionEncoder:
    """Runs the encoders of one pipeline for one request, reporting each pass and tile."""

    def __init__(
        self,
        models: ConditioningModels,
        *,
        device: torch.device,
        posterior: Posterior,
        generator: torch.Generator | None,
        callback: ProgressCallback | None,
    ) -> None:
        self._models = models
        self._device = device
        self._posterior: Posterior = posterior
        self._generator = generator
        self._callback = callback

    def encode(self, subject: Subject, size: PixelShape) -> Conditions:
        """Prompts first, then pictures; the VAE reads those in the size of the video."""
        white = white_pixels()
        guided = subject.negative_prompt is not None
        pictures = [] if subject.reference is not None else [subject.pixels]
        pictures += [white] if subject.identity_guidance else []
        views = [vae_view(picture, size.height, size.width).to(self._device) for picture in pictures]
        tiles = sum(vae.encode_tiling(self._models.vae).count(*view.shape[2:]) for view in views)
        progress = StageProgress("encode", 2 * (1 + guided) + tiles, self._callback)

        texts = self._texts(subject, white, progress)
        references = [self._reference(view, progress) for view in views]
        if subject.reference is not None:
            references.insert(0, subject.reference.to(self._device, torch.float32))
        return Conditions(
            positive=texts[0],
            negative=texts[1] if guided else None,
            identity=references[0],
            white=references[1] if subject.identity_guidance else None,
        )

    def _texts(self, subject: Subject, white: NDArray[np.uint8], progress: StageProgress) -> list[TextStates]:
        """The prompt, and the negative prompt if there is one. One model after the other, so that each comes once."""
        models, config = self._models, self._models.text_encoder.config
        asked = [(subject.prompt, subject.subject_name, subject.pixels)]
        if subject.negative_prompt is not None:
            asked.append((subject.negative_prompt, subject.negative_subject_name, white))
        states, pooled = [], []
        with onloaded(models.text_encoder):
            for prompt, name, pixels in asked:
                tokens = tokenize(models.tokenizer, prompt, name, image_token_id=config.image_token_id)
                view = llava_view(pixels, config.vision_config.image_size).to(self._device)
                states.append(encode_prompt(models.text_encoder, tokens, view))
                progress.advance()
        with onloaded(models.text_encoder_2):
            for prompt, _, _ in asked:
                pooled.append(encode_pooled(models.text_encoder_2, models.tokenizer_2, prompt, device=self._device))
                progress.advance()
        return [TextStates(*state, vector) for state, vector in zip(states, pooled, strict=True)]

    def _reference(self, view: Tensor, progress: StageProgress) -> Tensor:
        return vae.encode_reference(
            self._models.vae, view, posterior=self._posterior, generator=self._generator, on_tile=progress.advance
        )
