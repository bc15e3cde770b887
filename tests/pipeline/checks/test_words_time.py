"""What the measurement of expansions says, in this process and of the demo's LLaVA, which has learned nothing."""

from pathlib import Path

from pipeline.checks import words_time
from pipeline.demo.model import build_demo_model
from server.fal.example import PHOTO


def test_tokens_and_seconds_of_an_expansion(tmp_path: Path) -> None:
    measured = words_time._write(build_demo_model(tmp_path / "demo"), PHOTO, "word " * 200, "cpu", "resident")
    assert 0 < measured.first_token_s < measured.seconds
    assert measured.words.prompt == "word " * 200
    assert 1 <= measured.tokens <= 12, "there is room for a name alone"
    said = "\n".join(measured.lines())
    assert f"{measured.tokens} tokens" in said
    assert "not expanded   it leaves no room" in said
    assert f"LLaVA's weights are {measured.weights / 1e6:.1f} MB" in said
