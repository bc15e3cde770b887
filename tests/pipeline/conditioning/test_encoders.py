from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from pipeline.conditioning.clip_text import clip_text
from pipeline.conditioning.encoders import encode_pooled, encode_prompt, image_token_count
from pipeline.conditioning.identity_image import llava_view, rgb_pixels, white_pixels
from pipeline.conditioning.prompt import TEXT_LENGTH, PromptTokens, tokenize
from tests.harness.merged_llava import merged_states

CASES = ["woman", "empty_neg", "gradio"]


@pytest.mark.parametrize("case", CASES)
def test_all_831_rows_and_the_mask_equal_the_reference(
    case: str,
    llava: Any,
    llava_tokenizer: Any,
    identity: Any,
    text_cases: dict[str, Any],
    text_io: dict[str, Tensor],
    close: Any,
) -> None:
    spec, image_id = text_cases[case], llava.config.image_token_id
    positive = tokenize(llava_tokenizer, spec["prompt"], spec["name"], image_token_id=image_id)
    states, mask = encode_prompt(llava, positive, llava_view(rgb_pixels(identity, alpha="white"), 336))
    close("LLaVA hidden states, 831 rows", states, text_io[f"{case}.pos.hidden"], 1e-5)
    close("text masks", mask, text_io[f"{case}.pos.mask"], 0)
    assert int(mask.sum()) == spec["valid_pos"]

    negative = tokenize(llava_tokenizer, spec["negative"], "person", image_token_id=image_id)
    states, mask = encode_prompt(llava, negative, llava_view(white_pixels(), 336))
    close("LLaVA hidden states, 831 rows", states, text_io[f"{case}.neg.hidden"], 1e-5)
    close("text masks", mask, text_io[f"{case}.neg.mask_before_fix"], 0)


@pytest.mark.parametrize("prompt", ["", "海风 " * 60, "word " * 400, "x<|eot_id|>\x00é🎻"])
def test_states_of_any_prompt_equal_the_merge_of_transformers_4_41(
    prompt: str, llava: Any, llava_tokenizer: Any, identity: Any, close: Any
) -> None:
    view = llava_view(rgb_pixels(identity, alpha="white"), 336)
    tokens = tokenize(llava_tokenizer, prompt, "dog", image_token_id=llava.config.image_token_id)
    expected = merged_states(llava, list(tokens.ids), tokens.crop_start, view)
    states, mask = encode_prompt(llava, tokens, view)
    close("LLaVA hidden states, any prompt", states, expected[0], 1e-5)
    close("text masks", mask, expected[1], 0)


@pytest.mark.parametrize("case", CASES)
def test_pooled_prompt_equals_the_reference(
    case: str, clip: Any, clip_tokenizer: Any, text_cases: dict[str, Any], text_io: dict[str, Tensor], close: Any
) -> None:
    spec = text_cases[case]
    read: list[Tensor] = []
    hook = clip.register_forward_pre_hook(lambda _model, inputs: read.append(inputs[0]))
    for side, prompt in (("pos", spec["prompt"]), ("neg", spec["negative"])):
        pooled = encode_pooled(clip, clip_tokenizer, prompt, device=torch.device("cpu"))
        close("CLIP pooled", pooled, text_io[f"{case}.clip.{side}_pooled"], 1e-5)
    hook.remove()
    close("token ids, CLIP", read[0], text_io[f"{case}.clip.pos_ids"], 0)
    # CLIP is causal: it needs no mask. What the reference's covers, the text, is what comes before the padding.
    text_length = len(clip_tokenizer(clip_text(spec["prompt"])).input_ids)
    mask = (torch.arange(77) < text_length).long()[None]
    close("token masks, CLIP", mask, text_io[f"{case}.clip.pos_mask"], 0)


def test_image_features_equal_the_reference(llava: Any, identity: Any, text_io: dict[str, Tensor], close: Any) -> None:
    view = llava_view(rgb_pixels(identity, alpha="white"), 336)
    features = llava.get_image_features(
        pixel_values=view, vision_feature_layer=-2, vision_feature_select_strategy="default"
    ).pooler_output
    close("LLaVA image features", torch.stack(features), text_io["image_features"], 1e-5)


def test_a_prompt_beyond_clip_s_window_is_cut(clip: Any, clip_tokenizer: Any) -> None:
    pooled = encode_pooled(clip, clip_tokenizer, "word " * 2000, device=torch.device("cpu"))
    assert torch.isfinite(pooled).all()


@pytest.mark.parametrize(("strategy", "extra"), [("default", 0), ("full", 1)])
def test_row_counts_follow_the_vision_config(strategy: str, extra: int) -> None:
    """Another vision tower: 4 x 4 patches, with or without the class token, and another depth."""
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=32,
            patch_size=8,
        ),
        text_config=LlamaConfig(
            vocab_size=50,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=3,
            num_attention_heads=2,
            num_key_value_heads=1,
        ),
        image_token_index=49,
        vision_feature_select_strategy=strategy,
    )
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config).eval()
    tokens = PromptTokens(ids=(*range(10), 49), crop_start=4)
    states, mask = encode_prompt(model, tokens, torch.rand(1, 3, 32, 32))
    images = 16 + extra
    assert image_token_count(model.config) == images
    assert states.shape == (1, TEXT_LENGTH + images - 1, 16)
    assert mask.shape == states.shape[:2]
    valid = int(mask.sum())
    assert valid == 6 + images
    assert (states[:, valid:] == states[:, valid : valid + 1]).all()
    assert not torch.equal(states[:, valid - 1], states[:, valid])
