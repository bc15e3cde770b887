"""Calls of a server's HTTP API, as the command line makes them."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import SplitResult, urlsplit

import httpx

from server.errors import ErrorResponse, ServerError, SettingsError, request_failure
from server.generate.outcome import RequestFailed
from server.settings import is_loopback

_TIMEOUT: Final = httpx.Timeout(60.0, connect=10.0)
_PAUSE_S: Final = 1.0
_AWAY: Final = {502, 503, 504}


class ServerAway(ServerError):
    """The server does not answer."""


class ServerCalls:
    """One server. `key` is sent as fal's clients do."""

    def __init__(self, url: str, key: str | None) -> None:
        parts = _address(url)
        if parts is None:
            raise SettingsError(f"--server: {url!r} is no address; write http://127.0.0.1:8000")
        if key is not None and not re.fullmatch(r"[!-~]+", key := key.strip()):
            raise SettingsError("--key or FAL_KEY: a key is made of visible ASCII characters")
        self.url = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self._http = httpx.Client(
            headers={"Authorization": f"Key {key}"} if key else {},
            timeout=_TIMEOUT,
            trust_env=not is_loopback(parts.hostname or ""),  # a proxy does not lead back to this machine
        )

    def __enter__(self) -> Self:
        """Connects when it is first asked."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnect."""
        self._http.close()

    def ask(self, method: str, path: str, *, expected: str, patience_s: float = 0.0, **options: Any) -> dict[str, Any]:
        """The JSON object of an answer. A server that is away is asked again for `patience_s` seconds.

        Raises:
            RequestFailed: it answered an error.
            ServerAway: it did not answer, or without what is `expected` of this server.
        """
        answer = self._answer(method, path, patience_s=patience_s, **options)
        try:
            body = answer.json()
        except ValueError:
            body = None
        if not isinstance(body, dict) or expected not in body:
            raise ServerAway(f"{self.url} is no hunyuan-custom-server: no {expected} in its answer to {path}")
        return body

    def _answer(self, method: str, path: str, *, patience_s: float = 0.0, **options: Any) -> httpx.Response:
        deadline = time.monotonic() + patience_s
        while True:
            last = time.monotonic() + _PAUSE_S > deadline
            try:
                answer = self._http.request(method, f"{self.url}{path}", **options)
            except httpx.HTTPError as error:
                if last:
                    raise ServerAway(f"{self.url} does not answer: {error or type(error).__name__}") from error
            else:
                if answer.is_success:
                    return answer
                if last or answer.status_code not in _AWAY:
                    raise RequestFailed(_failure(answer))
            time.sleep(_PAUSE_S)

    @contextmanager
    def download(self, url: str) -> Iterator[httpx.Response]:
        """A file, to be read inside the block: without the key, since its URL may lead elsewhere.

        Raises:
            ServerAway: it did not come, or not to its end.
        """
        try:
            with httpx.stream(
                "GET", url, follow_redirects=True, timeout=_TIMEOUT, trust_env=self._http.trust_env
            ) as answer:
                yield answer
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ServerAway(f"{url} cannot be downloaded: {error or type(error).__name__}") from error


def _address(url: str) -> SplitResult | None:
    """Of a server: without credentials, which the key would displace."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        parts.port  # noqa: B018 - raises ValueError
    except ValueError:
        return None
    return parts if parts.scheme in {"http", "https"} and parts.hostname and parts.username is None else None


def _failure(answer: httpx.Response) -> ErrorResponse:
    """The error of an answer, as the server made it."""
    try:
        body = answer.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        return request_failure(answer.status_code, "", f"HTTP status {answer.status_code} {answer.reason_phrase}")
    detail = body.get("detail")
    first = detail[0] if isinstance(detail, list) and detail and isinstance(detail[0], dict) else body
    error_type = first.get("type") or first.get("error_type") or ""
    return ErrorResponse(answer.status_code, body, str(error_type))
