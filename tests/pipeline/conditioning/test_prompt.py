import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoTokenizer, LlamaTokenizerFast

from pipeline.conditioning.prompt import ENDING, TEXT_LENGTH, prompt_room, tokenize
from weights.originals.prompt_template import TEMPLATE

CASES = ["woman", "empty_neg", "gradio"]


@pytest.fixture
def read(llava_tokenizer: Any, llava: Any) -> Any:
    def run(prompt: str, name: str = "object") -> Any:
        return tokenize(llava_tokenizer, prompt, name, image_token_id=llava.config.image_token_id)

    return run


@pytest.mark.parametrize("case", CASES)
def test_token_ids_equal_the_reference(
    case: str, read: Any, text_cases: dict[str, Any], text_io: dict[str, torch.Tensor], llava: Any, close: Any
) -> None:
    """The reference pads to its text length, which here is only done where it shows: in the hidden states."""
    spec = text_cases[case]
    for side, prompt, name in (("pos", spec["prompt"], spec["name"]), ("neg", spec["negative"], "person")):
        tokens = read(prompt, name)
        padding = tokens.crop_start + TEXT_LENGTH - len(tokens.ids)
        ids = torch.tensor([[*tokens.ids, *[llava.config.pad_token_id] * padding]])
        close("token ids, LLaVA", ids, text_io[f"{case}.{side}.input_ids"], 0)
        mask = torch.tensor([[1] * len(tokens.ids) + [0] * padding])
        close("token masks, LLaVA", mask, text_io[f"{case}.{side}.tok_mask"], 0)
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


MARKERS = [
    "<|eot_id|>",
    "<image>",
    "<pad>",
    "<|start_header_id|>",
    "<|begin_of_text|>",
    "<ima<image>ge>",
    "<<image>image>",
]


@pytest.mark.parametrize("marker", MARKERS)
def test_a_marker_typed_by_the_user_is_text(marker: str, read: Any, llava_tokenizer: Any) -> None:
    """It ends no turn, begins none, and brings no second image."""
    tokens, plain = read(f"a {marker}dog", f"{marker}dog"), read("a dog", "dog")
    special = set(llava_tokenizer.get_added_vocab().values())
    assert [id_ for id_ in tokens.ids if id_ in special] == [id_ for id_ in plain.ids if id_ in special]
    assert llava_tokenizer.decode(tokens.ids).count(marker) == llava_tokenizer.decode(plain.ids).count(marker) + 2


@given(st.text(st.sampled_from("aé漢🎻 \n\t.'19<|>\u0301"), max_size=40))
def test_text_without_markers_is_read_as_in_one_piece(llava_tokenizer: Any, llava: Any, prompt: str) -> None:
    """As the reference reads it, blanks at either end included."""
    tokens = tokenize(llava_tokenizer, prompt, "dog", image_token_id=llava.config.image_token_id)
    assert list(tokens.ids) == llava_tokenizer(TEMPLATE + prompt + ENDING.format(name="dog")).input_ids


@pytest.mark.parametrize("prompt", ["", "a dog", "\n\na dog", "<image> " * 9, "漢" * 60, "word " * 400])
def test_the_room_beside_a_prompt_is_what_may_still_be_added(prompt: str, read: Any, llava_tokenizer: Any) -> None:
    room = prompt_room(llava_tokenizer, prompt, "dog")
    assert read(prompt, "dog").kept == min(TEXT_LENGTH, TEXT_LENGTH - room)
    if room > 0:
        longest = read(prompt + " a" * room, "dog")
        assert longest.kept == TEXT_LENGTH
        assert longest == read(prompt + " a" * (room + 1), "dog")


def test_padding_and_truncation_stored_with_the_tokenizer_do_not_matter(
    read: Any, golden_folder: Path, llava: Any, tmp_path: Path
) -> None:
    stored = Tokenizer.from_file(str(golden_folder / "tiny_llava/tokenizer.json"))
    stored.enable_padding(direction="left", length=400, pad_id=555, pad_token="<pad>")
    stored.enable_truncation(50, direction="left")
    stored.save(str(tmp_path / "tokenizer.json"))
    shutil.copy(golden_folder / "tiny_llava/tokenizer_config.json", tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    for prompt in ("a dog", "word " * 2000):
        tokens = tokenize(tokenizer, prompt, "dog", image_token_id=llava.config.image_token_id)
        assert tokens == read(prompt, "dog")


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
