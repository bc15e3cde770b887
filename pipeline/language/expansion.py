"""A fuller prompt: the user's words, then what they leave open. What LLaVA is asked, and what is taken as an answer."""

import re
from collections.abc import Sequence

from pipeline.components import Tokenizer
from pipeline.conditioning.plain_text import has_marker
from pipeline.conditioning.prompt import prompt_room

LEAST_ROOM = 24
"""Tokens: less than a sentence or two is not worth a question."""

_LEAST_LETTERS = 12
_LEAST_DISTINCT = 0.7  # of all runs of three tokens; English prose has about 0.95
_SENTENCE = re.compile(r".*?[.!?…。！？]+[\"'”’)]*(?=\s|$)", re.DOTALL)
_ENDS_A_SENTENCE = re.compile(r"[.!?…。！？,;:][\"'”’)]*$")
_REFUSAL = re.compile(r"(i'?m sorry|i am sorry|sorry\b|i can(no|')t|i am unable|as an ai)", re.IGNORECASE)


class NotExpanded(Exception):
    """Why the user's prompt is used as it is; the message follows on "Prompt not expanded: "."""


def expansion_question(prompt: str) -> str:
    """The answer is begun with the prompt itself, so that the model only has to go on."""
    return (
        "The picture shows the subject of a video that is to be generated. This is the user's description of the "
        f'video: "{prompt}"\n'
        "Repeat the description and continue it with two or three short sentences that add what it leaves open: the "
        "scene, how the subject moves, what the camera does, and the light. Contradict nothing in it. Write plain "
        "English in the style of these descriptions: Realistic, High-quality. A woman is playing a violin in a bright "
        "room with tall windows. Her bow moves calmly over the strings. The camera slowly moves closer, in soft "
        "morning light."
    )


def begun(prompt: str) -> str:
    """The prompt as the first words of a longer text."""
    words = prompt.rstrip()
    return words if _ENDS_A_SENTENCE.search(words) else f"{words}."


def expanded(
    tokenizer: Tokenizer, prompt: str, subject_name: str, added: str, *, ids: Sequence[int], complete: bool
) -> str:
    """The prompt and what the model `added` as the tokens `ids`, as far as whole sentences of it fit.

    Raises:
        NotExpanded: it is no prose, or there is no room for a sentence.
    """
    text = " ".join(added.split()).strip("\"'“”‘’ ")
    _check(tokenizer, text, ids)
    sentences = [match.group() for match in _SENTENCE.finditer(text)]
    if complete and len("".join(sentences)) < len(text):
        sentences.append(f"{text[len(''.join(sentences)) :]}.")
    if len({sentence.strip().lower() for sentence in sentences}) < len(sentences):
        raise NotExpanded("the model repeated itself")
    while sentences:
        longer = f"{begun(prompt)} {''.join(sentences).strip()}"
        if prompt_room(tokenizer, longer, subject_name) >= 0:
            return longer
        sentences.pop()
    raise NotExpanded("no whole sentence fitted")


def _check(tokenizer: Tokenizer, text: str, ids: Sequence[int]) -> None:
    if sum(character.isalpha() for character in text) < _LEAST_LETTERS:
        raise NotExpanded("the model wrote nothing")
    if has_marker(tokenizer, text):
        raise NotExpanded("the model wrote markers")
    if "\ufffd" in text or not text.isprintable():
        raise NotExpanded("the model wrote characters that are none")
    if _REFUSAL.match(text):
        raise NotExpanded("the model declined")
    runs = list(zip(ids, ids[1:], ids[2:], strict=False))
    if len(set(runs)) < _LEAST_DISTINCT * len(runs):
        raise NotExpanded("the model repeated itself")
