"""One job on two ranks: real processes, the demo model, over HTTP."""

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

from server.bench.waiting import child_processes
from tests.harness.explicit_picture import explicit_uri
from tests.harness.live_server import FAST, ON_CPU, Server, example, launch, until

DEMO = ON_CPU | {"renderer": "the_real_one"}
REQUEST = example(prompt="a woman is playing a violin", seed=5, num_inference_steps=20)


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


def rank_processes(server: Server) -> list[int]:
    """Process ids of rank 0 and of the others, once the worker's row names a rank 0 that runs."""
    until(lambda: server.worker()["generator_pid"] in child_processes(server.worker()["pid"]))
    first = int(server.worker()["generator_pid"])
    return [first, *child_processes(first, "server.generator.child.process")]


def frames(content: bytes, folder: Path) -> NDArray[np.int16]:
    """The decoded frames, as one long row of levels."""
    path = folder / "video.mp4"
    path.write_bytes(content)
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path), "-f", "rawvideo", "-"]
    return np.frombuffer(subprocess.run(command, capture_output=True, check=True).stdout, np.uint8).astype(np.int16)


def test_two_ranks_make_the_video_of_one(
    start_server: Callable[..., Server], undisturbed: bytes, tmp_path: Path
) -> None:
    one = start_server(data_dir=tmp_path / "one", **DEMO)
    assert len(rank_processes(one)) == 1
    alone = frames(video(one, one.submit(REQUEST)), tmp_path)
    together = frames(undisturbed, tmp_path)
    assert alone.shape == together.shape
    assert np.abs(alone - together).max() <= 2


def test_no_rank_listens_on_the_network(two_ranks: Server) -> None:
    for process in rank_processes(two_ranks):
        listening = [c for c in psutil.Process(process).net_connections() if c.status == psutil.CONN_LISTEN]
        assert listening
        assert {connection.laddr.ip for connection in listening} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


@pytest.mark.parametrize("stage", ["Denoising step 2/", "Decoding"])
def test_a_cancel_frees_all_ranks_and_the_same_processes_make_the_next_video(
    two_ranks: Server, undisturbed: bytes, stage: str
) -> None:
    processes = rank_processes(two_ranks)
    assert len(processes) == 2
    for _ in range(5):  # the last stages of so small a video may be over before they are seen
        cancelled = two_ranks.submit(REQUEST)
        until(lambda one=cancelled: any(line.startswith(stage) for line in two_ranks.messages(one)))
        if two_ranks.cancel(cancelled).status_code == 202:
            break
    assert two_ranks.finish(cancelled).status_code == 499
    assert video(two_ranks, two_ranks.submit(REQUEST)) == undisturbed
    assert rank_processes(two_ranks) == processes


def test_what_rank_0_flags_ends_the_request_on_all_and_the_same_processes_make_the_next_video(
    two_ranks: Server, undisturbed: bytes
) -> None:
    processes = rank_processes(two_ranks)
    flagged = two_ranks.finish(two_ranks.submit(REQUEST | {"image_url": explicit_uri()}))
    assert (flagged.status_code, flagged.json()["detail"][0]["loc"]) == (422, ["body", "image_url"])
    assert video(two_ranks, two_ranks.submit(REQUEST)) == undisturbed
    assert rank_processes(two_ranks) == processes


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_ends_all_and_the_job_goes_on_at_its_checkpoint_with_the_same_frames(
    two_ranks: Server, undisturbed: bytes, rank: int
) -> None:
    processes = rank_processes(two_ranks)
    disturbed = two_ranks.submit(REQUEST)
    until(lambda: any("step 6/" in line for line in two_ranks.messages(disturbed)))
    os.kill(processes[rank], signal.SIGKILL)
    until(lambda: not any(psutil.pid_exists(process) for process in processes))
    assert video(two_ranks, disturbed) == undisturbed
    said = two_ranks.messages(disturbed)
    assert "Attempt 2" in said
    assert any(re.fullmatch(r"Going on at step ([6-9]|1\d|20) from a checkpoint", line) for line in said)
    until(lambda: not list((two_ranks.data_dir / "tmp").iterdir()))


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two ranks, the second of which fails on demand."""
    running = launch(tmp_path_factory.mktemp("failing"), **FAST, renderer="one_rank_fails", generator__ranks=2)
    yield running
    running.stop()


def test_lack_of_memory_on_one_rank_ends_all_and_the_next_plan_is_tried(failing: Server) -> None:
    processes = rank_processes(failing)
    answered = failing.submit(example(prompt="RUNS_OUT_OF_MEMORY"))
    assert failing.finish(answered).status_code == 200
    assert any("offload_encoders" in line for line in failing.messages(answered))
    until(lambda: not any(psutil.pid_exists(process) for process in processes))


def test_an_error_on_one_rank_fails_the_request_and_ends_all(failing: Server) -> None:
    processes = rank_processes(failing)
    assert failing.finish(failing.submit(example(prompt="RAISES"))).status_code == 500
    until(lambda: not any(psutil.pid_exists(process) for process in processes))
    until(lambda: failing.worker()["state"] == "ready")
    assert failing.finish(failing.submit()).status_code == 200


def test_an_error_that_all_ranks_have_leaves_them_well(failing: Server) -> None:
    processes = rank_processes(failing)
    assert failing.finish(failing.submit(example(prompt="BOTH_RAISE"))).status_code == 500
    assert failing.finish(failing.submit()).status_code == 200
    assert rank_processes(failing) == processes


def test_a_model_that_no_rank_can_load_says_why(start_server: Callable[..., Server], tmp_path: Path) -> None:
    server = start_server(ready=False, renderer="cannot_load", generator__ranks=2)
    until(lambda: "hunyuan-custom weights prepare" in server.http.get("/health/ready").text)
    (tmp_path / "weights.safetensors").touch()
    until(lambda: server.http.get("/health/ready").is_success)
