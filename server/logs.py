"""Service logs: one line per event on stderr, with the process's role. Secrets in any line are struck out.

A line about a request has the request's id, in all processes: `about_request` says which one the code inside works on,
and `about_trace` in which trace.
The log of a job is different: it belongs to its user and keeps the user's text.
"""

import json
import logging
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from datetime import UTC, datetime
from typing import Final, Literal, TypeAlias

LogFormat: TypeAlias = Literal["text", "json"]
FindId: TypeAlias = Callable[[], str]

_STRUCK: Final = "[redacted]"
_SECRETS: Final = (
    # Authorization headers and keys, as fal writes them: id:secret
    (re.compile(r"\b(Key|Bearer|Basic)\s+[^\s'\",]+", re.IGNORECASE), rf"\1 {_STRUCK}"),
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f-]{27}:[0-9a-f]{16,}"), _STRUCK),
    (re.compile(r"(://)[^\s/@'\"]+@"), rf"\1{_STRUCK}@"),  # credentials in a URL
    (re.compile(r"\b(data:image/[a-z]+;base64,)[A-Za-z0-9+/=]+", re.IGNORECASE), rf"\1{_STRUCK}"),
    (re.compile(r"\b((?:secret|password|token|api_?key|fal_key)\b['\"]?\s*[=:]\s*)['\"]?[^\s'\",]+", re.IGNORECASE),
     rf"\1{_STRUCK}"),
)  # fmt: skip
_URL: Final = re.compile(r"\bhttps?://[^\s'\"]+", re.IGNORECASE)
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x80-\x9f\u2028\u2029]")


def redact(text: str) -> str:
    """The text without secrets, and with control characters spelled out: a log line cannot pretend to be two.

    In time linear in the length of the text, which may be a client's.
    """
    text = _URL.sub(_without_query, text)
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return spelled_out(text)


def spelled_out(text: str) -> str:
    """The text with its control characters written as in Python: a terminal obeys none of them."""
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


def _without_query(url: re.Match[str]) -> str:
    """Queries hold signatures and tokens."""
    address, mark, query = url[0].partition("?")
    return f"{address}{mark}{_STRUCK}" if query else url[0]


_about: ContextVar[FindId | None] = ContextVar("about", default=None)
_trace: ContextVar[str | None] = ContextVar("trace", default=None)


@contextmanager
def about_request(request_id: str) -> Iterator[None]:
    """Lines that are written inside, by this thread or task, are about that request."""
    before = begin_exchange(lambda: request_id)
    try:
        yield
    finally:
        end_exchange(before)


@contextmanager
def about_trace(trace_id: str | None) -> Iterator[None]:
    """Lines that are written inside, by this thread or task, belong to that trace."""
    before = _trace.set(trace_id)
    try:
        yield
    finally:
        _trace.reset(before)


def begin_exchange(find_id: FindId) -> Token[FindId | None]:
    """The same for an exchange whose id is only made when a line needs it."""
    return _about.set(find_id)


def end_exchange(before: Token[FindId | None]) -> None:
    """What was true before is true again."""
    _about.reset(before)


def name_request(request_id: str) -> None:
    """From here to the end of the exchange it is about that request; outside one, nothing would end it."""
    if _about.get() is not None:
        _about.set(lambda: request_id)


def _current_request() -> str | None:
    find_id = _about.get()
    return None if find_id is None else find_id()


class RedactingFormatter(logging.Formatter):
    """Works on the finished line, tracebacks included."""

    def format(self, record: logging.LogRecord) -> str:
        """The line as it is written."""
        message, request_id = record.getMessage(), _current_request()
        about = [f"request {request_id}"] if request_id is not None and request_id not in message else []
        about += [f"trace {trace_id}"] if (trace_id := _trace.get()) is not None else []
        if about:
            message = f"{message} ({', '.join(about)})"
        message = message.replace("\n", "\\n")  # of a message; the lines of a traceback stay lines
        return redact(super().format(logging.makeLogRecord({**record.__dict__, "msg": message, "args": None})))


class JsonFormatter(logging.Formatter):
    """One JSON object a line; `request_id`, `trace_id` and `exception` only where there is one."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        """The line as it is written."""
        request_id, trace_id = _current_request(), _trace.get()
        fields = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "process": self._role,
            "logger": record.name,
            "message": redact(record.getMessage()),
            **({} if request_id is None else {"request_id": redact(request_id)}),
            **({} if trace_id is None else {"trace_id": trace_id}),
            **({"exception": redact(self.formatException(record.exc_info))} if record.exc_info else {}),
        }
        return json.dumps(fields, ensure_ascii=False)


def configure_logging(role: str, level: int = logging.INFO, *, log_format: LogFormat = "text") -> None:
    """Log to stderr: as `time role LEVEL logger: message`, or as JSON."""
    text = f"%(asctime)s {role} %(levelname)s %(name)s: %(message)s"
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(role) if log_format == "json" else RedactingFormatter(text))
    logging.basicConfig(handlers=[handler], level=level, force=True)
    dbos = logging.getLogger("dbos")  # would add a handler of its own if it had none, without redaction
    dbos.handlers, dbos.propagate = [logging.NullHandler()], True
    for chatty in ("httpx", "httpcore", "dbos", "PIL", "imageio_ffmpeg"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
