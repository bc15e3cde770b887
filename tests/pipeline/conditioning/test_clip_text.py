"""Prompts of any language get the ids that CLIP's tokenizer of transformers 4.41 gave them."""

from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.conditioning.clip_text import clip_ids, clip_text
from tests.harness.slow_clip import slow_clip_ids

TEXTS = {
    "A woman is drinking coffee at a café.": "a woman is drinking coffee at a café.",
    "日本語のダンス": "日 本 語 のダンス",  # ideographs only: kana are words
    "海风lifts 他的scarf": "海 风 lifts 他 的 scarf",
    "豈𠀀": "豈 𠀀",  # compatibility ideographs and the second plane; NFC maps the former
    "서울의 밤": "서울의 밤",
    "Привет, МИР": "привет, мир",
    "ΣΙΣΥΦΟΣ": "σισυφος",
    "cafe\u0301 CAFÉ": "café café",
    "J\u030c H": "J\u030c h",  # lowering it here would let the tokenizer compose it
    "a\x00b\x07c\ufffdd": "abcd",
    "zero\u200bwidth\ufeff \u202eright": "zerowidth right",
    " a\t\tb\r\nc\u3000d\u2028e\x85f ": "a b c d ef",
    "don't; WE'LL": "don't; we'll",
    "🎻👩\u200d🦰": "🎻👩🦰",
    "": "",
}


@pytest.mark.parametrize(("prompt", "expected"), TEXTS.items())
def test_words_are_those_of_the_basic_tokenizer(prompt: str, expected: str) -> None:
    assert clip_text(prompt) == expected


@pytest.mark.parametrize("prompt", [*TEXTS, "漢" * 200, "word " * 200, "ﬁ ½ ２ Ⅷ ŉ नमस्ते สวัสดี مرحبا"])
def test_ids_are_those_of_the_slow_tokenizer(prompt: str, clip_tokenizer: Any, golden_folder: Path, close: Any) -> None:
    ids = clip_ids(clip_tokenizer, prompt, 77)
    expected = slow_clip_ids(golden_folder / "tiny_clip", prompt)
    close("token ids, CLIP, any language", torch.tensor(ids), torch.tensor(expected), 0)


def test_the_tokenizer_s_own_padding_and_truncation_do_not_matter(clip_tokenizer: Any) -> None:
    expected = [clip_ids(clip_tokenizer, prompt, 77) for prompt in ("a dog", "word " * 200)]
    sides = clip_tokenizer.padding_side, clip_tokenizer.truncation_side
    clip_tokenizer.padding_side = clip_tokenizer.truncation_side = "left"
    clip_tokenizer.backend_tokenizer.enable_padding(length=9, direction="left")
    clip_tokenizer.backend_tokenizer.enable_truncation(5)
    try:
        assert [clip_ids(clip_tokenizer, prompt, 77) for prompt in ("a dog", "word " * 200)] == expected
    finally:
        clip_tokenizer.padding_side, clip_tokenizer.truncation_side = sides


@pytest.mark.parametrize(
    "prompt", ["a <|endoftext|> dog", "a<|startoftext|>dog", "a <|ENDOFTEXT|> dog", "J\u030c<|ENDOFTEXT|>"]
)
def test_a_marker_typed_by_the_user_is_text(prompt: str, clip_tokenizer: Any) -> None:
    """The reference's CLIP reads nothing that stands behind it."""
    ids = clip_ids(clip_tokenizer, prompt, 77)
    text = ids[1 : ids.index(clip_tokenizer.eos_token_id)]
    assert not {clip_tokenizer.bos_token_id, clip_tokenizer.eos_token_id} & set(text)
    assert "text|>" in clip_tokenizer.decode(text).replace(" ", "")
