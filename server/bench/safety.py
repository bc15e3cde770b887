"""How often the safety checker is wrong, and what it costs: a list of prompts, pictures that packages ship, one clip.

`safety_prompts.tsv` says of each prompt whether it should be refused. The pictures are looked for at run time and are
all harmless: no package ships what should be refused, so what the image classifier misses is not counted. Times are
minima; a CPU works with one thread, as with the demo's configuration.
"""

import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.metadata import distributions
from pathlib import Path
from typing import Final

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from pipeline.conditioning.identity_image import rgb_pixels
from pipeline.options import EXPLICIT_SCORE
from pipeline.safety.checker import FrameCheck
from pipeline.safety.classifier import ImageClassifier, load_classifier
from pipeline.safety.prompt_words import flagged
from server.fal.example import PHOTO

_PROMPTS: Final = Path(__file__).with_name("safety_prompts.tsv")
_ENDINGS: Final = {".png", ".jpg", ".jpeg"}
_SMALLEST_SIDE: Final = 100  # pixels; smaller ones are icons
_FRAMES: Final = 129
_SIZES: Final = {"512p": (896, 512), "720p": (1280, 720)}
_ROUNDS: Final = 5


def bench_safety(*, model: str, device: str, pictures: Path | None, say: Callable[[str], None]) -> None:
    """Print the counts, and name every prompt and picture that was judged wrongly."""
    if device == "cpu":
        torch.set_num_threads(1)
    judge_prompts(say)
    classifier = load_classifier(model, device=device, dtype="float32" if device == "cpu" else "bfloat16")
    say(f"{classifier.name} on {device}, threshold {EXPLICIT_SCORE}")
    judge_pictures(classifier, pictures, say)
    for name, size in _SIZES.items():
        wall, processor = map(min, zip(*(_seconds_of_a_clip(classifier, size) for _ in range(_ROUNDS)), strict=True))
        say(f"frames of a clip of {_FRAMES} at {name}: {wall:.2f} s, {processor:.2f} s of a processor")


def judge_prompts(say: Callable[[str], None]) -> None:
    """Every prompt of the list by the word list, in order of the file; then the counts."""
    lines = _PROMPTS.read_text(encoding="utf-8").split("\n")
    rows = [line.split("\t") for line in lines if line and not line.startswith("#")]
    wrong: Counter[tuple[str, str]] = Counter()
    started = time.perf_counter()
    for verdict, kind, prompt in rows:
        if (flagged(prompt) is not None) != (verdict == "refuse"):
            wrong[verdict, kind] += 1
            say(f"  {'missed' if verdict == 'refuse' else 'refused by mistake'} ({kind}): {prompt}")
    seconds = time.perf_counter() - started
    for verdict, said in (("refuse", "missed"), ("pass", "refused by mistake")):
        total = sum(row[0] == verdict for row in rows)
        count = sum(number for (of, _), number in wrong.items() if of == verdict)
        kinds = ", ".join(f"{kind} {number}" for (of, kind), number in wrong.items() if of == verdict)
        say(f"prompts to {verdict}: {total}, {said}: {count} ({kinds})")
    say(f"{seconds / len(rows) * 1000:.2f} ms per prompt")


def judge_pictures(classifier: ImageClassifier, folder: Path | None, say: Callable[[str], None]) -> None:
    """Every picture of the folder, or of installed packages; then the counts."""
    scores: dict[Path, float] = {}
    seconds: list[float] = []
    for path in sorted(set(_found(folder))):
        try:
            with Image.open(path) as image:
                if min(image.size) < _SMALLEST_SIDE:
                    continue
                pixels = rgb_pixels(image, alpha="white")
        except (UnidentifiedImageError, OSError):
            continue
        started = time.perf_counter()
        [scores[path]] = classifier.scores([pixels])
        seconds.append(time.perf_counter() - started)
    if not scores:
        say("no pictures: name a folder with --pictures")
        return
    for path, score in scores.items():
        if score >= EXPLICIT_SCORE:
            say(f"  refused by mistake: {path} (score {score:.2f})")
    mistakes = sum(score >= EXPLICIT_SCORE for score in scores.values())
    middle = statistics.median(scores.values())
    say(f"harmless pictures: {len(scores)}, refused by mistake: {mistakes}, median score {middle:.3f}")
    say(f"{statistics.median(seconds) * 1000:.0f} ms per picture")


def _found(folder: Path | None) -> Iterator[Path]:
    """Below the folder; without one, what installed packages ship."""
    if folder is not None:
        yield from (path for path in folder.rglob("*") if path.suffix.lower() in _ENDINGS)
        return
    for distribution in distributions():
        for file in distribution.files or ():
            if Path(file).suffix.lower() in _ENDINGS:
                yield Path(str(distribution.locate_file(file)))


def _seconds_of_a_clip(classifier: ImageClassifier, size: tuple[int, int]) -> tuple[float, float]:
    """Wall and processor time. The example's photo is every frame: what they show does not change what they cost."""
    with Image.open(PHOTO) as photo:
        frame = np.asarray(photo.convert("RGB").resize(size))
    check, started = FrameCheck(classifier, 1.1, _FRAMES), time.process_time()
    for _ in check.passed(np.broadcast_to(frame, (length, *frame.shape)) for length in (64, 64, 1)):  # as tiles come
        pass
    return check.seconds, time.process_time() - started
