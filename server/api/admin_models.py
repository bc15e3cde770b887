"""The bodies of the operator's routes, beside the overview itself (`jobs/overview.py`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, StrictBool

from server.jobs.overview import Overview
from server.jobs.request_list import ListedRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerNow:
    """The API process that answers, and its disk. With less than `min_free_bytes` new jobs are refused."""

    version: str
    uptime_s: float
    data_dir: str
    storage_url: str  # of the bucket; empty: the data directory
    disk_free_bytes: int
    disk_total_bytes: int
    min_free_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminOverview(Overview):
    """All that the operator's page shows."""

    server: ServerNow


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestPage:
    """Those that were asked for, the newest first."""

    requests: Sequence[ListedRequest]


class Draining(BaseModel):
    """Whether workers are to take no more jobs: asked for, and answered."""

    model_config = ConfigDict(extra="forbid")

    draining: StrictBool


class Redelivery(BaseModel):
    """A webhook whose schedule starts again."""

    request_id: str
    state: Literal["pending"]
