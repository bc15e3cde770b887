"""A prompt as the word list reads it: how people disguise words is undone, so that one spelling stands for all.

`readings` gives several lists of words for one text; a word that none of them holds is not in the prompt.
"""

import re
import unicodedata
from collections.abc import Iterator
from typing import Final

# Cyrillic and Greek letters that look like Latin ones, after case folding and without accents.
_LOOKALIKES: Final = str.maketrans(
    {
        **dict(zip("асеорхуіјѕԁһԛԝвкмнт", "aceopxyijsdhqwbkmht", strict=True)),
        **dict(zip("αβεικνορτυχω", "abeikvoptuxw", strict=True)),
    }
)
_KANA_MARKS: Final = "\u3099\u309a"
_UNSEEN: Final = {"Mn", "Me", "Cf"}
_LEET: Final = str.maketrans(dict(zip("013457@$!|€¢+89", "oieastasiiectbg", strict=True)))
_SIGNS: Final = r"@$!|€¢+*"
_WORD: Final = re.compile(rf"[\w@$][\w{_SIGNS}]*")
_JOINT: Final = re.compile(r"(?<=\w)[-_.·•/\\]+(?=\w)")
_APOSTROPHE: Final = re.compile(r"['’`´]")
_STRETCHED: Final = re.compile(r"(\D)\1{2,}")
_PAUSE: Final = re.compile(r"\s{2,}|\n")
_FEWEST_SPACED: Final = 3  # letters that stand alone and are read as one word: "p o r n"


def plain(text: str) -> str:
    """Compatibility forms, case, accents, and characters that cannot be seen (zero width, soft hyphen) are gone.

    The marks of kana stay: they tell one sound from another.
    """
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text).casefold())
    kept = (letter for letter in folded if letter in _KANA_MARKS or unicodedata.category(letter) not in _UNSEEN)
    return unicodedata.normalize("NFC", "".join(kept))


def readings(text: str) -> Iterator[list[str]]:
    """As written, compounds taken apart and drawn together; then with what resembles Latin letters read as those."""
    written = _APOSTROPHE.sub("", plain(text))
    apart = _words(_JOINT.sub(" ", written))
    yield apart
    variants = [_words(_JOINT.sub("", written)), [_resembling(word) for word in apart]]
    for kept in (r"\1", r"\1\1"):  # "pooorn", "pusssy"
        variants.append([_STRETCHED.sub(kept, word) for word in variants[1]])
    yield from (words for number, words in enumerate(variants) if words not in [apart, *variants[:number]])


def _words(text: str) -> list[str]:
    """Letters that stand alone, at least three in a row without a pause, are one word."""
    words: list[str] = []
    for run in _PAUSE.split(text):
        alone: list[str] = []
        for word in [*(found.rstrip(_SIGNS) for found in _WORD.findall(run)), ""]:
            if len(word) == 1:
                alone.append(word)
                continue
            words += ["".join(alone)] if len(alone) >= _FEWEST_SPACED else alone
            alone = []
            words += [word] if word else []
    return words


def _resembling(word: str) -> str:
    """With the Latin letters that digits, signs and foreign letters stand for; numbers stay numbers."""
    return word.translate(_LOOKALIKES).translate(_LEET) if any(map(str.isalpha, word)) else word
