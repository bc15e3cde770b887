"""Reading `/metrics` as Prometheus does."""

from collections.abc import Iterable

import httpx
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}


def families(answer: httpx.Response) -> dict[str, Metric]:
    """What a scrape has answered, by name."""
    assert answer.status_code == 200, answer.text
    return {family.name: family for family in text_string_to_metric_families(answer.text)}


def sample_names(found: Iterable[Metric]) -> set[str]:
    """The names that queries use."""
    return {family.name + suffix for family in found for suffix in SUFFIXES.get(family.type, ("",))}


def value(found: dict[str, Metric], name: str, **labels: str) -> float | None:
    """The sample of that name and exactly these labels."""
    for family in found.values():
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return sample.value
    return None
