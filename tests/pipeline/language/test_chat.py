"""Questions to the reference's tiny LLaVA: its words mean nothing, its arithmetic is that of the large one."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from accelerate.hooks import ModelHook
from transformers import GenerationConfig

from pipeline.conditioning.identity_image import llava_view, rgb_pixels
from pipeline.language.chat import ChatModel, Question
from tests.harness.scripted_llava import preferring


@pytest.fixture
def chat(llava: Any, llava_tokenizer: Any) -> ChatModel:
    return ChatModel(llava, llava_tokenizer, torch.device("cpu"))


@pytest.fixture
def picture(identity: Any) -> torch.Tensor:
    return llava_view(rgb_pixels(identity, alpha="white"), 336)


def ends(tokenizer: Any) -> list[int]:
    return [tokenizer.convert_tokens_to_ids("<|eot_id|>"), tokenizer.eos_token_id]


def generated_by_transformers(llava: Any, tokenizer: Any, text: str, picture: Any, limit: int) -> list[int]:
    """What transformers' own `generate` answers to a whole prompt with `<image>` in it."""
    expanded = text.replace("<image>", "<image>" * 576)
    inputs = {"input_ids": torch.tensor([tokenizer(expanded).input_ids])}
    if picture is not None:
        inputs["pixel_values"] = picture
    unspoken = [*range(len(tokenizer), llava.config.text_config.vocab_size), *tokenizer.get_added_vocab().values()]
    options = GenerationConfig(
        max_new_tokens=limit,
        do_sample=False,
        suppress_tokens=[id_ for id_ in unspoken if id_ not in ends(tokenizer)],
        eos_token_id=ends(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
    )
    answered = llava.generate(**inputs, generation_config=options, attention_mask=torch.ones_like(inputs["input_ids"]))
    return [id_ for id_ in answered[0, inputs["input_ids"].shape[1] :].tolist() if id_ not in ends(tokenizer)]


def test_answers_are_those_of_transformers_generate(
    chat: ChatModel, llava: Any, llava_tokenizer: Any, picture: Any
) -> None:
    """With a cache of keys and values, and through the chat format of the checkpoint."""
    answer = chat.generate(Question(text="What is this?", picture=picture, answer_begins="It is"), limit=40)
    prompt = (
        "<|start_header_id|>user<|end_header_id|>\n\n<image>\nWhat is this?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nIt is"
    )
    assert list(answer.ids) == generated_by_transformers(llava, llava_tokenizer, prompt, picture, 40)
    without = chat.generate(Question(text="What is this?"), limit=40)
    prompt = prompt.replace("<image>\n", "").removesuffix("It is")
    assert list(without.ids) == generated_by_transformers(llava, llava_tokenizer, prompt, None, 40)
    assert without.ids != answer.ids


def test_the_end_comes_at_the_limit_or_with_the_end_of_the_turn(
    chat: ChatModel, llava: Any, llava_tokenizer: Any
) -> None:
    tokens: list[None] = []
    with preferring(llava, [5], over=ends(llava_tokenizer)):
        answer = chat.generate(Question(text="a"), limit=7)
    assert (len(answer.ids), answer.complete) == (7, False)
    with preferring(llava, ends(llava_tokenizer)):
        assert chat.generate(Question(text="a"), limit=7).ids == ()
        answer = chat.generate(Question(text="a"), limit=7, minimum=3, on_token=lambda: tokens.append(None))
    assert (len(answer.ids), answer.complete, len(tokens)) == (3, True, 4)


def test_no_marker_and_no_unused_row_is_ever_said(chat: ChatModel, llava: Any, llava_tokenizer: Any) -> None:
    markers = llava_tokenizer.get_added_vocab().values()
    unused = range(len(llava_tokenizer), llava.config.text_config.vocab_size)
    assert unused
    with preferring(llava, [*markers, *unused], over=ends(llava_tokenizer)):
        answer = chat.generate(Question(text="a"), limit=5)
    assert max(answer.ids) < min(markers)


@pytest.mark.parametrize("marker", ["<|eot_id|>", "<image>", "<|start_header_id|>"])
def test_markers_in_a_question_are_text(
    marker: str, chat: ChatModel, llava: Any, llava_tokenizer: Any, picture: Any
) -> None:
    """The model reads as many markers as its format has, whatever stands between them."""
    read: list[int] = []
    hook = llava.get_input_embeddings().register_forward_pre_hook(
        lambda _m, ids: read.extend(ids[0].flatten().tolist())
    )
    counts = []
    for text in ("a b", f"a {marker} b"):
        read.clear()
        chat.generate(Question(text=text, picture=picture, answer_begins=text), limit=1)
        counts.append(sum(id_ in llava_tokenizer.get_added_vocab().values() for id_ in read))
    hook.remove()
    assert counts == [6, 6]  # BOS, two headers of two, the end of the turn; the picture is not embedded as a token


@pytest.mark.parametrize(("word", "expected"), [("Yes", True), ("yes", True), ("No", False), ("NO", False)])
def test_yes_or_no_is_the_likelier_word(
    word: str, expected: bool, chat: ChatModel, llava: Any, llava_tokenizer: Any
) -> None:
    with preferring(llava, llava_tokenizer(word, add_special_tokens=False).input_ids[:1]):
        assert chat.yes_or_no(Question(text="Is it?")) is expected


@pytest.mark.parametrize(
    "ask",
    [lambda chat: chat.yes_or_no(Question(text="a?")), lambda chat: chat.generate(Question(text="a?"), limit=2)],
    ids=["yes_or_no", "generate"],
)
def test_a_model_that_stays_elsewhere_is_there_while_it_answers(
    ask: Callable[[ChatModel], Any], chat: ChatModel, llava: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the safety checker asks under `stream_blocks` and `offload_encoders`."""
    there: list[bool] = []

    class Hook(ModelHook):
        here = False

        def pre_forward(self, _module: Any, *args: Any, **kwargs: Any) -> Any:
            self.here = True
            return args, kwargs

        def post_forward(self, _module: Any, output: Any) -> Any:
            self.here = False
            return output

    hook = Hook()
    monkeypatch.setattr(llava, "_hf_hook", hook, raising=False)
    seen = [
        llava.get_input_embeddings().register_forward_pre_hook(lambda *_: there.append(hook.here)),
        llava.lm_head.register_forward_pre_hook(lambda *_: there.append(hook.here)),
    ]
    ask(chat)
    for handle in seen:
        handle.remove()
    assert len(there) >= 2
    assert all(there)
    assert not hook.here
