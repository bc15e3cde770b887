"""How a job ends without a video for reasons other than its input and its generator (`generator/faults.py`): the
response that is kept as its result."""

from typing import Final

from server.errors import request_failure

CANCELLED: Final = request_failure(499, "client_cancelled", "Request cancelled by the client.")
# The user set this deadline: with the header, fal's clients do not retry.
START_TIMEOUT: Final = request_failure(
    504, "request_timeout", "Request timed out", {"X-Fal-Request-Timeout-Type": "user"}
)
# Only for a sync run, whose caller has to send it again; a queued job goes on after the restart.
RESTARTING: Final = request_failure(503, "runner_disconnected", "The server is restarting, send the request again")
