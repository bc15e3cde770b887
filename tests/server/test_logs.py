"""No secret reaches the service log, by any way; a job's own log keeps what its user wrote."""

import io
import json
import logging
import time
from collections.abc import Callable
from urllib.parse import quote

import httpx
import pytest

from server.logs import JsonFormatter, RedactingFormatter, about_request, about_trace, name_request, redact
from tests.harness.keyed import client, create_key, use_key
from tests.harness.live_server import APP, Server, example, until
from tests.harness.pictures import png
from tests.harness.uploads import INITIATE

SECRET = "c0ffee" * 10

LINES = [
    f"Authorization: Key 123e4567-e89b-12d3-a456-426614174000:{SECRET}",
    f"{{'authorization': 'Bearer {SECRET}'}}",
    f"key 123e4567-e89b-12d3-a456-426614174000:{SECRET} refused",
    f"made 123e4567-e89b-12d3-a456-426614174000:{SECRET}",
    f"GET https://bucket.example/woman.png?X-Amz-Signature={SECRET}&X-Amz-Expires=60",
    f"postgresql+psycopg://hunyuan:{SECRET}@db.example/hunyuan",
    f"http://user:{SECRET}@proxy.example:3128/",
    f"PUT /cdn/upload/x?token={SECRET}",
    f"FAL_KEY={SECRET}",
    f'{{"password": "{SECRET}"}}',
    f"data:image/png;base64,{SECRET}",
]


@pytest.mark.parametrize("line", LINES)
def test_secrets_are_struck_out(line: str) -> None:
    assert SECRET not in redact(line)
    assert "[redacted]" in redact(line)


@pytest.mark.parametrize(
    "line",
    [
        "request 123e4567-e89b-12d3-a456-426614174000: no progress for 120 s; the generator was killed",
        "worker ended with 1; starting again in 0.2 s",
        "image not fetched: ConnectError: [Errno 111] Connection refused",
        "GET https://bucket.example/woman.png failed",
    ],
)
def test_everything_else_stays(line: str) -> None:
    assert redact(line) == line


TEXT = RedactingFormatter("%(levelname)s %(message)s")


def _logged(*arguments: object, error: BaseException | None = None, formatter: logging.Formatter = TEXT) -> str:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    logger = logging.Logger("test")
    logger.addHandler(handler)
    logger.warning(*arguments, exc_info=error)
    return stream.getvalue()


@pytest.mark.parametrize("formatter", [TEXT, JsonFormatter("api")], ids=["text", "json"])
def test_tracebacks_and_arguments_are_covered(formatter: logging.Formatter) -> None:
    try:
        raise ValueError(f"Key a:{SECRET}")
    except ValueError as error:
        said = _logged("failed with %s", f"Bearer {SECRET}", error=error, formatter=formatter)
    assert SECRET not in said
    assert "Traceback" in said
    shown = said if formatter is TEXT else json.loads(said)["exception"]
    assert shown.count("\n") >= 3


def test_a_line_names_the_request_it_is_about_once() -> None:
    with about_request("r-1"):
        assert _logged("no progress") == "WARNING no progress (request r-1)\n"
        assert _logged("request %s: no progress", "r-1") == "WARNING request r-1: no progress\n"
        line = json.loads(_logged('a "quoted"\nline', formatter=JsonFormatter("worker")))
        assert line["request_id"] == "r-1"
    assert (line["process"], line["level"], line["message"]) == ("worker", "WARNING", 'a "quoted"\nline')
    assert _logged("no progress") == "WARNING no progress\n"
    assert "request_id" not in json.loads(_logged("no progress", formatter=JsonFormatter("worker")))


def test_a_line_names_its_trace_where_there_is_one() -> None:
    with about_request("r-1"), about_trace("4bf9"):
        assert _logged("no progress") == "WARNING no progress (request r-1, trace 4bf9)\n"
        assert _logged("request %s", "r-1") == "WARNING request r-1 (trace 4bf9)\n"
        assert json.loads(_logged("no progress", formatter=JsonFormatter("worker")))["trace_id"] == "4bf9"
    assert "trace" not in _logged("no progress") + _logged("no progress", formatter=JsonFormatter("worker"))


