"""What a request handler may use, built once per API process."""

from dataclasses import dataclass

from fastapi import Request

from server.api.access.key_ring import KeyRing
from server.api.access.rate_limit import RateLimit
from server.api.deletion import Deletion
from server.api.event_stream import Tail
from server.api.intake import Intake
from server.api.metrics import Metrics
from server.api.page_files import PageFiles
from server.db.connection import create_engine
from server.db.installation_secrets import UPLOADS, WEBHOOKS, load_secret
from server.jobs.dbos_queues import dbos_client
from server.jobs.fair_queue import Caps
from server.jobs.history import History
from server.jobs.job_store import JobStore
from server.jobs.overview_reader import OverviewReader
from server.jobs.progress import ProgressReads
from server.jobs.request_list import RequestList
from server.jobs.status_reads import StatusReads, open_rows
from server.jobs.totals import TotalsReader
from server.jobs.worker_registry import WorkerRegistry
from server.settings import Settings, is_reached_from_elsewhere
from server.storage.files import Storage
from server.storage.open import open_storage
from server.storage.upload_tokens import UploadTokens
from server.storage.uploads import Uploads
from server.webhooks.outbox import WebhookOutbox
from server.webhooks.signature import WebhookSigner


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The parts behind the routes."""

    settings: Settings

    # who may call, and how often
    keys: KeyRing
    rates: RateLimit
    tokens: UploadTokens

    # jobs: accepted, kept, watched
    intake: Intake
    store: JobStore
    reads: StatusReads
    progress: ProgressReads
    history: History
    deletion: Deletion
    tail: Tail
    workers: WorkerRegistry

    # files
    storage: Storage
    uploads: Uploads

    webhook_keys: dict[str, list[dict[str, str]]]

    # for the operator
    metrics: Metrics
    overview: OverviewReader
    requests: RequestList
    outbox: WebhookOutbox
    page_files: PageFiles

    @classmethod
    def open(cls, settings: Settings) -> "Services":
        """Connect to the database and the storage; the schema must exist."""
        database, storage = create_engine(settings.database_url), open_storage(settings)
        caps = Caps(settings.limits.max_queue, settings.limits.max_queue_per_owner)
        dbos = dbos_client(database)
        store = JobStore(database, dbos, caps=caps)
        rows, uploads = open_rows(database), Uploads(database, storage, settings.limits)
        reads, totals = StatusReads(rows), TotalsReader(database)
        stale_s = settings.jobs.heartbeat_stale_s
        return cls(
            settings=settings,
            keys=KeyRing(
                database,
                always_required=is_reached_from_elsewhere(settings.api),
                reload_s=settings.api.keys_reload_s,
                proxy_owner=settings.api.proxy_owner,
            ),
            rates=RateLimit(settings.limits.posts_per_s, settings.limits.posts_burst),
            tokens=UploadTokens(load_secret(database, UPLOADS)),
            intake=Intake(store, storage, settings),
            store=store,
            reads=reads,
            progress=ProgressReads(rows),
            history=History(database),
            deletion=Deletion(database, storage, uploads, dbos),
            tail=Tail(reads, poll_s=settings.api.tail_poll_s),
            workers=WorkerRegistry(database),
            storage=storage,
            uploads=uploads,
            webhook_keys=WebhookSigner(load_secret(database, WEBHOOKS)).key_set(),
            metrics=Metrics(database, totals, free_bytes=storage.scratch.free_bytes, stale_s=stale_s),
            overview=OverviewReader(database, stale_s=stale_s, totals=totals),
            requests=RequestList(database),
            outbox=WebhookOutbox(database),
            page_files=PageFiles.open(settings),
        )


def services(request: Request) -> Services:
    """The services of the app that handles this request."""
    found: Services = request.app.state.services
    return found
