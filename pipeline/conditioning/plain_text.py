"""Text of users as text: the markers of a tokenizer (`<|eot_id|>`, `<image>`, `<|endoftext|>`) mean nothing in it.

A tokenizer reads its markers wherever they stand, so that a user who types one could end the prompt, or bring a second
image. A marker cut after its first character is none: both halves are read as text, and decode to what was typed.
"""

import re
from itertools import pairwise

from pipeline.components import Tokenizer


def plain_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of `text`, no special token among them. Text without markers is read as a whole."""
    cuts = [0, *(match.start() + 1 for match in _markers(tokenizer).finditer(text)), len(text)]
    return [id_ for start, end in pairwise(cuts) for id_ in ids_of(tokenizer, text[start:end])]


def has_marker(tokenizer: Tokenizer, text: str) -> bool:
    """Whether `text` contains a marker, in letters of any case."""
    return _markers(tokenizer).search(text) is not None


def ids_of(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of `text` alone, its markers read as what they are."""
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]) if text else []


def _markers(tokenizer: Tokenizer) -> re.Pattern[str]:
    """Finds where a marker starts, also inside another. In any case: CLIP's tokenizer lowers its text first.

    A word that was added to a vocabulary is none.
    """
    markers = sorted(marker for marker in tokenizer.get_added_vocab() if len(marker) > 1 and not marker[0].isalnum())
    return re.compile(f"(?=(?:{'|'.join(map(re.escape, markers))}))" if markers else "(?!)", re.IGNORECASE)