def test_the_name_of_a_request_ends_with_its_exchange() -> None:
    with about_request("exchange"):
        name_request("job")
        assert _logged("no progress") == "WARNING no progress (request job)\n"
    name_request("job")
    assert _logged("no progress") == "WARNING no progress\n"


def test_a_line_cannot_pretend_to_be_two() -> None:
    said = _logged("prompt %s", "x\nWARNING forged\r\x1b[31m\u2028")
    assert said.count("\n") == 1
    assert "\x1b" not in said
    assert "\\n" in said


def test_a_job_log_keeps_its_users_own_text(server: Server) -> None:
    prompt = f"REPEATS Key a:{SECRET} https://x.example/?token={SECRET} ünï 'cödé'"
    request_id = server.submit(example(prompt=prompt))
    server.finish(request_id)
    assert prompt in [line["message"] for line in server.status(request_id, logs=True)["logs"]]


def test_a_real_server_writes_no_secret_to_stderr(
    start_server: Callable[..., Server], capfd: pytest.CaptureFixture[str]
) -> None:
    """Everything that holds a secret goes wrong once, and right once; lines about a request name it."""
    server = start_server(
        log__format="json", webhooks__retry_delays_s="[0.05]", webhooks__poll_s=0.05, image__total_timeout_s=3
    )
    key = create_key(server, "alice")
    use_key(server, key)
    nowhere = "http://127.0.0.1:9"
    urls = server.http.post(INITIATE, json={}).json()
    upload_token = httpx.URL(urls["upload_url"]).params["token"]
    for content in (b"no image", png(), png((70, 70))):
        server.http.put(urls["upload_url"], content=content)
    cdn_token = server.http.post("/rest/storage/auth/token").json()["token"]
    server.http.post("/cdn/files/upload", content=b"x", headers={"Authorization": f"Bearer {cdn_token}"})
    server.http.post("/cdn/files/upload", content=png(), headers={"Authorization": f"Bearer {cdn_token}"})
    jobs = [
        server.submit(example(image_url=f"{nowhere}/woman.png?X-Amz-Signature={SECRET}")),
        server.submit(example(image_url=f"{server.url}/health/live?signature={SECRET}")),
        server.submit(example(prompt="RAISES")),
        server.submit(example(prompt="IS_KILLED"), **{"X-Fal-No-Retry": "1"}),
    ]
    hook = quote(f"{nowhere}/hook?token={SECRET}", safe="")
    jobs.append(server.http.post(f"/queue/{APP}?fal_webhook={hook}", json=example(prompt="")).json()["request_id"])
    for wrong in (f"{key}0", f"x:{SECRET}", SECRET):
        assert client(server, wrong).get(f"/queue/{APP}/requests/x?token={SECRET}").status_code == 401
    server.http.get(f"/{SECRET}?token={SECRET}")
    for request_id in jobs:
        server.finish(request_id)
    said = ""

    def is_told() -> bool:
        nonlocal said
        said += capfd.readouterr().err
        return "attempt 2" in said

    until(is_told)
    server.stop()
    said += capfd.readouterr().err
    assert "image not fetched" in said
    for secret in (SECRET, key.partition(":")[2], upload_token, cdn_token):
        assert secret not in said
    lines = [json.loads(line) for line in said.splitlines()]
    assert {line["process"] for line in lines} >= {"serve", "worker", "generator"}
    about = {(line["process"], line.get("request_id")) for line in lines}
    assert {("worker", jobs[0]), ("generator", jobs[2]), ("worker", jobs[3]), ("worker", jobs[4])} <= about


@pytest.mark.parametrize(
    "part", ["a+", "http://", "https://x", "Key ", "data:image/a", "token=", "password ", "0-", "://", "?"]
)
def test_a_long_line_takes_time_by_its_length(part: str) -> None:
    """Quadratic time would be a hundred times as long for ten times the length, linear time is ten times."""

    def seconds(repetitions: int) -> float:
        best = float("inf")
        for _ in range(7):
            started = time.thread_time()
            redact(part * repetitions)
            best = min(best, time.thread_time() - started)
        return best

    assert seconds(20_000) < 40 * seconds(2_000)
