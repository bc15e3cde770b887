"""Who asks. Without keys there is one owner: everybody who can reach the loopback interface."""

from typing import Final

from fastapi import Request

LOCAL_OWNER: Final = "local"


def current_owner(_request: Request) -> str:
    """The owner of a request; jobs and files belong to owners, not to keys."""
    return LOCAL_OWNER
