"""What `/metrics` tells: the rows that all processes share, read at each scrape, and this process's own HTTP traffic.

No request id, no text of a user and no owner is a label. With several API processes each tells the same about jobs and
workers, so queries take the maximum over them; `hc_http_*` and `process_*` are each process's own.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, TypeAlias

import sqlalchemy as sa
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from server.api.http_traffic import HttpTraffic, cumulative
from server.generator.state import Phase
from server.jobs.completion import COMPLETED, FAILED, PENDING
from server.jobs.measurements import BOUNDS, Durations, Measured, MeasurementTable, together
from server.jobs.outcomes import CANCELLED
from server.jobs.totals import Totals, TotalsReader
from server.jobs.worker_registry import Worker, WorkerRegistry
from server.version import VERSION

_Values: TypeAlias = Mapping[tuple[str], float] | Mapping[tuple[str, str], float]  # by the values of the labels

_GPU_MEMORY: Final = {"used": "in use by anything", "peak": "most that the generator has held", "total": "all there is"}


class Metrics:
    """Of one API process. `stale_s`: a worker silent for longer counts as gone."""

    def __init__(
        self, database: sa.Engine, totals: TotalsReader, *, free_bytes: Callable[[], int], stale_s: float
    ) -> None:
        self.http = HttpTraffic()
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._registry.register(self.http)
        self._registry.register(_Rows(database, totals, free_bytes=free_bytes, stale_s=stale_s))

    def text(self, accept: str) -> tuple[bytes, str]:
        """All metrics in the format that `accept` prefers, and its content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type


class _Rows(Collector):
    """Metrics that are computed from the database when they are asked for."""

    def __init__(
        self, database: sa.Engine, totals: TotalsReader, *, free_bytes: Callable[[], int], stale_s: float
    ) -> None:
        self._totals = totals
        self._workers = WorkerRegistry(database)
        self._measurements = MeasurementTable(database)
        self._free_bytes = free_bytes
        self._stale_s = stale_s

    def describe(self) -> Iterable[Metric]:
        """Nothing beforehand: the database may be away when the process starts."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """All of them."""
        workers, measured = self._workers.all(), self._measurements.all()
        fresh = [worker for worker in workers if self._workers.age_s(worker) <= self._stale_s]
        yield from _of_jobs(self._totals.read())
        yield from _of_workers(fresh, {worker.id: self._workers.age_s(worker) for worker in workers})
        yield from _of_work(together(measured.values()))
        yield from _of_gpus({worker.id: measured[worker.id] for worker in fresh if worker.id in measured})
        yield GaugeMetricFamily("hc_disk_free_bytes", "Room in this process's data directory", self._free_bytes())
        yield _gauge("hc_build_info", "1; the version is a label", ("version",), {(VERSION,): 1})


def _of_jobs(totals: Totals) -> Iterator[Metric]:
    depth = {(priority.name.lower(),): count for priority, count in totals.waiting.items()}
    yield _gauge("hc_queue_depth", "Requests that wait", ("priority",), depth)
    yield GaugeMetricFamily("hc_oldest_wait_seconds", "Age of the request that waits longest", totals.oldest_wait_s)
    yield GaugeMetricFamily("hc_jobs_running", "Requests that a worker renders or publishes", totals.running)
    jobs = CounterMetricFamily("hc_jobs", "Requests that are over", labels=("status", "error_type"))
    for outcome, ended in sorted(totals.ended.items()):
        jobs.add_metric((_status(outcome), "" if outcome == COMPLETED else outcome), ended.jobs)
    yield jobs
    gpu_seconds = sum(ended.gpu_seconds for ended in totals.ended.values())
    yield CounterMetricFamily("hc_gpu_seconds", "GPU time of all requests that are over", gpu_seconds)
    yield GaugeMetricFamily("hc_webhook_pending", "Results that are still to be delivered", totals.webhooks[PENDING])
    yield GaugeMetricFamily("hc_webhook_failed", "Results that were given up and are kept", totals.webhooks[FAILED])


def _status(outcome: str) -> str:
    return {COMPLETED: "completed", CANCELLED.error_type: "cancelled"}.get(outcome, "failed")


def _of_workers(fresh: Iterable[Worker], ages: Mapping[str, float]) -> Iterator[Metric]:
    states = dict.fromkeys((phase.value for phase in Phase), 0) | {"draining": 0}
    for worker in fresh:
        states["draining" if worker.draining else worker.state] += 1
    by_state = {(state,): count for state, count in states.items()}
    yield _gauge("hc_workers", "Workers that are heard of", ("state",), by_state)
    by_worker = {(worker_id,): age_s for worker_id, age_s in ages.items()}
    yield _gauge("hc_worker_heartbeat_age_seconds", "Since a worker was last heard of", ("worker",), by_worker)


def _of_work(measured: Measured) -> Iterator[Metric]:
    attempts = CounterMetricFamily("hc_attempts", "Attempts to render, by how they ended", labels=("reason",))
    for reason, count in sorted(measured.attempts.items()):
        attempts.add_metric((reason,), count)
    yield attempts
    stages = HistogramMetricFamily("hc_stage_seconds", "Time of a request in one stage", labels=("stage",))
    for name, durations in sorted(measured.stages.items()):
        stages.add_metric((name,), _buckets(durations), durations.sum_s)
    yield stages
    steps = measured.steps
    yield HistogramMetricFamily("hc_step_seconds", "Time of a denoising step", _buckets(steps), steps.sum_s)


def _buckets(durations: Durations) -> list[tuple[str, float]]:
    return cumulative(BOUNDS, durations.counts)


def _of_gpus(measured: Mapping[str, Measured]) -> Iterator[Metric]:
    for kind, what in _GPU_MEMORY.items():
        values = {
            (worker_id, str(gpu["gpu"])): gpu[f"{kind}_bytes"]
            for worker_id, one in measured.items()
            for gpu in one.gpus
        }
        yield _gauge(f"hc_gpu_memory_{kind}_bytes", f"GPU memory: {what}", ("worker", "gpu"), values)


def _gauge(name: str, what: str, labels: tuple[str, ...], values: _Values) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, what, labels=labels)
    for found, value in values.items():
        family.add_metric(found, value)
    return family
