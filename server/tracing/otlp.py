"""Spans by OpenTelemetry's SDK, exported as OTLP over HTTP by a thread of its own.

Imported only where traces are asked for. The tracer is this package's alone and not the global one: FastAPI and DBOS
would begin to make spans with that, with paths, queries and messages of errors in them.
"""

import logging
import threading
from collections.abc import Sequence
from typing import Final

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from server.tracing.spans import ERROR_TYPE, Attributes, Kind, Span
from server.version import VERSION

logger = logging.getLogger(__name__)

_NAME: Final = "hunyuan-custom"
_KINDS: Final[dict[Kind, SpanKind]] = {
    "internal": SpanKind.INTERNAL,
    "server": SpanKind.SERVER,
    "client": SpanKind.CLIENT,
}


class OtlpTracer:
    """The SDK reads its variables here: endpoint, headers, sampler, resource, limits of its queue."""

    def __init__(self, role: str) -> None:
        outage = _Outage()
        said = {**_resource(role), **OTELResourceDetector().detect().attributes}
        self._provider = TracerProvider(resource=Resource.create(said), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(_Watched(OTLPSpanExporter(), outage)))
        self._tracer = self._provider.get_tracer(_NAME, VERSION)
        outage.begin_to_watch()

    def begin(
        self, name: str, attributes: Attributes, *, kind: Kind, parent: str | None, began: float | None = None
    ) -> Span:
        """Begin a span below the one that a `traceparent` names; without a valid one it begins a trace."""
        context = TraceContextTextMapPropagator().extract({} if parent is None else {"traceparent": parent})
        made = self._tracer.start_span(name, context, _KINDS[kind], attributes, start_time=_nanoseconds(began))
        return _RecordedSpan(self._tracer, made)

    def stop(self, within_s: float) -> None:
        """Export what is left, or give up after a while: the SDK itself would wait for half a minute."""
        ending = threading.Thread(target=self._provider.shutdown, name="last-spans", daemon=True)
        ending.start()
        ending.join(within_s)


class _RecordedSpan(Span):
    def __init__(self, tracer: trace.Tracer, span: trace.Span) -> None:
        self._tracer = tracer
        self._span = span
        about = span.get_span_context()
        trace_id, flags = trace.format_trace_id(about.trace_id), about.trace_flags
        self.traceparent = f"00-{trace_id}-{trace.format_span_id(about.span_id)}-{flags:02x}"
        self.trace_id = trace_id if flags.sampled else None

    def child(self, name: str, attributes: Attributes | None = None, *, began: float | None = None) -> Span:
        below = trace.set_span_in_context(self._span)
        made = self._tracer.start_span(name, below, attributes=attributes, start_time=_nanoseconds(began))
        return _RecordedSpan(self._tracer, made)

    def note(self, attributes: Attributes) -> None:
        self._span.set_attributes(attributes)

    def event(self, name: str, attributes: Attributes | None = None) -> None:
        self._span.add_event(name, attributes)

    def failed(self, error_type: str) -> None:
        self._span.set_attribute(ERROR_TYPE, error_type)
        self._span.set_status(StatusCode.ERROR, error_type)

    def end(self, at: float | None = None) -> None:
        self._span.end(_nanoseconds(at))


class _Outage(logging.Handler):
    """One line when spans cannot be exported, and one when they can again: the SDK has one or more for each batch."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._watching = self._failing = False
        said = logging.getLogger("opentelemetry")
        said.handlers, said.propagate = [self], False

    def begin_to_watch(self) -> None:
        """Until now all lines were passed on: they are about variables."""
        self._watching = True

    def emit(self, record: logging.LogRecord) -> None:
        """A line of the SDK."""
        if not self._watching:
            logger.warning("traces: %s", record.getMessage())
        elif not self._failing:
            self._failing = True
            logger.warning("traces cannot be exported, jobs go on without: %s", record.getMessage())

    def over(self) -> None:
        """Spans were exported."""
        if self._failing:
            self._failing = False
            logger.warning("traces are exported again")


class _Watched(SpanExporter):
    """Tells whether the outage is over."""

    def __init__(self, exporter: SpanExporter, outage: _Outage) -> None:
        self._exporter = exporter
        self._outage = outage

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        if result is SpanExportResult.SUCCESS:
            self._outage.over()
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


def _resource(role: str) -> dict[str, str]:
    """What the variables may say otherwise."""
    return {"service.name": f"{_NAME}-{role.partition(' ')[0]}", "service.version": VERSION, "hc.process": role}


def _nanoseconds(unix_s: float | None) -> int | None:
    return None if unix_s is None else int(unix_s * 1e9)
