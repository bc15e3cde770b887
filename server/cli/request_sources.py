"""Where `hunyuan-custom requests` asks: the database of a deployment, or a server of it. Both answer the same."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

from server.cli.options import existing_database, read_settings
from server.errors import AlreadyCompleted, NotFound
from server.generate.outcome import RequestFailed
from server.jobs.job import CancelOutcome
from server.jobs.request_state import State

if TYPE_CHECKING:
    import sqlalchemy as sa

    from server.generate.server_calls import ServerCalls
    from server.jobs.job_store import JobStore

Fields = dict[str, Any]


class Requests(Protocol):
    """The requests of all owners, as JSON has them."""

    def newest(self, *, owner: str | None, state: State | None, limit: int) -> list[Fields]:
        """Those that match, the newest first (`jobs.request_list`)."""

    def one(self, request_id: str) -> Fields:
        """All about one (`jobs.request_details`).

        Raises:
            NotFound: there is none of that id.
        """

    def cancel(self, request_id: str) -> None:
        """Ask for its end.

        Raises:
            NotFound: there is none of that id.
            AlreadyCompleted: it is over.
        """


@contextmanager
def open_requests(server: str | None, key: str | None, config: Path, data_dir: Path | None) -> Iterator[Requests]:
    """Those of that server, or else of the deployment's database."""
    if server is None:
        yield _InDatabase(existing_database(read_settings(config, data_dir)))
        return
    from server.generate.server_calls import ServerCalls

    with ServerCalls(server, key) as calls:
        yield _OnServer(calls)


class _InDatabase:
    def __init__(self, database: "sa.Engine") -> None:
        self._database = database

    def newest(self, *, owner: str | None, state: State | None, limit: int) -> list[Fields]:
        from server.jobs.request_list import RequestList

        return [asdict(one) for one in RequestList(self._database).newest(owner=owner, state=state, limit=limit)]

    def one(self, request_id: str) -> Fields:
        from server.jobs.request_details import details

        store = self._store()
        job = store.get(request_id)
        if job is None:
            raise _not_found(request_id)
        return asdict(details(job, store.logs(job.id)))

    def cancel(self, request_id: str) -> None:
        store = self._store()
        if store.get(request_id) is None:
            raise _not_found(request_id)
        if store.cancel(request_id) is CancelOutcome.ALREADY_COMPLETED:
            raise _over(request_id)

    def _store(self) -> "JobStore":
        from server.jobs.dbos_queues import dbos_client
        from server.jobs.job_store import JobStore

        return JobStore(self._database, dbos_client(self._database))


class _OnServer:
    def __init__(self, calls: "ServerCalls") -> None:
        self._calls = calls

    def newest(self, *, owner: str | None, state: State | None, limit: int) -> list[Fields]:
        asked = {"owner": owner, "status": state, "limit": limit}
        given = {name: value for name, value in asked.items() if value is not None}
        found: list[Fields] = self._calls.ask("GET", "/admin/requests", expected="requests", params=given)["requests"]
        return found

    def one(self, request_id: str) -> Fields:
        with _told_of(request_id):
            return self._calls.ask("GET", _path(request_id), expected="request_id")

    def cancel(self, request_id: str) -> None:
        with _told_of(request_id):
            self._calls.ask("POST", f"{_path(request_id)}/cancel", expected="status")


def _path(request_id: str) -> str:
    if request_id in {"", ".", ".."}:  # no segment of a path: they would lead to another route
        raise _not_found(request_id)
    return f"/admin/requests/{quote(request_id, safe='')}"


@contextmanager
def _told_of(request_id: str) -> Iterator[None]:
    """The server's answers about one request as the errors that they were made of."""
    try:
        yield
    except RequestFailed as error:
        match error.response().body.get("status"):
            case "NOT_FOUND":
                raise _not_found(request_id) from None
            case "ALREADY_COMPLETED":
                raise _over(request_id) from None
        raise


def _not_found(request_id: str) -> NotFound:
    return NotFound(f"{request_id}: no such request")


def _over(request_id: str) -> AlreadyCompleted:
    return AlreadyCompleted(f"{request_id}: the request is over already")
