"""CLIP's tokenizer in plain Python, step by step as in transformers 4.41 (without ftfy): an oracle for token ids."""

import itertools
import json
from pathlib import Path

import regex
from transformers import BasicTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

_WORDS = BasicTokenizer(strip_accents=False, do_split_on_punc=False)
_PIECES = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+", regex.IGNORECASE)


def slow_clip_ids(folder: Path, text: str, length: int = 77) -> list[int]:
    """`folder` holds vocab.json and merges.txt. Special tokens in the text are not looked for."""
    vocab = json.loads((folder / "vocab.json").read_text())
    merges = (folder / "merges.txt").read_text().strip().split("\n")[1:]
    ranks = {tuple(merge.split()): rank for rank, merge in enumerate(merges)}
    byte_letters = bytes_to_unicode()
    begin, end = vocab["<|startoftext|>"], vocab["<|endoftext|>"]
    ids: list[int] = []
    for piece in _PIECES.findall(" ".join(_WORDS.tokenize(text))):
        letters = [byte_letters[byte] for byte in piece.encode()]
        ids += [vocab.get(part, end) for part in _merged([*letters[:-1], f"{letters[-1]}</w>"], ranks)]
    ids = [begin, *ids[: length - 2], end]
    return ids + [end] * (length - len(ids))


def _merged(parts: list[str], ranks: dict[tuple[str, ...], int]) -> list[str]:
    """Byte pairs joined, the most frequent of the training first, as long as one is known."""
    while pairs := [pair for pair in itertools.pairwise(parts) if pair in ranks]:
        best = min(pairs, key=ranks.__getitem__)
        joined: list[str] = []
        for part in parts:
            if joined and (joined[-1], part) == best:
                joined[-1] += part
            else:
                joined.append(part)
        parts = joined
    return parts
