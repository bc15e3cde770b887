"""The name of the subject in LLaVA's template, "The {name} looks like": from the prompt, or from the picture.

A noun of at most three words that stands in the prompt; else what the picture shows, where people of all kinds are
"person", as in the reference's negative prompts; else "object", the reference's default.
"""

import re

from pipeline.language.nouns import PEOPLE, known_noun, words

NAME_TOKENS = 12
"""Room for an answer: three words of several tokens each."""

UNNAMED = "object"
PERSON = "person"

_LONGEST = 3  # words
_WORD = re.compile(r"[a-z]+(?:-[a-z]+)*")
_END_OF_PHRASE = re.compile(r"[\n.,;:!?(]")
_ANSWER = re.compile(r"[A-Za-z' -]+")

_ARTICLES = words("a an the this that these those my your his her its our their one two three some")
_PRONOUNS = words("he she they i we you someone somebody anyone everyone")
_GOES_ON = words(
    "is are was were has in on at with and who that which of from by wearing holding sits stands walks runs"
)
"""With one of these, a sentence goes on behind the words of a noun."""
_NO_NAMES = words("image picture photo photograph photos subject video scene none nothing unknown text it")


def name_question(prompt: str) -> str:
    """Ends as the short questions do that LLaVA was trained with."""
    return (
        "What is the main subject of this picture? It will appear in a video with this description: "
        f'"{prompt}" If the description names the subject, use its noun.\n'
        "Answer the question using a single word or phrase."
    )


def accepted_name(answer: str, prompt: str) -> str:
    """The name that an answer of LLaVA is; "object" where it is none."""
    phrase = _END_OF_PHRASE.split(answer.strip())[0]
    name = _noun_phrase(_WORD.findall(phrase.lower()))
    if not name or not _ANSWER.fullmatch(phrase) or name[-1] in _NO_NAMES:
        return UNNAMED
    said = f" {' '.join(_WORD.findall(prompt.lower()))} "
    for length in range(min(_LONGEST, len(name)), 0, -1):  # "young woman", then "woman"
        if f" {' '.join(name[-length:])} " in said:
            return " ".join(name[-length:])
    if known_noun(name[-1]) in PEOPLE:
        return PERSON
    return " ".join(name) if len(name) <= _LONGEST else UNNAMED


def name_by_rule(prompt: str) -> str:
    """What the first sentence that begins with an article is about, else the first noun that is known. English only."""
    sentences = [_WORD.findall(sentence) for sentence in _END_OF_PHRASE.split(prompt.lower())]
    for sentence in sentences:
        phrase = _noun_phrase(sentence) if sentence and sentence[0] in _ARTICLES else []
        if 0 < len(phrase) <= min(_LONGEST, len(sentence) - 2):  # something is said of it
            known = [name for end in range(len(phrase), 0, -1) if (name := _known(phrase[:end]))]
            name = known[0] if known else phrase[-1]
            return UNNAMED if name in _NO_NAMES else name
    known = [name for sentence in sentences for end in range(1, len(sentence) + 1) if (name := _known(sentence[:end]))]
    if known:
        return known[0]
    return PERSON if any(_PRONOUNS & set(sentence) for sentence in sentences) else UNNAMED


def _known(phrase: list[str]) -> str | None:
    """The longest known noun at the end of the phrase."""
    names = (known_noun(" ".join(phrase[-length:])) for length in range(_LONGEST, 0, -1))
    return next(filter(None, names), None)


def _noun_phrase(sentence: list[str]) -> list[str]:
    """Without an article in front, up to the word with which a sentence goes on; all words if there is none."""
    phrase = sentence[1:] if sentence and sentence[0] in _ARTICLES else sentence
    ends = (index for index, word in enumerate(phrase) if word in _GOES_ON or (index and word.endswith("ing")))
    return phrase[: next(ends, len(phrase))]
