"""What a request's video is described with: its prompt, expanded or not, and the name of its subject."""

import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import torch
from PIL import Image
from torch import Tensor

from pipeline.components import Llava, Tokenizer
from pipeline.conditioning.identity_image import llava_view, rgb_pixels
from pipeline.conditioning.prompt import TEXT_LENGTH, prompt_room
from pipeline.language.chat import ChatModel, Question
from pipeline.language.expansion import LEAST_ROOM, NotExpanded, begun, expanded, expansion_question
from pipeline.language.subject_name import NAME_TOKENS, UNNAMED, accepted_name, name_question
from pipeline.memory.placement import onloaded
from pipeline.options import Alpha
from pipeline.progress import ProgressCallback, StageProgress

logger = logging.getLogger(__name__)

_REMEMBERED: Final = 256  # requests: a few hundred bytes each


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """`problem`: why a prompt that was to be expanded is the user's own."""

    prompt: str
    subject_name: str
    expanded: bool = False
    problem: str | None = None


class PromptWriter(Protocol):
    """Real: LLaVA (below). In the demo: rules (`rules.py`). The same request gets the same words."""

    method: str
    """How, in the job's log: "by ..."."""

    def write(self, prompt: str, image: Image.Image, *, expand: bool, callback: ProgressCallback | None) -> Words:
        """An exception that `callback` raises ends the call."""


class LlavaWriter:
    """Asks the LLaVA that the pipeline encodes prompts with: no weights of its own.

    Under every memory plan it is on the device as a whole while it writes. `limit_s` holds for both questions
    together; `clock` gives seconds.
    """

    method = "by LLaVA"

    def __init__(
        self,
        text_encoder: Llava,
        tokenizer: Tokenizer,
        *,
        device: torch.device,
        alpha: Alpha,
        limit_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model = text_encoder
        self._tokenizer = tokenizer
        self._chat = ChatModel(text_encoder, tokenizer, device)
        self._alpha: Alpha = alpha
        self._limit_s = limit_s
        self._clock = clock
        self._written: OrderedDict[tuple[str, bool, str], Words] = OrderedDict()

    def write(self, prompt: str, image: Image.Image, *, expand: bool, callback: ProgressCallback | None) -> Words:
        """The subject's name first: how long it is decides how much room there is."""
        picture = llava_view(rgb_pixels(image, alpha=self._alpha), self._model.config.vision_config.image_size)
        key = (prompt, expand, hashlib.sha256(picture.numpy().tobytes()).hexdigest())
        if key in self._written:
            self._written.move_to_end(key)
            return self._written[key]
        with onloaded(self._model):
            words, lasting = self._ask(prompt, picture, expand, callback)
        if lasting:
            self._written[key] = words
            if len(self._written) > _REMEMBERED:
                self._written.popitem(last=False)
        return words

    def _ask(self, prompt: str, picture: Tensor, expand: bool, callback: ProgressCallback | None) -> tuple[Words, bool]:
        """The words, and whether the same question would get them again."""
        watch = _Watch(StageProgress("expand", NAME_TOKENS + TEXT_LENGTH, callback), self._clock, self._limit_s)
        name = UNNAMED
        try:
            name = self._name(prompt, picture, watch)
            if expand:
                return self._expansion(prompt, name, picture, watch), True
            return Words(prompt=prompt, subject_name=name), True
        except TooSlow as error:
            problem = str(error)
        except Exception as error:
            if watch.interrupted or isinstance(error, torch.OutOfMemoryError | torch.AcceleratorError):
                raise
            logger.exception("the prompt could not be expanded")
            problem = type(error).__name__
        return Words(prompt=prompt, subject_name=name, problem=problem if expand else None), False

    def _name(self, prompt: str, picture: Tensor, watch: "_Watch") -> str:
        question = Question(text=name_question(prompt), picture=picture)
        return accepted_name(self._chat.generate(question, limit=NAME_TOKENS, on_token=watch).text, prompt)

    def _expansion(self, prompt: str, name: str, picture: Tensor, watch: "_Watch") -> Words:
        begin = begun(prompt)
        room = prompt_room(self._tokenizer, begin, name)
        try:
            if room < LEAST_ROOM:
                raise NotExpanded("it leaves no room")
            question = Question(text=expansion_question(prompt), picture=picture, answer_begins=begin)
            answer = self._chat.generate(question, limit=room, minimum=LEAST_ROOM // 2, on_token=watch)
            text = expanded(self._tokenizer, prompt, name, answer.text, ids=answer.ids, complete=answer.complete)
        except NotExpanded as reason:
            return Words(prompt=prompt, subject_name=name, problem=str(reason))
        return Words(prompt=text, subject_name=name, expanded=True)


class TooSlow(Exception):
    """The model has had its time."""


class _Watch:
    """Called after every token: reports it, and ends what takes too long. `interrupted`: by the callback."""

    def __init__(self, progress: StageProgress, clock: Callable[[], float], limit_s: float) -> None:
        self._progress = progress
        self._clock = clock
        self._limit_s = limit_s
        self._started = clock()
        self.interrupted = False

    def __call__(self) -> None:
        self.interrupted = True
        self._progress.advance()
        self.interrupted = False
        if self._clock() - self._started > self._limit_s:
            raise TooSlow(f"it took longer than {self._limit_s:g} s")
