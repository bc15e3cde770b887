"""How long a connection lives between two requests of a client that polls."""

import contextlib
import http.client
import json
import shutil
import subprocess
import time
from collections.abc import Callable

import httpx
import pytest

from tests.harness.client_programs import missing
from tests.harness.live_server import Server
from tests.harness.raw_http import connect, read_all

# Polls with several agents; the pauses of each lie around a limit. Prints the outcomes.
POLLS = """
import http from "node:http";
const [url, first, last] = process.argv.slice(2);
const agents = 40, polls = 4, outcomes = {};
const get = (agent) => new Promise((done) => {
  const request = http.get(url, { agent }, (answer) => {
    answer.resume();
    answer.on("end", () => done(request.reusedSocket ? "reused" : "new"));
  });
  request.on("error", (error) => done(error.code));
});
const poll = async (number) => {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1, timeout: 60_000 });
  const pause = Number(first) + ((Number(last) - Number(first)) * number) / agents;
  for (let left = polls; left; left--) {
    const outcome = await get(agent);
    outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
    await new Promise((done) => setTimeout(done, pause));
  }
  agent.destroy();
};
await Promise.all(Array.from({ length: agents }, (_, number) => poll(number)));
console.log(JSON.stringify(outcomes));
"""


def polled(server: Server, first_ms: int, last_ms: int) -> dict[str, int]:
    node = shutil.which("node")
    if node is None:
        missing("node is not installed")
    command = [node, "--input-type=module", "-", f"{server.url}/health/live", str(first_ms), str(last_ms)]
    done = subprocess.run(command, input=POLLS, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_polls_across_the_limit_meet_no_reset(start_api: Callable[..., Server]) -> None:
    """Node's agent hangs up before the server does, as it is told to."""
    server = start_api(api__keep_alive_s=3)
    assert polled(server, 2990, 3005).keys() <= {"new", "reused"}
    assert polled(server, 0, 100)["reused"] > 0


def test_the_setting_ends_a_connection(start_api: Callable[..., Server]) -> None:
    server = start_api(api__keep_alive_s=0.5)
    with connect(server) as connection:
        connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        said = read_all(connection)
    assert said.startswith(b"HTTP/1.1 200")
    assert said.endswith(b'{"status":"ok"}')


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"GET /health/live HTTP/1.0\r\nHost: localhost\r\n\r\n",
        b"POST /none HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n",  # answered before its body is there
    ],
)
def test_a_last_answer_promises_nothing(server: Server, request_: bytes) -> None:
    with connect(server) as connection:
        connection.sendall(request_)
        said = read_all(connection).lower()
    assert b"connection: close" in said
    assert b"keep-alive" not in said


def test_a_client_may_poll_every_six_seconds(server: Server) -> None:
    """uvicorn's own limit is 5 s, and many clients poll every 5 s."""
    connection = http.client.HTTPConnection(httpx.URL(server.url).netloc.decode(), timeout=60)
    connection.connect()
    with contextlib.closing(connection):
        first = connection.sock
        for pause_s in (6, 0):
            connection.request("GET", "/health/live")
            answer = connection.getresponse()
            assert (answer.read(), answer.headers["keep-alive"]) == (b'{"status":"ok"}', "timeout=74")
            time.sleep(pause_s)
        assert connection.sock is first
