"""How a job ends without a video for reasons other than its input: the response that is kept as its result."""

from typing import Final

from server.errors import model_failure, request_failure

CANCELLED: Final = request_failure(499, "client_cancelled", "Request cancelled by the client.")
# The user set this deadline: with the header, fal's clients do not retry.
START_TIMEOUT: Final = request_failure(
    504, "request_timeout", "Request timed out", {"X-Fal-Request-Timeout-Type": "user"}
)
RUNNER_DISCONNECTED: Final = request_failure(
    503, "runner_disconnected", "The generator stopped while working on this request"
)
RUNNER_STALLED: Final = request_failure(504, "request_timeout", "The generator made no progress and was stopped")
GPU_OUT_OF_MEMORY: Final = request_failure(503, "runner_server_error", "CUDA error: out of memory")
# The model raised an exception: the same request would fail again.
GENERATION_FAILED: Final = model_failure(500, "internal_server_error", "Internal server error", ("body",))
# Only for a sync run, whose caller has to send it again; a queued job goes on after the restart.
RESTARTING: Final = request_failure(503, "runner_disconnected", "The server is restarting, send the request again")
