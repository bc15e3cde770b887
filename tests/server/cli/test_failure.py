"""What a failed request of a server becomes: an exit code and one line."""

from typing import Any

import pytest

from server.cli.failure import CANCELLED, FAILED, REFUSED, WRONG, line_of, of_response
from server.errors import (
    ContentPolicyViolation,
    ErrorResponse,
    ImageTooSmall,
    Overloaded,
    TooManyRequests,
    Unauthorized,
)
from server.generator.faults import GenerationError, GeneratorStalled
from server.jobs import outcomes


@pytest.mark.parametrize(
    ("response", "code"),
    [
        (ContentPolicyViolation("image_url").response(), REFUSED),
        (outcomes.CANCELLED, CANCELLED),
        (ImageTooSmall().response(), WRONG),
        (Unauthorized().response(), WRONG),
        (TooManyRequests().response(), FAILED),
        (Overloaded().response(), FAILED),
        (GenerationError.told, FAILED),
        (GeneratorStalled.told, FAILED),
    ],
)
def test_the_exit_code_of_a_failure(response: ErrorResponse, code: int) -> None:
    assert of_response(response) == code
    assert line_of(response)


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ({"detail": "Not\nfound"}, "Not found"),
        (
            {"detail": [{"loc": ["body", "fps"], "msg": "too fast"}, {"loc": ["body"], "msg": "odd"}]},
            "fps: too fast; odd",
        ),
        ({"status": "ALREADY_COMPLETED"}, "ALREADY_COMPLETED"),
        ({"detail": ["odd", 3]}, "odd; 3"),
        ({"detail": []}, "HTTP status 418"),
        ({"detail": [{"loc": "body", "msg": None}]}, "None"),
    ],
)
def test_any_body_of_a_failure_is_one_line(body: dict[str, Any], line: str) -> None:
    assert line_of(ErrorResponse(418, body, "")) == line
