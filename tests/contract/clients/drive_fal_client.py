"""Makes every call of the Python client once, in a process of its own, and prints what came of each as JSON.

Usage: drive_fal_client.py MODE BASE_URL PHOTO
    env    only environment variables (set by the test): an unmodified client over TLS
    hosts  fal's own host names lead to BASE_URL, as a hosts entry would do it; no variable at all
    http   the shipped helper, over plain http
Runs against any version: it imports nothing of this project but the helper, by path.
"""

import asyncio
import importlib.metadata
import importlib.util
import json
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

APP = "fal-ai/hunyuan-custom"
QUICK = {"num_inference_steps": 10, "num_frames": 81}


def redirect_hosts(base_url: str) -> None:
    """fal's names resolve to the server, like an entry in the hosts file; its port stands in for 443."""
    target = urlsplit(base_url)
    really_resolve, really_connect = socket.getaddrinfo, socket.socket.connect

    def resolve(host: Any, *more: Any, **named: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        ours = name == "fal.run" or name.endswith((".fal.run", ".fal.ai", ".fal.media"))
        return really_resolve(target.hostname if ours else host, *more, **named)

    def connect(self: socket.socket, address: Any) -> None:
        really_connect(self, (target.hostname, target.port) if address[:2] == (target.hostname, 443) else address)

    socket.getaddrinfo = resolve
    socket.socket.connect = connect  # type: ignore[method-assign, assignment]


def use_helper(base_url: str) -> None:
    """The shipped file, loaded by its path as a user would copy it."""
    path = Path(__file__).parents[3] / "server" / "clients" / "fal_plain_http.py"
    spec = importlib.util.spec_from_file_location("fal_plain_http", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.use_server(base_url)


class Calls:
    """One method per call; each raises if the answer is not what fal's would be."""

    def __init__(self, photo: str) -> None:
        import fal_client

        self.fal = fal_client
        self.photo = photo
        self.arguments = {"prompt": "a colour", "image_url": fal_client.encode_file(Path(photo)), **QUICK}

    def run(self) -> None:
        output = self.fal.run(APP, arguments={**self.arguments, "seed": 5})
        assert output["seed"] == 5, output
        assert output["video"]["content_type"] == "video/mp4", output

    def subscribe(self) -> None:
        seen: list[Any] = []
        output = self.fal.subscribe(APP, arguments=self.arguments, with_logs=True, on_queue_update=seen.append)
        assert output["video"]["url"].endswith(".mp4"), output
        assert isinstance(seen[-1], self.fal.Completed), seen[-1]
        for update in seen:
            assert isinstance(update, self.fal.Queued) or isinstance(update.logs, list), update
        lines = [line["message"] for line in seen[-1].logs or []]
        assert any(line.startswith("Denoising step") for line in lines), lines

    def submit_status_result(self) -> None:
        handle = self.fal.submit(APP, arguments=self.arguments)
        while not isinstance(status := handle.status(with_logs=True), self.fal.Completed):
            if isinstance(status, self.fal.Queued):
                assert status.position >= 0
            time.sleep(0.05)
        assert status.metrics["inference_time"] > 0
        assert self.fal.result(APP, handle.request_id) == handle.get()

    def cancel(self) -> None:
        handle = self.fal.submit(APP, arguments={**self.arguments, "prompt": "WORKS_SLOWLY"})
        while isinstance(handle.status(), self.fal.Queued):
            time.sleep(0.05)
        self.fal.cancel(APP, handle.request_id)
        self.fails(handle.get, 499)
        self.fails(lambda: self.fal.cancel(APP, handle.request_id), 400)

    def invalid_input(self) -> None:
        arguments = {**self.arguments, "fps": 99}
        for call in (
            lambda: self.fal.run(APP, arguments=arguments),
            lambda: self.fal.subscribe(APP, arguments=arguments),
        ):
            error = self.fails(call, 422)
            assert "fps" in str(error), error

    def unknown_request(self) -> None:
        self.fails(lambda: self.fal.status(APP, "0b7f8e8a-0000-4000-8000-000000000000"), 404)

    def async_calls(self) -> None:
        async def scenario() -> Any:  # one event loop for all: the module's client belongs to the first one
            output = await self.fal.subscribe_async(APP, arguments=self.arguments)
            assert output["video"]["file_size"] > 0
            handle = await self.fal.submit_async(APP, arguments={**self.arguments, "prompt": "WORKS_SLOWLY"})
            await handle.cancel()
            events = [event async for event in handle.iter_events()]
            assert isinstance(events[-1], self.fal.Completed), events
            return handle.request_id

        request_id = asyncio.run(scenario())
        self.fails(lambda: self.fal.result(APP, request_id), 499)

    def upload_file(self) -> None:
        url = self.fal.upload_file(Path(self.photo))
        output = self.fal.subscribe(APP, arguments={**self.arguments, "image_url": url})
        assert output["video"]["file_size"] > 0

    def iter_events(self) -> None:
        handle = self.fal.submit(APP, arguments=self.arguments, hint="any", priority="low")
        events = list(handle.iter_events(with_logs=True))
        assert isinstance(events[-1], self.fal.Completed), events
        assert handle.get()["video"]["file_size"] > 0

    def upload_image(self) -> None:
        from PIL import Image

        with Image.open(self.photo) as image:
            url, uri = self.fal.upload_image(image), self.fal.encode_image(image)
        for image_url in (url, uri):
            output = self.fal.subscribe(APP, arguments={**self.arguments, "image_url": image_url})
            assert output["video"]["file_size"] > 0

    def start_timeout(self) -> None:
        blocker = self.fal.submit(APP, arguments={**self.arguments, "prompt": "WORKS_SLOWLY"})
        try:
            while isinstance(blocker.status(), self.fal.Queued):
                time.sleep(0.05)
            late = self.fal.submit(APP, arguments=self.arguments, start_timeout=1.1)  # it takes no less
            self.fails(late.get, 504)
        finally:
            blocker.cancel()

    def fails(self, call: Callable[[], Any], status: int) -> BaseException:
        import httpx

        try:
            call()
        except Exception as error:
            cause = error if hasattr(error, "status_code") else error.__cause__ or error
            found = getattr(cause, "status_code", None)
            if found is None and isinstance(cause, httpx.HTTPStatusError):
                found = cause.response.status_code
            assert found == status, f"{error!r} instead of {status}"
            return error
        raise AssertionError(f"no error instead of {status}")


def main() -> None:
    mode, base_url, photo, *wanted = sys.argv[1:]
    if mode == "hosts":
        redirect_hosts(base_url)
    elif mode == "http":
        use_helper(base_url)
    calls = Calls(photo)
    outcome = {}
    for name in wanted:
        try:
            getattr(calls, name)()
            outcome[name] = "ok"
        except Exception as error:
            outcome[name] = f"{type(error).__name__}: {error}"
    # The folder of an older client comes first on the path, so its metadata is found first too.
    json.dump({"version": importlib.metadata.version("fal-client"), "calls": outcome}, sys.stdout)


if __name__ == "__main__":
    main()
