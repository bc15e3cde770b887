"""Prompt and identity image -> text states (LLaVA) and pooled prompt (CLIP).

The R rows of the states are the kept prompt tokens, the image tokens, then padding: R = TEXT_LENGTH + image tokens - 1
(256 + 576 - 1 = 831 as published). The transformer was trained on what transformers 4.41 computed from that input,
which is peculiar in two ways that matter: padding rows enter the token refiner, and the mask marks the right number of
rows at the wrong positions.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.components import ClipText, Llava, LlavaConfig, Tokenizer
from pipeline.conditioning.clip_text import clip_ids
from pipeline.conditioning.prompt import TEXT_LENGTH, PromptTokens

# States are taken before the last two layers, without the final norm.
_HIDDEN_STATE = -3


@dataclass(frozen=True, slots=True)
class TextStates:
    """states [1,R,D]; mask [1,R] int64, read by position in the refiner, by sum in joint attention; pooled [1,P]."""

    states: Tensor
    mask: Tensor
    pooled: Tensor


def image_token_count(llava_config: LlavaConfig) -> int:
    """Vision tokens one image becomes: its patches, and the class token unless the config drops it."""
    vision = llava_config.vision_config
    return (vision.image_size // vision.patch_size) ** 2 + (llava_config.vision_feature_select_strategy == "full")


def encode_prompt(text_encoder: Llava, tokens: PromptTokens, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
    """pixel_values [1,3,S,S] normalised for CLIP -> states [1,R,D], mask [1,R]; R = TEXT_LENGTH + image tokens - 1."""
    config, device, dtype = text_encoder.config, pixel_values.device, text_encoder.dtype
    images = image_token_count(config)
    rows = TEXT_LENGTH + images - 1
    valid = tokens.kept - 1 + images
    ids = torch.tensor([tokens.ids[:-1]], device=device)
    text = text_encoder.get_input_embeddings()(ids)
    # 4.41 zeroes the embedding of every padding token, wherever it stands.
    padding = getattr(config, "pad_token_id", None)
    if padding is not None:
        text = text.masked_fill((ids == padding)[..., None], 0)
    image = image_features(text_encoder, pixel_values)
    # All padding rows are equal in 4.41: a zero embedding at position 1 that attends to every valid row and to no
    # padding row, itself included. One is computed and repeated.
    embeds = torch.cat([text, image, torch.zeros_like(text[:, :1])], dim=1)
    length = embeds.shape[1]
    position_ids = torch.arange(length, device=device)
    position_ids[-1] = 1
    visible = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    visible[:, -1] = False
    mask = torch.zeros(length, length, dtype=dtype, device=device).masked_fill(~visible, torch.finfo(dtype).min)
    hidden = text_encoder.model.language_model(
        inputs_embeds=embeds,
        attention_mask=mask[None, None],
        position_ids=position_ids[None],
        output_hidden_states=True,
        use_cache=False,
    ).hidden_states[_HIDDEN_STATE]
    kept, padding = hidden[:, tokens.crop_start : -1], hidden[:, -1:]
    states = torch.cat([kept, padding.expand(-1, rows - valid, -1)], dim=1)
    return states, _positional_mask(tokens.kept, images).to(device)


def image_features(text_encoder: Llava, pixel_values: Tensor) -> Tensor:
    """pixel_values [1,3,S,S] normalised for CLIP -> [1, image tokens, D], in the dtype of the text."""
    config, dtype = text_encoder.config, text_encoder.dtype
    features = text_encoder.get_image_features(
        pixel_values=pixel_values.to(dtype),
        vision_feature_layer=config.vision_feature_layer,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
    )
    return torch.stack(features.pooler_output).to(dtype)


def _positional_mask(kept: int, images: int) -> Tensor:
    """[1,R]: the mask of the tokens before the image was expanded, followed by one image's worth of ones. Its sum is
    right; its positions leave out image rows and include padding.
    """
    tokens = torch.arange(TEXT_LENGTH) < kept
    return torch.cat([tokens, torch.ones(images - 1, dtype=torch.bool)]).long()[None]


def encode_pooled(text_encoder_2: ClipText, tokenizer_2: Tokenizer, prompt: str, *, device: torch.device) -> Tensor:
    """The bare prompt -> [1,P], CLIP's state at the end of the text. Longer prompts are cut."""
    ids = clip_ids(tokenizer_2, prompt, text_encoder_2.config.max_position_embeddings)
    return text_encoder_2(torch.tensor([ids], device=device)).pooler_output
