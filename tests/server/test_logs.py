"""No secret reaches the service log, whoever logs it and however."""

import io
import logging

import pytest

from server.logs import RedactingFormatter, redact

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


def _logged(*arguments: object, error: BaseException | None = None) -> str:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(RedactingFormatter("%(levelname)s %(message)s"))
    logger = logging.Logger("test")
    logger.addHandler(handler)
    logger.warning(*arguments, exc_info=error)
    return stream.getvalue()


def test_tracebacks_and_arguments_are_covered() -> None:
    try:
        raise ValueError(f"Key a:{SECRET}")
    except ValueError as error:
        said = _logged("failed with %s", f"Bearer {SECRET}", error=error)
    assert SECRET not in said
    assert "Traceback" in said
    assert said.count("\n") > 3


def test_a_line_cannot_pretend_to_be_two() -> None:
    said = _logged("prompt %s", "x\nWARNING forged\r\x1b[31m\u2028")
    assert said.count("\n") == 1
    assert "\x1b" not in said
    assert "\\n" in said
