"""Delivery of results to `fal_webhook`: a thread of the worker that looks for due rows, and a few that send.

2xx is delivered. 3xx and 410 are final (fal does not follow redirects either), everything else is tried again on the
schedule, or later if the receiver says so by Retry-After. The receiver is as untrusted as an image's origin: the same
pinned connections, and its answer is not read. A slow one takes its share of the senders and no more.
"""

import json
import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Final

import httpcore
import httpx
import sqlalchemy as sa

from server.db.installation_secrets import WEBHOOKS, load_secret
from server.db.outage import OUTAGES, is_outage, ride_out
from server.jobs import views
from server.jobs.completion import DELIVERED, FAILED
from server.jobs.job import Job
from server.jobs.job_store import JobStore
from server.logs import about_request
from server.settings import Settings, WebhookSettings
from server.tracing.spans import REQUEST_ID, Attributes, continued, current_span, within
from server.untrusted.addresses import OutboundPolicy
from server.untrusted.pinned_connections import OutboundRefused, PinnedBackend
from server.webhooks.outbox import Webhook, WebhookOutbox
from server.webhooks.shares import Shares
from server.webhooks.signature import WebhookSigner

logger = logging.getLogger(__name__)

_CONNECT_TIMEOUT_S = 5.0
_LEASE_MARGIN_S = 15.0
_GONE: Final = 410

Backend = Callable[[float], httpcore.NetworkBackend]


@dataclass(frozen=True, slots=True)
class _Outcome:
    """How an attempt ended: the final state or None to try again, in words, and how long the receiver wants to rest."""

    state: str | None
    words: str
    retry_after_s: float = 0.0


