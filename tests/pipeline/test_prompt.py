from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaTokenizerFast

from pipeline.prompt import ENDING, IMAGE_TOKEN, TEMPLATE, TEXT_LENGTH, tokenize

CASES = ["woman", "empty_neg", "gradio"]


@pytest.fixture
def read(llava_tokenizer: Any, llava: Any) -> Any:
    def run(prompt: str, name: str = "object") -> Any:
        return tokenize(llava_tokenizer, prompt, name, image_token_id=llava.config.image_token_id)

    return run


@pytest.mark.parametrize("case", CASES)
def test_token_ids_equal_the_reference(
    case: str, read: Any, text_cases: dict[str, Any], text_io: dict[str, torch.Tensor]
) -> None:
    spec = text_cases[case]
    for side, prompt, name in (("pos", spec["prompt"], spec["name"]), ("neg", spec["negative"], "person")):
        tokens = read(prompt, name)
        expected = text_io[f"{case}.{side}.input_ids"][0][text_io[f"{case}.{side}.tok_mask"][0].bool()]
        assert list(tokens.ids) == expected.tolist()
        assert len(tokens.ids) == spec[f"n_tok_{side}"]


def test_the_template_is_the_reference_s(text_cases: dict[str, Any]) -> None:
    text = TEMPLATE + text_cases["woman"]["prompt"] + ENDING.format(name="object")
    assert text == text_cases["text_example"]


def test_the_crop_follows_the_tokenizer(read: Any, llava_tokenizer: Any) -> None:
    assert read("x").crop_start == len(llava_tokenizer(TEMPLATE).input_ids) == 95


@pytest.mark.parametrize("prompt", ["word " * 2000, "x" * 10_000, "日本語のとても長い説明。" * 800, "🎻" * 3000])
def test_an_overlong_prompt_loses_its_end_but_never_the_image(prompt: str, read: Any, llava: Any) -> None:
    tokens = read(prompt)
    assert tokens.kept == TEXT_LENGTH
    assert tokens.ids[-1] == llava.config.image_token_id
    assert tokens.ids[-7:] == read("").ids[-7:]
    assert tokens.ids[:200] == read(prompt[:400]).ids[:200]


@pytest.mark.parametrize("excess", [-2, -1, 0, 1, 2])
def test_prompts_around_the_limit(excess: int, read: Any) -> None:
    room = TEXT_LENGTH - read("").kept
    tokens = read(" a" * (room + excess))
    assert tokens.kept == TEXT_LENGTH + min(excess, 0)


@pytest.mark.parametrize("prompt", ["", " ", "\n\n\n", "a\x00b", "\u202e\ufeff", "Ünïcödé ß 漢字 🎻"])
def test_odd_prompts_keep_one_image_at_the_end(prompt: str, read: Any, llava: Any) -> None:
    ids = read(prompt).ids
    assert ids.count(llava.config.image_token_id) == 1
    assert ids[-1] == llava.config.image_token_id


def test_an_image_token_typed_by_the_user_is_dropped(read: Any) -> None:
    assert read(f"a {IMAGE_TOKEN}dog", f"dog{IMAGE_TOKEN}") == read("a dog", "dog")


def test_an_endless_subject_name_is_refused(read: Any) -> None:
    with pytest.raises(ValueError, match="`subject_name` is too long"):
        read("a dog", "very " * 500 + "long")


def test_another_image_token_is_refused(llava_tokenizer: Any) -> None:
    with pytest.raises(ValueError, match="LLaVA's config says 3"):
        tokenize(llava_tokenizer, "a dog", "dog", image_token_id=3)


def test_a_class_that_misreads_the_files_is_refused(golden_folder: Path, llava: Any) -> None:
    wrong = LlamaTokenizerFast.from_pretrained(golden_folder / "tiny_llava")
    with pytest.raises(ValueError, match="load it as PreTrainedTokenizerFast"):
        tokenize(wrong, "a dog", "dog", image_token_id=llava.config.image_token_id)
