"""What the safety checker flags: fal's 422, nothing is kept, and the generator goes on."""

import time
from pathlib import Path

import pytest

from server.storage.scratch import files_below
from tests.fakes.cuts_out import PICTURE
from tests.harness.live_server import APP, Server, example, until

MESSAGE = "The content could not be processed because it contained material flagged by a content checker."


def violation(field: str) -> dict[str, object]:
    """The body that fal documents."""
    kind = "content_policy_violation"
    item = {"loc": ["body", field], "msg": MESSAGE, "type": kind, "url": f"https://docs.fal.ai/errors#{kind}"}
    return {"detail": [item]}


def left_of(server: Server, request_id: str) -> list[Path]:
    """Files of a request beside its image; what it leaves is removed right after its end."""
    found = [*files_below(server.data_dir / "tmp"), *files_below(server.data_dir / "files")]
    return [path for path in found if path.name.startswith(request_id)]


@pytest.mark.parametrize(
    ("where", "field"),
    [
        ("prompt", "prompt"),
        ("negative_prompt", "negative_prompt"),
        ("image", "image_url"),
        ("frames", "prompt"),
    ],
)
def test_what_the_generator_flags_is_422_and_leaves_nothing(server: Server, where: str, field: str) -> None:
    server.finish(server.submit())
    now = time.time()
    until(lambda: server.worker()["heartbeat_at"] > now)  # a test before this one may have ended a generator
    generator = server.worker()["generator_pid"]
    flagged = server.submit(example(prompt=f"FLAGS {where}"))
    after = server.submit()
    answer = server.finish(flagged)
    assert (answer.status_code, answer.json()) == (422, violation(field))
    assert answer.headers["x-fal-retryable"] == "false"
    said = [line for line in server.messages(flagged) if "safety checker" in line]
    assert said == [f"The safety checker flagged the {where.replace('_', ' ')}: the fake says so"]
    until(lambda: not left_of(server, flagged))
    assert server.finish(after).status_code == 200
    assert server.worker()["generator_pid"] == generator


def test_a_sync_caller_is_answered_the_422_itself(server: Server) -> None:
    answer = server.http.post(f"/run/{APP}", json=example(prompt="FLAGS frames"))
    assert (answer.status_code, answer.json()) == (422, violation("prompt"))


def test_the_image_that_is_kept_is_the_one_the_video_was_made_from(server: Server) -> None:
    request_id = server.submit(example(prompt="CUTS_OUT"))
    assert server.finish(request_id).status_code == 200
    [kept] = [path.read_bytes() for path in (server.data_dir / "inputs").rglob(f"{request_id}.png")]
    assert kept == PICTURE
    until(lambda: not list((server.data_dir / "tmp").glob(f"{request_id}*")))


@pytest.mark.parametrize(
    ("change", "field"),
    [({"prompt": "a p0rn video"}, "prompt"), ({"negative_prompt": "ugly, r a p e"}, "negative_prompt")],
)
def test_a_word_of_the_list_is_refused_at_once_like_an_invalid_body(
    server: Server, change: dict[str, str], field: str
) -> None:
    at_once = server.http.post(f"/run/{APP}", json=example(**change))
    assert (at_once.status_code, at_once.json()) == (422, violation(field))
    queued = server.submit(example(**change))
    assert server.status(queued)["status"] == "COMPLETED", "it was never in the queue"
    assert server.result(queued).json() == violation(field)
    assert server.finish(server.submit(example(**change, enable_safety_checker=False))).status_code == 200
