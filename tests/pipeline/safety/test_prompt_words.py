"""The word list: what it refuses however it is disguised, what it leaves alone, and that it stays quick."""

import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.safety import prompt_words
from pipeline.safety.normalise import plain, readings
from pipeline.safety.prompt_words import flagged, flagged_negative
from server.fal.schemas import HunyuanCustomInput

LIST = Path(prompt_words.__file__).with_name("prompt_words.toml")


@pytest.mark.parametrize(
    "prompt",
    [
        *("porn", "PORN", "pörn", "p0rn", "p o r n", "p.o.r.n", "p-o-r-n", "pooorn", "p*rn", "p**n", "porns"),
        *(
            "ｐｏｒｎ",
            "𝓹𝓸𝓻𝓷",
            "po\u200brn",
            "po\u00adrn",
            "рorn",
            "ρorn",
            "(porn)",
            "it's porn!",
            "pu$$y",
            "p\no\nr\nn porn",
        ),
        *("blow job", "blow-job", "blow_job", "blowjob", "b l o w  j o b", "做爱", "很多 色 情 视频", "セックス"),
    ],
)
def test_a_word_is_found_however_it_is_spelled(prompt: str) -> None:
    assert flagged(f"A red kite over the sea. {prompt}") == "sexual"


@pytest.mark.parametrize(
    ("prompt", "category"),
    [
        ("a naked woman", "nudity"),
        ("a woman who is completely naked", "nudity"),
        ("n u d e  w o m a n", "nudity"),
        ("eine nackte Frau", "nudity"),
        ("a sexy schoolgirl", "minors"),
        ("a 15-year-old in lingerie", "minors"),
        ("a 9yo, sensual", "minors"),
        ("性感的小女孩", "minors"),
        ("双手做爱心，然后做爱", "sexual"),
        ("ﾚｲﾌﾟ", "sexual violence"),
        ("child porn", "abuse of children"),
        ("a man raping a woman", "sexual violence"),
        ("sieg heil", "hate"),
    ],
)
def test_words_that_are_refused_beside_others(prompt: str, category: str) -> None:
    assert flagged(prompt) == category


@pytest.mark.parametrize(
    "prompt",
    [
        *(
            "Scunthorpe",
            "a cock-a-doodle-doo at dawn",
            "a cock crows",
            "Middlesex and Essex",
            "grapes, drapery",
            "cum laude",
        ),
        *(
            "blue tits at a feeder",
            "a pussy cat",
            "rape seed oil",
            "a naked mole rat near a man",
            "seen with the naked eye",
        ),
        *("a marble statue of a nude man", "a nude model in a life drawing class", "a woman in a nude dress"),
        *("a breast cancer screening", "a diagram of the vagina for students", "a mother breastfeeding her baby"),
        *(
            "a 35 year old woman in lingerie",
            "a child plays with a kitten",
            "a sexy car",
            "Un cono de helado",
            "Vögel im Wald",
        ),
        *(
            "Han fick en hund",
            "orecchiette alle cime di rape",
            "a white power cable",
            "a man falls into a bottomless pit",
        ),
        *("双手做爱心手势", "路口交警在指挥交通", "两位女性交谈", "角色情绪饱满", "小学生和女性感受阳光", "人群交错"),
        *(
            "ユニセックスの服",
            "プレイプールで遊ぶ",
            "ブレイブな犬",
            "ぶっかけうどん",
            "まんごー",
            "건강 간식을 먹는 여자",
        ),
        *("", "🎻", "...", "a b c d", "4k 8k 1080p", "S O S", "<|eot_id|><image>", "女の子が走る", "小女孩在花园里"),
    ],
)
def test_everyday_words_pass(prompt: str) -> None:
    assert flagged(prompt) is None


def test_a_negative_prompt_may_name_what_shall_not_be_seen_but_nothing_worse() -> None:
    assert flagged_negative("nsfw, nude, naked woman, porn, ugly, blurry") is None
    assert flagged_negative(HunyuanCustomInput.model_fields["negative_prompt"].default) is None
    assert flagged_negative("child p0rn") == "abuse of children"
    assert flagged_negative("rape") == "sexual violence"


def entries() -> list[str]:
    tables: dict[str, dict[str, Any]] = tomllib.loads(LIST.read_text(encoding="utf-8"))
    alone = ("sexual", "sexual_violence", "abuse_of_children", "hate")
    return [entry for name in alone for key in ("words", "anywhere") for entry in tables[name].get(key, [])]


def test_every_entry_is_found_and_its_licence_stands_beside_it() -> None:
    assert [entry for entry in entries() if flagged(f"a {entry} here") is None] == []
    assert "CC BY 4.0" in LIST.read_text(encoding="utf-8")


@given(st.text(max_size=500))
def test_any_text_is_read(text: str) -> None:
    first = next(readings(text))
    assert all(word and word == plain(word) for word in first)
    flagged(text)
    flagged_negative(text)


@pytest.mark.parametrize("unit", ["a*b ", "a.", "p o ", "a" * 50 + "!", "naked ", "big cock-", "ｐ\u200b"])
def test_the_longest_negative_prompt_does_not_hold_up_the_server(unit: str) -> None:
    text = (unit * 10_000)[:10_000]
    started = time.process_time()
    flagged_negative(text)
    flagged(text[:500])
    assert time.process_time() - started < 1


def test_it_needs_no_torch() -> None:
    code = "import sys, pipeline.safety.prompt_words; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
