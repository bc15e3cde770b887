"""Questions to LLaVA about a picture, answered word by word or by yes and no.

The format is the one that llava-llama-3-8b-v1_1 was trained with: Llama 3's turns, no system turn, the picture at the
beginning of the question. Its model card (xtuner/llava-llama-3-8b-v1_1-transformers) shows it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache

from pipeline.components import Llava, Tokenizer
from pipeline.conditioning.encoders import image_features
from pipeline.conditioning.plain_text import ids_of, plain_ids
from pipeline.conditioning.prompt import END_OF_TURN
from pipeline.memory.placement import onloaded

_HEADER = "<|start_header_id|>{role}<|end_header_id|>"
_YES, _NO = ("Yes", "yes", "YES"), ("No", "no", "NO")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """`text` and `answer_begins` are text, of a user or ours: markers in them mean nothing.

    `picture` [1,3,S,S] as `llava_view` makes it, or None. `answer_begins` is put into the model's mouth: its answer
    goes on from there.
    """

    text: str
    picture: Tensor | None = None
    answer_begins: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """`ids` without the marker at the end; `complete` when the model came to an end of its own."""

    ids: tuple[int, ...]
    text: str
    complete: bool


class ChatModel:
    """Answers with the weights of a pipeline's `text_encoder`, on `device`; it has none of its own.

    The most likely token is taken every time, so a question has one answer. A question brings the weights to the
    device, where they stay for the next one (`memory/placement.py`).
    """

    def __init__(self, text_encoder: Llava, tokenizer: Tokenizer, device: torch.device) -> None:
        self._model = text_encoder
        self._tokenizer = tokenizer
        self._device = device
        self._ends = [*ids_of(tokenizer, END_OF_TURN), tokenizer.eos_token_id]

    @torch.no_grad()
    def generate(
        self,
        question: Question,
        *,
        limit: int,
        minimum: int = 0,
        on_token: Callable[[], None] = lambda: None,
    ) -> Answer:
        """At most `limit` tokens; no end before `minimum`. What `on_token` raises after a token ends the call.

        The markers of the tokenizer are never generated, nor are the rows of the vocabulary that stand for nothing.
        """
        ids: list[int] = []
        cache = DynamicCache()
        with onloaded(self._model):
            logits = self._logits(self._embedded(question), cache)
            forbidden = self._forbidden(len(logits))
            while len(ids) < limit:
                forbidden[self._ends] = len(ids) < minimum
                chosen = int(logits.masked_fill(forbidden, -torch.inf).argmax())
                on_token()
                if chosen in self._ends:
                    break
                ids.append(chosen)
                if len(ids) < limit:
                    logits = self._logits(self._embedding([chosen]), cache)
        return Answer(tuple(ids), self._text(ids), complete=len(ids) < limit)

    @torch.no_grad()
    def yes_or_no(self, question: Question) -> bool:
        """Whether "yes" is the likelier first word of the answer."""
        with onloaded(self._model):
            logits = self._logits(self._embedded(question), DynamicCache())
        yes, no = (logits[[ids_of(self._tokenizer, word)[0] for word in words]].logsumexp(0) for words in (_YES, _NO))
        return bool(yes > no)

    def _embedded(self, question: Question) -> Tensor:
        """[1,N,D]: the turn of the user, the header of the model's and the beginning of its answer."""
        tokenizer = self._tokenizer
        before = list(tokenizer(_HEADER.format(role="user"), verbose=False)["input_ids"])  # BOS in front
        after = ids_of(tokenizer, END_OF_TURN + _HEADER.format(role="assistant"))
        after += plain_ids(tokenizer, "\n\n" + question.answer_begins)
        if question.picture is None:
            return self._embedding([*before, *plain_ids(tokenizer, "\n\n" + question.text), *after])
        picture = image_features(self._model, question.picture.to(self._device))
        text = plain_ids(tokenizer, "\n" + question.text)
        return torch.cat(
            [self._embedding([*before, *ids_of(tokenizer, "\n\n")]), picture, self._embedding([*text, *after])], dim=1
        )

    def _embedding(self, ids: list[int]) -> Tensor:
        return self._model.get_input_embeddings()(torch.tensor([ids], device=self._device))

    def _logits(self, embeds: Tensor, cache: DynamicCache) -> Tensor:
        """[V], fp32, of the token after `embeds`, which follow on what `cache` holds."""
        states = self._model.model.language_model(
            inputs_embeds=embeds, past_key_values=cache, use_cache=True
        ).last_hidden_state
        return self._model.lm_head(states[:, -1:])[0, 0].float()

    def _forbidden(self, vocabulary: int) -> Tensor:
        forbidden = torch.arange(vocabulary, device=self._device) >= len(self._tokenizer)
        forbidden[list(self._tokenizer.get_added_vocab().values())] = True
        return forbidden

    def _text(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, clean_up_tokenization_spaces=False)
