"""Text as CLIP's tokenizer of transformers 4.41 read it, which is what the transformer was trained with.

That tokenizer applied BERT's basic tokenizer first: every ideograph becomes a word, control and format characters are
removed, accents are kept. The tokenizer of transformers 5 does not, and would give Chinese and Japanese prompts other
ids.
"""

import unicodedata

from transformers import BasicTokenizer

from pipeline.components import Tokenizer
from pipeline.conditioning.plain_text import plain_ids

_WORDS = BasicTokenizer(do_lower_case=False, strip_accents=False, do_split_on_punc=False)


def clip_ids(tokenizer: Tokenizer, prompt: str, length: int) -> list[int]:
    """Exactly `length` ids: beginning, text (its end cut off where it is too long), end, padding."""
    ids = [tokenizer.bos_token_id, *plain_ids(tokenizer, clip_text(prompt)), tokenizer.eos_token_id]
    if len(ids) > length:
        ids = [*ids[: length - 1], tokenizer.eos_token_id]
    return ids + [tokenizer.pad_token_id] * (length - len(ids))


def clip_text(prompt: str) -> str:
    """Words in lower case with one space between them; an ideograph is a word."""
    return " ".join(_lower(word) for word in _WORDS.tokenize(prompt))


def _lower(word: str) -> str:
    """Lowered here and not by the tokenizer, which lowers single letters and does not handle the Greek final sigma.

    The tokenizer composes (NFC) before it lowers, as 4.41 did; a word that can be composed only once it is lowered
    (J\u030c) is therefore left to it.
    """
    lowered = word.lower()
    return lowered if unicodedata.is_normalized("NFC", lowered) else word
