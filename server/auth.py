"""Who asks. Without keys there is one owner: everybody who can reach the loopback interface."""

from fastapi import Request

from server.keys import LOCAL_OWNER
from server.services import services


def current_owner(request: Request) -> str:
    """The owner of a request; jobs and files belong to owners, not to keys.

    Raises:
        Unauthorized: keys exist, and none of them was shown.
    """
    keys = services(request).keys
    return keys.owner_of(request.headers.get("authorization")) if keys.required() else LOCAL_OWNER


def admit(request: Request) -> str:
    """The owner of a request that costs something (a submit, an upload), counted against the owner's rate.

    Raises:
        Unauthorized, TooManyRequests
    """
    owner = current_owner(request)
    services(request).rates.take(owner)
    return owner
