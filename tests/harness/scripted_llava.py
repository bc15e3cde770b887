"""A LLaVA that says what a test wants to hear: all of it runs, and its head then says the next token of a script."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from pipeline.conditioning.plain_text import plain_ids


def small_llava(tokenizer: Any) -> LlavaForConditionalGeneration:
    """Untrained, of four patches a picture: a hundredth of the time that the reference's tiny one takes."""
    vision = {"image_size": 28, "patch_size": 14, "hidden_size": 16, "intermediate_size": 16}
    text = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_key_value_heads": 1}
    torch.manual_seed(0)
    config = LlavaConfig(
        text_config=LlamaConfig(vocab_size=600, num_attention_heads=2, **text),
        vision_config=CLIPVisionConfig(num_hidden_layers=2, num_attention_heads=2, **vision),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    return LlavaForConditionalGeneration(config).eval()


@contextmanager
def saying(llava: Any, tokenizer: Any, *answers: str) -> Iterator[list[str]]:
    """One answer after the other, one for each question, an end of the turn behind each. Yields those still unsaid."""
    unsaid = list(answers)
    head = _Script(tokenizer, unsaid, llava.lm_head)
    hook = llava.model.language_model.register_forward_pre_hook(head.next_question, with_kwargs=True)
    try:
        llava.lm_head = head
        yield unsaid
    finally:
        hook.remove()
        llava.lm_head = head.real


@contextmanager
def preferring(llava: Any, ids: list[int], *, over: list[int] | None = None) -> Iterator[None]:
    """Every token is one of `ids`, if that is allowed, and none of `over`."""
    real = llava.lm_head
    llava.lm_head = torch.nn.Linear(real.in_features, real.out_features)
    try:
        with torch.no_grad():
            llava.lm_head.bias[ids] = 1e3
            llava.lm_head.bias[over or []] = -1e3
        yield
    finally:
        llava.lm_head = real


class _Script(torch.nn.Module):
    def __init__(self, tokenizer: Any, unsaid: list[str], real: torch.nn.Linear) -> None:
        super().__init__()
        self.real = real
        self._tokenizer = tokenizer
        self._unsaid = unsaid
        self._tokens: list[int] = []

    def next_question(self, _module: Any, _args: Any, kwargs: dict[str, Any]) -> None:
        """A forward over more than one token opens a question."""
        if kwargs.get("use_cache") and kwargs["inputs_embeds"].shape[1] > 1:
            end = self._tokenizer.convert_tokens_to_ids("<|eot_id|>")
            self._tokens = [*plain_ids(self._tokenizer, self._unsaid.pop(0)), end]

    def forward(self, states: Tensor) -> Tensor:
        logits = torch.zeros(*states.shape[:2], self.real.out_features)
        logits[..., self._tokens.pop(0) if self._tokens else 0] = 1
        return logits
