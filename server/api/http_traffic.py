"""The answers of one API process, counted. In plain dictionaries: clients poll, and a client library's counters with
their locks would cost a status a tenth of its time."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

_BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds


class HttpTraffic(Collector):
    """Counted by the event loop alone; another thread may collect."""

    def __init__(self) -> None:
        self._answers: Counter[tuple[str, str, int]] = Counter()
        self._began: dict[str, list[int]] = {}
        self._seconds: dict[str, float] = {}

    def count(self, *, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answer that begins `seconds` after its request."""
        self._answers[method, route, status] += 1
        began = self._began.get(route)
        if began is None:
            self._seconds[route] = 0.0  # first: whoever collects finds it for every route that has begun
            began = self._began[route] = [0] * (len(_BOUNDS) + 1)
        began[bisect_left(_BOUNDS, seconds)] += 1
        self._seconds[route] += seconds

    def describe(self) -> Iterable[Metric]:
        """Nothing beforehand."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """What was counted until now."""
        answers = CounterMetricFamily(
            "hc_http_requests", "Answers of this API process", labels=("method", "route", "status")
        )
        for (method, route, status), count in sorted(self._answers.copy().items()):
            answers.add_metric((method, route, str(status)), count)
        yield answers
        seconds = HistogramMetricFamily("hc_http_request_seconds", "Until an answer begins", labels=("route",))
        for route, counts in sorted(self._began.copy().items()):
            seconds.add_metric((route,), cumulative(_BOUNDS, counts), self._seconds[route])
        yield seconds


def cumulative(bounds: Iterable[float], counts: Iterable[int]) -> list[tuple[str, float]]:
    """Counts by bucket as Prometheus has them: each with all that took less."""
    total = 0
    found: list[tuple[str, float]] = []
    for bound, count in zip([*map(str, bounds), "+Inf"], counts, strict=True):
        total += count
        found.append((bound, total))
    return found
