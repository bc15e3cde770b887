"""What holds for every row of the table of bad input: nothing is lost, and no answer shows the server's internals."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import psutil

from tests.harness.live_server import Server, example

_witnesses: dict[str, tuple[str, object]] = {}  # of each server, a request that is over, and its result


@contextmanager
def harmless(server: Server) -> Iterator[None]:
    """Around a case: no answer has a traceback in it, the same processes go on, and finished work is still there.

    The first one on a server renders a video, so nothing else may be under way there.
    """
    if server.url not in _witnesses:
        request_id = server.submit(example(seed=11))
        _witnesses[server.url] = request_id, server.finish(request_id).json()
    witness, result = _witnesses[server.url]
    before = _processes(server)
    hooks = server.http.event_hooks
    server.http.event_hooks = {"response": [*hooks["response"], _shows_no_insides]}
    try:
        yield
    finally:
        server.http.event_hooks = hooks
    assert _processes(server) == before, "no process has died of it"
    assert server.result(witness).json() == result


def _shows_no_insides(answer: httpx.Response) -> None:
    answer.read()
    assert answer.headers["x-fal-request-id"]
    for inside in ("Traceback", 'File "', "sqlalchemy", "site-packages"):
        assert inside not in answer.text
    if answer.status_code >= 400:
        assert answer.headers["content-type"].startswith("application/json")
        assert answer.status_code not in {500, 502}


def _processes(server: Server) -> set[int]:
    """The supervisor's children and the generator; decoders come and go."""
    worker = server.worker()
    api = [child.pid for child in psutil.Process(server.process.pid).children()]
    return {*api, worker["pid"], worker["generator_pid"]}