class WebhookSender:
    """One per worker; the leases in the table give each delivery to one worker at a time.

    `wait_for_work` may return before there is some, and must when the sender is stopped.
    """

    def __init__(
        self,
        database: sa.Engine,
        store: JobStore,
        settings: Settings,
        backend: Backend | None = None,
        *,
        wait_for_work: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings.webhooks
        self._policy = OutboundPolicy(settings.allow_private_networks)
        longest = max(self._settings.retry_delays_s, default=0.0) * (1 + self._settings.jitter)
        self._outbox = WebhookOutbox(database, longest_delay_s=longest)
        self._store = store
        self._signer = WebhookSigner(load_secret(database, WEBHOOKS))
        self._backend = backend or self._pinned
        self._wait_for_work = wait_for_work
        self._tls = httpx.create_ssl_context(trust_env=False)
        self._stopping = threading.Event()
        self._free = threading.Semaphore(self._settings.concurrency)
        self._shares = Shares(per_owner=self._settings.per_owner, per_host=self._settings.per_host)
        self._senders = ThreadPoolExecutor(self._settings.concurrency, thread_name_prefix="webhook")
        self._thread = threading.Thread(target=self._watch, name="webhooks", daemon=True)

    def start(self) -> None:
        """Begin to deliver."""
        self._thread.start()

    def stop(self) -> None:
        """Take no more deliveries; those under way that do not end in time are repeated by the next worker."""
        self._stopping.set()
        self._senders.shutdown(wait=False, cancel_futures=True)

    def _watch(self) -> None:
        while not self._stopping.wait(self._settings.poll_s):
            self._wait_for_work()
            try:
                self._sweep()
            except Exception as error:
                if is_outage(error):
                    OUTAGES.noticed(error)
                else:
                    logger.exception("webhooks: this round failed")

    def _sweep(self) -> None:
        """Hand due deliveries to threads that have nothing to do."""
        while not self._stopping.is_set() and self._free.acquire(blocking=False):
            handed_out = False
            try:
                handed_out = self._hand_out()
            finally:
                if not handed_out:
                    self._free.release()
            if not handed_out:
                return

    def _hand_out(self) -> bool:
        """Claim one delivery and give it to a thread, which frees its sender; False when none is due.

        One that was claimed and not given to a thread is claimed again when its lease ends.
        """
        claimed = self._outbox.claim(
            1,
            first_lease_s=self._settings.timeout_s + _LEASE_MARGIN_S,
            lease_s=self._settings.retry_timeout_s + _LEASE_MARGIN_S,
            busy=self._shares.busy(),
        )
        for webhook in claimed:
            self._shares.begin(webhook.owner or "", webhook.url)
            try:
                self._senders.submit(self._deliver_and_free, webhook)
            except RuntimeError:  # it is being stopped, or there is no memory for a thread
                self._shares.end(webhook.owner or "", webhook.url)
                raise
        return bool(claimed)

    def _deliver_and_free(self, webhook: Webhook) -> None:
        try:
            with about_request(webhook.request_id):
                self.deliver(webhook)
        except Exception:
            logger.exception("webhook of request %s: not recorded", webhook.request_id)
        finally:
            self._shares.end(webhook.owner or "", webhook.url)
            self._free.release()

    def deliver(self, webhook: Webhook) -> None:
        """One attempt, and what follows from it."""
        job = self._store.get(webhook.request_id)
        if job is None:
            ride_out(self._outbox.settle, webhook, FAILED, "the request is gone")
            return
        about: Attributes = {REQUEST_ID: job.id, "hc.attempt": webhook.attempts + 1}
        with within(continued("webhook", about, traceparent=job.traceparent, kind="client")) as span:
            outcome = self._attempt(webhook, job)
            logger.info("webhook of request %s, attempt %d: %s", job.id, webhook.attempts + 1, outcome.words)
            if outcome.state != DELIVERED:
                span.failed(outcome.words.partition(":")[0])  # the rest may name addresses
        if outcome.state is None and webhook.attempts < len(self._settings.retry_delays_s):
            delay_s = pause_s(self._settings, webhook.attempts, retry_after_s=outcome.retry_after_s)
            ride_out(self._outbox.postpone, webhook, delay_s, outcome.words)
        else:
            ride_out(self._outbox.settle, webhook, outcome.state or FAILED, outcome.words)

    def _attempt(self, webhook: Webhook, job: Job) -> _Outcome:
        try:
            status, retry_after_s = self._post(webhook, job)
        except OutboundRefused as error:
            return _Outcome(FAILED, f"refused: {error}")
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as error:
            return _Outcome(None, f"{type(error).__name__}: {error}")
        if httpx.codes.is_success(status):
            return _Outcome(DELIVERED, f"HTTP {status}")
        final = httpx.codes.is_redirect(status) or status == _GONE
        return _Outcome(FAILED if final else None, f"HTTP {status}", retry_after_s)

    def _post(self, webhook: Webhook, job: Job) -> tuple[int, float]:
        """The status of the answer, and its Retry-After."""
        body = json.dumps(webhook_body(job)).encode()
        url = httpx.URL(webhook.url)
        first = webhook.attempts == 0
        timeout_s = self._settings.timeout_s if first else self._settings.retry_timeout_s
        headers = {
            "Host": url.netloc.decode("ascii"),
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "User-Agent": "hunyuan-custom-server",
            "Connection": "close",
            **self._signer.headers(body, request_id=job.id, owner=job.owner),
        }
        if (traceparent := current_span().traceparent) is not None:
            headers["traceparent"] = traceparent
        with (
            httpcore.ConnectionPool(
                ssl_context=self._tls,
                network_backend=self._backend(time.monotonic() + timeout_s),
            ) as pool,
            pool.stream(
                "POST",
                httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                headers=list(headers.items()),
                content=body,
            ) as response,
        ):
            return response.status, retry_after_s(response.headers)

    def _pinned(self, deadline: float) -> httpcore.NetworkBackend:
        return PinnedBackend(self._policy, connect_timeout_s=_CONNECT_TIMEOUT_S, deadline=deadline)


def pause_s(settings: WebhookSettings, attempts: int, *, retry_after_s: float) -> float:
    """How long to wait after so many failed attempts: with jitter, so that receivers are not called in waves."""
    jitter = 1 + settings.jitter * random.uniform(-1, 1)  # noqa: S311 - no secret
    return max(settings.retry_delays_s[attempts] * jitter, min(retry_after_s, max(settings.retry_delays_s)))


def retry_after_s(headers: Sequence[tuple[bytes, bytes]]) -> float:
    """Seconds or an HTTP date; 0 for neither."""
    said = next((value.decode("latin-1").strip() for name, value in headers if name.lower() == b"retry-after"), "")
    if said.isascii() and said.isdigit():
        return float(said[:9])
    try:
        return max(0.0, parsedate_to_datetime(said).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0


def webhook_body(job: Job) -> dict[str, Any]:
    """What fal posts: the result as the result route gives it, and whether it is one."""
    body: dict[str, Any] = {"request_id": job.id, "gateway_request_id": job.id}
    failure = views.failure(job)
    if failure is None:
        return {**body, "status": "OK", "payload": views.output(job).model_dump(exclude_none=True)}
    return {**body, "status": "ERROR", "error": f"Invalid status code: {failure.status}", "payload": failure.body}
