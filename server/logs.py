"""Service logs: one line per event on stderr, with the process's role. Secrets in any line are struck out.

The log of a job is different: it belongs to its user and keeps the user's text.
"""

import logging
import re
import sys
from typing import Final

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
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


def _without_query(url: re.Match[str]) -> str:
    """Queries hold signatures and tokens."""
    address, mark, query = url[0].partition("?")
    return f"{address}{mark}{_STRUCK}" if query else url[0]


class RedactingFormatter(logging.Formatter):
    """Works on the finished line, tracebacks included."""

    def format(self, record: logging.LogRecord) -> str:
        """The line as it is written."""
        message = record.getMessage()
        if "\n" in message:  # of a message; the lines of a traceback stay lines
            record = logging.makeLogRecord({**record.__dict__, "msg": message.replace("\n", "\\n"), "args": None})
        return redact(super().format(record))


def configure_logging(role: str, level: int = logging.INFO) -> None:
    """Log to stderr as `time role LEVEL logger: message`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(RedactingFormatter(f"%(asctime)s {role} %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=level, force=True)
    for chatty in ("httpx", "httpcore", "dbos", "PIL", "imageio_ffmpeg"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
