"""The owner of a request. Without keys there is one owner: everyone who can reach the loopback interface."""

import hmac

from fastapi import Request

from server.api.middleware.host_rewrite import came_via_proxy
from server.api.services import services
from server.db.outage import is_outage
from server.errors import Forbidden, Unauthorized
from server.jobs.job import LOCAL_OWNER


def current_owner(request: Request) -> str:
    """The owner of a request; jobs and files belong to owners, not to keys.

    Raises:
        Unauthorized: keys exist, and the request has none of them.
    """
    via_proxy = came_via_proxy(request.scope)
    return services(request).keys.caller(request.headers.get("authorization"), via_proxy=via_proxy)


def owner_or_none(request: Request) -> str | None:
    """The same for what is answered without a key as well."""
    try:
        return current_owner(request)
    except Unauthorized:
        return None


def remains_owner(request: Request, owner: str) -> bool:
    """Whether a request whose answer takes long is still its owner's: a key can be revoked meanwhile."""
    try:
        return current_owner(request) == owner
    except Unauthorized:
        return False
    except Exception as reason:
        if is_outage(reason):
            return True
        raise


def admit(request: Request) -> str:
    """The owner of a request that costs something (a submit, an upload), counted against the owner's rate.

    Raises:
        Unauthorized, TooManyRequests
    """
    owner = current_owner(request)
    services(request).rates.take(owner)
    return owner


def admit_operator(request: Request, *, token: str = "") -> None:
    """Let the operator in: with a key of the owner `local`, or that bearer token if there is one; on loopback without.

    Raises:
        Unauthorized: nothing that is known was shown.
        Forbidden: another owner's key was; what is behind this is about all owners together.
    """
    keys, shown = services(request).keys, request.headers.get("authorization")
    if token and shown is not None and hmac.compare_digest(shown.encode(), f"Bearer {token}".encode()):
        return
    if (token or keys.required()) and keys.owner_of(shown) != LOCAL_OWNER:
        raise Forbidden("This is for the operator: a key of the owner `local`")


def shown_key(request: Request) -> str:
    """The id of the key in a request whose owner is known; empty where none was needed."""
    keys = services(request).keys
    return keys.id_in(request.headers.get("authorization", "")) if keys.required() else ""


def readmit(request: Request, owner: str, key_id: str) -> None:
    """A token is as good as the key it was issued for, and ends with it.

    Raises:
        Unauthorized: that key is revoked, or there was none and now one is needed.
    """
    parts = services(request)
    keyless = not parts.keys.required() or owner == parts.settings.api.proxy_owner
    if not (parts.keys.works(key_id) if key_id else keyless):
        raise Unauthorized("Expired upload token")
