"""What `bench safety` counts: the word list on the committed prompts, a classifier on pictures."""

import re
import shutil
from pathlib import Path

from pipeline.safety.classifier import load_classifier
from server.bench.safety import judge_pictures, judge_prompts
from server.fal.example import PHOTO
from tests.harness.explicit_picture import explicit_png


def test_the_word_list_is_seldom_wrong_on_the_committed_prompts() -> None:
    lines: list[str] = []
    judge_prompts(lines.append)
    counts = [re.match(r"prompts to (refuse|pass): (\d+), .*?: (\d+) \(", line) for line in lines]
    found = {match[1]: (int(match[2]), int(match[3])) for match in counts if match}
    (to_refuse, missed), (to_pass, mistakes) = found["refuse"], found["pass"]
    assert to_refuse + to_pass >= 200
    assert missed / to_refuse < 0.15
    assert mistakes / to_pass < 0.03
    veiled = re.compile(r"missed \((?!veiled)")
    assert sum(bool(veiled.search(line)) for line in lines) <= 2, "what is missed is what no word gives away"


def test_every_picture_that_is_judged_wrongly_is_named(tmp_path: Path) -> None:
    shutil.copy(PHOTO, tmp_path / "harmless.jpg")
    (tmp_path / "noise.png").write_bytes(explicit_png())
    (tmp_path / "broken.png").write_bytes(b"no picture")
    lines: list[str] = []
    judge_pictures(load_classifier("bundled", device="cpu", dtype="float32"), tmp_path, lines.append)
    assert lines[0].startswith(f"  refused by mistake: {tmp_path / 'noise.png'} (score ")
    assert lines[1].startswith("harmless pictures: 2, refused by mistake: 1")
