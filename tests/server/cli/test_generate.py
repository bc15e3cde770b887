"""`hunyuan-custom generate`, by a generator of its own and by a server, with the generators of tests/fakes."""

import inspect
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from server.cli.generate import generate
from server.cli.input_options import ARGUMENTS
from server.fal.example import PHOTO
from server.fal.schemas import HunyuanCustomInput
from tests.harness.command import Ran, run_command
from tests.harness.live_server import ROOT, Server, fake, until
from tests.harness.video_probe import probe

Generate: TypeAlias = Callable[..., Ran]
_UNDER_WAY_S = 0.7  # earlier or later the end is the same; by then a quiet machine is rendering
SMALL = ("--num-frames", "81", "--num-inference-steps", "10")


@pytest.fixture(params=["here", "server"])
def way(request: pytest.FixtureRequest) -> str:
    """Who makes the video; users are to find both the same."""
    return str(request.param)


@pytest.fixture
def generated(way: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generate:
    options = ("--server", server.url)
    if way == "here":
        options = ("--data-dir", str(tmp_path / "data"))
        monkeypatch.setenv("PYTHONPATH", str(ROOT))  # of the generator, since the folder is another
        monkeypatch.setenv("HUNYUAN_CUSTOM_GENERATOR__RENDERER", fake("by_prompt"))
        monkeypatch.setenv("HUNYUAN_CUSTOM_GENERATOR__RESTART_DELAY_S", "0")
        monkeypatch.setenv("HUNYUAN_CUSTOM_JOBS__MAX_ATTEMPTS", "2")
    monkeypatch.chdir(tmp_path)

    def run(prompt: str, *further: str, image: str = str(PHOTO)) -> Ran:
        return run_command("generate", image, prompt, *SMALL, *options, *further)

    return run


def test_every_field_of_the_input_is_an_option() -> None:
    options = inspect.signature(generate).parameters
    for name, field in HunyuanCustomInput.model_fields.items():
        if name not in ARGUMENTS:
            assert options[name].default == field.default


WISHES = ("a colour", "--seed", "7", "--fps", "16", "--aspect-ratio", "9:16")


def is_as_wished(video: Path) -> bool:
    described = probe(video)
    return "512x896" in described and "16 fps" in described


@pytest.mark.parametrize("way", ["here"], indirect=True)
def test_a_video_is_written_and_its_path_printed(generated: Generate, tmp_path: Path) -> None:
    ran = generated(*WISHES)
    assert (ran.code, ran.out) == (0, "video-7.mp4\n"), ran.err
    assert is_as_wished(tmp_path / "video-7.mp4")
    assert "seed 7" in ran.err.splitlines()[-1]


@pytest.mark.parametrize("way", ["server"], indirect=True)
def test_json_is_all_of_stdout_and_a_file_is_replaced(generated: Generate, tmp_path: Path) -> None:
    (tmp_path / "x.mp4").write_text("old")
    ran = generated(*WISHES, "-o", "x.mp4", "--json")
    answer = json.loads(ran.out)
    assert (ran.code, answer["path"], answer["seed"]) == (0, "x.mp4", 7)
    assert is_as_wished(tmp_path / "x.mp4")


@pytest.mark.parametrize(
    ("way", "prompt", "code", "says"),
    [
        ("server", "porn", 3, "prompt: The content could not be processed"),
        ("here", "porn", 3, "prompt: The content could not be processed"),
        ("here", "FLAGS image", 3, "image_url: The content could not be processed"),
        ("here", "RAISES", 1, "the generator's log: "),
        ("here", "EXITS", 1, "The generator stopped while working on this request"),
        ("here", "x" * 501, 2, "prompt: String should have at most 500 characters"),
    ],
    indirect=["way"],
)
def test_a_failure_is_the_apis_own_message_and_leaves_no_file(
    generated: Generate, tmp_path: Path, prompt: str, code: int, says: str
) -> None:
    ran = generated(prompt, "-o", "x.mp4")
    last = ran.err.splitlines()[-1]
    assert (ran.code, ran.out) == (code, "")
    assert last.startswith("error: ")
    assert says in last
    assert not (tmp_path / "x.mp4").exists()
    scratch = tmp_path / "data" / "tmp"
    assert not scratch.exists() or not list(scratch.iterdir())


@pytest.mark.parametrize("way", ["here"], indirect=True)
def test_a_failure_as_json_is_the_apis_body(generated: Generate, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no image")
    ran = generated("a colour", "--json", image="text.jpg")
    assert ran.code == 2
    assert json.loads(ran.out)["error"]["body"]["detail"][0]["type"] == "image_load_error"


def test_an_interrupt_cancels_the_request(generated: Generate, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)

    def interrupt() -> None:
        until(lambda: signal.getsignal(signal.SIGINT) is not before)
        time.sleep(_UNDER_WAY_S)
        if signal.getsignal(signal.SIGINT) is not before:  # it would end the tests instead
            os.kill(os.getpid(), signal.SIGINT)

    hand = threading.Thread(target=interrupt)
    hand.start()
    ran = generated("WORKS_SLOWLY", "--json")
    hand.join()
    assert ran.code == 130
    assert json.loads(ran.out)["error"]["status"] == 499
    assert not list(tmp_path.glob("*.mp4"))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("no-such.jpg", "a"), "no-such.jpg: No such file or directory"),
        ((str(PHOTO), "a", "-o", "no/x.mp4"), "--output: no is no directory"),
        ((str(PHOTO), "a", "-o", "."), "is a directory"),
        ((str(PHOTO), "a", "-o", "/dev/null"), "--output: /dev/null is no file"),
        (("/dev/zero", "a"), "image_url: File too large"),
        *(
            ((str(PHOTO), "a", "--server", address), "write http://127.0.0.1:8000")
            for address in ("", "ftp://x", "http://[::1", "http://x:y", "http://x:99999", "http://me:secret@x")
        ),
    ],
)
def test_what_cannot_work_is_one_line_before_any_work(
    words: tuple[str, ...], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = run_command("generate", *words)
    assert (ran.code, ran.out, len(ran.err.splitlines())) == (2, "", 1)
    assert says in ran.err
    assert not list(tmp_path.iterdir())


def test_a_server_that_is_away_is_one_line(tmp_path: Path) -> None:
    ran = run_command("generate", str(PHOTO), "a", "-o", str(tmp_path / "x.mp4"), "--server", "http://127.0.0.1:1")
    assert ran.code == 1
    assert "http://127.0.0.1:1 does not answer" in ran.err.splitlines()[-1]


def test_a_request_that_does_not_fit_is_tried_with_a_smaller_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUNYUAN_CUSTOM_GENERATOR__RENDERER", fake("runs_out_of_memory"))
    monkeypatch.setenv("HUNYUAN_CUSTOM_GENERATOR__RESTART_DELAY_S", "0")
    words = ("generate", str(PHOTO), "a", "-o", str(tmp_path / "x.mp4"), "--data-dir", str(tmp_path))
    ran = run_command(*words)
    assert "trying again with the memory plan" in ran.err
    assert "Generator lost" not in ran.err, "that it was replaced is no fault"
    assert ran.code == 0, ran.err


def test_a_model_that_cannot_be_loaded_ends_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUNYUAN_CUSTOM_GENERATOR__RENDERER", fake("cannot_load"))
    words = ("generate", str(PHOTO), "a", "-o", str(tmp_path / "x.mp4"), "--data-dir", str(tmp_path))
    ran = run_command(*words)
    assert ran.code == 1
    assert "the model cannot be loaded" in ran.err.splitlines()[-1]
    assert str(tmp_path / "generate.log") in ran.err
