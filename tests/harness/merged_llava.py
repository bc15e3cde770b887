"""LLaVA's hidden states with prompt, image and padding merged as in transformers 4.41: an oracle for ours."""

from typing import Any

import torch
from torch import Tensor

TEXT_LENGTH = 256  # the reference pads to this many tokens after its template


def merged_states(llava: Any, ids: list[int], crop: int, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
    """`ids` of a whole prompt with one image token -> states [1,R,D] and mask [1,R] after `crop` template tokens.

    Every padding row is computed; embeddings are zero wherever an id is the padding's.
    """
    config = llava.config
    padded = torch.tensor(ids + [config.pad_token_id] * (crop + TEXT_LENGTH - len(ids)))
    present = torch.arange(len(padded)) < len(ids)
    features = llava.get_image_features(
        pixel_values=pixel_values,
        vision_feature_layer=config.vision_feature_layer,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
    ).pooler_output[0]
    text = llava.get_input_embeddings()(padded).masked_fill((padded == config.pad_token_id)[:, None], 0)
    at = int((padded == config.image_token_id).nonzero())
    embeds = torch.cat([text[:at], features, text[at + 1 :]])
    seen = torch.cat([present[:at], torch.ones(len(features), dtype=torch.bool), present[at + 1 :]])
    positions = (seen.long().cumsum(0) - 1).masked_fill(~seen, 1)
    hidden = llava.model.language_model(
        inputs_embeds=embeds[None],
        attention_mask=seen[None].long(),
        position_ids=positions[None],
        output_hidden_states=True,
        use_cache=False,
    ).hidden_states[-3]
    mask = torch.cat([present, torch.ones(len(features) - 1, dtype=torch.bool)]).long()
    return hidden[:, crop:], mask[None, crop:]
