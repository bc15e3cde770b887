"""Which variables begin tracing, and what is wrong with others; a collector that is away costs one line."""

import logging
import sys
import threading
from collections.abc import Iterator

import pytest

from server.tracing import spans
from server.tracing.spans import NO_SPAN, continued, current_span, exchange, step, use_tracer, within
from server.tracing.start import start_tracing
from tests.harness.live_server import until
from tests.harness.otlp_receiver import Collector, collector

AT = "OTEL_EXPORTER_OTLP_ENDPOINT"
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture(autouse=True)
def _off_afterwards() -> Iterator[None]:
    yield
    spans.stop_tracing(2)
    use_tracer(None)


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collector() as listening:
        monkeypatch.setenv(AT, listening.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
        yield listening


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {AT: ""},
        {AT: "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "true"},
        {AT: "http://127.0.0.1:9", "OTEL_TRACES_EXPORTER": "none"},
        {"OTEL_SERVICE_NAME": "videos"},
    ],
)
def test_without_an_endpoint_nothing_is_traced(variables: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    start_tracing("api", variables)
    assert not caplog.records
    assert exchange("POST", {}, parent=PARENT) is continued("render", traceparent=PARENT) is NO_SPAN
    with step("store") as span:
        assert span is current_span() is NO_SPAN


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "zipkin"),
        ({AT: "http://127.0.0.1:9", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL"),
    ],
)
def test_what_is_not_supported_is_one_line(
    variables: dict[str, str], named: str, caplog: pytest.LogCaptureFixture
) -> None:
    start_tracing("api", variables)
    assert named in caplog.text
    assert len(caplog.records) == 1
    assert not spans.is_tracing()


def test_a_missing_extra_is_one_line(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.delitem(sys.modules, "server.tracing.otlp", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    start_tracing("api", {AT: "http://127.0.0.1:9"})
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"{AT} is set" in caplog.text
    assert "hunyuan-custom-server[tracing]" in caplog.text
    assert not spans.is_tracing()


def test_variables_name_the_service_and_choose_what_is_traced(
    receiver: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=videos")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    start_tracing("worker local-1")
    with within(exchange("of a new trace", {}, parent=None)) as unsampled:
        pass
    with within(continued("of a sampled one", traceparent=PARENT)), pytest.raises(KeyError), step("that fails"):
        raise KeyError("secret")
    until(lambda: len(receiver.spans) == 2)
    assert {(span.service, span.trace_id) for span in receiver.spans} == {("videos", PARENT[3:35])}
    assert {span.name: span.error for span in receiver.spans} == {"of a sampled one": None, "that fails": "KeyError"}
    assert int((unsampled.traceparent or "")[-2:], 16) % 2 == 0  # not sampled, which the other processes keep to


def test_a_collector_that_refuses_is_one_line_and_one_when_it_is_well(
    receiver: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    receiver.status = 400
    start_tracing("api")
    for lost in range(3):
        continued("lost", traceparent=PARENT).end()
        until(lambda refused=lost + 1: receiver.refused == refused)  # each in a batch of its own
    until(lambda: bool(caplog.records))
    receiver.status = 200
    continued("kept", traceparent=PARENT).end()
    until(lambda: any(span.name == "kept" for span in receiver.spans))
    until(lambda: len(caplog.records) == 2)
    first, second = (record.getMessage() for record in caplog.records)
    assert "cannot be exported" in first
    assert "exported again" in second


def test_a_collector_that_does_not_answer_does_not_hold_up_the_end(
    receiver: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "60")
    receiver.answers.clear()
    start_tracing("api")
    continued("lost", traceparent=PARENT).end()
    spans.stop_tracing(0.1)
    assert _is_exporting(), "given up before an answer has come"
    use_tracer(None)
    receiver.answers.set()
    until(lambda: not _is_exporting())


def _is_exporting() -> bool:
    return any(thread.name == "last-spans" for thread in threading.enumerate())
