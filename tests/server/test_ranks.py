"""One job on two ranks: real processes, the demo model, through the front door."""

import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from tests.live_server import FAST, Server, example, launch, until

DEMO = FAST | {
    "renderer": "the_real_one",
    "generator__device": "cpu",
    "generator__dtype": "float32",
    "generator__torch_threads": 1,
    "generator__render_divisor": 4,
    "generator__stall_timeout_s": 60,
    "generator__cancel_grace_s": 20,
}
REQUEST = example(prompt="a woman is playing a violin", seed=5)


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = launch(tmp_path_factory.mktemp("ranks"), **DEMO, generator__ranks=2)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def undisturbed(two_ranks: Server) -> bytes:
    """The video of two ranks that nothing happened to."""
    return video(two_ranks, two_ranks.submit(REQUEST))


def video(server: Server, request_id: str) -> bytes:
    answer = server.finish(request_id, timeout_s=120)
    assert answer.status_code == 200, answer.text
    return server.http.get(answer.json()["video"]["url"]).content


def gang(server: Server) -> list[int]:
    """Process ids of rank 0 and of the others."""
    first = psutil.Process(server.worker()["generator_pid"])
    return [first.pid, *(child.pid for child in first.children() if "server.generator_process" in child.cmdline())]


def messages(server: Server, request_id: str) -> list[str]:
    return [line["message"] for line in server.status(request_id, logs=True).get("logs") or []]


def until_step(server: Server, request_id: str, step: int) -> None:
    until(lambda: any(f"step {step}/" in line for line in messages(server, request_id)), timeout_s=60)


def test_two_ranks_make_the_video_of_one(two_ranks: Server, undisturbed: bytes) -> None:
    print(gang(two_ranks), len(undisturbed))
