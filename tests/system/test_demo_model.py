"""The demo model through the whole server: the first thing a newcomer sees, and checkpoints on a real pipeline."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from server.fal.example import PHOTO
from server.fal.schemas import EXAMPLE_PROMPT
from server.settings import ENV_PREFIX
from tests.harness.command import run_command
from tests.harness.explicit_picture import explicit_uri
from tests.harness.live_server import ON_CPU, ROOT, Server, example, fake, launch, until
from tests.harness.video_probe import probe


def test_the_demo_command_makes_the_example_video(tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(ENV_PREFIX)}
    command = [sys.executable, "-m", "server", "demo", "--data-dir", str(tmp_path / "data")]
    finished = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    lines = finished.stdout.splitlines()
    assert any("before this request" in line for line in lines), "the queue position"
    assert any(line.startswith("Denoising step 30/30") for line in lines), "every step"
    assert any("s left" in line or "left" in line for line in lines), "the ETA"
    assert any("untrained" in line for line in lines)
    assert "Subject: woman" in lines
    (expanded,) = [line for line in lines if line.startswith("Prompt expanded by rule")]
    assert f": {EXAMPLE_PROMPT} " in expanded
    assert any(line.startswith("Safety checker: prompt and image passed, score 0.0") for line in lines)
    assert any(line.startswith("Safety checker: 17 frames passed") for line in lines)
    video = Path(lines[-1])
    described = probe(video)
    for fact in ("h264", "yuv420p", "896x512", "25 fps", "00:00:05.16"):
        assert fact in described
    content = video.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat"), "plays while it loads"
    assert finished.stderr == "", "nothing but the story on the terminal"


@pytest.fixture(scope="module")
def demo_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The real renderer with the demo model."""
    running = launch(tmp_path_factory.mktemp("demo"), renderer="the_real_one", **ON_CPU)
    yield running
    running.stop()


def test_a_killed_generation_and_one_without_a_server_have_the_same_frames(demo_server: Server) -> None:
    request = example(prompt="a woman is playing a violin", seed=5, num_inference_steps=12)
    undisturbed = demo_server.finish(demo_server.submit(request)).json()
    assert _made_without_a_server(demo_server, request) == demo_server.http.get(undisturbed["video"]["url"]).content

    disturbed = demo_server.submit(request)
    until(lambda: any("step 4/12" in line for line in demo_server.messages(disturbed)))
    os.kill(demo_server.worker()["pid"], signal.SIGKILL)  # and with it the generator
    answer = demo_server.finish(disturbed)

    assert answer.status_code == 200
    assert any("Going on at step" in line for line in demo_server.messages(disturbed))
    videos = [demo_server.http.get(output["video"]["url"]).content for output in (undisturbed, answer.json())]
    assert videos[0] == videos[1]
    until(lambda: not list((demo_server.data_dir / "tmp").iterdir()))  # checkpoints are deleted at the end


def _made_without_a_server(server: Server, request: dict[str, Any]) -> bytes:
    """By `generate`, with the settings of the server."""
    made = server.data_dir / "made.mp4"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (ON_CPU | {"generator__renderer": fake("the_real_one")}).items():
            patch.setenv(f"{ENV_PREFIX}{name.upper()}", str(value))
        patch.setenv("PYTHONPATH", str(ROOT))
        words = [
            "--num-inference-steps",
            str(request["num_inference_steps"]),
            "--num-frames",
            str(request["num_frames"]),
        ]
        words += ["--seed", str(request["seed"]), "--data-dir", str(server.data_dir), "-o", str(made)]
        ran = run_command("generate", str(PHOTO), request["prompt"], *words)
    assert ran.code == 0, ran.err
    return made.read_bytes()


def test_an_explicit_image_is_refused_before_the_gpu_works_on_it(demo_server: Server) -> None:
    flagged = demo_server.submit(example(image_url=explicit_uri()))
    answer = demo_server.finish(flagged)
    assert (answer.status_code, answer.json()["detail"][0]["type"]) == (422, "content_policy_violation")
    assert answer.json()["detail"][0]["loc"] == ["body", "image_url"]
    assert not any("Denoising" in line for line in demo_server.messages(flagged))


def test_a_cancel_stops_the_work_and_not_the_generator(demo_server: Server) -> None:
    """How soon: `tests/server/generator/test_parent.py`."""
    running = demo_server.submit(example(num_inference_steps=30, num_frames=129))
    until(lambda: any("step 2/30" in line for line in demo_server.messages(running)))
    generator = demo_server.worker()["generator_pid"]
    demo_server.cancel(running)
    assert demo_server.finish(running).status_code == 499
    assert not any(line.startswith("Wrote ") for line in demo_server.messages(running))
    assert demo_server.worker()["generator_pid"] == generator
