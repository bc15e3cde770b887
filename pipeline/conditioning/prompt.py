"""The text LLaVA reads: a fixed template around the prompt, with the identity image at the very end.

The first `crop_start` tokens, BOS included, are the template's; their hidden states are cut off later.
"""

from dataclasses import dataclass

from pipeline.components import Tokenizer
from weights.originals.prompt_template import TEMPLATE

IMAGE_TOKEN = "<image>"  # noqa: S105 - not a password

# Room for prompt and ending, counted from the end of the template: the text length the transformer was trained with.
TEXT_LENGTH = 256

ENDING = "<|eot_id|>\nThe {name} looks like" + IMAGE_TOKEN


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

    An `<image>` typed by the user is dropped: the template has one image, at its end.
    """
    prompt, subject_name = (_without_image(text) for text in (prompt, subject_name))
    _check_tokenizer(tokenizer, image_token_id)
    crop_start = len(_ids(tokenizer, TEMPLATE))
    # The ending opens with a special token, so it reads the same on its own as after any prompt.
    ending = _ids(tokenizer, ENDING.format(name=subject_name), special=False)
    if len(ending) > TEXT_LENGTH:
        raise ValueError(f"`subject_name` is too long: {len(ending)} of {TEXT_LENGTH} tokens with its sentence")
    ids = _ids(tokenizer, TEMPLATE + prompt + ENDING.format(name=subject_name))
    body = ids[: len(ids) - len(ending)][: crop_start + TEXT_LENGTH - len(ending)]
    return PromptTokens(ids=(*body, *ending), crop_start=crop_start)


def _without_image(text: str) -> str:
    """Repeated until none is left: removing one may join the halves of another."""
    while IMAGE_TOKEN in text:
        text = text.replace(IMAGE_TOKEN, "")
    return text


def _check_tokenizer(tokenizer: Tokenizer, image_token_id: int) -> None:
    """Some classes load Llama-3's files and silently misread text: LlamaTokenizerFast of transformers 5 does."""
    ids = _ids(tokenizer, TEMPLATE + IMAGE_TOKEN, special=False)
    if ids[-1] != image_token_id:
        raise ValueError(f"the tokenizer reads {IMAGE_TOKEN} as {ids[-1]}, LLaVA's config says {image_token_id}")
    if tokenizer.decode(ids[:-1], clean_up_tokenization_spaces=False) != TEMPLATE:
        raise ValueError(
            f"{type(tokenizer).__name__} does not give the prompt's template back; load it as PreTrainedTokenizerFast"
        )


def _ids(tokenizer: Tokenizer, text: str, *, special: bool = True) -> list[int]:
    """`special`: whether the tokenizer puts its beginning-of-text token in front."""
    return list(tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"])
