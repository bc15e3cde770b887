"""`docker compose up demo`: a video through the published port; then everything is killed, then it is stopped."""

from collections.abc import Callable
from pathlib import Path

import httpx

from server.bench.sample_request import example
from server.bench.waiting import until
from server.fal.schemas import ENDPOINT
from tests.containers.engine import Project
from tests.containers.fal_calls import FalCalls, first_key
from tests.harness.video_probe import probe

PORT = "18000"
GRACE_S = 10


def test_a_video_then_a_kill_then_a_stop(
    project: Callable[..., Project], connect: Callable[[str, str], FalCalls], tmp_path: Path
) -> None:
    run = project(PORT=PORT, SHUTDOWN_GRACE_S=str(GRACE_S))
    run.up("demo", "demo")
    demo = run.one("demo")
    fal = connect(PORT, first_key([demo]))
    until(fal.is_ready)
    assert httpx.get(f"{fal.http.base_url}/queue/{ENDPOINT}/requests/x/status").status_code == 401, "a key is asked for"
    page = httpx.get(f"{fal.http.base_url}/")
    assert "static/playground.js" in page.text, "the pages are part of the image"
    assert httpx.get(f"{fal.http.base_url}/static/example.jpg").status_code == 200

    result = fal.http.post(f"/run/{ENDPOINT}", json=example())
    assert result.status_code == 200, result.text
    video = result.json()["video"]["url"]
    (tmp_path / "video.mp4").write_bytes(fal.http.get(video).content)
    assert "frame=   81" in probe(tmp_path / "video.mp4")
    (listed,) = fal.http.get("/playground/requests").json()["requests"]
    assert fal.http.get(listed["thumbnail_url"]).headers["content-type"] == "image/webp"
    assert demo.exec("hunyuan-custom", "health", "--ready") == ""

    killed = fal.submit(example())
    until(lambda: "Denoising step 2" in str(fal.status(killed)))
    started = demo.state()["StartedAt"]
    demo.exec("sh", "-c", "kill -9 -1", check=False)
    until(lambda: demo.state()["StartedAt"] != started, every_s=0.5)  # by its restart policy
    until(lambda: fal.is_in(killed, "COMPLETED"), every_s=0.5)
    assert "from a checkpoint" in str(fal.status(killed)), "it went on where it was"
    assert fal.http.get(video).status_code == 200, "finished videos are still there"

    stopped = fal.submit(example())
    until(lambda: "Denoising step 1" in str(fal.status(stopped)))
    took = demo.stop(within_s=GRACE_S + 20)
    print(f"stopped in {took:.0f} s with a job in progress")  # noqa: T201
    assert took < GRACE_S + 15
    assert demo.state()["ExitCode"] == 0
    demo.start()
    until(lambda: fal.is_in(stopped, "COMPLETED"), every_s=0.5)
    owners = demo.exec("find", "/data", "-not", "-user", "hunyuan")
    assert owners == "", "everything belongs to the server's user"
