"""The answers of fal's queue API. Routes build them, and both OpenAPI documents take their schemas from here.

The order of the fields is the order on the wire. What a state does not have is not sent: dump with `exclude_unset`.
"""

from typing import Literal

from pydantic import BaseModel, Field


class LogEntry(BaseModel):
    """One line of a job's log."""

    message: str
    level: str = Field(json_schema_extra={"enum": ["STDERR", "STDOUT", "ERROR", "INFO", "WARN", "DEBUG"]})
    source: str
    timestamp: str


class QueueStatus(BaseModel):
    """Where a request is."""

    status: Literal["IN_QUEUE", "IN_PROGRESS", "COMPLETED"]
    request_id: str = Field(description="The request id.")
    response_url: str = Field(description="The response url.")
    status_url: str = Field(description="The status url.")
    cancel_url: str = Field(description="The cancel url.")
    logs: list[LogEntry] | None = Field(default=None, description="The logs.")
    metrics: dict[str, float] | None = Field(default=None, description="The metrics.")
    queue_position: int | None = Field(default=None, description="The queue position.")
    error: str | None = None
    error_type: str | None = None
    gateway_request_id: str | None = None


class CancelAnswer(BaseModel):
    """The cancel was accepted; the request ends soon."""

    status: Literal["CANCELLATION_REQUESTED"]
