"""The text LLaVA reads: a fixed template around the prompt, with the identity image at the very end.

The first `crop_start` tokens, BOS included, are the template's; their hidden states are cut off later.
"""

from dataclasses import dataclass

from pipeline.components import Tokenizer
from pipeline.conditioning.plain_text import ids_of, plain_ids
from weights.originals.prompt_template import TEMPLATE

IMAGE_TOKEN = "<image>"  # noqa: S105 - not a password

# Room for prompt and ending, counted from the end of the template: the text length the transformer was trained with.
TEXT_LENGTH = 256

END_OF_TURN = "<|eot_id|>"
SUBJECT_SENTENCE = "\nThe {name} looks like"
ENDING = END_OF_TURN + SUBJECT_SENTENCE + IMAGE_TOKEN

_BLANK_LINE = "\n\n"
_HEADER = TEMPLATE.removesuffix(_BLANK_LINE)


@dataclass(frozen=True, slots=True)
class PromptTokens:
    """`ids` end with the image token; the template occupies `ids[:crop_start]`."""

    ids: tuple[int, ...]
    crop_start: int

    @property
    def kept(self) -> int:
        """Tokens after the template, the image token counted as one."""
        return len(self.ids) - self.crop_start


def tokenize(tokenizer: Tokenizer, prompt: str, subject_name: str, *, image_token_id: int) -> PromptTokens:
    """A prompt that is too long loses its own end, never the ending of the template with the image.

    Markers in the prompt or the name are text. The reference reads them as markers: a prompt could end its own turn,
    and a second image failed.
    """
    _check_tokenizer(tokenizer, image_token_id)
    crop_start = len(_with_bos(tokenizer, TEMPLATE))
    ending = _ending(tokenizer, subject_name)
    if len(ending) > TEXT_LENGTH:
        raise ValueError(f"`subject_name` is too long: {len(ending)} of {TEXT_LENGTH} tokens with its sentence")
    # Blanks before the prompt may join those that end the template, so both are read together.
    ids = _with_bos(tokenizer, _HEADER) + plain_ids(tokenizer, _BLANK_LINE + prompt)
    return PromptTokens(ids=(*ids[: crop_start + TEXT_LENGTH - len(ending)], *ending), crop_start=crop_start)


def prompt_room(tokenizer: Tokenizer, prompt: str, subject_name: str) -> int:
    """How many tokens more than `prompt` are read; negative by as many as are cut off."""
    used = len(plain_ids(tokenizer, _BLANK_LINE + prompt)) - len(ids_of(tokenizer, _BLANK_LINE))
    return TEXT_LENGTH - len(_ending(tokenizer, subject_name)) - used


def _ending(tokenizer: Tokenizer, subject_name: str) -> list[int]:
    """It opens with a special token, so it reads the same on its own as after any prompt."""
    sentence = SUBJECT_SENTENCE.format(name=subject_name)
    return [
        *ids_of(tokenizer, END_OF_TURN),
        *plain_ids(tokenizer, sentence),
        *ids_of(tokenizer, IMAGE_TOKEN),
    ]


def _check_tokenizer(tokenizer: Tokenizer, image_token_id: int) -> None:
    """Some classes load Llama-3's files and silently misread text: LlamaTokenizerFast of transformers 5 does."""
    ids = ids_of(tokenizer, TEMPLATE + IMAGE_TOKEN)
    if ids[-1] != image_token_id:
        raise ValueError(f"the tokenizer reads {IMAGE_TOKEN} as {ids[-1]}, LLaVA's config says {image_token_id}")
    if tokenizer.decode(ids[:-1], clean_up_tokenization_spaces=False) != TEMPLATE:
        raise ValueError(
            f"{type(tokenizer).__name__} does not give the prompt's template back; load it as PreTrainedTokenizerFast"
        )


def _with_bos(tokenizer: Tokenizer, text: str) -> list[int]:
    """With what the tokenizer puts in front of every text: its beginning-of-text token."""
    return list(tokenizer(text, verbose=False)["input_ids"])
