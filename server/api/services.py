"""What a request handler may use, built once per API process."""

from dataclasses import dataclass
from typing import Any

from dbos import DBOSClient
from fastapi import Request

from server.api.event_stream import Tail
from server.api.intake import Intake
from server.api.key_ring import KeyRing
from server.api.rate_limit import RateLimit
from server.db.installation_secrets import UPLOADS, WEBHOOKS, Tokens, load_secret
from server.db.tables import create_engine
from server.jobs.dbos_queues import engine_client
from server.jobs.fair_queue import Caps
from server.jobs.job_store import JobStore
from server.jobs.status_reads import StatusReads
from server.jobs.worker_registry import WorkerRegistry
from server.settings import Settings, is_reached_from_elsewhere
from server.storage.local import Storage, open_storage
from server.storage.uploads import Uploads
from server.webhooks.signature import WebhookSigner


@dataclass(frozen=True, slots=True)
class Services:
    """The parts behind the routes."""

    settings: Settings
    store: JobStore
    workers: WorkerRegistry
    storage: Storage
    engine: DBOSClient
    intake: Intake
    keys: KeyRing
    rates: RateLimit
    tokens: Tokens
    uploads: Uploads
    webhook_keys: dict[str, Any]
    reads: StatusReads
    tail: Tail

    @classmethod
    def open(cls, settings: Settings) -> "Services":
        """Connect to the database and the storage; the schema must exist."""
        database = create_engine(settings.database_url)
        caps = Caps(settings.limits.max_queue, settings.limits.max_queue_per_owner)
        store = JobStore(database, caps=caps)
        storage, engine = open_storage(settings), engine_client(database)
        workers = WorkerRegistry(database)
        reads = StatusReads.open(database)
        return cls(
            settings,
            store,
            workers,
            storage,
            engine,
            Intake(store, storage, engine, settings),
            KeyRing(
                database,
                always_required=is_reached_from_elsewhere(settings.api),
                reload_s=settings.api.keys_reload_s,
                proxy_owner=settings.api.proxy_owner,
            ),
            RateLimit(settings.limits.posts_per_s, settings.limits.posts_burst),
            Tokens(load_secret(database, UPLOADS)),
            Uploads(database, storage, settings.limits),
            WebhookSigner(load_secret(database, WEBHOOKS)).key_set(),
            reads,
            Tail(reads, poll_s=settings.api.tail_poll_s),
        )


def services(request: Request) -> Services:
    """The services of the app that handles this request."""
    found: Services = request.app.state.services
    return found
