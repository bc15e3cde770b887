"""The bar of long runs, on a terminal and without one."""

import os
import pty
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.harness.clock import Clock
from weights.progress_bar import ProgressBar, duration

ROOT = Path(__file__).parents[2]


def test_without_a_terminal_it_is_a_line_every_few_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock(0.0)
    with ProgressBar(in_bytes=True, every_s=5, clock=clock) as bar:
        bar.begin("download", 10 * 10**9)
        for second in range(1, 9):
            clock.now = second
            bar.advance(10**9)
        bar.say("a file is there")
        bar.begin("verify", 0)
    shown = capsys.readouterr()
    assert shown.err.splitlines() == ["download, 5.0 of 10.0 GB, about 5 s left", "a file is there"]
    assert shown.out == ""


def test_a_result_goes_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar() as bar:
        bar.show("works", 1, 2)
        bar.say("made", err=False)
    assert capsys.readouterr() == ("made\n", "")


def advance(bar: ProgressBar) -> None:
    for _ in range(1000):
        bar.advance(1)


def test_threads_may_feed_it_together(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar(every_s=0) as bar:
        bar.begin("convert", 4000)
        threads = [threading.Thread(target=advance, args=(bar,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert capsys.readouterr().err.splitlines()[-1].startswith("convert, 100 %")


@pytest.mark.parametrize("no_color", [True, False])
def test_on_a_terminal_it_is_a_bar_that_goes_away_and_stdout_stays_clean(no_color: bool) -> None:
    """NO_COLOR takes the colours; a pipe on stdout gets nothing but results."""
    program = (
        "from weights.progress_bar import ProgressBar\n"
        "with ProgressBar() as bar:\n"
        "    bar.show('denoise', 30, 60, left_s=130); bar.say('made', err=False); bar.show('decode', 1, 2)\n"
    )
    ours, theirs = pty.openpty()
    environment = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
    environment |= {"TERM": "xterm-256color", "COLUMNS": "120", "PYTHONPATH": str(ROOT)}
    environment |= {"NO_COLOR": "1"} if no_color else {}
    ran = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=theirs, env=environment, check=True
    )
    drawn = os.read(ours, 100_000).decode()
    os.close(theirs)
    os.close(ours)
    assert ran.stdout == b"made\n"
    assert "denoise" in drawn
    assert "50 %" in drawn
    assert "about 2 min 10 s left" in drawn
    assert ("\x1b[38" in drawn) is not no_color


@pytest.mark.parametrize(("seconds", "words"), [(0.4, "0 s"), (99, "99 s"), (250, "4 min 10 s"), (3900, "1 h 5 min")])
def test_a_duration_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words
