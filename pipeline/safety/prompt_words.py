"""Is there a word in the prompt that no video is made for? A floor below the classifiers, quick and without a model.

The list is `prompt_words.toml`. Whole words and phrases only: "Scunthorpe" and "cock-a-doodle" are nothing to it. A few
words are refused only beside others ("naked" near "woman", "lingerie" in a prompt about a child).
"""

import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from pipeline.safety.normalise import plain, readings

Category: TypeAlias = Literal["sexual", "sexual violence", "abuse of children", "hate", "nudity", "minors"]

_LIST: Final = Path(__file__).with_name("prompt_words.toml")
_ALONE: Final[tuple[Category, ...]] = ("abuse of children", "sexual violence", "sexual", "hate")  # the worst first
_NEAR: Final = 4  # words from "naked" to "woman", or the other way
_AGE: Final = re.compile(r"\b(?:1[0-7]|[1-9]) ?(?:years?|yrs?|yo|y o)\b")
_MASKED: Final = re.compile(r"\w+\*[\w*]*")  # "f*ck"


@dataclass(frozen=True, slots=True)
class _Terms:
    """Phrases of whole words by their first word, the plural of each among them; and what is found inside words."""

    phrases: dict[str, list[tuple[str, ...]]]
    inside: tuple[str, ...] = ()
    shapes: dict[tuple[int, str], list[str]] = field(default_factory=dict)
    """Single words by length and first letter."""

    @classmethod
    def of(cls, table: dict[str, Any], key: str, inside: str = "anywhere") -> "_Terms":
        phrases: dict[str, list[tuple[str, ...]]] = {}
        shapes: dict[tuple[int, str], list[str]] = {}
        for *words, last in (next(readings(entry)) for entry in table[key]):
            for phrase in ((*words, last), (*words, f"{last}s")):
                phrases.setdefault(phrase[0], []).append(phrase)
                if len(phrase) == 1:
                    shapes.setdefault((len(phrase[0]), phrase[0][0]), []).append(phrase[0])
        return cls(phrases, tuple(map(plain, table.get(inside, ()))), shapes)

    def found(self, words: Sequence[str]) -> Iterator[tuple[int, tuple[str, ...]]]:
        """Every phrase in the words, with the place of its first."""
        for place, word in enumerate(words):
            for phrase in self.phrases.get(word, ()):
                if tuple(words[place : place + len(phrase)]) == phrase:
                    yield place, phrase

    def masked(self, words: Sequence[str]) -> Iterator[str]:
        """The entries that a word with asterisks may stand for: "f*ck"."""
        for word in filter(_MASKED.fullmatch, words):
            pattern = re.compile(re.escape(word).replace(r"\*", r"\w"))
            yield from filter(pattern.fullmatch, self.shapes.get((len(word), word[0]), ()))

    def is_in(self, words: Sequence[str], text: str = "") -> bool:
        return any(True for _ in self.found(words)) or any(term in text for term in self.inside)


@dataclass(frozen=True, slots=True)
class _WordList:
    alone: dict[Category, _Terms]
    bare: _Terms
    people: _Terms
    art: _Terms
    young: _Terms
    suggestive: _Terms
    innocent: _Terms
    innocent_anywhere: re.Pattern[str]
    negative: frozenset[str]


@cache
def _word_list() -> _WordList:
    tables = tomllib.loads(_LIST.read_text(encoding="utf-8"))
    nudity, minors = tables["nudity"], tables["minors"]
    return _WordList(
        alone={category: _Terms.of(tables[category.replace(" ", "_")], "words") for category in _ALONE},
        bare=_Terms.of(nudity, "bare"),
        people=_Terms.of(nudity, "people"),
        art=_Terms.of(nudity, "art"),
        young=_Terms.of(minors, "young", "young_anywhere"),
        suggestive=_Terms.of(minors, "suggestive", "suggestive_anywhere"),
        innocent=_Terms.of(tables["innocent"], "phrases"),
        innocent_anywhere=re.compile("|".join(map(re.escape, map(plain, tables["innocent"]["anywhere"])))),
        negative=frozenset(plain(entry) for entry in tables["negative"]["allowed"]),
    )


def flagged(prompt: str) -> Category | None:
    """Why no video is made for this prompt; None when no word speaks against it."""
    listed = _word_list()
    text = _drawn_together(prompt)
    for words in map(_without_innocent, readings(prompt)):
        if category := _alone(words, text, allowed=frozenset()):
            return category
        if listed.suggestive.is_in(words, text) and (listed.young.is_in(words, text) or _AGE.search(" ".join(words))):
            return "minors"
        if _bare_people(words) and not listed.art.is_in(words):
            return "nudity"
    return None


def flagged_negative(prompt: str) -> Category | None:
    """The same of a negative prompt, where people name what they do not want to see: "nsfw, nude"."""
    text = _drawn_together(prompt)
    found = (_alone(_without_innocent(words), text, allowed=_word_list().negative) for words in readings(prompt))
    return next(filter(None, found), None)


def _alone(words: Sequence[str], text: str, *, allowed: frozenset[str]) -> Category | None:
    for category, terms in _word_list().alone.items():
        found = {" ".join(phrase) for _, phrase in terms.found(words)} | {term for term in terms.inside if term in text}
        if {*found, *terms.masked(words)} - allowed:
            return category
    return None


def _bare_people(words: Sequence[str]) -> bool:
    listed = _word_list()
    bare = [place for place, _ in listed.bare.found(words)]
    return bool(bare) and any(abs(at - place) <= _NEAR for at, _ in listed.people.found(words) for place in bare)


def _drawn_together(prompt: str) -> str:
    """What is searched for terms that are found inside words; a line end stands for what is innocent."""
    return _word_list().innocent_anywhere.sub("\n", "".join(plain(prompt).split()))


def _without_innocent(words: list[str]) -> list[str]:
    dropped = {place + offset for place, phrase in _word_list().innocent.found(words) for offset in range(len(phrase))}
    return [word for place, word in enumerate(words) if place not in dropped]
