"""Text as CLIP's tokenizer of transformers 4.41 read it, which is what the transformer was trained with.

That tokenizer went through BERT's basic tokenizer first: ideographs stand alone, control and format characters go,
accents stay. The one of transformers 5 does not, and would give Chinese and Japanese prompts other ids.
"""

import unicodedata

from transformers import BasicTokenizer

from pipeline.components import Tokenizer

_WORDS = BasicTokenizer(do_lower_case=False, strip_accents=False, do_split_on_punc=False)


def clip_ids(tokenizer: Tokenizer, prompt: str, length: int) -> list[int]:
    """Exactly `length` ids: beginning, text (its end cut off where it is too long), end, padding."""
    ids = list(tokenizer(clip_text(prompt), verbose=False)["input_ids"])
    if len(ids) > length:
        ids = [*ids[: length - 1], tokenizer.eos_token_id]
    return ids + [tokenizer.pad_token_id] * (length - len(ids))


def clip_text(prompt: str) -> str:
    """Words in lower case with one space between them; an ideograph is a word."""
    return " ".join(_lower(word) for word in _WORDS.tokenize(prompt))


def _lower(word: str) -> str:
    """Here and not by the tokenizer, which goes letter by letter and knows no final sigma.

    It composes before it lowers, as 4.41 did; what lowering makes composable (J\u030c) is left to it.
    """
    lowered = word.lower()
    return lowered if unicodedata.is_normalized("NFC", lowered) else word
